"""Pure. Why a client has no address or no names: sentences from what is desired, programmed, and seen at the port.

The most telling comes first. Knows no host and asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Final

from dhcp import ra
from dhcp.decide import Act, LeaseKind
from dhcp.decide6 import Act as Act6
from dhcp.leases import State
from dhcp.reason import Reason
from playground.records import PortRecord
from playground.responder.protocol import Exchange, Leased, PortTold, port_key

_GIVEN: Final = {Act.ACK.name, Act.ACK_RAPID.name}
_GIVEN_6: Final = {Act6.REPLY.name, Act6.REPLY_RAPID.name}
_SAID_6: Final = {act.name for act in Act6}
_HAS: Final = (LeaseKind.BOUND, LeaseKind.FORMED)
_UNREADABLE: Final = (
    Reason.TRUNCATED,
    Reason.NOT_DHCP,
    Reason.NOT_A_REQUEST,
    Reason.NOT_ETHERNET,
    Reason.MALFORMED_OPTIONS,
    Reason.UNEXPECTED_TYPE,
    Reason.NO_ADDRESS_NAMED,
    Reason.RELAY_LOOP,
    Reason.NO_IDENTIFIER,
    Reason.TO_ONE,
)
"""Messages that are thrown away for what they are."""


def findings(
    port: PortRecord, state: str, cause: str, told: PortTold | None, problems: Mapping[str, str], now_utc_s: float
) -> list[str]:
    """What is to be said of one port. state and cause: as `playground ports` says them. told: what its host's responder
    knows, None for nothing. problems: what hinders answers there, by the responder's key."""
    found = list(_before_the_port(port, state, cause, problems))
    if told is not None:
        found += _at_the_port(port, told, now_utc_s)
    elif not found:
        found.append("nothing is answered at its port: its host has not been told of it yet, or asks nobody")
    view = problems.get(f"view/{port.playground}")
    if view:
        found.append(f"names are not answered on its host: {view}")
    return found


def _before_the_port(port: PortRecord, state: str, cause: str, problems: Mapping[str, str]) -> Iterator[str]:
    if state != "forwarding":
        yield f"its port is {state}" + (f": {cause}" if cause else "")
    elif cause:
        yield cause
    if hindered := problems.get(port_key(port.id)):
        yield f"its answers are not in effect: {hindered}"
    if hindered := problems.get("netns"):
        yield f"no port of its host is answered: {hindered}"


def _at_the_port(port: PortRecord, told: PortTold, now_utc_s: float) -> Iterator[str]:
    """Of what is missing first."""
    missing, had = list[str](), list[str]()
    sixes = {lease.address: lease for lease in told.leases6}
    for address in port.addresses:
        lease = sixes.get(address) if ":" in address else told.lease
        (had if _has(lease, address) else missing).append(address)
    for address in missing:
        if ":" not in address:
            yield from _without(port, told, address, now_utc_s)
        else:
            yield from _without6(port, told, address, sixes, now_utc_s)
    for address in had:
        lease = sixes[address] if ":" in address else told.lease
        assert lease is not None
        left_s = None if lease.until_utc_s is None else lease.until_utc_s - now_utc_s
        if left_s is None or left_s > 0:
            yield f"it has {address}: told or seen {_ago(now_utc_s - lease.at_utc_s)}"
        else:
            yield f"its lease of {address} ran out {_ago(-left_s)}: its client has not renewed it"


def _has(lease: Leased | None, address: str) -> bool:
    return lease is not None and lease.kind in _HAS and lease.address == address


def _without(port: PortRecord, told: PortTold, address: str, now_utc_s: float) -> Iterator[str]:
    """Why a client lacks its IPv4 address."""
    lease, counts = told.lease, told.counts
    if lease is not None and lease.kind is LeaseKind.RELEASED:
        yield f"its client gave {address} back {_ago(now_utc_s - lease.at_utc_s)}, and has not asked again"
    if not counts:
        span = _span(now_utc_s - told.since_utc_s)
        yield (
            f"no request was seen at its port in the {span} since it is answered: no DHCP client runs there, or its "
            "NIC is down"
        )
        return
    yield from _refused(port, counts, told.exchanges)
    if counts.get(Reason.DECLINED.name):
        yield f"it declined {address}: it believes that another has it, and is not answered for 30 s"
    if counts.get(Act.OFFER.name) and not _GIVEN & counts.keys():
        times = _times(counts[Act.OFFER.name])
        yield (
            f"it was offered {address} {times} and never asked for it: the offer does not reach it, or it refuses it"
        )
    elif _GIVEN & counts.keys():
        last_s = now_utc_s - told.exchanges[-1].at_utc_s
        yield f"it was given {address}, and is not known to have it any more; its last message came {_ago(last_s)}"


def _without6(
    port: PortRecord, told: PortTold, address: str, sixes: Mapping[str, Leased], now_utc_s: float
) -> Iterator[str]:
    """Why a client lacks an IPv6 address of its own."""
    counts, span = told.counts6, _span(now_utc_s - told.since_utc_s)
    lease = sixes.get(address)
    if lease is not None and lease.kind is LeaseKind.RELEASED:
        yield f"its client gave {address} back {_ago(now_utc_s - lease.at_utc_s)}, and has not asked again"
    if lease is not None and lease.kind is LeaseKind.DECLINED:
        yield f"it declined {address}: it believes that another has it, and is not given it for 30 s"
    has_solicited = bool(counts.get(ra.Act.ADVERTISE_ROUTER.name))
    if not counts:
        yield f"nothing of IPv6 was seen at its port in the {span} since it is answered: IPv6 is off there, or its NIC"
        return
    yield from _refused(port, counts, told.exchanges)
    if address not in told.given6:
        yield from _not_formed(address, sixes, has_solicited)
    elif not counts.keys() & _SAID_6:
        why = "it does not heed the M flag of router advertisements, or runs no DHCPv6 client"
        yield f"no DHCPv6 message was seen at its port in the {span} since it is answered: {why}"
    elif counts.get(Act6.ADVERTISE.name) and not _GIVEN_6 & counts.keys():
        times = _times(counts[Act6.ADVERTISE.name])
        yield f"it was offered {address} {times} and never asked for it: the offer does not reach it, or it refuses it"
    elif _GIVEN_6 & counts.keys() and lease is None:
        yield f"it was told much, but did not ask for addresses (an IA_NA): it is not given {address}"


def _not_formed(address: str, sixes: Mapping[str, Leased], has_solicited: bool) -> Iterator[str]:
    others = ", ".join(one for one, lease in sixes.items() if lease.kind is LeaseKind.FORMED)
    if others:
        yield f"it has formed {others} and not {address}: its identifier is random, not made of its MAC (EUI-64)"
    elif has_solicited:
        yield f"it was told its prefix and has not formed {address}: its kernel does not heed router advertisements"
    else:
        yield f"it has not formed {address}, and solicits no router: it does not heed router advertisements"


def _refused(port: PortRecord, counts: Mapping[str, int], exchanges: Sequence[Exchange]) -> Iterator[str]:
    """What was not granted, by its reason."""
    if number := counts.get(Reason.FOREIGN_MAC.name):
        macs = ", ".join(sorted({one.mac for one in exchanges if one.outcome == Reason.FOREIGN_MAC.name}))
        others = f" ({macs})" if macs else ""
        yield f"{_times(number)} a request came from another MAC{others} than the port's, {port.mac}"
    for reason in _UNREADABLE:
        if number := counts.get(reason.name):
            yield f"{_times(number)} what it sent was thrown away: {reason.value}"
    if number := counts.get(Reason.OTHER_SERVER.name):
        yield f"{_times(number)} it chose another DHCP server: there is one on its network, or it remembers one"
    if number := counts.get(Act.NAK.name):
        wrong = next((one.address for one in reversed(exchanges) if one.outcome == Act.NAK.name), "")
        which = f", {wrong}," if wrong else ""
        yield f"{_times(number)} it asked for an address that is not its own{which} and was refused"
    if number := counts.get(Act6.REPLY_NOT_ON_LINK.name):
        yield f"{_times(number)} it came back with an IPv6 address that is not its own and was told so"
    if number := counts.get(Act6.REPLY_USE_MULTICAST.name):
        yield f"{_times(number)} it asked the server alone, and was told to ask all (ff02::1:2)"
    for reason in (Reason.TOO_LARGE, Reason.NOT_SENT, Reason.POOL_EMPTY, Reason.NOT_KEPT):
        if number := counts.get(reason.name):
            yield f"{_times(number)} it was not answered: {reason.value}"


def machines(port: PortRecord, told: PortTold, free: int, now_utc_s: float) -> Iterator[str]:
    """What is to be said of machines behind a port that no one declared. free: addresses of the network's dynamic range
    that no port has."""
    living = [one.lease for one in told.pool if one.lease.state is State.LEASED and one.lease.until_s > now_utc_s]
    for lease in living:
        address, left = IPv4Address(lease.address), _span(lease.until_s - now_utc_s)
        yield f"a machine behind it, {lease.mac.hex(':')}, has {address} for {left} more"
    if number := told.counts.get(Reason.POOL_EMPTY.name):
        cause = "those that its host has are taken; it gets more as soon as the controller is heard"
        if len(living) >= port.dynamic:
            cause = f"{port.dynamic} have one, and its NIC allows no more"
        elif not free:
            cause = f"dhcp.dynamic of {port.network} is used up: widen it"
        yield f"{_times(number)} a machine behind it got no address: {cause}"
    for reason in (Reason.TOO_MANY, Reason.CUT_OFF):
        if number := told.counts.get(reason.name):
            yield f"{_times(number)} a machine behind it was not answered: {reason.value}"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _span(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"


def _ago(seconds: float) -> str:
    return f"{_span(seconds)} ago"
