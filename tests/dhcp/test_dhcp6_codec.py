"""DHCPv6 messages: what is encoded is read back, what scapy says is what we say, and garbage never raises."""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers import dhcp6 as scapy6
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from dhcp import frame, v6
from dhcp.reason import Reason
from dhcp.v6 import Association, Code, Kind, Message

few = settings(max_examples=60, deadline=None)
options = st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=60)), max_size=6).map(tuple)
messages = st.builds(
    Message,
    kind=st.sampled_from([kind for kind in Kind if kind < Kind.RELAY_FORW]).map(int),
    xid=st.binary(min_size=3, max_size=3),
    options=options,
)
addresses = st.ip_addresses(v=6)


@few
@given(messages)
def test_a_message_is_read_back_as_it_was_written(written: Message) -> None:
    assert v6.parse(v6.encode(written)) == written


@few
@given(st.binary(max_size=300))
def test_no_bytes_make_the_parsers_raise(payload: bytes) -> None:
    read = v6.parse(payload)
    assert isinstance(read, Message | Reason)
    if isinstance(read, Message):
        assert isinstance(v6.associations(read), tuple | Reason)
        v6.wished(read)


@few
@given(st.binary(min_size=1, max_size=80), st.binary(max_size=40))
def test_no_association_makes_its_parser_raise(whole: bytes, inner: bytes) -> None:
    for value in (whole, bytes(12) + b"\0\5" + len(inner).to_bytes(2, "big") + inner):
        for code in (Code.IA_NA, Code.IA_TA, Code.IA_PD):
            assert isinstance(v6.associations(Message(1, b"123", ((int(code), value),))), tuple | Reason)


@few
@given(st.integers(0, 0xFFFFFF), st.integers(0, 0xFFFFFFFF), st.lists(addresses, max_size=3), st.lists(
    st.integers(0, 0xFFFF), max_size=5))  # fmt: skip
def test_what_scapy_says_is_read(xid: int, iaid: int, named: list, wished: list[int]) -> None:  # type: ignore[type-arg]
    said = (
        scapy6.DHCP6_Solicit(trid=xid)
        / scapy6.DHCP6OptClientId(duid=scapy6.DUID_UUID(uuid="00112233-4455-6677-8899-aabbccddeeff"))
        / scapy6.DHCP6OptIA_NA(iaid=iaid, ianaopts=[scapy6.DHCP6OptIAAddress(addr=str(one)) for one in named])
        / scapy6.DHCP6OptOptReq(reqopts=wished)
        / scapy6.DHCP6OptRapidCommit()
    )
    read = v6.parse(bytes(said))
    assert isinstance(read, Message)
    assert (read.kind, read.xid) == (Kind.SOLICIT, xid.to_bytes(3, "big"))
    assert v6.associations(read) == (
        Association(Code.IA_NA, iaid.to_bytes(4, "big"), tuple(one.packed for one in named)),
    )
    assert v6.wished(read) == tuple(wished)
    assert read.first(Code.CLIENT_ID) is not None and read.first(Code.RAPID_COMMIT) == b""


@few
@given(addresses, st.integers(1, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
def test_scapy_reads_what_we_say(address, valid_s: int, t1_s: int) -> None:  # type: ignore[no-untyped-def]
    leased = v6.leased(address.packed, valid_s, valid_s)
    ia = v6.association(Association(Code.IA_NA, b"\0\0\0\7"), t1_s, t1_s, [leased])
    values = (
        ia,
        (int(Code.DNS), v6.addresses(("fd00::1", "fd00::2"))),
        (int(Code.DOMAIN_SEARCH), v6.names(("grid.atlas.internal", "atlas.internal"))),
        (int(Code.NTP), v6.ntp(("fd00::9",))),
        v6.status(v6.Status.NO_BINDING, "none"),
    )
    read = scapy6.DHCP6_Reply(v6.encode(Message(Kind.REPLY, b"\1\2\3", values)))
    one = read[scapy6.DHCP6OptIA_NA]
    assert (one.iaid, one.T1, one.T2) == (7, t1_s, t1_s)
    assert (ipaddress.ip_address(one.ianaopts[0].addr), one.ianaopts[0].preflft, one.ianaopts[0].validlft) == (
        address,
        valid_s,
        valid_s,
    )
    assert read[scapy6.DHCP6OptDNSServers].dnsservers == ["fd00::1", "fd00::2"]
    assert read[scapy6.DHCP6OptDNSDomains].dnsdomains == ["grid.atlas.internal.", "atlas.internal."]
    assert read[scapy6.DHCP6OptStatusCode].statuscode == 3


def test_a_relays_message_is_not_looked_at() -> None:
    assert v6.parse(bytes(scapy6.DHCP6_RelayForward())) is Reason.UNEXPECTED_TYPE


@few
@given(st.binary(max_size=200), st.integers(0, 4))
def test_a_datagram_is_framed_as_scapy_frames_it_and_read_back(payload: bytes, cut: int) -> None:
    macs, ends = (b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"), (b"\xfe\x80" + bytes(13) + b"\1", b"\xfe\x80" + bytes(13) + b"\2")
    ours = frame.udp6(*macs, *ends, (547, 546), payload)
    theirs = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02") / IPv6(src="fe80::1", dst="fe80::2", hlim=64)
    assert ours == bytes(theirs / UDP(sport=547, dport=546) / payload)
    assert frame.parse_udp6(ours) == frame.Datagram(macs[1], *ends, 547, 546, payload)
    assert cut == 0 or frame.parse_udp6(ours[:-cut]) is None
