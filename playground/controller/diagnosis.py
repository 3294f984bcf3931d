"""Pure. Why a client has no address or no names: sentences from what is desired, programmed, and seen at the port.

The most telling comes first. Knows no host and asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from dhcp.decide import Act, LeaseKind
from dhcp.reason import Reason
from playground.records import PortRecord
from playground.responder.protocol import PortTold, port_key

_GIVEN: Final = {Act.ACK.name, Act.ACK_RAPID.name}
_HAS: Final = (LeaseKind.BOUND,)
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
    address = next((one for one in port.addresses if ":" not in one), None)
    if address is None:
        yield "its network has no IPv4 subnet: its addresses are IPv6 alone"
        return
    lease, counts = told.lease, told.counts
    if lease is not None and lease.kind in _HAS and lease.address == address:
        left_s = lease.at_utc_s + told.lease_s - now_utc_s
        if left_s > 0:
            yield f"it has {address}: told or seen {_ago(now_utc_s - lease.at_utc_s)}"
        else:
            yield f"its lease of {address} ran out {_ago(-left_s)}: its client has not renewed it"
        return
    if lease is not None and lease.kind is LeaseKind.RELEASED:
        yield f"its client gave {address} back {_ago(now_utc_s - lease.at_utc_s)}, and has not asked again"
    if not counts:
        span = _span(now_utc_s - told.since_utc_s)
        yield (
            f"no request was seen at its port in the {span} since it is answered: no DHCP client runs there, or its "
            "NIC is down"
        )
        return
    yield from _refused(port, told)
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


def _refused(port: PortRecord, told: PortTold) -> Iterator[str]:
    """What was not granted, by its reason."""
    counts = told.counts
    if number := counts.get(Reason.FOREIGN_MAC.name):
        macs = ", ".join(sorted({one.mac for one in told.exchanges if one.outcome == Reason.FOREIGN_MAC.name}))
        others = f" ({macs})" if macs else ""
        yield f"{_times(number)} a request came from another MAC{others} than the port's, {port.mac}"
    for reason in _UNREADABLE:
        if number := counts.get(reason.name):
            yield f"{_times(number)} what it sent was thrown away: {reason.value}"
    if number := counts.get(Reason.OTHER_SERVER.name):
        yield f"{_times(number)} it chose another DHCP server: there is one on its network, or it remembers one"
    if number := counts.get(Act.NAK.name):
        wrong = next((one.address for one in reversed(told.exchanges) if one.outcome == Act.NAK.name), "")
        which = f", {wrong}," if wrong else ""
        yield f"{_times(number)} it asked for an address that is not its own{which} and was refused"
    for reason in (Reason.NOT_SENT, Reason.POOL_EMPTY, Reason.NOT_KEPT):
        if number := counts.get(reason.name):
            yield f"{_times(number)} it was not answered: {reason.value}"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _span(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"


def _ago(seconds: float) -> str:
    return f"{_span(seconds)} ago"
