"""Pure. What a DHCPv4 client is doing, how the address that it names stands, and what follows: one table.

RFC 2131 §4.3. The table is whole: every situation in every standing. Who knows how an address stands (a port with an
address of its own, a pool) asks it; nobody else decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from enum import Enum
from typing import Final

from dhcp.message import Message
from dhcp.options import Code
from dhcp.reason import Reason


class LeaseKind(Enum):
    """What a client was told last, or said last, of its address."""

    OFFERED = "offered"
    BOUND = "bound"
    DECLINED = "declined"
    RELEASED = "released"
    FORMED = "formed"
    """An IPv6 address that the client made itself from an advertised prefix, seen as it checks it for duplicates."""


class Situation(Enum):
    """What a client is doing: its message (RFC 2131 table 4) and, between the last two of DHCPREQUEST, whether it
    was sent to us alone."""

    __hash__ = object.__hash__  # Enum hashes its name, in Python; this is done for each frame

    DISCOVERING = "DISCOVER"
    DISCOVERING_RAPIDLY = "DISCOVER with rapid commit"
    SELECTING = "REQUEST of our offer"
    SELECTING_OTHER = "REQUEST of another server's offer"
    INIT_REBOOT = "REQUEST of an address it had"
    RENEWING = "REQUEST to renew"
    REBINDING = "REQUEST to rebind"
    INFORMING = "INFORM"
    DECLINING = "DECLINE"
    RELEASING = "RELEASE"


class Standing(Enum):
    """How the address stands that the client names; for a DISCOVER, how the one stands that it would be offered."""

    __hash__ = object.__hash__  # Enum hashes its name, in Python; this is done for each frame

    OWN = "it is the client's: its port's, or offered or leased to it"
    FREE = "it is nobody's, and ours to give"
    FOREIGN = "it can't be the client's: another has it, or it belongs to no range here"
    ELSEWHERE = "another host gives it out"
    QUARANTINED = "it is the client's, who said a short while ago that another uses it"
    EXHAUSTED = "the client has none, and there is none for it"


class Act(Enum):
    """What is sent."""

    __hash__ = object.__hash__  # Enum hashes its name, in Python; this is done for each frame

    OFFER = "offer"
    ACK = "ack"
    ACK_RAPID = "ack to a DISCOVER"
    ACK_INFORM = "ack without a lease"
    NAK = "nak"


_OWN, _FREE, _FOREIGN = Standing.OWN, Standing.FREE, Standing.FOREIGN
_ELSEWHERE, _QUARANTINED, _EXHAUSTED = Standing.ELSEWHERE, Standing.QUARANTINED, Standing.EXHAUSTED

_ROWS: Final[Mapping[Situation, Mapping[Standing, Act | Reason]]] = {
    # A DISCOVER's own wish decides nothing: it is offered what it may have.
    Situation.DISCOVERING: dict.fromkeys((_OWN, _FREE, _FOREIGN, _ELSEWHERE), Act.OFFER)
    | {_QUARANTINED: Reason.QUARANTINED, _EXHAUSTED: Reason.POOL_EMPTY},
    Situation.DISCOVERING_RAPIDLY: dict.fromkeys((_OWN, _FREE, _FOREIGN, _ELSEWHERE), Act.ACK_RAPID)
    | {_QUARANTINED: Reason.QUARANTINED, _EXHAUSTED: Reason.POOL_EMPTY},
    # An offer that was forgotten is still good while nobody else has the address.
    Situation.SELECTING: dict.fromkeys((_OWN, _FREE), Act.ACK)
    | dict.fromkeys((_FOREIGN, _ELSEWHERE, _QUARANTINED, _EXHAUSTED), Act.NAK),
    Situation.SELECTING_OTHER: dict.fromkeys(Standing, Reason.OTHER_SERVER),
    # §4.3.2: silence where we have no record of the client and are not the one to judge.
    Situation.INIT_REBOOT: dict.fromkeys((_OWN, _FREE), Act.ACK)
    | dict.fromkeys((_FOREIGN, _EXHAUSTED), Act.NAK)
    | {_ELSEWHERE: Reason.UNKNOWN_CLIENT, _QUARANTINED: Reason.QUARANTINED},
    # It uses the address, whatever it said before. To us alone: we gave it, or nobody did.
    # ... or a host where its port was before, whose word of it is still on its way.
    Situation.RENEWING: dict.fromkeys((_OWN, _FREE, _QUARANTINED), Act.ACK)
    | dict.fromkeys((_FOREIGN, _EXHAUSTED), Act.NAK)
    | {_ELSEWHERE: Reason.UNKNOWN_CLIENT},
    Situation.REBINDING: dict.fromkeys((_OWN, _FREE, _QUARANTINED), Act.ACK)
    | dict.fromkeys((_FOREIGN, _EXHAUSTED), Act.NAK)
    | {_ELSEWHERE: Reason.UNKNOWN_CLIENT},
    # An INFORM's address is the client's own affair.
    Situation.INFORMING: dict.fromkeys(Standing, Act.ACK_INFORM),
    Situation.DECLINING: dict.fromkeys((_OWN, _QUARANTINED), Reason.DECLINED)
    | dict.fromkeys((_FREE, _FOREIGN, _ELSEWHERE, _EXHAUSTED), Reason.FOREIGN_ADDRESS),
    Situation.RELEASING: dict.fromkeys((_OWN, _QUARANTINED), Reason.RELEASED)
    | dict.fromkeys((_FREE, _FOREIGN, _ELSEWHERE, _EXHAUSTED), Reason.FOREIGN_ADDRESS),
}

DECISIONS: Final[Mapping[tuple[Situation, Standing], Act | Reason]] = {
    (situation, standing): _ROWS[situation][standing] for situation, standing in itertools.product(Situation, Standing)
}
"""What is sent, or why nothing is."""

REPORTED: Final[Mapping[Act | Reason, LeaseKind]] = {
    Act.OFFER: LeaseKind.OFFERED,
    Act.ACK: LeaseKind.BOUND,
    Act.ACK_RAPID: LeaseKind.BOUND,
    Reason.DECLINED: LeaseKind.DECLINED,
    Reason.RELEASED: LeaseKind.RELEASED,
}
"""Which decisions change what is known of the lease."""

NAMING: Final = frozenset((Situation.SELECTING, Situation.INIT_REBOOT, Situation.RENEWING, Situation.REBINDING))
"""Situations that mean nothing without an address."""


def situation(request: Message, server: bytes, is_unicast: bool = False) -> Situation | Reason:
    """What the client is doing. server: our identifier, 4 bytes. is_unicast: the message was sent to us, not to all;
    a relay's copy never counts as such, since it unicasts what it heard broadcast."""
    chosen = request.options.get(Code.SERVER_ID)
    match request.options.get(Code.MESSAGE_TYPE):
        case b"\x01":
            return Situation.DISCOVERING_RAPIDLY if Code.RAPID_COMMIT in request.options else Situation.DISCOVERING
        case b"\x03" if chosen is not None:
            return Situation.SELECTING if chosen == server else Situation.SELECTING_OTHER
        case b"\x03" if Code.REQUESTED_ADDRESS in request.options:
            return Situation.INIT_REBOOT
        case b"\x03":
            is_renewal = is_unicast and not any(request.giaddr)
            return Situation.RENEWING if is_renewal else Situation.REBINDING
        case b"\x04":
            return Situation.DECLINING if chosen in (None, server) else Reason.OTHER_SERVER
        case b"\x07":
            return Situation.RELEASING if chosen in (None, server) else Reason.OTHER_SERVER
        case b"\x08":
            return Situation.INFORMING
        case None:
            return Reason.NOT_DHCP
    return Reason.UNEXPECTED_TYPE


def named(request: Message, doing: Situation) -> bytes:
    """The address that the client names, 4 zero bytes for none (RFC 2131 table 5)."""
    if doing is Situation.RELEASING:
        return request.ciaddr
    return request.options.get(Code.REQUESTED_ADDRESS, request.ciaddr)
