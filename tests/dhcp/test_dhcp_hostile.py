"""What a hostile client may send, and what it costs: nothing but its own port's peace, and bounded time."""

from __future__ import annotations

import struct
import time

import pytest
from dhcp_cases import ADDRESS, MAC_BYTES, OTHER, SERVER, a_port, a_request, a_scope4

from dhcp import message, render
from dhcp.decide import REPORTED
from dhcp.message import Message
from dhcp.options import Code, MessageType
from dhcp.reason import Reason
from dhcp.server import MAX_HOPS, Bound

LONGEST = 65507
"""Bytes of UDP in an IPv4 datagram."""
BUDGET_S = 0.05
"""For one message, on a busy machine; a whole frame of 1500 bytes takes some 10 µs."""


def a_decline(address: bytes = ADDRESS, mac: bytes = MAC_BYTES) -> Message:
    return a_request(MessageType.DECLINE, {Code.REQUESTED_ADDRESS: address, Code.SERVER_ID: SERVER}, chaddr=mac)


@pytest.mark.parametrize(
    ("declined", "reason"),
    [
        (a_decline(OTHER), Reason.FOREIGN_ADDRESS),
        (a_decline(SERVER), Reason.FOREIGN_ADDRESS),
        (a_decline(mac=bytes.fromhex("020000000099")), Reason.FOREIGN_MAC),
    ],
)
def test_nobody_declines_what_is_not_its_own(declined: Message, reason: Reason) -> None:
    found = Bound(a_port(a_scope4())).answer(declined)
    assert found is reason and found not in REPORTED


@pytest.mark.parametrize(
    ("hops", "giaddr", "is_looked_at"),
    [(MAX_HOPS, OTHER, True), (MAX_HOPS + 1, OTHER, False), (255, OTHER, False), (1, SERVER, False)],
)
def test_what_goes_round_among_relays_ends_here(hops: int, giaddr: bytes, is_looked_at: bool) -> None:
    found = Bound(a_port(a_scope4())).answer(a_request(MessageType.DISCOVER, hops=hops, giaddr=giaddr))
    assert (found is not Reason.RELAY_LOOP) == is_looked_at


def a_payload(options: bytes, file: bytes = b"", sname: bytes = b"") -> bytes:
    head = struct.pack("!BBBB4s8s16s16s64s128s", 1, 1, 6, 0, b"abcd", b"", b"", MAC_BYTES, sname, file)
    return head + message.COOKIE + options


DISCOVER = b"\x35\x01\x01"


@pytest.mark.parametrize(
    "options",
    [
        DISCOVER + (b"\x3d\xff" + bytes(255)) * 254,  # one option in 254 pieces, which are one value (RFC 3396)
        DISCOVER + b"".join(bytes((1 + code % 254, 0)) for code in range(32000)),
        DISCOVER + b"\x00" * 65000,
        DISCOVER + (b"\x37\xff" + bytes(range(255))) * 200,  # wishes without end
        DISCOVER + b"\x52\xff" + b"\x01\x02aa" * 63 + b"\x01\x01a",
        DISCOVER + b"\x39\x02\xff\xff" + b"\x3d\xff" + bytes(255),  # room for all of it in the reply
        DISCOVER + b"\x34\x01\x03",  # options go on in fields that hold none
    ],
)
def test_giant_options_cost_bounded_time_and_the_reply_is_bounded(options: bytes) -> None:
    port = Bound(a_port(a_scope4()))
    payload = a_payload(options)[:LONGEST]
    begun = time.process_time()
    parsed = message.parse(payload)
    found = parsed if isinstance(parsed, Reason) else port.answer(parsed)
    assert time.process_time() - begun < BUDGET_S
    assert isinstance(found, Reason) or len(found.payload) <= 1472


def test_a_client_that_never_asks_the_same_twice_is_remembered_bounded() -> None:
    port = Bound(a_port(a_scope4()))
    for number in range(300):
        wishes = struct.pack("!I", number) + bytes((number % 251, number % 7))
        port.answer(a_request(MessageType.DISCOVER, {Code.PARAMETER_LIST: wishes, Code.CLIENT_ID: wishes * 40}))
    assert len(port.answers._areas) <= render._AREAS
