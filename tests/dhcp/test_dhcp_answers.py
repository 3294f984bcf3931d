"""The decision table, row by row; what a reply holds and where it goes; the rendered reply against the composed one."""

from __future__ import annotations

import itertools

import pytest
from dhcp_cases import ADDRESS, MAC_BYTES, OTHER, SERVER, a_port, a_request, a_scope4
from hypothesis import given, settings
from hypothesis import strategies as st

from dhcp import options
from dhcp.decide import DECISIONS, REPORTED, Act, LeaseKind, Situation, Standing, situation
from dhcp.frame import BROADCAST_MAC
from dhcp.message import BOOTREPLY, MINIMUM, ZERO, Message, encode, parse
from dhcp.options import Code, MessageType
from dhcp.reason import Reason
from dhcp.render import Reply, parameters
from dhcp.scope import Boot
from dhcp.server import MAX_HOPS, Bound, answer

FOREVER = 0xFFFFFFFF
D, R = MessageType.DISCOVER, MessageType.REQUEST
WANTS, SERVER_ID = int(Code.REQUESTED_ADDRESS), int(Code.SERVER_ID)


def the_bound(**changes: object) -> Bound:
    return Bound(a_port(a_scope4(**changes)))


def reply_to(request: Message, bound: Bound | None = None) -> Message:
    found = (bound or the_bound()).answer(request)
    assert isinstance(found, Reply)
    read = parse(found.payload)
    assert isinstance(read, Message)
    return read


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        # DISCOVER: the address that it wishes for makes no difference.
        (a_request(D), Act.OFFER),
        (a_request(D, {WANTS: ADDRESS}), Act.OFFER),
        (a_request(D, {WANTS: OTHER}), Act.OFFER),
        (a_request(D, {Code.RAPID_COMMIT: b""}), Act.ACK_RAPID),
        # SELECTING: the server is named.
        (a_request(R, {SERVER_ID: SERVER, WANTS: ADDRESS}), Act.ACK),
        (a_request(R, {SERVER_ID: SERVER, WANTS: OTHER}), Act.NAK),
        (a_request(R, {SERVER_ID: SERVER}), Reason.NO_ADDRESS_NAMED),
        (a_request(R, {SERVER_ID: OTHER, WANTS: ADDRESS}), Reason.OTHER_SERVER),
        (a_request(R, {SERVER_ID: OTHER, WANTS: OTHER}), Reason.OTHER_SERVER),
        (a_request(R, {SERVER_ID: b"bad"}), Reason.OTHER_SERVER),
        # INIT-REBOOT: an address, no server.
        (a_request(R, {WANTS: ADDRESS}), Act.ACK),
        (a_request(R, {WANTS: OTHER}), Act.NAK),
        (a_request(R, {WANTS: b"bad"}), Act.NAK),
        # RENEWING and REBINDING: the client's own address, in ciaddr.
        (a_request(R, ciaddr=ADDRESS), Act.ACK),
        (a_request(R, ciaddr=OTHER), Act.NAK),
        (a_request(R), Reason.NO_ADDRESS_NAMED),
        (a_request(MessageType.INFORM, ciaddr=ADDRESS), Act.ACK_INFORM),
        (a_request(MessageType.INFORM, ciaddr=OTHER), Act.ACK_INFORM),
        (a_request(MessageType.INFORM), Act.ACK_INFORM),
        (a_request(MessageType.DECLINE, {WANTS: ADDRESS, SERVER_ID: SERVER}), Reason.DECLINED),
        (a_request(MessageType.DECLINE, {WANTS: OTHER, SERVER_ID: SERVER}), Reason.FOREIGN_ADDRESS),
        (a_request(MessageType.DECLINE, {WANTS: ADDRESS, SERVER_ID: OTHER}), Reason.OTHER_SERVER),
        (a_request(MessageType.RELEASE, {SERVER_ID: SERVER}, ciaddr=ADDRESS), Reason.RELEASED),
        (a_request(MessageType.RELEASE, {SERVER_ID: SERVER}, ciaddr=OTHER), Reason.FOREIGN_ADDRESS),
        (a_request(MessageType.RELEASE, {SERVER_ID: OTHER}, ciaddr=ADDRESS), Reason.OTHER_SERVER),
        # What is not looked at.
        (a_request(None), Reason.NOT_DHCP),
        (a_request(MessageType.OFFER), Reason.UNEXPECTED_TYPE),
        (a_request(MessageType.ACK), Reason.UNEXPECTED_TYPE),
        (a_request(MessageType.NAK), Reason.UNEXPECTED_TYPE),
        (a_request(None, {Code.MESSAGE_TYPE: b"\x63"}), Reason.UNEXPECTED_TYPE),
        (a_request(None, {Code.MESSAGE_TYPE: b""}), Reason.UNEXPECTED_TYPE),
        (a_request(D, hops=MAX_HOPS + 1), Reason.RELAY_LOOP),
        (a_request(D, giaddr=SERVER), Reason.RELAY_LOOP),
        (a_request(D, op=BOOTREPLY), Reason.NOT_A_REQUEST),
        (a_request(D, htype=6), Reason.NOT_ETHERNET),
        (a_request(D, chaddr=bytes(16)), Reason.NOT_ETHERNET),
        (a_request(D, chaddr=b"\x02\0\0\0\0\x06"), Reason.FOREIGN_MAC),
    ],
)
def test_each_situation_has_its_answer(request_: Message, expected: Act | Reason) -> None:
    assert the_bound().decide(request_) is expected


def test_the_table_has_a_row_for_every_situation() -> None:
    assert set(DECISIONS) == set(itertools.product(Situation, Standing))


def test_the_table_has_an_act_for_every_message_but_those_that_ask_for_nothing() -> None:
    silent = {
        doing for doing in Situation if all(isinstance(DECISIONS[doing, standing], Reason) for standing in Standing)
    }
    assert silent == {Situation.SELECTING_OTHER, Situation.DECLINING, Situation.RELEASING}


def test_no_row_gives_an_address_that_is_anothers() -> None:
    given = {(doing, standing) for (doing, standing), act in DECISIONS.items() if act is Act.ACK}
    assert {standing for _, standing in given} == {Standing.OWN, Standing.FREE, Standing.QUARANTINED}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (a_request(D), Reason.QUARANTINED),
        (a_request(D, {Code.RAPID_COMMIT: b""}), Reason.QUARANTINED),
        (a_request(R, {SERVER_ID: SERVER, WANTS: ADDRESS}), Act.NAK),
        (a_request(R, {WANTS: ADDRESS}), Reason.QUARANTINED),
        (a_request(R, ciaddr=ADDRESS), Act.ACK),
        (a_request(MessageType.INFORM), Act.ACK_INFORM),
        (a_request(MessageType.DECLINE, {WANTS: ADDRESS}), Reason.DECLINED),
        (a_request(MessageType.RELEASE, ciaddr=ADDRESS), Reason.RELEASED),
    ],
)
def test_an_address_that_was_declined_rests(request_: Message, expected: Act | Reason) -> None:
    assert the_bound().decide(request_, is_quarantined=True) is expected


@pytest.mark.parametrize(
    ("request_", "is_unicast", "expected"),
    [
        (a_request(R, ciaddr=ADDRESS), True, Situation.RENEWING),
        (a_request(R, ciaddr=ADDRESS), False, Situation.REBINDING),
        (a_request(R, ciaddr=ADDRESS, giaddr=OTHER), True, Situation.REBINDING),
        (a_request(R, {WANTS: ADDRESS}), True, Situation.INIT_REBOOT),
    ],
)
def test_who_was_sent_a_request_tells_renewing_from_rebinding(
    request_: Message, is_unicast: bool, expected: Situation
) -> None:
    assert situation(request_, SERVER, is_unicast) is expected


def test_only_offers_acks_declines_and_releases_are_reported() -> None:
    assert REPORTED == {
        Act.OFFER: LeaseKind.OFFERED,
        Act.ACK: LeaseKind.BOUND,
        Act.ACK_RAPID: LeaseKind.BOUND,
        Reason.DECLINED: LeaseKind.DECLINED,
        Reason.RELEASED: LeaseKind.RELEASED,
    }


def test_a_port_without_dhcp_is_silent() -> None:
    assert answer(a_port(), a_request(D)) is Reason.NO_SCOPE


@pytest.mark.parametrize(
    ("request_", "mac", "destination", "port"),
    [
        (a_request(D), MAC_BYTES, ADDRESS, 68),
        (a_request(D, flags=0x8000), BROADCAST_MAC, b"\xff" * 4, 68),
        (a_request(R, ciaddr=ADDRESS), MAC_BYTES, ADDRESS, 68),
        (a_request(R, ciaddr=ADDRESS, flags=0x8000), MAC_BYTES, ADDRESS, 68),
        (a_request(R, ciaddr=OTHER), BROADCAST_MAC, b"\xff" * 4, 68),
        (a_request(R, {WANTS: OTHER}), BROADCAST_MAC, b"\xff" * 4, 68),
        (a_request(D, giaddr=OTHER, flags=0x8000), MAC_BYTES, OTHER, 67),
        (a_request(R, {WANTS: OTHER}, giaddr=OTHER), MAC_BYTES, OTHER, 67),
        (a_request(MessageType.INFORM, ciaddr=OTHER), MAC_BYTES, OTHER, 68),
        (a_request(MessageType.INFORM), BROADCAST_MAC, b"\xff" * 4, 68),
    ],
)
def test_a_reply_goes_where_rfc_2131_section_4_1_sends_it(
    request_: Message, mac: bytes, destination: bytes, port: int
) -> None:
    found = the_bound().answer(request_)
    assert isinstance(found, Reply)
    assert (found.to_mac, found.destination, found.port) == (mac, destination, port)


def test_an_offer_holds_the_whole_scope_when_nothing_is_wished() -> None:
    offer = reply_to(a_request(D))
    assert (offer.op, offer.xid, offer.chaddr, offer.yiaddr, offer.ciaddr) == (
        BOOTREPLY,
        b"\x12\x34\x56\x78",
        MAC_BYTES,
        ADDRESS,
        ZERO,
    )
    assert dict(offer.options) == {
        Code.MESSAGE_TYPE: b"\x02",
        Code.SERVER_ID: SERVER,
        Code.LEASE_TIME: (3600).to_bytes(4, "big"),
        Code.RENEWAL_TIME: (1800).to_bytes(4, "big"),
        Code.REBINDING_TIME: (3150).to_bytes(4, "big"),
        Code.SUBNET_MASK: b"\xff\xff\xff\0",
        Code.MTU: (1400).to_bytes(2, "big"),
        Code.DNS: SERVER,
        Code.HOSTNAME: b"w0",
        Code.DOMAIN: b"grid.atlas.internal",
        Code.ROUTES: bytes.fromhex("20a9fea9fe0a140001"),
        Code.DOMAIN_SEARCH: b"\x04grid\x05atlas\x08internal\x00\xc0\x05",
        Code.BROADCAST: b"\x0a\x14\0\xff",
        Code.NTP: b"\x0a\x14\0\x09",
        Code.ROUTES_MS: bytes.fromhex("20a9fea9fe0a140001"),
    }


def test_an_offer_is_these_bytes() -> None:
    found = the_bound(search=(), routes=(), ntp=()).answer(a_request(D, {55: bytes((6, 15, 1))}))
    assert isinstance(found, Reply)
    head = "02010600 12345678 0000 0000 00000000 0a140005 00000000 00000000 020000000005" + "00" * 202 + "63825363"
    options_ = (
        "350102 36040a140001 330400000e10 3a0400000708 3b0400000c4e 06040a140001 0f13" + b"grid.atlas.internal".hex()
    )
    tail = "0104ffffff00 1a020578 ff"
    assert found.payload == bytes.fromhex(head + options_ + tail).ljust(MINIMUM, b"\0")


def test_options_come_in_the_order_of_the_wish_and_mask_and_mtu_unasked() -> None:
    offer = reply_to(a_request(D, {55: bytes((15, 6, 66, 12))}))
    assert list(offer.options) == [53, 54, 51, 58, 59, 15, 6, 12, 1, 26]


def test_the_subnet_mask_precedes_the_router() -> None:
    offer = reply_to(a_request(D, {55: bytes((3, 1))}), the_bound(router="10.20.0.1"))
    assert list(offer.options) == [53, 54, 51, 58, 59, 1, 3, 26]


def test_there_is_no_router_option_where_nothing_routes() -> None:
    assert Code.ROUTER not in reply_to(a_request(D, {55: bytes((3, 1))})).options


def test_a_default_route_stands_in_both_options_for_clients_that_ignore_one() -> None:
    found = parameters(a_scope4(router="10.20.0.1"))
    assert options.decode_routes(found[Code.ROUTES]) == (
        ("169.254.169.254/32", "10.20.0.1"),
        ("0.0.0.0/0", "10.20.0.1"),
    )
    assert found[Code.ROUTES_MS] == found[Code.ROUTES]


def test_an_inform_is_acknowledged_without_address_or_lease() -> None:
    ack = reply_to(a_request(MessageType.INFORM, ciaddr=OTHER))
    assert ack.options[Code.MESSAGE_TYPE] == b"\x05"
    assert (ack.yiaddr, ack.ciaddr) == (ZERO, OTHER)
    assert not {Code.LEASE_TIME, Code.RENEWAL_TIME, Code.REBINDING_TIME} & set(ack.options)
    assert ack.options[Code.DNS] == SERVER


def test_a_nak_says_nothing_but_that() -> None:
    nak = reply_to(a_request(R, {WANTS: OTHER, Code.CLIENT_ID: b"\x01me"}, ciaddr=OTHER, giaddr=OTHER))
    assert set(nak.options) == {Code.MESSAGE_TYPE, Code.SERVER_ID, Code.MESSAGE, Code.CLIENT_ID}
    assert nak.options[Code.MESSAGE_TYPE] == b"\x06"
    assert (nak.yiaddr, nak.ciaddr) == (ZERO, ZERO)
    assert nak.flags == 0x8000


def test_a_client_identifier_is_repeated() -> None:
    assert reply_to(a_request(D, {Code.CLIENT_ID: b"\x01me"})).options[Code.CLIENT_ID] == b"\x01me"


def test_a_rapid_commit_is_acknowledged_at_once_and_said_so() -> None:
    ack = reply_to(a_request(D, {Code.RAPID_COMMIT: b""}))
    assert ack.options[Code.MESSAGE_TYPE] == b"\x05"
    assert ack.options[Code.RAPID_COMMIT] == b""


def test_an_endless_lease_is_never_renewed() -> None:
    found = parameters(a_scope4(lease_s=FOREVER))
    assert found[Code.RENEWAL_TIME] == found[Code.REBINDING_TIME] == found[Code.LEASE_TIME] == b"\xff" * 4


def test_a_point_to_point_prefix_has_no_broadcast_address() -> None:
    assert Code.BROADCAST not in parameters(a_scope4(prefix_len=32))


@pytest.mark.parametrize(("asked", "mtu", "expected"), [(None, 1400, 548), (300, 1400, 548), (1500, 1400, 1372)])
def test_a_reply_keeps_to_what_the_client_and_the_mtu_allow(asked: int | None, mtu: int, expected: int) -> None:
    sizes = {} if asked is None else {int(Code.MAX_MESSAGE_SIZE): asked.to_bytes(2, "big")}
    assert the_bound(mtu=mtu).answers.limit(a_request(D, sizes)) == expected


def test_a_scope_too_large_for_the_client_is_overloaded_and_cut_to_the_limit() -> None:
    bound = the_bound(search=tuple(f"{'x' * 40}{number}.internal" for number in range(6)))
    found = bound.answer(a_request(D))
    assert isinstance(found, Reply)
    assert len(found.payload) <= 548
    assert Code.DNS in reply_to(a_request(D), bound).options


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "10.20.0.256"},
        {"prefix_len": 33},
        {"mtu": 67},
        {"mtu": 65536},
        {"dns": ("fd00::1",)},
        {"search": ("a..b",)},
        {"routes": (("10.0.0.1/8", "10.20.0.1"),)},
        {"hostname": "w\u00f6rker"},
    ],
)
def test_a_scope_that_no_client_can_be_told_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        the_bound(**changes)


def assert_rendered_as_composed(bound: Bound, request: Message, act: Act) -> None:
    answers = bound.answers
    composed = encode(answers.compose(request, act, bound.address), answers.limit(request))
    assert answers.render(request, act, bound.address) == composed


four = st.binary(min_size=4, max_size=4)
ASKED = (1, 3, 6, 12, 15, 26, 43, 51, 66, 67, 114, 119, 121, 224)
SAID = {
    Code.PARAMETER_LIST: st.lists(st.sampled_from(ASKED), max_size=12).map(bytes),
    Code.REQUESTED_ADDRESS: st.sampled_from([ADDRESS, OTHER, b""]),
    Code.SERVER_ID: st.sampled_from([SERVER, OTHER]),
    Code.MAX_MESSAGE_SIZE: st.sampled_from([b"", b"\0\0", b"\x02\x40", b"\x05\xdc", b"\xff\xff"]),
    Code.CLIENT_ID: st.binary(max_size=300),
    Code.RAPID_COMMIT: st.just(b""),
    Code.VENDOR_CLASS: st.sampled_from([b"PXEClient:Arch:00007", b"HTTPClient:Arch:00016", b"udhcp"]),
    Code.USER_CLASS: st.sampled_from([b"iPXE", b"\x04iPXE", b"other"]),
    Code.CLIENT_FQDN: st.sampled_from([b"", b"\0\0\0w", b"\x05\0\0\x01w\0", b"\x01\0\0w.x"]),
    Code.RELAY_AGENT: st.binary(max_size=300),
    Code.ARCHITECTURE: st.sampled_from([b"", b"\0\0", b"\0\x07", b"\0\x10", b"\0\x63\0\x07"]),
    Code.IPXE: st.just(b"\x01\x01\0"),
}
wishes = st.fixed_dictionaries({}, optional={int(code): values for code, values in SAID.items()})
BOOT = Boot(
    "10.20.0.9", ((0, "undionly.kpxe"), (7, "x" * 130), (16, "http://10.20.0.9/b.efi"), (-1, "b.img")), "http://x/i"
)


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(MessageType),
    wished=wishes,
    flags=st.sampled_from([0, 0x8000, 0x1234]),
    ciaddr=st.sampled_from([ZERO, ADDRESS, OTHER]),
    giaddr=st.sampled_from([ZERO, OTHER]),
    xid=four,
    names=st.integers(0, 12),
    boot=st.sampled_from([None, BOOT]),
)
def test_the_rendered_reply_is_the_composed_one(
    kind: MessageType,
    wished: dict[int, bytes],
    flags: int,
    ciaddr: bytes,
    giaddr: bytes,
    xid: bytes,
    names: int,
    boot: Boot | None,
) -> None:
    search = tuple(f"{'x' * 30}{number}.internal" for number in range(names))
    bound = the_bound(search=search, boot=boot, options=((43, b"\1\2"), (114, b"http://p/"), (224, b"x" * 300)))
    request = a_request(kind, wished, flags=flags, ciaddr=ciaddr, giaddr=giaddr, xid=xid)
    act = bound.decide(request)
    if isinstance(act, Act):
        assert_rendered_as_composed(bound, request, act)
        assert_rendered_as_composed(bound, request, act)  # what was rendered before is as good


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(1, 254), st.binary(max_size=40), max_size=8), st.sampled_from(MessageType))
def test_no_request_makes_the_answer_raise(wished: dict[int, bytes], kind: MessageType) -> None:
    assert isinstance(the_bound().answer(a_request(kind, wished)), Reply | Reason)
