"""The names' doors: what clients ask and what other servers reply, any bytes whatever; each gets a reply or silence."""

from __future__ import annotations

import contextlib
import struct

from fuzz_lab import Target, bounded, garbled
from hypothesis import strategies as st

from overlay.dns.answer import Answers, Outside, Transfer
from overlay.dns.message import PLAIN_UDP_LIMIT, TCP_LIMIT, UDP_LIMIT, hear, parse, query
from overlay.dns.record import Record, Type, encode_name, lay_behind, port_records
from overlay.dns.zone import Zones

ORIGIN = "atlas.internal"
ASKED = encode_name("host.example.org") + b"\0\1\0\1"
ID = b"AB"
CPU_S = 2.0
NAMES = (
    *(ORIGIN, f"head.{ORIGIN}", f"HEAD.grid.{ORIGIN}", f"many.{ORIGIN}", f"c.{ORIGIN}", f"out.{ORIGIN}"),
    *(f"loop.{ORIGIN}", f"_sip._tcp.{ORIGIN}", f"nobody.{ORIGIN}", "2.0.20.10.in-addr.arpa", "0.20.10.in-addr.arpa"),
    *("example.org", "host.example.org", ".", "a" * 63 + "." + "b" * 63 + f".{ORIGIN}", ".".join("x" * 100)),
)
KINDS = (*map(int, Type), 0, 41, 249, 250, 251, 252, 253, 255, 65535)
CHAIN = Record(f"out.{ORIGIN}", Type.CNAME, "host.example.org")


def _zones() -> Zones:
    zones = Zones(ORIGIN, ("10.20.0.0/24", "fd00:20::/64"), ("10.20.0.1",))
    zones.put("head", port_records((f"head.grid.{ORIGIN}", f"head.{ORIGIN}"), ("10.20.0.2", "fd00:20::2")))
    for number in range(90):
        zones.put(f"many{number}", port_records((f"many.{ORIGIN}",), (f"10.20.0.{number + 10}",)))
    loop = [
        Record(f"{one}.{ORIGIN}", Type.CNAME, f"{two}.{ORIGIN}") for one, two in (("loop", "pool"), ("pool", "loop"))
    ]
    service = Record(f"_sip._tcp.{ORIGIN}", Type.SRV, f"0 5 5060 head.{ORIGIN}")
    zones.put("more", [CHAIN, Record(f"c.{ORIGIN}", Type.CNAME, f"head.{ORIGIN}"), *loop, service])
    return zones


ZONES = _zones()


@st.composite
def _asked(draw: st.DrawFn) -> bytes:
    name, kind = encode_name(draw(st.sampled_from(NAMES))), draw(st.sampled_from(KINDS))
    question = name + struct.pack("!HH", kind, draw(st.sampled_from((1, 1, 1, 3, 254, 255))))
    wire = query(
        ID,
        question,
        draw(st.sampled_from((0, 0x100, 0x10, 0x2800, 0x8000))),
        draw(st.sampled_from((None, False, True))),
    )
    return bytes(wire)


@st.composite
def _replied(draw: st.DrawFn) -> bytes:
    """To our question, with records of which one may point anywhere."""
    owner = draw(st.sampled_from((b"\xc0\x0c", b"\0", b"\xc0\x00", b"\xff\xff", b"\1a\xc0\x2a", b"\xc0\x22")))
    kind = draw(st.sampled_from((1, 2, 5, 6, 10, 12, 15, 16, 28, 33, 35, 41, 46, 64, 65, 257)))
    data = draw(st.one_of(st.binary(max_size=40), st.sampled_from((b"\xc0\x0c", b"\xc0\x22" * 900, b"\3ns1\xc0\x0c"))))
    one = owner + struct.pack("!HHIH", kind, 1, draw(st.sampled_from((0, 60, 1 << 31))), len(data)) + data
    counts = draw(st.tuples(*(st.integers(0, 2),) * 3))
    return (
        ID + struct.pack("!5H", draw(st.sampled_from((0x8180, 0x8183, 0x8380))), 1, *counts) + ASKED + one * sum(counts)
    )


def check(wire: bytes) -> None:
    with bounded(CPU_S):
        answers = Answers(ZONES, recursive=True)
        for over_tcp in (False, True):
            found = answers.answer(wire, over_tcp)
            asked = parse(wire)
            match found:
                case bytes():
                    assert found[:2] == wire[:2] and found[2] & 0x80, "a reply has the query's id, and says what it is"
                    size = getattr(asked, "size", None)
                    limit = TCP_LIMIT if over_tcp else PLAIN_UDP_LIMIT if size is None else UDP_LIMIT
                    assert len(found) <= limit, f"{len(found)} bytes, {limit} are allowed"
                    assert over_tcp or answers.kept(wire) in (None, found), "what is kept is what was said"
                case Transfer():
                    assert over_tcp and all(len(message) <= TCP_LIMIT for message in answers.transfer(found.asked))
                case Outside():
                    assert not found.name.endswith(encode_name(ORIGIN))
                case None:
                    assert asked is None
        heard = hear(wire, ID, ASKED)
        if heard is not None:
            assert all(at + 4 <= len(heard.records) for at in heard.ttls)
            whole = struct.pack("!6H", 0, 0x8000, 1, *heard.counts) + ASKED + heard.records
            chain = b"\xc0\x0c\0\5\0\1\0\0\0\x1e" + len(ASKED[:-4]).to_bytes(2, "big") + ASKED[:-4]
            with contextlib.suppress(ValueError):
                lay_behind(encode_name(f"out.{ORIGIN}") + b"\0\1\0\1", chain, 1, whole)


NAMES_DOOR: Target[bytes] = Target(
    name="names",
    inputs=st.one_of(garbled(_asked()), garbled(_replied()), st.binary(max_size=200)),
    check=check,
    to_file=lambda wire: wire,
    from_file=lambda raw: raw,
)
