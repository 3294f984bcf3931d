"""Pure. What a gateway to the world consists of on the host that carries it: names, transfer addresses, nftables texts.

A gateway is a network namespace with a leg in each of its networks and one uplink to the host. It translates addresses
once, to that of its uplink, so that equal subnets of two playgrounds never meet; the host translates once more, to its
own. Both texts hold drops that no policy of a playground can lift.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from overlay.state import PortId, port_device

UPLINK = "uplink"
"""Name of the uplink's end in the gateway's namespace."""

NAME_PART = "-gw."
"""In the name of every gateway's namespace, and of no other: names of playgrounds have no dot."""

INNER_TABLE = "playground_gateway"
"""In the gateway's namespace."""

OPENED = {4: "opened4", 6: "opened6"}
"""Sets of the host's table: devices on which we turned forwarding on, to be turned off again with the table."""

_FIRST, _COUNT = ipaddress.IPv4Address("169.254.1.0"), 127 * 64
"""Transfer networks are /30s of 169.254.1.0 to 169.254.127.255: link-local (RFC 3927), where nothing of the world is,
and below what clouds serve there (169.254.169.0 and on)."""

_NEVER4 = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
_NEVER6 = ("::/127", "fe80::/10", "ff00::/8")
"""Nothing of the world has these (RFC 6890). Link-local covers a cloud's metadata service, which knows the host's
secrets, and other gateways' uplinks."""

_NEIGHBOURS = "meta l4proto ipv6-icmp icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }"


@dataclass(frozen=True, slots=True)
class GatewayLeg:
    """A gateway's foot in one network: both ends are named after the port. addresses carry a prefix length, the
    link-local one among them. others: prefixes of the network in which it has no address."""

    port: PortId
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway on the host that carries it. id: 12 hex digits. owned: prefixes that are no world to whom it serves.

    closed: further addresses that nobody inside may reach through it: those of the site's hosts.
    """

    id: str
    namespace: str
    legs: tuple[GatewayLeg, ...]
    owned: tuple[str, ...]
    closed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Transfer:
    """The addresses of one uplink, with prefix length: the host's end and the gateway's. IPv4, IPv6, and a link-local
    one: without it a router asks nobody for the next hop of what it forwards (ndisc_send_ns)."""

    host: tuple[str, str, str]
    gateway: tuple[str, str, str]


def uplink_device(id: str) -> str:
    """Name of a gateway's uplink in the host's namespace."""
    return f"gw{id}"


def transfers(ids: Iterable[str]) -> dict[str, Transfer]:
    """Transfer networks of the gateways on one host. Each depends on its id alone, unless two of them collide: then the
    later one in order takes the next that is free."""
    found: dict[str, Transfer] = {}
    taken: set[int] = set()
    for id in sorted(ids):
        at = int(hashlib.sha256(id.encode()).hexdigest()[:8], 16) % _COUNT
        while at in taken:
            at = (at + 1) % _COUNT
        taken.add(at)
        first = _FIRST + 4 * at
        # RFC 4193 §3: fd, a random global id, here of the gateway's own
        prefix = f"fd{id[:2]}:{id[2:6]}:{id[6:10]}:{id[10:]}00::"
        six = ipaddress.IPv6Address(prefix)
        found[id] = Transfer(
            (f"{first + 1}/30", f"{six + 1}/64", "fe80::1/64"), (f"{first + 2}/30", f"{six + 2}/64", "fe80::2/64")
        )
    return found


def inner_rules(gateway: Gateway, transfer: Transfer) -> tuple[str, Sequence[str]]:
    """The text that replaces the table of the gateway's own namespace, and the comments of its rules, in order.

    Only its networks begin connections, only to the world, never from one network to another; whoever is on a network
    sends with an address of that network. The gateway itself answers pings and says what does not fit (path MTU); what
    the host behind it says of a packet comes in the gateway's name, as nobody inside may hear from a link-local one.
    """
    closed = {4: list(_NEVER4), 6: list(_NEVER6)}
    for text in (*gateway.owned, *gateway.closed):
        closed[6 if ":" in text else 4].append(text)
    out = f'iifname "pg*" oifname "{UPLINK}"'
    barred = "counter reject with icmpx admin-prohibited"
    return _table(
        INNER_TABLE,
        {},
        {
            "from_a_network type filter hook prerouting priority raw; policy accept;": [
                f'iifname "pg*" {_NEIGHBOURS} accept',
                'iifname "pg*" fib saddr . iif oif missing counter drop',
            ],
            "to_the_world type filter hook forward priority filter; policy drop;": [
                "ct state invalid counter drop",
                f"{out} ip daddr {_set(closed[4])} {barred}",
                f"{out} ip6 daddr {_set(closed[6])} {barred}",
                f"{out} accept",
                *_in_its_name(gateway, transfer),
                f'iifname "{UPLINK}" oifname "pg*" ct state established,related accept',
            ],
            "to_itself type filter hook input priority filter; policy drop;": [
                'iifname "lo" accept',
                "ct state established,related accept",
                "icmp type echo-request accept",
                f"{_NEIGHBOURS} accept",
                "icmpv6 type echo-request accept",
            ],
            "translation type nat hook postrouting priority srcnat; policy accept;": [
                f'oifname "{UPLINK}" masquerade',
            ],
        },
    )


def host_rules(
    table: str, uplinks: Mapping[str, Transfer], opened: Mapping[int, Collection[str]]
) -> tuple[str, Sequence[str]]:
    """The text that replaces our table in the host's namespace, and the comments of its rules, in order.

    uplinks: by device. opened: devices by IP version on which we turned forwarding on. What comes by an uplink never
    reaches the host itself, before anybody's port forwards; nothing begins inward; and what a device forwards that we
    opened is a gateway's, so that the host is no router for anybody else.
    """
    devices = _names(uplinks)
    sets = {f"{OPENED[version]} type ifname;": _names(opened.get(version, ())) for version in (4, 6)}
    sources = {
        4: _set(str(ipaddress.ip_interface(one.gateway[0]).network) for one in uplinks.values()),
        6: _set(str(ipaddress.ip_interface(one.gateway[1]).network) for one in uplinks.values()),
    }
    return _table(
        table,
        sets,
        {
            # before destinations are translated (-100), as publishing a container's port does
            "never_the_host type filter hook prerouting priority -110; policy accept;": [
                f"iifname {devices} {_NEIGHBOURS} accept",
                f"iifname {devices} fib daddr type {{ local, broadcast, anycast, multicast }} counter drop",
            ],
            "through type filter hook forward priority filter; policy accept;": [
                f"iifname {devices} oifname {devices} counter drop",
                f"oifname {devices} ct direction original counter drop",
                f"iifname @{OPENED[4]} meta nfproto ipv4 oifname != {devices} counter drop",
                f"iifname @{OPENED[6]} meta nfproto ipv6 oifname != {devices} counter drop",
            ],
            "translation type nat hook postrouting priority srcnat; policy accept;": [
                f"ip saddr {sources[4]} oifname != {devices} masquerade",
                f"ip6 saddr {sources[6]} oifname != {devices} masquerade",
            ],
        },
    )


def _in_its_name(gateway: Gateway, transfer: Transfer) -> Iterator[str]:
    for leg in gateway.legs:
        own = [one.ip for one in map(ipaddress.ip_interface, leg.addresses) if not one.is_link_local]
        for family, host in zip(("ip", "ip6"), map(ipaddress.ip_interface, transfer.host), strict=False):
            if (name := next((one for one in own if one.version == host.version), None)) is not None:
                passes = f'iifname "{UPLINK}" oifname "{port_device(leg.port)}"'
                yield f"{passes} {family} saddr {host.ip} {family} saddr set {name}"


def _table(name: str, sets: Mapping[str, str], chains: Mapping[str, Sequence[str]]) -> tuple[str, Sequence[str]]:
    """An `inet` table; each rule's comment names its text, so what is read back tells which version is loaded."""
    lines = [f"table inet {name}", f"delete table inet {name}", f"table inet {name} {{"]
    for head, elements in sets.items():
        kind, _, rest = head.partition(" ")
        lines += [
            f"    set {kind} {{",
            f"        {rest}",
            *([f"        elements = {elements}"] if elements else []),
            "    }",
        ]
    comments = []
    for head, rules in chains.items():
        kind, _, hook = head.partition(" ")
        lines += [f"    chain {kind} {{", f"        {hook}"]
        for rule in rules:
            comments.append(f"{kind} {hashlib.sha256(rule.encode()).hexdigest()[:12]}")
            lines.append(f'        {rule} comment "{comments[-1]}"')
        lines.append("    }")
    return "\n".join([*lines, "}", ""]), comments


def _set(prefixes: Iterable[str]) -> str:
    """An anonymous set of prefixes of one family without overlaps, which nft refuses."""
    networks = [ipaddress.ip_network(text, strict=False) for text in prefixes]
    return "{ " + ", ".join(str(one) for one in ipaddress.collapse_addresses(networks)) + " }"  # type: ignore[type-var]


def _names(devices: Iterable[str]) -> str:
    listed = ", ".join(f'"{device}"' for device in sorted(devices))
    return f"{{ {listed} }}" if listed else ""
