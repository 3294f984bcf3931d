"""Why a client has no address, in sentences: each cause by itself, and none where all is well."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dhcp.decide import LeaseKind
from playground.controller.diagnosis import findings
from playground.records import PortRecord
from playground.responder.protocol import Exchange, Leased, PortTold

NOW = 10_000.0
PORT = PortRecord(
    playground="lab",
    workspace="w",
    network="grid",
    network_id="g",
    id="000000000001",
    mac="02:00:00:00:00:01",
    addresses=("10.0.0.5", "fd00::5"),
)


def told(counts: dict[str, int] | None = None, lease: Leased | None = None, **exchange: Any) -> PortTold:
    last = {"at_utc_s": NOW - 30, "what": "REQUEST", "mac": PORT.mac, "address": "", "outcome": "ACK"} | exchange
    exchanges = (Exchange(**last),) if counts else ()
    return PortTold(
        port=PORT.id, since_utc_s=NOW - 60, counts=counts or {}, exchanges=exchanges, lease=lease, lease_s=3600
    )


def a_lease(kind: LeaseKind, at_s: float = NOW - 600) -> Leased:
    return Leased(port=PORT.id, address="10.0.0.5", mac=PORT.mac, at_utc_s=at_s, kind=kind, since_utc_s=at_s)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (told(),
         "no request was seen at its port in the 60 seconds since it is answered: no DHCP client runs there, or its "
         "NIC is down"),
        (told({"ACK": 1}, a_lease(LeaseKind.BOUND)), "it has 10.0.0.5: told or seen 10 minutes ago"),
        (told({"ACK": 1}, a_lease(LeaseKind.BOUND, NOW - 4000)),
         "its lease of 10.0.0.5 ran out 7 minutes ago: its client has not renewed it"),
        (told({"RELEASED": 1}, a_lease(LeaseKind.RELEASED)),
         "its client gave 10.0.0.5 back 10 minutes ago, and has not asked again"),
        (told({"FOREIGN_MAC": 3}, mac="02:99:00:00:00:01", outcome="FOREIGN_MAC"),
         "3 times a request came from another MAC (02:99:00:00:00:01) than the port's, 02:00:00:00:00:01"),
        (told({"MALFORMED_OPTIONS": 1}),
         "once what it sent was thrown away: an option runs past its field or has an impossible length"),
        (told({"NAK": 2}, address="10.9.9.9", outcome="NAK"),
         "2 times it asked for an address that is not its own, 10.9.9.9, and was refused"),
        (told({"OTHER_SERVER": 2}),
         "2 times it chose another DHCP server: there is one on its network, or it remembers one"),
        (told({"NOT_SENT": 2}), "2 times it was not answered: the device is gone, down or full"),
        (told({"POOL_EMPTY": 1}),
         "once it was not answered: the client would get an address, and there is none for it"),
        (told({"DECLINED": 1, "ACK": 1}, a_lease(LeaseKind.DECLINED)),
         "it declined 10.0.0.5: it believes that another has it, and is not answered for 30 s"),
        (told({"OFFER": 4}, a_lease(LeaseKind.OFFERED)),
         "it was offered 10.0.0.5 4 times and never asked for it: the offer does not reach it, or it refuses it"),
    ],
)  # fmt: skip
def test_what_was_seen_at_the_port_is_said(known: PortTold, said: str) -> None:
    assert findings(PORT, "forwarding", "", known, {}, NOW)[0] == said


@pytest.mark.parametrize(
    ("state", "cause", "problems", "said"),
    [
        ("unplaced", "waits for a host", {}, "its port is unplaced: waits for a host"),
        ("waiting", "", {}, "its port is waiting"),
        ("forwarding", "its client declined it", {}, "its client declined it"),
        ("forwarding", "", {"port/000000000001": "bad MTU"}, "its answers are not in effect: bad MTU"),
        ("forwarding", "", {"netns": "no socket"}, "no port of its host is answered: no socket"),
        ("forwarding", "", {},
         "nothing is answered at its port: its host has not been told of it yet, or asks nobody"),
    ],
)  # fmt: skip
def test_what_is_before_the_port_comes_first(state: str, cause: str, problems: dict[str, str], said: str) -> None:
    assert findings(PORT, state, cause, None, problems, NOW)[0] == said


def test_names_that_are_not_answered_are_said_at_the_end() -> None:
    problems = {"view/lab": "can't listen on port 53", "view/other": "x"}
    said = findings(PORT, "forwarding", "", told({"ACK": 1}, a_lease(LeaseKind.BOUND)), problems, NOW)
    assert said[1:] == ["names are not answered on its host: can't listen on port 53"]


def test_a_network_without_ipv4_is_said_to_have_none() -> None:
    port = msgspec.structs.replace(PORT, addresses=("fd00::5",))
    assert findings(port, "forwarding", "", told(), {}, NOW) == [
        "its network has no IPv4 subnet: its addresses are IPv6 alone"
    ]
