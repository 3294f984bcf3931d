"""Answers that are given again: they are what the parsers and the tables would say, whatever came before."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from dhcp_cases import ADDRESS, MAC, MAC_BYTES, OTHER, SERVER, SERVER_MAC, a_request, a_scope4, a_scope6
from hypothesis import given, settings
from hypothesis import strategies as st

from dhcp import frame, message, v6
from dhcp.io.batches import Batches
from dhcp.io.packet import PacketServer
from dhcp.io.unasked import Heard
from dhcp.memo import MOST, Memo
from dhcp.options import Code, MessageType
from dhcp.scope import PortScope

DEVICE = "pg000000000000"
PORT = PortScope(MAC, SERVER_MAC, v4=a_scope4(), v6=a_scope6())
OURS = v6.duid_ll(frame.mac(SERVER_MAC))


class Wire:
    """A packet socket that keeps what is sent, or takes nothing."""

    def __init__(self, is_up: bool = True) -> None:
        self.sent: list[bytes] = []
        self.is_up = is_up

    def sendto(self, data: bytes, address: tuple[str, int]) -> None:
        if not self.is_up:
            raise OSError(100, "Network is down")
        self.sent.append(data)


class Forgetful(Memo[Any]):
    """The oracle: it keeps nothing."""

    def keep(self, asked: bytes, answer: bytes, what: Any) -> None:
        pass


def said4(kind: MessageType, xid: int, secs: int, ciaddr: bytes, options: dict[int, bytes]) -> bytes:
    request = a_request(kind, options, xid=xid.to_bytes(4, "big"), secs=secs, ciaddr=ciaddr)
    to = frame.BROADCAST_MAC if ciaddr == message.ZERO else frame.mac(SERVER_MAC)
    ends = (ciaddr, b"\xff" * 4 if ciaddr == message.ZERO else SERVER)
    return frame.udp4(to, MAC_BYTES, *ends, (68, 67), message.encode(request))


def said6(kind: v6.Kind, xid: int, waited: int, names_server: bool) -> bytes:
    options = [(int(v6.Code.CLIENT_ID), b"\0\4" + bytes(16)), (8, waited.to_bytes(2, "big"))]
    options += [(int(v6.Code.SERVER_ID), OURS)] if names_server else []
    own = v6.leased(v6.addresses(("fd00:20::5",)), 0, 0)
    options.append(v6.association(v6.Association(int(v6.Code.IA_NA), b"\0\0\0\1"), 0, 0, [own]))
    payload = v6.encode(v6.Message(kind, xid.to_bytes(3, "big"), tuple(options)))
    ends = (b"\xfe\x80" + bytes(13) + b"\5", v6.SERVERS)
    return frame.udp6(b"\x33\x33\0\1\0\2", MAC_BYTES, *ends, (v6.CLIENT_PORT, v6.SERVER_PORT), payload)


FRAMES4 = st.builds(
    said4,
    st.sampled_from([MessageType.DISCOVER, MessageType.REQUEST, MessageType.REQUEST, *MessageType]),
    st.one_of(st.integers(0, 0xFFFFFFFF), st.sampled_from([0, 0xFFFF, 0xFFFF0000, 0xFFFFFFFF])),
    st.integers(0, 2),
    st.sampled_from([message.ZERO, ADDRESS]),
    st.sampled_from(
        [
            {},
            {Code.SERVER_ID: SERVER, Code.REQUESTED_ADDRESS: ADDRESS},
            {Code.REQUESTED_ADDRESS: OTHER},
            {Code.PARAMETER_LIST: b"\1\3\6", Code.CLIENT_ID: b"\1abc"},
        ]
    ),
)
FRAMES6 = st.builds(said6, st.sampled_from(list(v6.Kind)), st.integers(0, 0xFFFFFF), st.integers(0, 1), st.booleans())


@st.composite
def mutated(draw: Callable[..., Any]) -> bytes:
    """A frame in which a byte was changed, or which was cut, or neither."""
    data = bytearray(draw(st.one_of(FRAMES4, FRAMES6)))
    if draw(st.booleans()):
        data[draw(st.integers(0, min(len(data), 300) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(20, len(data)))] if draw(st.integers(0, 9)) == 0 else data)


def answered(frames: Iterable[bytes], is_forgetful: bool) -> tuple[object, ...]:
    """All that comes of frames at a port."""

    async def work() -> tuple[object, ...]:
        heard: list[Heard] = []
        wire, ticks = Wire(), iter(range(10**6))
        server = PacketServer(heard.append, now_utc_s=lambda: 1000.0)
        server.set(DEVICE, PORT)
        port = server._ports[DEVICE]
        if is_forgetful:
            port.memo = Forgetful()
        server._socket = wire  # type: ignore[assignment]
        outcomes = []
        for data in frames:
            wire.is_up = next(ticks) % 7 != 6
            outcomes.append(server._receive(DEVICE, data))
        history, told = port.history, (port.history.client, port.history.duid)
        server.drop(DEVICE)
        return (
            outcomes,
            wire.sent,
            heard,
            history.counts,
            history.counts6,
            list(history.exchanges),
            told,
            port.unasked.questions,
        )

    return asyncio.run(work())


@settings(max_examples=60)
@given(st.lists(mutated(), min_size=1, max_size=6), st.lists(st.integers(0, 5), min_size=1, max_size=24))
def test_an_answer_given_again_is_what_would_be_said_anew(frames: list[bytes], order: list[int]) -> None:
    played = [frames[number % len(frames)] for number in order]
    assert answered(played, is_forgetful=False) == answered(played, is_forgetful=True)


@pytest.mark.parametrize("xid", [0, 1, 0xFFFE, 0xFFFF, 0x10000, 0xFFFF0000, 0xFFFFFFFF])
def test_a_transaction_of_its_own_gets_a_checksum_of_its_own(xid: int) -> None:
    said = [said4(MessageType.DISCOVER, number, 0, message.ZERO, {}) for number in (7, 8, xid)]
    _, sent, *_ = answered(said, is_forgetful=False)
    read = frame.parse_udp4(sent[2])
    assert read is not None
    again = message.parse(read.payload)
    assert isinstance(again, message.Message) and again.xid == xid.to_bytes(4, "big")
    ports = (read.source_port, read.destination_port)
    ends = (sent[2][:6], read.source_mac, read.source, read.destination)
    assert sent[2] == frame.udp4(*ends, ports, read.payload)


def test_after_a_decline_nothing_is_given_again_for_a_while() -> None:
    discover = said4(MessageType.DISCOVER, 1, 0, message.ZERO, {})
    decline = said4(MessageType.DECLINE, 2, 0, message.ZERO, {Code.SERVER_ID: SERVER, Code.REQUESTED_ADDRESS: ADDRESS})
    _, sent, *_ = answered([discover] * 3 + [decline, discover], is_forgetful=False)
    assert len(sent) == 3


def test_a_client_that_invents_messages_is_remembered_bounded() -> None:
    memo: Memo[int] = Memo()
    for number in range(10 * MOST):
        asked = said4(MessageType.DISCOVER, 1, 0, message.ZERO, {Code.HOSTNAME: b"%d" % number})
        for _ in range(2):
            memo.keep(asked, asked, number)
        assert memo.find(asked) is not None
    assert len(memo._known) <= MOST and len(memo._once) <= MOST


def test_frames_come_with_their_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `Batches` gives them: the name is asked for once a batch."""
    asked: list[int] = []

    class Given:
        def receive(self) -> list[tuple[int, bytes]]:
            discover = said4(MessageType.DISCOVER, 1, 0, message.ZERO, {})
            return [(5, discover), (6, discover), (5, discover)]

        def device(self, index: int) -> str:
            asked.append(index)
            return DEVICE if index == 5 else ""

    async def work() -> PacketServer:
        server = PacketServer(lambda heard: None)
        server.set(DEVICE, PORT)
        server._socket, server._batches = Wire(), Given()  # type: ignore[assignment]
        server._drain()
        server.drop(DEVICE)
        return server

    server = asyncio.run(work())
    assert asked == [5, 6] and server.answered == 2 and sum(server.counters.values()) == 1


def test_a_batch_reads_frames_whole_and_in_order() -> None:
    try:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(0x88B5))
    except PermissionError:
        pytest.skip("needs CAP_NET_RAW")
    with opened:
        opened.bind(("lo", 0x88B5))
        batches, index = Batches(opened), socket.if_nametoindex("lo")
        sent = [bytes(12) + b"\x88\xb5" + bytes([number]) * size for number, size in enumerate((50, 1486, 60))]
        for data in sent:
            opened.sendto(data, ("lo", 0))
        assert batches.receive()[: len(sent)] == [(index, data) for data in sent]
        assert batches.receive() == [] and batches.device(index) == "lo" and batches.device(1 << 30) == ""
