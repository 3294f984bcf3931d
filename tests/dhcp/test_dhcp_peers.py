"""What our DHCPv4 answers, beside what Kea and dnsmasq answer to the same messages; what differs is agreed, by name."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from dhcp_cases import a_port, a_scope4
from dhcp_peers import CASES, PEERS, Answer, answers_of, client_of, summary

from dhcp import message
from dhcp.message import Message
from dhcp.reason import Reason
from dhcp.server import Bound


class Agreed(NamedTuple):
    """Fields that differ, and why; in these cases, or in any."""

    fields: tuple[str, ...]
    reason: str
    cases: tuple[str, ...] = tuple(CASES)


REFUSED = ("select another address", "reboot with another address", "reboot from another network")
RELAYED = "reboot, by a relay, with another address"
AGREED: dict[str, list[Agreed]] = {
    "kea-dhcp4": [
        Agreed(("order",), "in the client's order, as RFC 2132 §9.8 would have it; Kea's is by number"),
        Agreed(("option 58", "option 59"), "clients that obey them need not guess; Kea leaves them out unless told to"),
        Agreed(
            ("option 56",),
            "a client's log says why it was refused; Kea gives no reason",
            (*REFUSED, RELAYED),
        ),
        Agreed(
            ("option 6", "option 15"),
            "what was not wished is left out; Kea sends servers and domain always",
            ("discover, without wishes",),
        ),
        Agreed(
            ("option 1",),
            "a client that has its address may not know the mask; Kea tells no one who has it",
            ("inform",),
        ),
        Agreed(
            ("answer",),
            "nobody else could have a word on this port: it begins anew at once, and not when its lease ends",
            ("rebind another address",),
        ),
        Agreed(("flags",), "the relay is to broadcast it (RFC 2131 §4.3.2); Kea does not say so", (RELAYED,)),
    ],
    "dnsmasq": [
        Agreed(("order",), "in the client's order, as RFC 2132 §9.8 would have it; dnsmasq's is its own"),
        Agreed(("siaddr",), "who boots from us is told so; dnsmasq is everybody's next server"),
        Agreed(
            ("option 58", "option 59"), "the same for everybody; dnsmasq spreads those who renew", ("renew", "rebind")
        ),
        Agreed(("option 56",), "one text for each refusal; dnsmasq has several", (*REFUSED, RELAYED)),
        Agreed(
            ("flags",),
            "broadcast as it goes, and only a relay has to be told (RFC 2131 §4.3.2); dnsmasq sets the flag always",
            REFUSED,
        ),
        Agreed(
            ("option 28",),
            "what was not wished is left out; dnsmasq sends the broadcast address always",
            ("discover, without wishes",),
        ),
        Agreed(
            ("option 61",),
            "repeated as it came (RFC 6842); dnsmasq leaves it out",
            ("discover, with a client id",),
        ),
        Agreed(
            ("answer",),
            "another server's client is not ours to refuse; dnsmasq was told to be the only one",
            ("select another server",),
        ),
        Agreed(
            ("answer",),
            "nobody else could have a word on this port: it begins anew at once, and not when its lease ends",
            ("rebind another address",),
        ),
    ],
}


def ours(case: str) -> Answer:
    """Our answer to the last message of a case, at the port of its client."""
    client = client_of(case)
    scope = a_scope4(address=socket.inet_ntoa(client.address), mtu=None, hostname=None, ntp=(), routes=())
    port = Bound(replace(a_port(scope), mac=client.mac.hex(":")))
    answer: Answer = {}
    has_declined = False
    for one in CASES[case](client):
        request = message.parse(message.encode(one.request))
        assert isinstance(request, Message)
        found = port.answer(request, is_unicast=one.is_unicast, is_quarantined=has_declined)
        has_declined = has_declined or found is Reason.DECLINED
        if isinstance(found, Reason):
            answer = {}
        else:
            reply = message.parse(found.payload)
            assert isinstance(reply, Message)
            answer = summary(reply, found.destination, found.port, client)
    return answer


def differences(mine: Answer, other: Answer) -> Iterator[tuple[str, object, object]]:
    """Field, ours, theirs. Where one is silent nothing else is compared."""
    if not mine or not other:
        if mine or other:
            yield "answer", mine.get("type", "silence"), other.get("type", "silence")
        return
    for field in sorted({*mine, *other}):
        if mine.get(field) != other.get(field):
            yield field, mine.get(field), other.get(field)


@functools.cache
def differing(peer: str) -> list[tuple[str, str, object, object]]:
    """Case, field, ours, theirs."""
    if shutil.which(peer) is None:
        pytest.skip(f"{peer} is not installed")
    if os.geteuid():
        pytest.skip("it needs root, or a user namespace: see CONTRIBUTING.md")
    with tempfile.TemporaryDirectory(prefix="pgpeer-") as folder:
        theirs = answers_of(peer, Path(folder))
    return [(case, *found) for case in CASES for found in differences(ours(case), theirs[case])]


@pytest.mark.system
@pytest.mark.parametrize("peer", PEERS)
def test_what_differs_from_another_server_is_agreed(peer: str) -> None:
    agreed = {(case, field) for row in AGREED[peer] for case in row.cases for field in row.fields}
    assert [found for found in differing(peer) if found[:2] not in agreed] == []


@pytest.mark.system
@pytest.mark.parametrize("peer", PEERS)
def test_what_is_agreed_differs(peer: str) -> None:
    met = {(case, field) for case, field, _, _ in differing(peer)}
    for row in AGREED[peer]:
        assert all(any((case, field) in met for case in row.cases) for field in row.fields), row.reason
        assert len(row.cases) == len(CASES) or all(any((case, f) in met for f in row.fields) for case in row.cases), (
            row.reason
        )


def test_every_kind_of_message_is_said() -> None:
    """RFC 2131 table 2, by what is answered: silence is an answer."""
    assert {ours(case).get("type", "silence") for case in CASES} == {"OFFER", "ACK", "NAK", "silence"}
