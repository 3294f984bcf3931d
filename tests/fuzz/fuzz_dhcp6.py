"""The port's other door: any bytes that speak IPv6 are an answer or a reason, in bounded time, nobody else's address.

A frame goes the whole way: Ethernet, IPv6, UDP or ICMPv6, DHCPv6 or neighbour discovery, the port's own answer. What is
read of a DHCPv6 message is what scapy reads of it.
"""

from __future__ import annotations

from fuzz_lab import Target, bounded
from hypothesis import strategies as st
from scapy.layers import dhcp6 as scapy6
from scapy.packet import Packet

from dhcp import frame, ra, v6
from dhcp.reason import Reason
from dhcp.scope import Boot, PortScope, Scope6, ScopeRa
from dhcp.server6 import Bound, Reply
from dhcp.v6 import Code, Kind, Message

MAC, SERVER_MAC, STRANGER = "02:00:00:00:00:05", "02:70:67:00:00:01", b"\2\0\0\0\0\x77"
PREFIX = bytes.fromhex("fd00002000000000")
OWN, SECOND, OTHER = (PREFIX + bytes(7) + bytes((last,)) for last in (5, 6, 99))
SCOPE = PortScope(
    MAC,
    SERVER_MAC,
    ra=ScopeRa("fe80::1", prefixes=(("fd00:20::/64", True),), mtu=1400),
    v6=Scope6(
        ("fd00:20::5", "fd00:20::6"),
        "fe80::1",
        dns=("fd00:20::1",),
        hostname="w0",
        domain="grid.lab.internal",
        search=("grid.lab.internal", "lab.internal"),
        options=((56, b"\0\1\0\x10" + bytes(16)), (250, b"\1")),
        boot=Boot("", ((7, "http://a/b"), (-1, "x")), "http://a/i", "fd00:20::9", ("quiet",)),
    ),
)
BOUND = Bound(SCOPE)
DUIDS = (b"\0\1\0\1" + bytes(10), b"\0\2" + bytes(7), b"\0\3\0\1" + bytes(6), b"\0\4" + bytes(16), b"\0", b"")
READ_ALIKE = (1, 2, 3, 4, 5, 6, 7, 8, 13, 23, 24, 25, 56)
"""Options that scapy leaves as long as they say they are, whatever is in them; others it cuts by its own lights."""

sixteen = st.sampled_from((bytes(16), OWN, SECOND, OTHER, ra.ALL_NODES, v6.SERVERS, bytes.fromhex("fe80") + bytes(14)))
duids = st.sampled_from((*DUIDS, BOUND.server, BOUND.server)) | st.binary(max_size=140)
inner = st.lists(
    st.tuples(st.just(int(Code.ADDRESS)), st.tuples(sixteen, st.binary(min_size=8, max_size=8)).map(b"".join))
    | st.tuples(st.sampled_from((5, 13, 26, 999)), st.binary(max_size=30)),
    max_size=4,
).map(v6.encode_options)
associations = st.tuples(
    st.sampled_from((3, 3, 3, 4, 25)), st.tuples(st.binary(min_size=4, max_size=12), inner).map(b"".join)
)
options = st.lists(
    st.tuples(st.sampled_from((1, 1, 2)), duids)
    | associations
    | st.tuples(st.just(6), st.lists(st.sampled_from((23, 24, 39, 56, 59, 60, 250)), max_size=40).map(v6_codes := (
        lambda codes: b"".join(code.to_bytes(2, "big") for code in codes))))
    | st.tuples(st.sampled_from((14, 15, 16, 39, 61, 999)), st.binary(max_size=40)),
    max_size=8,
)  # fmt: skip
messages = st.builds(
    Message,
    kind=st.sampled_from([int(kind) for kind in Kind] + [0, 255]),
    xid=st.binary(min_size=3, max_size=3),
    options=st.tuples(st.just((1, DUIDS[3])), options.map(tuple)).map(lambda both: (both[0], *both[1])),
)
neighbours = st.tuples(
    st.sampled_from((133, 134, 135, 136, 137)).map(lambda kind: bytes((kind, 0, 0, 0))),
    st.just(bytes(4)),
    sixteen | st.just(b""),
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 4), st.binary(max_size=24)), max_size=3).map(
        lambda found: b"".join(bytes((kind, size)) + value for kind, size, value in found)
    ),
).map(b"".join)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Mostly sound: what is wrong is somewhere in the message, or one byte of what is around it."""
    mac = draw(st.sampled_from((frame.mac(MAC), frame.mac(MAC), STRANGER)))
    if draw(st.booleans()):
        payload = bytearray(v6.encode(draw(messages)) if draw(st.integers(0, 9)) else draw(st.binary(max_size=400)))
        for _ in range(draw(st.sampled_from((0, 0, 1, 2)))):
            at = draw(st.integers(0, len(payload)))
            payload[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=4))
        ports = draw(st.sampled_from(((546, 547), (546, 547), (547, 547), (1, 2))))
        whole = frame.udp6(b"\x33\x33\0\1\0\2", mac, draw(sixteen), draw(sixteen), ports, bytes(payload))
    else:
        whole = frame.icmp6(ra.ALL_NODES_MAC, mac, draw(sixteen), draw(sixteen), draw(neighbours))
    spoilt = bytearray(whole)
    for _ in range(draw(st.sampled_from((0, 0, 0, 1)))):
        spoilt[draw(st.integers(0, 61))] = draw(st.integers(0, 255))
    return bytes(spoilt[: draw(st.sampled_from((len(spoilt), len(spoilt), 61, 54, 14, 0)))])


def check_frame(data: bytes) -> None:
    with bounded(1.0):
        heard = frame.parse_icmp6(data)
        if heard is not None:
            ra.check_solicitation(heard)
            formed = ra.formed_address(heard, ("fd00:20::/64",))
            assert formed is None or formed.startswith("fd00:20:"), "an address counts that is in no prefix"
        datagram = frame.parse_udp6(data)
        request = v6.parse(datagram.payload) if datagram is not None else Reason.NOT_FOR_US
        if datagram is None or isinstance(request, Reason):
            return
        for quarantined in ((), (OWN, SECOND)):
            reply = BOUND.answer(request, is_unicast=datagram.destination != v6.SERVERS, quarantined=quarantined)
            if isinstance(reply, Reply):
                _check_reply(request, reply, set(quarantined))
    _check_reading(request, datagram.payload)


def _check_reply(request: Message, reply: Reply, quarantined: set[bytes]) -> None:
    read = v6.parse(reply.payload)
    assert isinstance(read, Message), f"our own reply can't be read: {read}"
    assert (read.xid, read.kind in (Kind.ADVERTISE, Kind.REPLY)) == (request.xid, True)
    assert read.first(Code.CLIENT_ID) == request.first(Code.CLIENT_ID) and read.first(Code.SERVER_ID) == BOUND.server
    assert len(reply.payload) <= 1400 - 48
    given: list[bytes] = []
    for code, value in read.options:
        if code not in (Code.IA_NA, Code.IA_TA, Code.IA_PD):
            continue
        found = v6.decode(value[4 if code == Code.IA_TA else 12 :])
        assert not isinstance(found, Reason)
        given += [one[:16] for number, one in found if number == Code.ADDRESS and any(one[16:24])]
    assert len(given) == len(set(given)), "an address was given twice"
    assert {*given} <= {OWN, SECOND} - quarantined, "an address was given that is not the port's to have now"


def _check_reading(request: Message, payload: bytes) -> None:
    """scapy stops where it knows better; up to there it reads the same options, of the same lengths."""
    if request.kind not in range(1, 12) or any(code not in READ_ALIKE for code, _ in request.options):
        return
    if isinstance(v6.associations(request), Reason):
        return
    try:
        layer: Packet = scapy6.DHCP6(payload)
    except Exception:
        return  # it raises for what is wrong inside an option that we leave alone
    for code, value in request.options:
        layer = layer.payload
        if not hasattr(layer, "optcode"):
            return
        assert (layer.optcode, layer.optlen) == (code, len(value)), "scapy reads another option here"


DHCP6 = Target("dhcp6", frames(), check_frame, lambda data: data, lambda data: data)
