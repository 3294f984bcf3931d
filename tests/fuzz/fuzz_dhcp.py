"""The port's door: any bytes of a guest are an answer or a reason, in bounded time, and no answer is another's.

A frame goes the whole way: Ethernet, IPv4, UDP, DHCPv4, the port's own answer and the pool's.
"""

from __future__ import annotations

from fuzz_lab import Target, bounded
from hypothesis import strategies as st

from dhcp import frame, message
from dhcp.message import BOOTREPLY, BOOTREQUEST, Message
from dhcp.pool import Pool
from dhcp.reason import Reason
from dhcp.render import Reply
from dhcp.scope import Boot, Pool4, PortScope, Scope4
from dhcp.server import Bound

MAC, SERVER_MAC = "02:00:00:00:00:05", "02:70:67:00:00:01"
OWN, SERVER = bytes((10, 20, 0, 5)), bytes((10, 20, 0, 1))
SCOPE = Scope4(
    "10.20.0.5",
    24,
    "10.20.0.1",
    mtu=1400,
    dns=("10.20.0.1",),
    hostname="w0",
    domain="grid.lab.internal",
    search=("grid.lab.internal", "lab.internal"),
    routes=(("169.254.169.254/32", "10.20.0.1"),),
    options=((43, b"\1\2"), (114, b"http://portal/")),
    boot=Boot("10.20.0.9", ((0, "bios"), (7, "x" * 200), (-1, "any")), "http://10.20.0.9/ipxe"),
)
BOUND = Bound(PortScope(MAC, SERVER_MAC, SCOPE))
POOL = Pool4("grid", SCOPE, (("10.20.0.100", "10.20.0.103"),), (("10.20.0.100", "10.20.0.199"),), limit=3)

four = st.sampled_from((bytes(4), OWN, SERVER, b"\xff" * 4, bytes((10, 20, 0, 100)), bytes((10, 20, 0, 150))))
codes = st.sampled_from((12, 50, 52, 53, 54, 55, 57, 60, 61, 77, 80, 81, 82, 93, 121, 175)) | st.integers(0, 255)
values = (
    st.binary(max_size=12) | four | st.binary(max_size=300) | st.integers(0, 9).map(lambda number: bytes((number,)))
)
requests = st.builds(
    Message,
    op=st.sampled_from((BOOTREQUEST, BOOTREQUEST, BOOTREPLY, 0)),
    xid=st.binary(min_size=4, max_size=4),
    chaddr=st.sampled_from((frame.mac(MAC), b"\2\0\0\0\0\x77", b"", bytes(16))),
    options=st.dictionaries(codes.filter(lambda code: 0 < code < 255), values, max_size=8),
    flags=st.sampled_from((0, 0x8000, 0xFFFF)),
    secs=st.integers(0, 0xFFFF),
    ciaddr=four,
    yiaddr=four,
    siaddr=four,
    giaddr=four,
    file=st.sampled_from((b"", b"name", b"x" * 128)),
    htype=st.sampled_from((1, 1, 1, 6, 255)),
    hops=st.sampled_from((0, 1, 16, 17, 255)),
)


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """A message as it is written, with bytes changed, cut off or pushed in after that; or no message at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=700))
    written = bytearray(message.encode(draw(requests), 1400))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(written) - 1)) if written else 0
        match draw(st.sampled_from(("change", "cut", "push"))):
            case "change" if written:
                written[at] = draw(st.integers(0, 255))
            case "cut":
                del written[at:]
            case "push":
                written[at:at] = draw(st.binary(max_size=20))
    return bytes(written)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Mostly sound around its payload."""
    mac = draw(st.sampled_from((frame.mac(MAC), b"\2\0\0\0\0\x77")))
    ports = draw(st.sampled_from(((68, 67), (68, 67), (67, 67), (1, 2))))
    whole = bytearray(frame.udp4(b"\xff" * 6, mac, draw(four), draw(four), ports, draw(payloads())))
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 2)))):
        whole[draw(st.integers(0, 41))] = draw(st.integers(0, 255))
    return bytes(whole[: draw(st.sampled_from((len(whole), len(whole), 41, 14, 0)))])


def check_frame(data: bytes) -> None:
    with bounded(1.0):
        datagram = frame.parse_udp4(data)
        if datagram is None:
            return
        request = message.parse(datagram.payload)
        if isinstance(request, Reason):
            return
        own = BOUND.answer(request, is_unicast=datagram.destination != b"\xff" * 4)
        pool = Pool(POOL)
        other = pool.answer("p", request, datagram.source_mac, 1.0, datagram.destination != b"\xff" * 4)
        for reply in (own, other.reply):
            if isinstance(reply, Reply):
                _check_reply(request, reply)
        assert isinstance(own, Reason) or request.chaddr == frame.mac(MAC), "another's client was answered"


def _check_reply(request: Message, reply: Reply) -> None:
    read = message.parse(reply.payload)
    assert isinstance(read, Message), f"our own reply can't be read: {read}"
    assert (read.op, read.xid, read.chaddr) == (BOOTREPLY, request.xid, request.chaddr)
    assert len(reply.payload) <= 1400 - 28
    allowed = {bytes(4), OWN, *(bytes((10, 20, 0, last)) for last in range(100, 104))}
    assert read.yiaddr in allowed, "an address was given that is not ours to give"


DHCP = Target("dhcp", frames(), check_frame, lambda data: data, lambda data: data)
