"""Pure. What a DHCPv6 client is doing, how an address stands that it names, and what becomes of it: two whole tables.

RFC 8415 §16 says which messages are looked at, §18.3 what follows. A port is a link of one host: what is not that
host's address is not of its link, so a client that comes back after its address changed hears so at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

from dhcp.decide import LeaseKind
from dhcp.reason import Reason
from dhcp.v6 import Code, Kind, Message, is_duid


class Situation(Enum):
    """What a client is doing."""

    __hash__ = object.__hash__  # Enum hashes its name, in Python

    SOLICITING = "SOLICIT"
    SOLICITING_RAPIDLY = "SOLICIT with rapid commit"
    REQUESTING = "REQUEST"
    CONFIRMING = "CONFIRM"
    RENEWING = "RENEW"
    REBINDING = "REBIND"
    RELEASING = "RELEASE"
    DECLINING = "DECLINE"
    INFORMING = "INFORMATION-REQUEST"


class Standing(Enum):
    """How an address stands, named by the client or not."""

    __hash__ = object.__hash__  # Enum hashes its name, in Python

    OWN = "it is the port's"
    QUARANTINED = "it is the port's, whose client said a short while ago that another uses it"
    FOREIGN = "it is not the port's"


class Fate(Enum):
    """What a reply says of an address."""

    __hash__ = object.__hash__  # Enum hashes its name, in Python

    GIVEN = "it is the client's, with its lifetimes"
    WITHHELD = "nothing"
    ENDED = "it is over, with lifetimes of zero"
    CONFIRMED = "it is of this link"
    NOT_ON_LINK = "it is not of this link"
    TAKEN_BACK = "it is the client's no longer"
    NO_BINDING = "it never was the client's"


class Act(Enum):
    """What is sent."""

    __hash__ = object.__hash__  # Enum hashes its name, in Python

    ADVERTISE = "advertise"
    REPLY = "reply"
    REPLY_RAPID = "reply to a SOLICIT"
    REPLY_INFORMATION = "reply without addresses"
    REPLY_TAKEN_BACK = "reply to a client that lets go of its address"
    REPLY_NOT_ON_LINK = "reply that an address is not of this link"
    REPLY_USE_MULTICAST = "reply that a message is to go to all servers"


class _Form(NamedTuple):
    """names_server: whether it names one; None where it may. to_one: what is made of one sent to us alone, which we
    invite nobody to (RFC 8415 §16, §18.4)."""

    doing: Situation
    names_server: bool | None
    to_one: Act | Reason


_FORMS: Final[Mapping[int, _Form]] = {
    Kind.SOLICIT: _Form(Situation.SOLICITING, False, Reason.TO_ONE),
    Kind.REQUEST: _Form(Situation.REQUESTING, True, Act.REPLY_USE_MULTICAST),
    Kind.CONFIRM: _Form(Situation.CONFIRMING, False, Reason.TO_ONE),
    Kind.RENEW: _Form(Situation.RENEWING, True, Act.REPLY_USE_MULTICAST),
    Kind.REBIND: _Form(Situation.REBINDING, False, Reason.TO_ONE),
    Kind.RELEASE: _Form(Situation.RELEASING, True, Act.REPLY_USE_MULTICAST),
    Kind.DECLINE: _Form(Situation.DECLINING, True, Act.REPLY_USE_MULTICAST),
    Kind.INFORMATION_REQUEST: _Form(Situation.INFORMING, None, Reason.TO_ONE),
}

_GIVING: Final = {Standing.OWN: Fate.GIVEN, Standing.QUARANTINED: Fate.WITHHELD}
_LETTING_GO: Final = {
    Standing.OWN: Fate.TAKEN_BACK,
    Standing.QUARANTINED: Fate.TAKEN_BACK,
    Standing.FOREIGN: Fate.NO_BINDING,
}
FATES: Final[Mapping[Situation, Mapping[Standing, Fate]]] = {
    # A wish for another address decides nothing: the client gets what it may have.
    Situation.SOLICITING: _GIVING | {Standing.FOREIGN: Fate.WITHHELD},
    Situation.SOLICITING_RAPIDLY: _GIVING | {Standing.FOREIGN: Fate.WITHHELD},
    Situation.REQUESTING: _GIVING | {Standing.FOREIGN: Fate.WITHHELD},
    Situation.CONFIRMING: {
        Standing.OWN: Fate.CONFIRMED,
        Standing.QUARANTINED: Fate.CONFIRMED,
        Standing.FOREIGN: Fate.NOT_ON_LINK,
    },
    # What is not mentioned stays with the client for as long as it was given (§18.2.10.1).
    Situation.RENEWING: _GIVING | {Standing.FOREIGN: Fate.ENDED},
    Situation.REBINDING: _GIVING | {Standing.FOREIGN: Fate.ENDED},
    Situation.RELEASING: _LETTING_GO,
    Situation.DECLINING: _LETTING_GO,
    Situation.INFORMING: dict.fromkeys(Standing, Fate.WITHHELD),
}
"""What a reply says of an address: by what the client is doing, and how the address stands."""

ACTS: Final[Mapping[Situation, Act]] = {
    Situation.SOLICITING: Act.ADVERTISE,
    Situation.SOLICITING_RAPIDLY: Act.REPLY_RAPID,
    Situation.REQUESTING: Act.REPLY,
    Situation.CONFIRMING: Act.REPLY,
    Situation.RENEWING: Act.REPLY,
    Situation.REBINDING: Act.REPLY,
    Situation.RELEASING: Act.REPLY_TAKEN_BACK,
    Situation.DECLINING: Act.REPLY_TAKEN_BACK,
    Situation.INFORMING: Act.REPLY_INFORMATION,
}

_BOUND: Final = {Fate.GIVEN: LeaseKind.BOUND}
_LET_GO: Final = {Fate.ENDED: LeaseKind.RELEASED}
REPORTED: Final[Mapping[Situation, Mapping[Fate, LeaseKind]]] = {
    Situation.SOLICITING: {Fate.GIVEN: LeaseKind.OFFERED},
    Situation.SOLICITING_RAPIDLY: _BOUND,
    Situation.REQUESTING: _BOUND,
    Situation.CONFIRMING: {Fate.CONFIRMED: LeaseKind.BOUND, Fate.NOT_ON_LINK: LeaseKind.RELEASED},
    Situation.RENEWING: _BOUND | _LET_GO,
    Situation.REBINDING: _BOUND | _LET_GO,
    Situation.RELEASING: {Fate.TAKEN_BACK: LeaseKind.RELEASED},
    Situation.DECLINING: {Fate.TAKEN_BACK: LeaseKind.DECLINED},
    Situation.INFORMING: {},
}
"""Which fates change what is known of the lease."""


def situation(request: Message, server: bytes, is_unicast: bool) -> Situation | Act | Reason:
    """What the client is doing, what it is told instead, or why it is told nothing. server: our DUID. is_unicast: the
    message was sent to us alone."""
    form = _FORMS.get(request.kind)
    if form is None:
        return Reason.UNEXPECTED_TYPE
    client, chosen = request.first(Code.CLIENT_ID), request.first(Code.SERVER_ID)
    if client is None:
        if form.doing is not Situation.INFORMING:
            return Reason.NO_IDENTIFIER
    elif not is_duid(client):
        return Reason.NO_IDENTIFIER
    if chosen is None and form.names_server:
        return Reason.NO_IDENTIFIER
    if chosen is not None and (form.names_server is False or chosen != server):
        return Reason.OTHER_SERVER
    if is_unicast:
        return form.to_one
    if form.doing is Situation.SOLICITING and request.first(Code.RAPID_COMMIT) is not None:
        return Situation.SOLICITING_RAPIDLY
    return form.doing
