"""What a DHCPv6 client at a port is answered: the tables are whole, and each message gets what RFC 8415 says."""

from __future__ import annotations

from typing import Any

import pytest
from dhcp_cases import MAC, SERVER_MAC, a_scope6

from dhcp import v6
from dhcp.decide import LeaseKind
from dhcp.decide6 import Act
from dhcp.options import encode_name
from dhcp.reason import Reason
from dhcp.scope import Boot, PortScope, Scope6
from dhcp.server6 import Bound, Reply
from dhcp.v6 import Code, Kind, Message, Status

OWN = bytes.fromhex("fd0000200000000000000000" "00000005")  # fmt: skip
SECOND, OTHER = OWN[:-1] + b"\6", OWN[:-1] + b"\x63"
US, CLIENT = b"\0\3\0\1" + bytes.fromhex("027067000001"), b"\0\4" + bytes(range(16))
NAMING_US = {Kind.REQUEST, Kind.RENEW, Kind.RELEASE, Kind.DECLINE}
Option = tuple[int, bytes]


def a_bound(**changes: Any) -> Bound:
    return Bound(PortScope(MAC, SERVER_MAC, v6=a_scope6(**changes)))


def an_ia(*addresses: bytes, iaid: int = 1, code: Code = Code.IA_NA) -> Option:
    asked = v6.Association(code, iaid.to_bytes(4, "big"))
    return v6.association(asked, 0, 0, [v6.leased(address, 0, 0) for address in addresses])


def a_message(kind: Kind, *options: Option, client: bytes | None = CLIENT) -> Message:
    head: list[Option] = [] if client is None else [(int(Code.CLIENT_ID), client)]
    if kind in NAMING_US:
        head.append((int(Code.SERVER_ID), US))
    return Message(kind, b"\1\2\3", (*head, *options))


def sent(bound: Bound, request: Message, **how: Any) -> tuple[Reply, Message]:
    reply = bound.answer(request, **how)
    assert isinstance(reply, Reply)
    read = v6.parse(reply.payload)
    assert isinstance(read, Message)
    assert read.xid == request.xid and read.first(Code.SERVER_ID) == US
    assert read.first(Code.CLIENT_ID) == request.first(Code.CLIENT_ID)
    return reply, read


def of_association(read: Message, at: int = 0) -> tuple[dict[bytes, int], int | None]:
    """Valid lifetimes by address, and the status, of a reply's association."""
    value = [value for code, value in read.options if code in (Code.IA_NA, Code.IA_TA, Code.IA_PD)][at]
    code = [code for code, _ in read.options if code in (Code.IA_NA, Code.IA_TA, Code.IA_PD)][at]
    inner = v6.decode(value[4 if code == Code.IA_TA else 12 :])
    assert not isinstance(inner, Reason)
    leased = {text[:16]: int.from_bytes(text[20:24], "big") for number, text in inner if number == Code.ADDRESS}
    return leased, next((int.from_bytes(text[:2], "big") for number, text in inner if number == Code.STATUS), None)


def status_of(read: Message) -> int | None:
    value = read.first(Code.STATUS)
    return None if value is None else int.from_bytes(value[:2], "big")


def test_a_solicit_is_advertised_the_ports_address_and_the_client_waits_for_no_other_server() -> None:
    reply, read = sent(a_bound(), a_message(Kind.SOLICIT, an_ia(OTHER)))
    assert (read.kind, read.first(Code.PREFERENCE)) == (Kind.ADVERTISE, b"\xff")
    assert of_association(read) == ({OWN: 3600}, None)
    assert reply.leases == ((OWN, LeaseKind.OFFERED),)


def test_a_solicit_with_rapid_commit_is_bound_at_once() -> None:
    reply, read = sent(a_bound(), a_message(Kind.SOLICIT, an_ia(), (int(Code.RAPID_COMMIT), b"")))
    assert (reply.act, read.kind, read.first(Code.RAPID_COMMIT)) == (Act.REPLY_RAPID, Kind.REPLY, b"")
    assert reply.leases == ((OWN, LeaseKind.BOUND),)


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.RENEW, Kind.REBIND])
def test_a_client_is_bound_and_told_when_to_renew(kind: Kind) -> None:
    reply, read = sent(a_bound(lease_s=1000), a_message(kind, an_ia(OWN)))
    assert of_association(read) == ({OWN: 1000}, None)
    value = read.first(Code.IA_NA)
    assert value is not None and value[4:12] == (500).to_bytes(4, "big") + (800).to_bytes(4, "big")
    assert reply.leases == ((OWN, LeaseKind.BOUND),)


@pytest.mark.parametrize("kind", [Kind.RENEW, Kind.REBIND])
def test_an_address_that_is_no_longer_the_ports_ends_as_the_new_one_begins(kind: Kind) -> None:
    reply, read = sent(a_bound(), a_message(kind, an_ia(OTHER)))
    assert of_association(read) == ({OWN: 3600, OTHER: 0}, None)
    assert reply.leases == ((OWN, LeaseKind.BOUND), (OTHER, LeaseKind.RELEASED))


def test_what_is_given_for_ever_is_never_renewed() -> None:
    _, read = sent(a_bound(lease_s=v6.FOREVER), a_message(Kind.REQUEST, an_ia()))
    value = read.first(Code.IA_NA)
    assert value is not None and value[4:12] == b"\xff" * 8


def test_a_confirm_says_whether_all_addresses_are_the_ports() -> None:
    reply, read = sent(a_bound(), a_message(Kind.CONFIRM, an_ia(OWN)))
    assert (status_of(read), reply.leases) == (Status.SUCCESS, ((OWN, LeaseKind.BOUND),))
    reply, read = sent(a_bound(), a_message(Kind.CONFIRM, an_ia(OWN, OTHER)))
    assert (status_of(read), reply.leases) == (Status.NOT_ON_LINK, ((OTHER, LeaseKind.RELEASED),))


def test_a_confirm_of_nothing_is_not_answered() -> None:
    assert a_bound().answer(a_message(Kind.CONFIRM, an_ia())) is Reason.NO_ADDRESS_NAMED


@pytest.mark.parametrize(("kind", "heard"), [(Kind.RELEASE, LeaseKind.RELEASED), (Kind.DECLINE, LeaseKind.DECLINED)])
def test_what_a_client_lets_go_of_is_taken_note_of_if_it_had_it(kind: Kind, heard: LeaseKind) -> None:
    reply, read = sent(a_bound(), a_message(kind, an_ia(OWN), an_ia(OTHER, iaid=2)))
    assert (status_of(read), reply.leases) == (Status.SUCCESS, ((OWN, heard),))
    assert of_association(read) == ({}, Status.NO_BINDING)
    value = read.first(Code.IA_NA)
    assert value is not None and value[:4] == b"\0\0\0\2"


@pytest.mark.parametrize(("kind", "told"), [(Kind.SOLICIT, Status.NO_ADDRESSES), (Kind.REQUEST, Status.NO_ADDRESSES)])
def test_a_declined_address_is_not_given_again_at_once(kind: Kind, told: Status) -> None:
    reply, read = sent(a_bound(), a_message(kind, an_ia()), quarantined={OWN})
    assert of_association(read) == ({}, told)
    assert reply.leases == ()


def test_a_declined_address_leaves_the_others_to_the_client() -> None:
    bound = a_bound(addresses=("fd00:20::5", "fd00:20::6"))
    _, read = sent(bound, a_message(Kind.REQUEST, an_ia()), quarantined={OWN})
    assert of_association(read) == ({SECOND: 3600}, None)


def test_of_several_associations_the_one_that_has_the_address_keeps_it() -> None:
    _, read = sent(a_bound(), a_message(Kind.RENEW, an_ia(iaid=1), an_ia(OWN, iaid=2)))
    assert of_association(read, 0) == ({}, Status.NO_BINDING)
    assert of_association(read, 1) == ({OWN: 3600}, None)


def test_no_temporary_address_and_no_prefix_is_given() -> None:
    asked = [an_ia(code=Code.IA_TA), an_ia(code=Code.IA_PD)]
    reply, read = sent(a_bound(), a_message(Kind.SOLICIT, *asked))
    assert of_association(read, 0) == ({}, Status.NO_ADDRESSES)
    assert of_association(read, 1) == ({}, Status.NO_PREFIX)
    assert reply.leases == ()


def test_information_is_given_as_wished_and_without_addresses() -> None:
    wish = (int(Code.OPTION_REQUEST), b"\0\x38\0\x17\0\x18\0\x99")
    reply, read = sent(a_bound(), a_message(Kind.INFORMATION_REQUEST, wish, client=None))
    assert [code for code, _ in read.options] == [Code.SERVER_ID, Code.NTP, Code.DNS, Code.DOMAIN_SEARCH]
    assert (reply.act, reply.leases) == (Act.REPLY_INFORMATION, ())


def test_information_with_an_association_is_not_given() -> None:
    assert a_bound().answer(a_message(Kind.INFORMATION_REQUEST, an_ia())) is Reason.MALFORMED_OPTIONS


@pytest.mark.parametrize(("said", "told"), [(b"\1", 1), (b"\0", 3), (b"\4", 3)])
def test_a_clients_name_is_the_ports_and_ours_to_publish(said: bytes, told: int) -> None:
    _, read = sent(a_bound(), a_message(Kind.REQUEST, an_ia(), (int(Code.CLIENT_FQDN), said + b"\4mine")))
    assert read.first(Code.CLIENT_FQDN) == bytes((told,)) + encode_name("w0.grid.atlas.internal")


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ([(int(Code.ARCHITECTURE), b"\0\7")], b"http://10.20.0.9/x64.efi"),
        ([(int(Code.USER_CLASS), b"\0\4iPXE")], b"http://10.20.0.9/menu"),
        ([], None),
    ],
)
def test_a_client_that_asks_boots_what_has_a_url(options: list[Option], url: bytes | None) -> None:
    files = ((7, "http://10.20.0.9/x64.efi"), (-1, "pxelinux.0"))
    boot = Boot("10.20.0.9", files, "http://10.20.0.9/menu")
    wish = (int(Code.OPTION_REQUEST), b"\0\x3b")
    _, read = sent(a_bound(boot=boot), a_message(Kind.INFORMATION_REQUEST, wish, *options))
    assert read.first(Code.BOOT_URL) == url


def test_a_name_on_a_tftp_server_becomes_a_url_and_parameters_go_with_it() -> None:
    boot = Boot("10.20.0.9", ((-1, "/a/b.efi"),), server6="fd00::9", parameters=("root=/", "quiet"))
    wish = (int(Code.OPTION_REQUEST), b"\0\x3c\0\x3b")
    _, read = sent(a_bound(boot=boot), a_message(Kind.INFORMATION_REQUEST, wish))
    assert [code for code, _ in read.options][2:] == [Code.BOOT_PARAMETERS, Code.BOOT_URL]
    assert read.first(Code.BOOT_URL) == b"tftp://[fd00::9]/a/b.efi"
    assert read.first(Code.BOOT_PARAMETERS) == b"\0\6root=/\0\5quiet"


def test_options_of_the_file_count_before_what_would_be_told() -> None:
    bound = a_bound(options=((int(Code.DNS), bytes(16)), (250, b"\1")))
    wish = (int(Code.OPTION_REQUEST), b"\0\xfa\0\x17\0\xfb")
    _, read = sent(bound, a_message(Kind.REQUEST, an_ia(), wish))
    assert read.options[-2:] == ((250, b"\1"), (int(Code.DNS), bytes(16)))


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.RENEW, Kind.RELEASE, Kind.DECLINE])
def test_a_client_that_asks_us_alone_is_told_to_ask_all(kind: Kind) -> None:
    reply, read = sent(a_bound(), a_message(kind, an_ia(OWN)), is_unicast=True)
    assert (status_of(read), reply.leases) == (Status.USE_MULTICAST, ())


@pytest.mark.parametrize("kind", [Kind.SOLICIT, Kind.CONFIRM, Kind.REBIND, Kind.INFORMATION_REQUEST])
def test_what_is_for_all_is_not_answered_to_one(kind: Kind) -> None:
    assert a_bound().answer(a_message(kind), is_unicast=True) is Reason.TO_ONE


@pytest.mark.parametrize("kind", list(Kind))
def test_a_message_of_no_clients_kind_or_without_its_identifiers_is_not_answered(kind: Kind) -> None:
    bare = Message(kind, b"\1\2\3", (an_ia(OWN),))
    if kind in (Kind.ADVERTISE, Kind.REPLY, Kind.RECONFIGURE, Kind.RELAY_FORW, Kind.RELAY_REPL):
        assert a_bound().answer(a_message(kind)) is Reason.UNEXPECTED_TYPE
    elif kind is not Kind.INFORMATION_REQUEST:
        assert a_bound().answer(bare) is Reason.NO_IDENTIFIER
    if kind in NAMING_US:
        nameless = Message(kind, b"\1\2\3", ((int(Code.CLIENT_ID), CLIENT),))
        assert a_bound().answer(nameless) is Reason.NO_IDENTIFIER


@pytest.mark.parametrize("kind", [Kind.SOLICIT, Kind.REQUEST, Kind.CONFIRM, Kind.REBIND, Kind.INFORMATION_REQUEST])
def test_a_message_for_another_server_is_not_answered(kind: Kind) -> None:
    head = ((int(Code.CLIENT_ID), CLIENT), (int(Code.SERVER_ID), b"\0\3\0\1another"))
    assert a_bound().answer(Message(kind, b"\1\2\3", head)) is Reason.OTHER_SERVER


@pytest.mark.parametrize("duid", [b"\0\1\0\1" + bytes(10), b"\0\2" + bytes(128), b"\0\3\0\1" + bytes(6), CLIENT])
def test_every_kind_of_identifier_is_the_clients_own(duid: bytes) -> None:
    sent(a_bound(), a_message(Kind.SOLICIT, an_ia(), client=duid))


@pytest.mark.parametrize("duid", [b"", b"\0\1", b"\0\2" + bytes(129)])
def test_an_identifier_of_an_impossible_length_is_none(duid: bytes) -> None:
    assert a_bound().answer(a_message(Kind.SOLICIT, client=duid)) is Reason.NO_IDENTIFIER


def test_a_scope_that_can_not_be_told_is_refused() -> None:
    with pytest.raises(ValueError, match="lifetime"):
        Bound(PortScope(MAC, SERVER_MAC, v6=Scope6(("fd00::1",), "fe80::1", lease_s=0)))
