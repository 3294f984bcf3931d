"""Every message of a DHCPv6 client, naming an address in every standing: what the answer says of it (RFC 8415)."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
from dhcp_cases import MAC, SERVER_MAC, a_scope6

from dhcp import v6
from dhcp.decide import LeaseKind
from dhcp.decide6 import ACTS, FATES, REPORTED, Situation, Standing
from dhcp.reason import Reason
from dhcp.scope import PortScope
from dhcp.server6 import Bound
from dhcp.v6 import Code, Kind, Message, Status

OWN = bytes.fromhex("fd00002000000000" "0000000000000005")  # fmt: skip
OTHER = OWN[:-1] + b"\x63"
CLIENT = (int(Code.CLIENT_ID), b"\0\4" + bytes(range(16)))


class Told(NamedTuple):
    """kind: of the answer. status: outside of the association. leased: valid lifetimes. inside: its own status.
    heard: what is taken note of."""

    kind: Kind
    status: Status | None = None
    leased: dict[bytes, int] | None = None
    inside: Status | None = None
    heard: tuple[tuple[bytes, LeaseKind], ...] = ()


def given(kind: Kind, heard: LeaseKind = LeaseKind.BOUND) -> Told:
    return Told(kind, None, {OWN: 3600}, None, ((OWN, heard),))


def none_left(kind: Kind, status: Status) -> Told:
    return Told(kind, None, {}, status)


SWITCHED = Told(Kind.REPLY, None, {OWN: 3600, OTHER: 0}, None, ((OWN, LeaseKind.BOUND), (OTHER, LeaseKind.RELEASED)))
NO_BINDING = Told(Kind.REPLY, Status.SUCCESS, {}, Status.NO_BINDING)
S, P = Situation, Standing
EXPECTED: dict[tuple[Situation, Standing], Told | Reason] = {
    (S.SOLICITING, P.OWN): given(Kind.ADVERTISE, LeaseKind.OFFERED),
    (S.SOLICITING, P.QUARANTINED): none_left(Kind.ADVERTISE, Status.NO_ADDRESSES),
    (S.SOLICITING, P.FOREIGN): given(Kind.ADVERTISE, LeaseKind.OFFERED),
    (S.SOLICITING_RAPIDLY, P.OWN): given(Kind.REPLY),
    (S.SOLICITING_RAPIDLY, P.QUARANTINED): none_left(Kind.REPLY, Status.NO_ADDRESSES),
    (S.SOLICITING_RAPIDLY, P.FOREIGN): given(Kind.REPLY),
    (S.REQUESTING, P.OWN): given(Kind.REPLY),
    (S.REQUESTING, P.QUARANTINED): none_left(Kind.REPLY, Status.NO_ADDRESSES),
    (S.REQUESTING, P.FOREIGN): given(Kind.REPLY),
    (S.CONFIRMING, P.OWN): Told(Kind.REPLY, Status.SUCCESS, heard=((OWN, LeaseKind.BOUND),)),
    (S.CONFIRMING, P.QUARANTINED): Told(Kind.REPLY, Status.SUCCESS, heard=((OWN, LeaseKind.BOUND),)),
    (S.CONFIRMING, P.FOREIGN): Told(Kind.REPLY, Status.NOT_ON_LINK, heard=((OTHER, LeaseKind.RELEASED),)),
    (S.RENEWING, P.OWN): given(Kind.REPLY),
    (S.RENEWING, P.QUARANTINED): none_left(Kind.REPLY, Status.NO_BINDING),
    (S.RENEWING, P.FOREIGN): SWITCHED,
    (S.REBINDING, P.OWN): given(Kind.REPLY),
    (S.REBINDING, P.QUARANTINED): none_left(Kind.REPLY, Status.NO_BINDING),
    (S.REBINDING, P.FOREIGN): SWITCHED,
    (S.RELEASING, P.OWN): Told(Kind.REPLY, Status.SUCCESS, heard=((OWN, LeaseKind.RELEASED),)),
    (S.RELEASING, P.QUARANTINED): Told(Kind.REPLY, Status.SUCCESS, heard=((OWN, LeaseKind.RELEASED),)),
    (S.RELEASING, P.FOREIGN): NO_BINDING,
    (S.DECLINING, P.OWN): Told(Kind.REPLY, Status.SUCCESS, heard=((OWN, LeaseKind.DECLINED),)),
    (S.DECLINING, P.QUARANTINED): Told(Kind.REPLY, Status.SUCCESS, heard=((OWN, LeaseKind.DECLINED),)),
    (S.DECLINING, P.FOREIGN): NO_BINDING,
    (S.INFORMING, P.OWN): Reason.MALFORMED_OPTIONS,
    (S.INFORMING, P.QUARANTINED): Reason.MALFORMED_OPTIONS,
    (S.INFORMING, P.FOREIGN): Reason.MALFORMED_OPTIONS,
}
KINDS = {
    S.SOLICITING: Kind.SOLICIT,
    S.SOLICITING_RAPIDLY: Kind.SOLICIT,
    S.REQUESTING: Kind.REQUEST,
    S.CONFIRMING: Kind.CONFIRM,
    S.RENEWING: Kind.RENEW,
    S.REBINDING: Kind.REBIND,
    S.RELEASING: Kind.RELEASE,
    S.DECLINING: Kind.DECLINE,
    S.INFORMING: Kind.INFORMATION_REQUEST,
}


def test_no_row_is_left_out() -> None:
    every = set(itertools.product(Situation, Standing))
    assert EXPECTED.keys() == {(doing, standing) for doing, row in FATES.items() for standing in row} == every
    assert ACTS.keys() == KINDS.keys() == REPORTED.keys() == set(Situation)


@pytest.mark.parametrize(("doing", "standing"), EXPECTED, ids=lambda one: one.name)
def test_the_answer_says_of_an_address_what_its_standing_means(doing: Situation, standing: Standing) -> None:
    bound = Bound(PortScope(MAC, SERVER_MAC, v6=a_scope6()))
    asked = v6.Association(Code.IA_NA, b"\0\0\0\1")
    options = [CLIENT, v6.association(asked, 0, 0, [v6.leased(OTHER if standing is P.FOREIGN else OWN, 0, 0)])]
    if doing in (S.REQUESTING, S.RENEWING, S.RELEASING, S.DECLINING):
        options.append((int(Code.SERVER_ID), bound.server))
    if doing is S.SOLICITING_RAPIDLY:
        options.append((int(Code.RAPID_COMMIT), b""))
    quarantined = {OWN} if standing is P.QUARANTINED else set()
    reply = bound.answer(Message(KINDS[doing], b"abc", tuple(options)), quarantined=quarantined)
    expected = EXPECTED[doing, standing]
    if isinstance(expected, Reason) or isinstance(reply, Reason):
        assert reply is expected
        return
    read = v6.parse(reply.payload)
    assert isinstance(read, Message)
    association, status = read.first(Code.IA_NA), _status(read.options)
    inner = v6.decode(association[12:]) if association is not None else ()
    assert not isinstance(inner, Reason)
    leased = {value[:16]: int.from_bytes(value[20:24], "big") for code, value in inner if code == Code.ADDRESS}
    found = None if association is None else leased
    assert Told(Kind(read.kind), status, found, _status(inner), reply.leases) == expected


def _status(options: tuple[v6.Option, ...]) -> Status | None:
    value = next((value for code, value in options if code == Code.STATUS), None)
    return None if value is None else Status(int.from_bytes(value[:2], "big"))


def test_an_answer_that_would_not_fit_a_packet_is_none() -> None:
    bound = Bound(PortScope(MAC, SERVER_MAC, v6=a_scope6()))
    many = [(int(Code.IA_NA), number.to_bytes(4, "big") + bytes(8)) for number in range(80)]
    assert bound.answer(Message(Kind.SOLICIT, b"abc", (CLIENT, *many))) is Reason.TOO_LARGE
