"""Reads what the kernel shows of one data plane namespace, its host and its service namespaces. Changes nothing."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from overlay.diff import is_port_device, network_ids
from overlay.kernel import messages as m
from overlay.kernel import namespaces
from overlay.kernel.netlink import Netlink, NetlinkError, number, parse, string
from overlay.parts import Focus, Part
from overlay.state import NetworkId, bridge_device, leg_device, port_device, vxlan_device
from overlay.topology import (
    ADOPTED,
    WAITS,
    LegEnd,
    Link,
    Neighbour,
    ObservedState,
    PortFlags,
    Tables,
)
from overlay.tunnels.vxlan import Tunnel

_NDMSG = struct.Struct("=B3xiHBB")
_TCMSG = struct.Struct("=B3xiIII")


@dataclass(frozen=True, slots=True)
class RawLink:
    """One device as the kernel lists it; `master` is an index, 0 when it has none."""

    name: str
    index: int
    mac: str
    alias: str
    master: int
    link: Link


class Reader:
    """Reads one data plane. `indexes` maps device names to interface indexes as last seen."""

    def __init__(self, plane: Netlink, host: Netlink, mark: str, directory: Path) -> None:
        """mark: the ifalias that `lo` has in service namespaces of this data plane."""
        self._plane = plane
        self._host = host
        self._mark = mark
        self._directory = directory
        self.indexes: dict[str, int] = {}
        self._foreign: set[tuple[str, int]] = set()
        """Name and inode of namespaces that carry no mark of ours; a mark is older than the name, so none gets one."""

    def everything(self) -> ObservedState:
        """All of it."""
        raw = [link for link in read_links(self._plane) if link.name != "lo"]
        host = read_links(self._host)
        self.indexes = {link.name: link.index for link in raw}
        names = {link.index: link.name for link in raw}
        tables = _Tables(names)
        tables.add_fdb(self._plane.dump(m.RTM_GETNEIGH, m.list_fdb()))
        tables.add_neighbours(self._plane.dump(m.RTM_GETNEIGH, m.list_neighbours()))
        return ObservedState(
            links=_named(raw, names),
            tables=self._finish(tables, (ids := network_ids(names.values())), ids),
            host_ports=frozenset(one.name for one in host if is_port_device(one.name) and not one.link.idle),
            services=self.services(),
        )

    def some(self, focus: Focus, devices: Iterable[str]) -> ObservedState:
        """What a focus names, and these further devices wherever they are.

        A whole network: its bridge, ports, tables and services. A part: its bridge and VXLAN device, and the keys of
        the part, each asked for by itself.
        """
        parts = {network: part for network, part in focus.items() if part is not None}
        whole = [network for network in focus if network not in parts]
        seen = _Look()
        bridges = []
        for network in whole:
            if found := read_link(self._plane, bridge_device(network)):
                seen.add(found)
                bridges.append(found.index)
                for link in read_links(self._plane, master=found.index):
                    seen.add(link)
        named = [f(network) for network in whole for f in (vxlan_device, leg_device)]
        named += [f(network) for network in parts for f in (bridge_device, vxlan_device)]
        named += [port_device(port) for part in parts.values() for port in sorted(part.ports)]
        self._find(seen, [*named, *devices])
        self.indexes.update((link.name, link.index) for link in seen.links.values())
        tables = _Tables(seen.names)
        for bridge in bridges:
            tables.add_fdb(self._plane.dump(m.RTM_GETNEIGH, m.list_fdb(bridge)))
            tables.add_neighbours(self._plane.dump(m.RTM_GETNEIGH, m.list_neighbours(bridge)))
        for network, part in parts.items():
            self._ask(tables, network, part)
        chased = [*whole, *(network for network, part in parts.items() if part.chases)]
        return ObservedState(
            links=_named(seen.links.values(), seen.names),
            tables=self._finish(tables, focus, chased),
            host_ports=frozenset(seen.host_ports),
            services=self.services() if whole else {},
        )

    def _find(self, seen: _Look, devices: Iterable[str]) -> None:
        """Looks at devices by name, ports also in the host's namespace."""
        wanted = [name for name in dict.fromkeys(devices) if name not in seen.links]
        missing = []
        answers = self._plane.ask([(m.RTM_GETLINK, m.get_link(name)) for name in wanted])
        for name, answer in zip(wanted, answers, strict=True):
            if answer is not None:
                seen.add(_raw_link(answer))
            else:
                self.indexes.pop(name, None)
                missing += [name] if is_port_device(name) else []
        answers = self._host.ask([(m.RTM_GETLINK, m.get_link(name)) for name in missing])
        found = (_raw_link(answer) for answer in answers if answer is not None)
        seen.host_ports.update(one.name for one in found if not one.link.idle)

    def _ask(self, tables: _Tables, network: NetworkId, part: Part) -> None:
        """Adds the entries that a part names."""
        bridge, tunnel = (self.indexes.get(f(network)) for f in (bridge_device, vxlan_device))
        entries: list[bytes] = []
        if bridge is not None:
            entries += [m.get_forwarding(bridge, mac) for mac in sorted(part.macs)]
        if tunnel is not None:
            entries += [m.get_tunnel_entry(tunnel, mac) for mac in sorted(part.macs)]
        found = [answer for answer in self._plane.ask([(m.RTM_GETNEIGH, body) for body in entries]) if answer]
        for index in {_NDMSG.unpack_from(body)[1] for body in found} - tables.names.keys():
            # An entry may lead to a port that the part does not name.
            for answer in self._plane.ask([(m.RTM_GETLINK, m.get_link_at(index))]):
                if answer is not None:
                    link = _raw_link(answer)
                    tables.names[index] = link.name
                    self.indexes[link.name] = index
        tables.add_fdb(found)
        if bridge is not None:
            asked = [(m.RTM_GETNEIGH, m.get_neighbour(bridge, address)) for address in sorted(part.addresses)]
            tables.add_neighbours(answer for answer in self._plane.ask(asked) if answer)

    def services(self) -> dict[str, dict[str, LegEnd]]:
        """Service namespaces of this data plane, by name."""
        found: dict[str, dict[str, LegEnd]] = {}
        for name in namespaces.names(self._directory):
            fd = namespaces.find(name, self._directory)
            if fd is None:
                continue
            try:
                key = name, os.fstat(fd).st_ino
                ends = None if key in self._foreign else namespaces.inside(fd, self._ends)
            finally:
                os.close(fd)
            if ends is None:
                self._foreign.add(key)
            else:
                found[name] = ends
        return found

    def forget_foreign(self, name: str) -> None:
        """Looks at this name's namespace again: it was made anew, and an inode number may come again."""
        self._foreign = {key for key in self._foreign if key[0] != name}

    def filters(self, device: int) -> dict[str, int]:
        """Our chase filters on a VXLAN device: MAC → handle."""
        return read_chases(self._plane, device)

    def _finish(
        self, tables: _Tables, networks: Iterable[NetworkId], chased: Collection[NetworkId]
    ) -> dict[NetworkId, Tables]:
        """chased: the networks whose filters to look at."""
        found: dict[NetworkId, Tables] = {}
        for network in networks:
            bridge, tunnel = bridge_device(network), vxlan_device(network)
            chases: Collection[str] = ()
            if network in chased and (index := self.indexes.get(tunnel)) is not None:
                chases = self.filters(index)
            found[network] = Tables(
                forwarding=tables.forwarding.get(bridge, {}),
                tunnel=tables.tunnel.get(tunnel, {}),
                floods=frozenset(tables.floods.get(tunnel, ())),
                neighbours=tables.neighbours.get(bridge, {}),
                chases=frozenset(chases),
            )
        return found

    def _ends(self) -> dict[str, LegEnd] | None:
        """Leg ends in the calling thread's namespace; None when it is none of ours."""
        link = Netlink()
        try:
            lo = read_link(link, "lo")
            if lo is None or lo.alias != self._mark:
                return None
            addresses = addresses_of(link)
            return {
                raw.name: LegEnd(raw.mac, raw.link.mtu, raw.link.up, frozenset(addresses.get(raw.index, ())))
                for raw in read_links(link)
                if raw.name != "lo"
            }
        finally:
            link.close()


@dataclass(slots=True)
class _Look:
    """Devices seen so far. names: by index. host_ports: those that were found in the host's namespace only."""

    links: dict[str, RawLink] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    host_ports: set[str] = field(default_factory=set)

    def add(self, link: RawLink) -> None:
        self.links[link.name] = link
        self.names[link.index] = link.name


@dataclass(slots=True)
class _Tables:
    """Dumped entries by the names of the devices that they are on."""

    names: dict[int, str]
    forwarding: dict[str, dict[str, str]] = field(default_factory=dict)
    tunnel: dict[str, dict[str, str]] = field(default_factory=dict)
    floods: dict[str, set[str]] = field(default_factory=dict)
    neighbours: dict[str, dict[str, Neighbour]] = field(default_factory=dict)

    def add_fdb(self, bodies: Iterable[bytes]) -> None:
        for body in bodies:
            _, index, state, _, _ = _NDMSG.unpack_from(body)
            found = parse(body, 12)
            name, raw = self.names.get(index), found.get(m.NDA_LLADDR)
            if name is None or raw is None:
                continue
            mac = bytes(raw).hex(":")
            if (master := found.get(m.NDA_MASTER)) is not None:
                # NUD_PERMANENT alone marks the devices' own MACs, which the bridge adds by itself.
                if not state & m.NUD_PERMANENT and (bridge := self.names.get(number(master))) is not None:
                    self.forwarding.setdefault(bridge, {})[mac] = name
            elif (to := found.get(m.NDA_DST)) is not None:
                vtep = socket.inet_ntop(socket.AF_INET if len(to) == 4 else socket.AF_INET6, to)
                if mac == m.FLOOD_MAC:
                    self.floods.setdefault(name, set()).add(vtep)
                else:
                    self.tunnel.setdefault(name, {})[mac] = vtep

    def add_neighbours(self, bodies: Iterable[bytes]) -> None:
        for body in bodies:
            family, index, state, flags, _ = _NDMSG.unpack_from(body)
            found = parse(body, 12)
            name, raw, to = self.names.get(index), found.get(m.NDA_LLADDR), found.get(m.NDA_DST)
            if name is None or raw is None or to is None or not state & m.NUD_PERMANENT:
                continue
            entry = Neighbour(bytes(raw).hex(":"), router=bool(flags & m.NTF_ROUTER))
            self.neighbours.setdefault(name, {})[socket.inet_ntop(family, to)] = entry


def read_link(link: Netlink, name: str) -> RawLink | None:
    """One device of the socket's namespace, or None when there is none of that name."""
    with suppress(NetlinkError):
        return _raw_link(link.get(m.RTM_GETLINK, m.get_link(name)))
    return None


def read_links(link: Netlink, master: int = 0) -> list[RawLink]:
    """All devices of the socket's namespace, or the ports of one bridge."""
    return [_raw_link(body) for body in link.dump(m.RTM_GETLINK, m.list_links(master))]


def addresses_of(link: Netlink) -> dict[int, set[str]]:
    """Addresses with prefix length in the socket's namespace, by the index of their device."""
    addresses: dict[int, set[str]] = {}
    for body in link.dump(m.RTM_GETADDR, m.list_addresses()):
        family, length, index = body[0], body[1], int.from_bytes(body[4:8], sys.byteorder)
        found = parse(body, 8)
        value = found.get(m.IFA_LOCAL, found.get(m.IFA_ADDRESS))
        if value is not None:
            text = socket.inet_ntop(family, value)
            addresses.setdefault(index, set()).add(f"{text}/{length}")
    return addresses


def read_chases(link: Netlink, device: int) -> dict[str, int]:
    """MAC → handle of the filters of our priority at a device's ingress."""
    found: dict[str, int] = {}
    for body in link.dump(m.RTM_GETTFILTER, m.list_filters(device)):
        _, _, handle, _, priority = _TCMSG.unpack_from(body)
        options = parse(body, 20).get(m.TCA_OPTIONS)
        if priority >> 16 != m.CHASE_PRIORITY or options is None:
            continue
        selector = parse(options).get(m.TCA_U32_SEL)
        if selector is not None and len(selector) >= 48:
            raw = bytes(selector)
            found[(raw[22:24] + raw[36:40]).hex(":")] = handle
    return found


def _raw_link(body: bytes) -> RawLink:
    index, flags = struct.unpack_from("=iI", body, 4)
    found = parse(body, 16)
    details = parse(found[m.IFLA_LINKINFO]) if m.IFLA_LINKINFO in found else {}
    kind = string(details[m.IFLA_INFO_KIND]) if m.IFLA_INFO_KIND in details else ""
    data = parse(details[m.IFLA_INFO_DATA]) if m.IFLA_INFO_DATA in details else {}
    alias = string(found[m.IFLA_IFALIAS]) if m.IFLA_IFALIAS in found else ""
    return RawLink(
        name=string(found[m.IFLA_IFNAME]),
        index=index,
        mac=bytes(found.get(m.IFLA_ADDRESS, b"")).hex(":"),
        alias=alias,
        master=number(found[m.IFLA_MASTER]) if m.IFLA_MASTER in found else 0,
        link=Link(
            kind=kind,
            up=bool(flags & m.IFF_UP),
            mtu=number(found[m.IFLA_MTU]),
            flags=_port_flags(details),
            quiet=_is_quiet(found),
            adopted=alias.startswith(ADOPTED),
            snooping=kind == "bridge" and bool(number(data[m.IFLA_BR_MCAST_SNOOPING])),
            tunnel=_tunnel(data) if kind == "vxlan" else None,
            # whoever opens a tap gives it a carrier (tun_set_iff, tun_detach)
            idle=kind == "tun" and (alias == WAITS or not number(found[m.IFLA_CARRIER])),
        ),
    )


def _port_flags(details: dict[int, memoryview]) -> PortFlags | None:
    if m.IFLA_INFO_SLAVE_DATA not in details or string(details[m.IFLA_INFO_SLAVE_KIND]) != "bridge":
        return None
    values = parse(details[m.IFLA_INFO_SLAVE_DATA])
    return PortFlags(**{name: kind in values and bool(number(values[kind])) for name, kind in m.BRPORT.items()})


def _is_quiet(found: dict[int, memoryview]) -> bool:
    families = parse(found[m.IFLA_AF_SPEC]) if m.IFLA_AF_SPEC in found else {}
    if socket.AF_INET6 not in families:  # no IPv6 on it at all
        return True
    mode = parse(families[socket.AF_INET6]).get(m.IFLA_INET6_ADDR_GEN_MODE)
    return mode is None or number(mode) == m.IN6_ADDR_GEN_MODE_NONE


def _tunnel(data: dict[int, memoryview]) -> Tunnel:
    local = data.get(m.IFLA_VXLAN_LOCAL, data.get(m.IFLA_VXLAN_LOCAL6, memoryview(bytes(4))))
    return Tunnel(
        vni=number(data[m.IFLA_VXLAN_ID]),
        local=socket.inet_ntop(socket.AF_INET if len(local) == 4 else socket.AF_INET6, local),
        port=int.from_bytes(data[m.IFLA_VXLAN_PORT], "big"),
        learning=bool(number(data[m.IFLA_VXLAN_LEARNING])),
    )


def _named(raw: Iterable[RawLink], names: dict[int, str]) -> dict[str, Link]:
    """Links by name, masters by name too; one that was not looked at is `if` and its index."""
    return {one.name: _with_master(one.link, _name(one.master, names)) for one in raw}


def _name(index: int, names: dict[int, str]) -> str:
    return names.get(index, f"if{index}") if index else ""


def _with_master(link: Link, master: str) -> Link:
    return Link(
        link.kind,
        link.up,
        link.mtu,
        master,
        link.flags,
        link.quiet,
        link.adopted,
        link.snooping,
        link.tunnel,
        link.idle,
    )
