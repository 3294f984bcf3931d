"""Pure. Compares the state a host should have with what its kernel shows, and lists the steps between them.

Order is part of the result. Before a frame can be sent somewhere, that place is ready: a tunnel entry comes before
the bridge entry that leads to it (else the VXLAN device floods the frame), both before the neighbour entry that makes
guests use them, and all before the flood list. What is taken away goes in the reverse order, last. A MAC that moves has
its entries replaced, never dropped and put again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from overlay import ops as do
from overlay.ops import Op
from overlay.parts import Part, narrow, within
from overlay.state import (
    HostState,
    Network,
    NetworkId,
    PortId,
    bridge_device,
    leg_device,
    port_device,
    service_device,
    vxlan_device,
)
from overlay.topology import CLOSED, NO_TABLES, Layout, LegEnd, Link, ObservedState, Tables, lay_out

_V = TypeVar("_V")
_OURS = re.compile(r"(br|vx|lg|pg)([0-9a-f]{12})")


def diff(desired: HostState, observed: ObservedState) -> list[Op]:
    """Every step from `observed` to `desired`; empty when nothing differs. The order of mappings never matters."""
    ports_by_bridge: dict[str, list[str]] = {}
    for name, link in observed.links.items():
        ports_by_bridge.setdefault(link.master, []).append(name)
    ops: list[Op] = []
    for network in sorted(desired.networks.keys() | network_ids(observed.links)):
        ops += _network(desired, network, observed, ports_by_bridge.get(bridge_device(network), ()))
    ops += _strays(desired, observed)
    wanted = {network.leg.namespace for network in desired.networks.values() if network.leg}
    ops += [do.RemoveNamespace(name) for name in sorted(observed.services.keys() - wanted)]
    return list(dict.fromkeys(ops))


def diff_network(desired: HostState, network: NetworkId, observed: ObservedState) -> list[Op]:
    """The steps that concern one network; `observed` need hold no more than that. Loose devices are left to `diff`."""
    bridge = bridge_device(network)
    ops = _network(desired, network, observed, [name for name, link in observed.links.items() if link.master == bridge])
    wanted = {other.leg.namespace for other in desired.networks.values() if other.leg}
    held = {name for name, ends in observed.services.items() if service_device(network) in ends}
    return ops + [do.RemoveNamespace(name) for name in sorted(held - wanted)]


def diff_part(desired: HostState, id: NetworkId, part: Part, observed: ObservedState) -> list[Op]:
    """The steps for a closed part of a network that is wanted and whose bridge and VXLAN device are as they should be.

    `observed` need hold no more than the part. The kernel can't be asked for one flood entry, and putting it again or
    dropping it again does nothing: those that the part names are steps whatever is there.
    """
    whole = desired.networks[id]
    network = narrow(whole, part)
    layout = lay_out(network, desired.underlay, arrivals(network, observed))
    builder = _Builder(observed)
    for name, link in sorted(layout.ports.items()):
        builder.port(name, link)
    have = replace(within(observed.tables.get(id, NO_TABLES), part), floods=part.vteps - whole.vteps)
    add, drop = _tables(bridge_device(id), vxlan_device(id), within(layout.tables, part), have)
    gone = {name for port in part.ports if (name := port_device(port)) not in layout.ports and name in observed.links}
    members = {name for name in gone if observed.links[name].master == bridge_device(id)}
    strays = _strays(desired, replace(observed, links={name: observed.links[name] for name in gone - members}))
    return builder.in_order(add, drop, _without(desired, observed, sorted(members))) + strays


def has_base(desired: HostState, id: NetworkId, observed: ObservedState) -> bool:
    """Whether a network is wanted, and its bridge and VXLAN device are as they should be."""
    if (network := desired.networks.get(id)) is None:
        return False
    layout = lay_out(narrow(network, Part()), desired.underlay, ())
    builder = _Builder(observed)
    builder.device(bridge_device(id), layout.bridge)
    builder.device(vxlan_device(id), layout.tunnel)
    return not builder.in_order(_Additions(), [], [])


def network_ids(names: Iterable[str]) -> set[NetworkId]:
    """The networks that have a bridge, VXLAN device or leg among these device names."""
    found = (_OURS.fullmatch(name) for name in names)
    return {NetworkId(match[2]) for match in found if match and match[1] != "pg"}


def is_port_device(name: str) -> bool:
    """Whether a device name is one of `port_device`."""
    return bool((match := _OURS.fullmatch(name)) and match[1] == "pg")


def is_tunnel_device(name: str) -> bool:
    """Whether a device name is one of `vxlan_device`."""
    return bool((match := _OURS.fullmatch(name)) and match[1] == "vx")


def arrivals(network: Network, observed: ObservedState) -> set[str]:
    """Names of the network's port devices that exist, here or (to be adopted) in the host's namespace."""
    return {
        name
        for port_id, port in network.ports.items()
        if ((name := port_device(port_id)) in observed.links and not _is_left(observed.links[name]))
        or (port.adopt and name in observed.host_ports)
    }


def _is_left(link: Link) -> bool:
    """Whether a device is an adopted tap whose hypervisor has let it go: the next one looks for it where it was."""
    return link.adopted and link.idle


def _network(desired: HostState, id: NetworkId, observed: ObservedState, members: Collection[str]) -> list[Op]:
    bridge, tunnel, leg = bridge_device(id), vxlan_device(id), leg_device(id)
    tables = observed.tables.get(id, NO_TABLES)
    network = desired.networks.get(id)
    if network is None:
        ours = {bridge, tunnel, leg}
        gone = _without(desired, observed, sorted(set(members) - ours))
        return gone + [do.DeleteLink(name) for name in (leg, tunnel, bridge) if name in observed.links]

    layout = lay_out(network, desired.underlay, arrivals(network, observed))
    builder = _Builder(observed)
    builder.device(bridge, layout.bridge)
    builder.device(tunnel, layout.tunnel)
    builder.leg(leg, layout)
    for name, link in sorted(layout.ports.items()):
        builder.port(name, link)
    if builder.lost:
        tables = _survivors(tables, builder.lost, tunnel, bridge)
    strays = set(members) - {tunnel, leg} - layout.ports.keys()
    if leg in observed.links and layout.leg is None:
        builder.late.append(do.DeleteLink(leg))
        tables = _survivors(tables, {leg}, tunnel, bridge)
    add, drop = _tables(bridge, tunnel, layout.tables, tables)
    return builder.in_order(add, drop, _without(desired, observed, sorted(strays)))


class _Builder:
    """Collects the steps for devices, in the phases between which table entries go."""

    def __init__(self, observed: ObservedState) -> None:
        self._observed = observed
        self.create: list[Op] = []
        self.down: list[Op] = []
        self.attach: list[Op] = []
        self.open: list[Op] = []
        self.up: list[Op] = []
        self.late: list[Op] = []
        self.lost: set[str] = set()
        """Devices that are deleted to be made anew: their entries go with them."""

    def in_order(self, add: _Additions, drop: list[Op], leaving: list[Op]) -> list[Op]:
        """All steps, in the order that the module promises."""
        return [
            *self.create,
            *self.down,
            *self.attach,
            *add.paths,
            *self.open,
            *self.up,
            *add.users,
            *drop,
            *leaving,
            *self.late,
        ]

    def device(self, name: str, want: Link) -> None:
        """A bridge or VXLAN device."""
        have = self._observed.links.get(name)
        if have and (have.kind, have.tunnel) != (want.kind, want.tunnel):
            self._lose(name)
            have = None
        if have is None:
            if want.tunnel:
                self.create.append(do.CreateVxlan(name, want.mtu, want.tunnel))
            else:
                self.create.append(do.CreateBridge(name, want.mtu))
            have = Link(want.kind, up=False, mtu=want.mtu)
        if have.snooping and not want.snooping:
            self.create.append(do.DisableSnooping(name))
        self._settle(name, want, have)

    def leg(self, name: str, layout: Layout) -> None:
        """A service leg, both its ends."""
        if layout.leg is None or layout.leg_link is None:
            return
        namespace, device, want = layout.leg
        if namespace not in self._observed.services:
            self.create.append(do.CreateNamespace(namespace))
        end = self._observed.services.get(namespace, {}).get(device)
        link = self._observed.links.get(name)
        if end and link is None:
            self.create.append(do.DeleteLink(device, namespace))
        if link and (link.kind != "veth" or end is None):
            self._lose(name)
            link = None
        if link is None or end is None:
            self.create.append(do.CreateLeg(name, device, namespace, want.mac, want.mtu))
            link = Link("veth", up=False, mtu=want.mtu)
            end = LegEnd(want.mac, want.mtu, False, frozenset())
        if end.mac != want.mac:
            self.create.append(do.SetMac(device, want.mac, namespace))
        if end.mtu != want.mtu:
            self.create.append(do.SetMtu(device, want.mtu, namespace))
        self.create += [do.PutAddress(namespace, device, one) for one in sorted(want.addresses - end.addresses)]
        self.late += [do.DropAddress(namespace, device, one) for one in sorted(end.addresses - want.addresses)]
        self._settle(name, layout.leg_link, link)
        if not end.up:
            # Last: the end of a veth that comes up first can send nothing until the kernel has noticed the other.
            self.up.append(do.SetUp(device, namespace))

    def port(self, name: str, want: Link) -> None:
        """A guest's port, whose device somebody else made."""
        have = self._observed.links.get(name)
        if have is None:
            self.create.append(do.Adopt(name))
            have = Link(kind="", up=False, adopted=True)
        # An adopted device goes back as it came, a tap's MTU is what its guest is told, a veth's may be larger yet.
        raises = have.kind == "veth" and not have.adopted and have.mtu < want.mtu
        self._settle(name, want if raises else replace(want, mtu=have.mtu), have)

    def _settle(self, name: str, want: Link, have: Link) -> None:
        if have.mtu != want.mtu:
            self.create.append(do.SetMtu(name, want.mtu))
        if not have.quiet:
            self.create.append(do.Quieten(name))
        up = have.up
        attached = have.master == want.master and want.master not in self.lost
        if want.flags and not attached:
            if up and want.flags == CLOSED:
                # A new port floods and learns until told not to. An open one's guest would see the carrier go.
                self.down.append(do.SetDown(name))
                up = False
            self.attach.append(do.Attach(name, want.master, want.flags))
        elif want.flags and have.flags != want.flags:
            opens = have.flags == CLOSED
            (self.open if opens else self.attach).append(do.SetFlags(name, want.flags))
        elif not want.flags and have.master:
            self.down.append(do.Detach(name))
        if not up:
            self.up.append(do.SetUp(name))

    def _lose(self, name: str) -> None:
        self.create.append(do.DeleteLink(name))
        self.lost.add(name)


class _Additions:
    """paths: where frames go. users: what makes somebody send them."""

    def __init__(self) -> None:
        self.paths: list[Op] = []
        self.users: list[Op] = []


def _tables(bridge: str, tunnel: str, want: Tables, have: Tables) -> tuple[_Additions, list[Op]]:
    add = _Additions()
    add.paths += [do.PutTunnelEntry(tunnel, mac, vtep) for mac, vtep in _changed(want.tunnel, have.tunnel)]
    add.paths += [do.PutChase(tunnel, mac) for mac in sorted(want.chases - have.chases)]
    add.paths += [do.PutForwarding(port, mac) for mac, port in _changed(want.forwarding, have.forwarding)]
    add.users += [
        do.PutNeighbour(bridge, address, entry.mac, entry.router)
        for address, entry in _changed(want.neighbours, have.neighbours)
    ]
    add.users += [do.PutFlood(tunnel, vtep) for vtep in sorted(want.floods - have.floods)]
    drop: list[Op] = [do.DropChase(tunnel, mac) for mac in sorted(have.chases - want.chases)]
    drop += [do.DropFlood(tunnel, vtep) for vtep in sorted(have.floods - want.floods)]
    drop += [do.DropNeighbour(bridge, address) for address in sorted(have.neighbours.keys() - want.neighbours.keys())]
    drop += [
        do.DropForwarding(have.forwarding[mac], mac) for mac in sorted(have.forwarding.keys() - want.forwarding.keys())
    ]
    drop += [do.DropTunnelEntry(tunnel, mac) for mac in sorted(have.tunnel.keys() - want.tunnel.keys())]
    return add, drop


def _changed(want: Mapping[str, _V], have: Mapping[str, _V]) -> list[tuple[str, _V]]:
    return [(key, value) for key, value in sorted(want.items(), key=_key) if have.get(key) != value]


def _key(item: tuple[str, object]) -> str:
    return item[0]


def _survivors(tables: Tables, lost: Collection[str], tunnel: str, bridge: str) -> Tables:
    """What is left of `tables` when these devices are deleted."""
    if bridge in lost:
        tables = replace(tables, forwarding={}, neighbours={})
    if tunnel in lost:
        tables = replace(tables, tunnel={}, floods=frozenset(), chases=frozenset())
    return replace(tables, forwarding={mac: port for mac, port in tables.forwarding.items() if port not in lost})


def _without(desired: HostState, observed: ObservedState, names: Iterable[str]) -> list[Op]:
    """Takes bridge ports away that their network does not have. Another network's moves there by its `Attach`."""
    ops: list[Op] = []
    for name in names:
        if network_ids([name]) or _stays(desired, observed, name):
            continue
        ops.append(_removal(name, observed.links[name]) if is_port_device(name) else do.Detach(name))
    return ops


def _strays(desired: HostState, observed: ObservedState) -> list[Op]:
    """Port devices in no bridge that nobody wants. What is neither adopted nor a veth is its maker's to remove."""
    loose = (name for name, link in observed.links.items() if is_port_device(name) and not link.master)
    unwanted = sorted(name for name in loose if not _stays(desired, observed, name))
    ops = [_removal(name, observed.links[name]) for name in unwanted]
    return [op for op in ops if not isinstance(op, do.Detach)]


def _removal(name: str, link: Link) -> Op:
    if link.adopted:
        return do.GiveBack(name)
    return do.DeleteLink(name) if link.kind == "veth" else do.Detach(name)


def _stays(desired: HostState, observed: ObservedState, name: str) -> bool:
    is_desired = any(PortId(name[2:]) in network.ports for network in desired.networks.values())
    return is_desired and not _is_left(observed.links[name])
