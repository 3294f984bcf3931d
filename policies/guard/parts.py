"""Pure. From guarded devices to the parts of their table. The chains that judge are `rules.py`'s.

The common case, unicast from the right source to the right destination, is a rule or two of the device's own chain,
which look at few bytes and at no set; all else goes through the shared chains.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable, Iterable, Mapping
from typing import Final

from policies.compile.marks import unjudged
from policies.compile.tables import Chain, Part, SetShape
from policies.guard import answers, rules
from policies.guard.reason import Reason
from policies.guard.station import Address, GuardedPort, GuardedTunnel, Station, broadcasts

TABLE: Final = ("netdev", "playground_guard")

GROUP_PER_S: Final = 256
"""Broadcasts and multicasts that a port may send, packets a second, in the long run. Each becomes a copy for every port
of the network, at 1.2 µs a copy (measured): a guest that never stops takes 3 % of a core where 100 ports are. What
finds neighbours, names, services and routers stays far below; media by multicast does not, and would drown others."""

GROUP_BURST: Final = 1024
"""... and at once, packets: a neighbour table holds that many (`gc_thresh3`, arp(7)), and one who fills it at once asks
for each by a broadcast."""

QUESTIONS_PER_S: Final = 5000
"""Packets a second that a port may send to the name server of its network's gateway, and as many more at once. The one
process that answers a host's ports takes 7 µs of a core for each: a guest that never stops takes 4 % of one, whichever
addresses it asks from. What resolves names for thousands stays below."""

_HOOK: Final = 'type filter hook {} device "{}" priority -300; policy drop;'
_NO_DHCP_4: Final = "@th,16,16 & 0xfff8 != 0x40"
"""The destination port, if it has one, is not 64 to 71. One comparison; what it wrongly stops is looked at again."""

_NO_SERVICE_4: Final = "@th,16,16 & 0xff88 != 0"
"""Neither that nor 53. One comparison again, which stops others below 120, as 22 and 80: they meet two rules more."""

_NO_DHCP_6: Final = "@th,16,16 & 0xfffe != 0x0222"
"""Neither 546 nor 547."""

_TO_ONE: Final = "meta pkttype other"
"""Unicast on its way through the bridge; checked before the frame's bytes, since it costs least."""

_FOR_ANOTHER: Final = "meta pkttype host meta pkttype set other"
"""Nothing that a guest says is for this host's own stack. What a NIC's redirect has handed over looks as if it were
(linux/if_packet.h: PACKET_HOST), and a bridge that somebody listens on would take it so."""

_IPV4: Final = f"@nh,0,8 0x45 {_TO_ONE} {_NO_DHCP_4}"
"""Without options. What fails by the first byte, as IPv6 does, has cost little."""

_UDP_6, _TCP_6 = f"@nh,48,8 17 {_TO_ONE} {_NO_DHCP_6}", f"@nh,48,8 6 {_TO_ONE} @th,0,16 != 0"
"""Directly behind an IPv6 header; there are ports only where the packet's lengths fit."""

_SENDER: Final = {4: "@ll,48,64 . @nh,96,32", 6: "@ll,48,64 . @nh,64,128"}
"""Source MAC and type, side by side, and source address: what a tunnel's own sets know of who is behind it. The bytes
as they are: nft's words for them would be preceded by looks at what is known already, and a device's name costs more
than its own set."""


_STOPPED: Final = f"meta mark != 0 jump {rules.HELD}"


def parts(ports: Iterable[GuardedPort], tunnels: Iterable[GuardedTunnel]) -> dict[Hashable, Part]:
    """All of the table, by subject. Raises ValueError for what is no MAC, address or prefix."""
    found: dict[Hashable, Part] = {"shared": rules.SHARED}
    for port in ports:
        found[port.device] = of_port(port)
    for tunnel in tunnels:
        found[tunnel.device] = of_tunnel(tunnel.device, tunnel.subnets)
        for station in tunnel.stations:
            found[tunnel.device, station.mac] = of_station(tunnel.device, station)
    return found


def of_port(port: GuardedPort) -> Part:
    """What a port's device has: both its chains, and who is behind it."""
    device, mac = port.device, _hex(port.station.mac)
    own = port.station.own()
    four = [_bits(address) for address in own if address.version == 4]
    six = [_bits(address) for address in own if address.version == 6 and not address.is_link_local]
    allowed = {first.version for first, _ in port.station.ranges()}
    # What costs most comes last: reading the Ethernet header. Source, type and the first byte of IPv4 lie side by side,
    # and are one look.
    says = [
        _FOR_ANOTHER,
        *(f"@nh,96,32 {bits} {_TO_ONE} {_NO_SERVICE_4} @ll,48,72 {mac}080045 accept" for bits in four),
        f"@th,16,16 53 {rules.TO_SERVICE} limit rate over {QUESTIONS_PER_S}/second burst {QUESTIONS_PER_S} packets "
        f'counter name "{questions_counter(device)}" drop',
        *(f"@nh,96,32 {bits} {_TO_ONE} {_NO_DHCP_4} @ll,48,72 {mac}080045 accept" for bits in four),
        *(f"{kind} @nh,64,128 {bits} @ll,48,64 {mac}86dd accept" for kind in (_UDP_6, _TCP_6) for bits in six),
        *(rule for version in sorted(allowed) for rule in _listed(version, rules.RANGES[version])),
        "jump check",
        f"{rules.GROUP} limit rate over {GROUP_PER_S}/second burst {GROUP_BURST} packets {rules.drop(Reason.FLOOD)}",
        "accept",
    ]
    hears = [
        *(f"@nh,0,8 0x45 @nh,128,32 {bits} @ll,0,48 {mac} accept" for bits in four),
        *(f"meta protocol ip6 @nh,192,128 {bits} @ll,0,48 {mac} accept" for bits in six),
        *(f"{rules.DESTINED[version]} @{rules.RANGES[version]} accept" for version in sorted(allowed)),
        "goto towards",
    ]
    chains = {
        f"from_{device}": Chain(tuple(says), _HOOK.format("ingress", device)),
        f"to_{device}": Chain(tuple(hears), _HOOK.format("egress", device)),
    }
    counters = frozenset({questions_counter(device)})
    return Part(chains, elements=_elements(device, port.station, port.subnets), counters=counters)


def questions_counter(device: str) -> str:
    """The name of the kernel's counter of what a port's device asked beyond `QUESTIONS_PER_S`."""
    return f"questions_{device}"


def of_tunnel(device: str, subnets: tuple[str, ...]) -> Part:
    """What a VXLAN device has besides the stations behind it."""
    behind = {_behind(version, device): f"typeof {key};" for version, key in _SENDER.items()}
    says = (
        f"{_IPV4} {_SENDER[4]} @{_behind(4, device)} accept",
        *_listed(4, rules.RANGES[4]),
        *(f"{kind} {_SENDER[6]} @{_behind(6, device)} accept" for kind in (_UDP_6, _TCP_6)),
        *_listed(6, rules.RANGES[6]),
        "jump check",
        "accept",
    )
    chains = {f"from_{device}": Chain(says, _HOOK.format("ingress", device))}
    shapes = {name: SetShape("set", text) for name, text in behind.items()}
    return Part(chains, shapes, _elements(device, None, subnets))


def judged(part: Part, bridge: int | None = None, zone: int = 0) -> Part:
    """A port's or a tunnel's part on a network that somebody polices: what comes in is marked, and goes out only if the
    mark is gone. Whoever accepts a packet for policies takes it off; should their table, or the switch that sends
    packets through it, be taken away, nothing passes until it is back. The same object for the same arguments.

    bridge: the interface index of its bridge, beside which there is who answers refused packets (`answers`). zone: of
    connection tracking, where its network's is known."""
    known: dict[tuple[int | None, int], Part] = part.__dict__.setdefault("_judged", {})
    if (bridge, zone) not in known:
        known.clear()
        known[bridge, zone] = _judged(part, bridge, zone)
    return known[bridge, zone]


def _judged(part: Part, bridge: int | None, zone: int) -> Part:
    chains = dict(part.chains)
    stopped = (*(() if bridge is None else (answers.diverted(bridge),)), _STOPPED)
    for name, chain in part.chains.items():
        side, _, device = name.partition("_")
        if side == "from":
            chains[name] = Chain((f"meta mark set {unjudged(zone)}", *chain.rules), chain.hook)
            hears = part.chains.get(f"to_{device}")
            if hears is None:
                hook = _HOOK.format("egress", device).replace("policy drop", "policy accept")
                chains[f"to_{device}"] = Chain(stopped, hook)
            elif hears.rules:
                *common, rest = hears.rules
                chains[f"to_{device}"] = Chain(
                    (*(f"meta mark 0 {rule}" for rule in common), *stopped, rest), hears.hook
                )
    return Part(chains, part.sets, part.elements, part.counters)


def of_station(device: str, station: Station) -> Part:
    """A station behind a VXLAN device."""
    elements = _elements(device, station, ())
    for version, kind in ((4, 0x0800), (6, 0x86DD)):
        addresses = [int(address) for address in station.own() if address.version == version]
        if addresses:
            senders = [int(_hex(mac), 16) << 16 | kind for mac in station.macs]
            pairs = [f"{sender} . {_number(address)}" for sender in senders for address in addresses]
            elements[_behind(version, device)] = dict.fromkeys(pairs, "")
    return Part(elements=elements)


def _listed(version: int, name: str) -> tuple[str, ...]:
    """The common cases of what comes from a MAC and an address that are in a set together."""
    if version == 4:
        return (f"{_IPV4} @ll,96,16 0x0800 {rules.SOURCE} . ip saddr @{name} accept",)
    source = f"@ll,96,16 0x86dd {rules.SOURCE} . @nh,64,128 @{name}"
    return f"{_UDP_6} {source} accept", f"{_TCP_6} {source} accept"


def _behind(version: int, device: str) -> str:
    """The set of a tunnel's device alone, with what is in the shared pairs, too: for the common case."""
    return f"behind{version}_{device}"


def _elements(device: str, station: Station | None, subnets: tuple[str, ...]) -> dict[str, Mapping[str, str]]:
    """Who is behind a device, by set."""
    found: dict[str, list[str]] = {rules.BROADCASTS: broadcasts(subnets)}
    if station is not None:
        behind = [str(int(_hex(mac), 16)) for mac in station.macs]
        own, allowed = station.own(), station.ranges()
        found[rules.MACS] = behind
        for version in (4, 6):
            addresses = [_key(address) for address in own if address.version == version]
            spans = [_span(first, last) for first, last in allowed if first.version == version]
            found[rules.PAIRS[version]] = [f"{mac} . {address}" for mac in behind for address in addresses]
            found[rules.RANGES[version]] = [f"{mac} . {span}" for mac in behind for span in spans]
    return {name: {f'"{device}" . {key}': "" for key in keys} for name, keys in found.items() if keys}


def _hex(mac: str) -> str:
    """Twelve digits, so that more can follow. Raises ValueError."""
    digits = mac.replace(":", "")
    if len(digits) != 12 or len(mac) != 17:
        raise ValueError(f"{mac!r} is no MAC of the form 02:00:00:00:00:01")
    return f"{int(digits, 16):#014x}"


def _bits(address: Address) -> str:
    return f"{int(address):#x}"


def _key(address: Address) -> str:
    """As nft lists it in a set: IPv4 with dots; IPv6 is a number there, and a big one."""
    return str(address) if address.version == 4 else _bits(address)


def _number(value: int) -> str:
    """Raw bits as nft lists them: in tens as far as 64 bits go."""
    return str(value) if value < 1 << 64 else f"{value:#x}"


def _span(first: Address, last: Address) -> str:
    """As nft lists a range: one address as such, a prefix of IPv4 as a prefix."""
    if first == last:
        return _key(first)
    if isinstance(first, ipaddress.IPv4Address) and isinstance(last, ipaddress.IPv4Address):
        prefixes = list(ipaddress.summarize_address_range(first, last))
        if len(prefixes) == 1:
            return str(prefixes[0])
    return f"{_key(first)}-{_key(last)}"
