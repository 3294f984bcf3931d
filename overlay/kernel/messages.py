"""Pure. Packs steps into rtnetlink messages (linux/rtnetlink.h, if_link.h, neighbour.h, pkt_cls.h). Sends nothing.

Fixed layouts: integers in host byte order but where a comment says so. Constants carry the kernel's names.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from overlay.kernel.netlink import APPEND, CREATE, EXCL, REPLACE, Message, attribute, nest, text, u8, u16be, u32
from overlay.mac import derived_mac
from overlay.topology import PortFlags
from overlay.tunnels.vxlan import Tunnel

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWQDISC = 36
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46

AF_BRIDGE = 7
IFF_UP = 1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_PROTINFO = 1, 3, 4, 5, 10, 12
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_CARRIER = 18, 20, 33
IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD, IFLA_EXT_MASK = 26, 27, 28, 29
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
RTEXT_FILTER_SKIP_STATS = 8
IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE = 8, 1
IFLA_BR_MCAST_SNOOPING = 23
IFLA_VXLAN_ID, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT, IFLA_VXLAN_LOCAL6 = 1, 4, 7, 15, 17
IFLA_VXLAN_UDP_ZERO_CSUM6_TX, IFLA_VXLAN_UDP_ZERO_CSUM6_RX = 19, 20
VETH_INFO_PEER = 1
BRPORT = {
    "hairpin": 4,
    "learning": 8,
    "unicast_flood": 9,
    "multicast_flood": 27,
    "broadcast_flood": 30,
    "neigh_suppress": 32,
    "isolated": 33,
}
"""`IFLA_BRPORT_*` of each field of `PortFlags`."""

NDA_DST, NDA_LLADDR, NDA_IFINDEX, NDA_MASTER = 1, 2, 8, 9
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
NTF_SELF, NTF_MASTER, NTF_ROUTER = 0x02, 0x04, 0x80
IFA_ADDRESS, IFA_LOCAL, IFA_F_NODAD = 1, 2, 0x02

RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_MULTIPATH, RTA_TABLE = 1, 4, 5, 9, 15
RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_LINK, RTN_UNICAST = 254, 4, 253, 1

TC_H_CLSACT, TC_H_INGRESS_HOOK = 0xFFFF0000, 0xFFFFFFF2
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_U32_SEL, TCA_U32_ACT = 5, 7
TCA_BPF_FD, TCA_BPF_NAME, TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT = 6, 7, 8, 1
TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_MIRRED_PARMS = 1, 2, 2
TCA_EGRESS_REDIR, TC_ACT_STOLEN = 1, 4
TC_U32_TERMINAL = 1
ETH_P_ALL = 0x0003
CHASE_PRIORITY = 0x7067
"""Priority of our filters on a VXLAN device; those of others are left alone."""

Word = tuple[bytes, bytes, int]
"""Four bytes of a frame: mask, value, and offset from the network header. u32 reads words at multiples of 4 only, so
the destination MAC is the last two bytes at −16 and all four at −12."""

FLOOD_MAC = "00:00:00:00:00:00"
"""The VXLAN FDB's default entry: where broadcast and multicast go."""

_IFINFO = struct.Struct("=BxHiII")
_NDMSG = struct.Struct("=B3xiHBB")
_IFADDR = struct.Struct("=BBBBi")
_TCMSG = struct.Struct("=B3xiIII")
_RTMSG = struct.Struct("=BBBBBBBBI")
_U32_SEL = struct.Struct("=BBBxHHhhI")
_U32_KEY = struct.Struct("=4s4sii")
_MIRRED = struct.Struct("=IIiiiiI")

_QUIET = nest(IFLA_AF_SPEC, nest(socket.AF_INET6, u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE)))


def mac_bytes(mac: str) -> bytes:
    """Six bytes of a colon MAC."""
    return bytes.fromhex(mac.replace(":", ""))


def address_bytes(address: str) -> tuple[int, bytes]:
    """Family and packed form of an IPv4 or IPv6 address. Raises OSError when it is neither."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)


def get_link(name: str) -> bytes:
    """Body of RTM_GETLINK for one device, without counters."""
    return _IFINFO.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name) + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)


def list_links(master: int = 0) -> bytes:
    """Body of an RTM_GETLINK dump: all devices, or the ports of one bridge."""
    only = u32(IFLA_MASTER, master) if master else b""
    return _IFINFO.pack(0, 0, 0, 0, 0) + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS) + only


def list_fdb(bridge: int = 0) -> bytes:
    """Body of an RTM_GETNEIGH dump of FDB entries: all, or those of one bridge and its ports."""
    return _NDMSG.pack(AF_BRIDGE, 0, 0, 0, 0) + (u32(NDA_MASTER, bridge) if bridge else b"")


def list_neighbours(device: int = 0) -> bytes:
    """Body of an RTM_GETNEIGH dump of IPv4 and IPv6 neighbours: all, or those of one device."""
    return _NDMSG.pack(0, 0, 0, 0, 0) + (u32(NDA_IFINDEX, device) if device else b"")


def get_link_at(index: int) -> bytes:
    """Body of RTM_GETLINK for the device with an index, without counters."""
    return _IFINFO.pack(0, 0, index, 0, 0) + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)


def get_forwarding(bridge: int, mac: str) -> bytes:
    """Body of RTM_GETNEIGH for a bridge's FDB entry, whichever port it leads to (rtnl_fdb_get, Linux 5.0)."""
    return _NDMSG.pack(AF_BRIDGE, 0, 0, 0, 0) + attribute(NDA_LLADDR, mac_bytes(mac)) + u32(NDA_MASTER, bridge)


def get_tunnel_entry(device: int, mac: str) -> bytes:
    """Body of RTM_GETNEIGH for a VXLAN device's FDB entry."""
    return _NDMSG.pack(AF_BRIDGE, device, 0, NTF_SELF, 0) + attribute(NDA_LLADDR, mac_bytes(mac))


def get_neighbour(device: int, address: str) -> bytes:
    """Body of RTM_GETNEIGH for a neighbour (neigh_get, Linux 5.0)."""
    family, packed = address_bytes(address)
    return _NDMSG.pack(family, device, 0, 0, 0) + attribute(NDA_DST, packed)


def list_filters(device: int) -> bytes:
    """Body of an RTM_GETTFILTER dump of a device's clsact ingress."""
    return _TCMSG.pack(0, device, 0, TC_H_INGRESS_HOOK, 0)


def list_addresses() -> bytes:
    """Body of an RTM_GETADDR dump."""
    return _IFADDR.pack(0, 0, 0, 0, 0)


def list_routes(family: int) -> bytes:
    """Body of an RTM_GETROUTE dump of all tables."""
    return _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)


def put_default_route(index: int, gateway: str) -> Message:
    """The main table's default route of one family, in place of the one that it has."""
    family, packed = address_bytes(gateway)
    body = _RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST, 0)
    return RTM_NEWROUTE, CREATE | REPLACE, body + attribute(RTA_GATEWAY, packed) + u32(RTA_OIF, index)


def put_link_route(index: int, prefix: str) -> Message:
    """The main table's route to a prefix that is on a device's link."""
    plain, _, length = prefix.partition("/")
    family, packed = address_bytes(plain)
    scope = RT_SCOPE_LINK if family == socket.AF_INET else 0
    body = _RTMSG.pack(family, int(length), 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST, 0)
    return RTM_NEWROUTE, CREATE | REPLACE, body + attribute(RTA_DST, packed) + u32(RTA_OIF, index)


def create_bridge(name: str) -> Message:
    """With a MAC of its own: one that follows its ports changes as they come and go, and each time the kernel flushes
    all neighbour entries, permanent ones too (neigh_changeaddr)."""
    kind = nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge"), nest(IFLA_INFO_DATA, u8(IFLA_BR_MCAST_SNOOPING, 0)))
    address = attribute(IFLA_ADDRESS, mac_bytes(derived_mac(name)))
    return RTM_NEWLINK, CREATE | EXCL, _IFINFO.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name) + address + kind


def disable_snooping(index: int) -> Message:
    kind = nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge"), nest(IFLA_INFO_DATA, u8(IFLA_BR_MCAST_SNOOPING, 0)))
    return RTM_NEWLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + kind


def create_vxlan(name: str, mtu: int, tunnel: Tunnel, namespace: int) -> Message:
    """Sent in the host's namespace, it makes the device in the one behind descriptor `namespace`.

    The UDP socket belongs to the namespace of the sender. UDP checksums over IPv6 are left out in both directions, as
    RFC 6935 and RFC 6936 allow tunnels; over IPv4 the kernel's default (they are sent) stays.
    """
    family, local = address_bytes(tunnel.local)
    options = [
        u32(IFLA_VXLAN_ID, tunnel.vni),
        u16be(IFLA_VXLAN_PORT, tunnel.port),
        u8(IFLA_VXLAN_LEARNING, tunnel.learning),
    ]
    if family == socket.AF_INET6:
        options += [attribute(IFLA_VXLAN_LOCAL6, local)]
        options += [u8(IFLA_VXLAN_UDP_ZERO_CSUM6_TX, 1), u8(IFLA_VXLAN_UDP_ZERO_CSUM6_RX, 1)]
    else:
        options += [attribute(IFLA_VXLAN_LOCAL, local)]
    kind = nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "vxlan"), nest(IFLA_INFO_DATA, *options))
    where = text(IFLA_IFNAME, name) + u32(IFLA_MTU, mtu) + u32(IFLA_NET_NS_FD, namespace)
    return RTM_NEWLINK, CREATE | EXCL, _IFINFO.pack(0, 0, 0, 0, 0) + where + kind


def create_veth(name: str, mtu: int, peer: str, peer_mtu: int, namespace: int, peer_mac: str = "") -> Message:
    """A veth pair, both ends down; `peer` is made in the namespace behind descriptor `namespace`, so it never moves."""
    other = _IFINFO.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, peer)
    other += attribute(IFLA_ADDRESS, mac_bytes(peer_mac)) if peer_mac else b""
    other += u32(IFLA_MTU, peer_mtu) + u32(IFLA_NET_NS_FD, namespace)
    data = nest(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, other))
    kind = nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "veth"), data)
    return RTM_NEWLINK, CREATE | EXCL, _IFINFO.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name) + u32(IFLA_MTU, mtu) + kind


def delete_link(index: int) -> Message:
    return RTM_DELLINK, 0, _IFINFO.pack(0, 0, index, 0, 0)


def doom_link(index: int, group: int) -> Message:
    """Puts a device among those that `delete_doomed` deletes.

    group: not 0, where all others are, and never the same twice: what a deletion that did not happen left in its group,
    and what is wanted again since, must not go with a later one.
    """
    return RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + u32(IFLA_GROUP, group)


def delete_doomed(group: int) -> Message:
    """Deletes the whole group at once: each deletion by itself waits some 20 ms for readers (RCU), a group once."""
    return RTM_DELLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0) + u32(IFLA_GROUP, group)


def move_link(index: int, namespace: int, alias: str, *, up: bool) -> Message:
    """To the namespace behind a descriptor, with a new ifalias (empty takes it away), in one step."""
    flags = IFF_UP if up else 0
    body = _IFINFO.pack(0, 0, index, flags, flags)
    label = attribute(IFLA_IFALIAS, alias.encode())
    return RTM_SETLINK, 0, body + u32(IFLA_NET_NS_FD, namespace) + label


def set_alias(index: int, alias: str) -> Message:
    return RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + attribute(IFLA_IFALIAS, alias.encode())


def set_mtu(index: int, mtu: int) -> Message:
    return RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + u32(IFLA_MTU, mtu)


def rename(index: int, name: str) -> Message:
    """Of a device that is down."""
    return RTM_NEWLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + text(IFLA_IFNAME, name)


def set_mac(index: int, mac: str) -> Message:
    return RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + attribute(IFLA_ADDRESS, mac_bytes(mac))


def quieten(index: int) -> Message:
    return RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + _QUIET


def set_up(index: int, up: bool) -> Message:
    return RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, IFF_UP if up else 0, IFF_UP)


def set_master(index: int, bridge: int) -> Message:
    """bridge 0 takes the device out of its bridge."""
    return RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + u32(IFLA_MASTER, bridge)


def set_flags(index: int, flags: PortFlags) -> Message:
    values = (u8(kind, getattr(flags, field)) for field, kind in BRPORT.items())
    return RTM_SETLINK, 0, _IFINFO.pack(AF_BRIDGE, 0, index, 0, 0) + nest(IFLA_PROTINFO, *values)


def put_address(index: int, address: str) -> Message:
    return RTM_NEWADDR, CREATE | REPLACE, _address(index, address)


def drop_address(index: int, address: str) -> Message:
    return RTM_DELADDR, 0, _address(index, address)


def put_tunnel_entry(index: int, mac: str, vtep: str) -> Message:
    return RTM_NEWNEIGH, CREATE | REPLACE, _tunnel_entry(index, mac, vtep)


def drop_tunnel_entry(index: int, mac: str) -> Message:
    body = _NDMSG.pack(AF_BRIDGE, index, NUD_NOARP, NTF_SELF, 0) + attribute(NDA_LLADDR, mac_bytes(mac))
    return RTM_DELNEIGH, 0, body


def put_flood(index: int, vtep: str) -> Message:
    return RTM_NEWNEIGH, CREATE | APPEND, _tunnel_entry(index, FLOOD_MAC, vtep)


def drop_flood(index: int, vtep: str) -> Message:
    return RTM_DELNEIGH, 0, _tunnel_entry(index, FLOOD_MAC, vtep)


def put_forwarding(index: int, mac: str) -> Message:
    body = _NDMSG.pack(AF_BRIDGE, index, NUD_NOARP, NTF_MASTER, 0) + attribute(NDA_LLADDR, mac_bytes(mac))
    return RTM_NEWNEIGH, CREATE | REPLACE, body


def drop_forwarding(index: int, mac: str) -> Message:
    body = _NDMSG.pack(AF_BRIDGE, index, NUD_NOARP, NTF_MASTER, 0) + attribute(NDA_LLADDR, mac_bytes(mac))
    return RTM_DELNEIGH, 0, body


def put_neighbour(index: int, address: str, mac: str, *, router: bool) -> Message:
    family, packed = address_bytes(address)
    body = _NDMSG.pack(family, index, NUD_PERMANENT, NTF_ROUTER if router else 0, 0)
    return RTM_NEWNEIGH, CREATE | REPLACE, body + attribute(NDA_DST, packed) + attribute(NDA_LLADDR, mac_bytes(mac))


def drop_neighbour(index: int, address: str) -> Message:
    family, packed = address_bytes(address)
    return RTM_DELNEIGH, 0, _NDMSG.pack(family, index, 0, 0, 0) + attribute(NDA_DST, packed)


def ensure_clsact(index: int) -> Message:
    body = _TCMSG.pack(0, index, TC_H_CLSACT, 0xFFFFFFF1, 0)
    return RTM_NEWQDISC, CREATE | EXCL, body + text(TCA_KIND, "clsact")


def put_redirect(index: int, words: Sequence[Word], to: int, *, priority: int, handle: int = 0) -> Message:
    """A u32 filter: what enters by device `index` and matches all words leaves by device `to`.

    The node `handle` is made, or its target swapped in one step; with handle 0 a new node gets one from the kernel.
    """
    selector = _U32_SEL.pack(TC_U32_TERMINAL, 0, len(words), 0, 0, 0, 0, 0)
    for mask, value, offset in words:
        selector += _U32_KEY.pack(mask, value, offset, 0)
    mirred = _MIRRED.pack(0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to)
    action = nest(
        TCA_U32_ACT,
        nest(1, text(TCA_ACT_KIND, "mirred"), nest(TCA_ACT_OPTIONS, attribute(TCA_MIRRED_PARMS, mirred))),
    )
    options = nest(TCA_OPTIONS, attribute(TCA_U32_SEL, selector), action)
    body = _filter(index, handle, priority) + text(TCA_KIND, "u32")
    return RTM_NEWTFILTER, CREATE | (REPLACE if handle else EXCL), body + options


def put_program(index: int, program: int, name: str, *, priority: int, handle: int) -> Message:
    """A program, behind a descriptor, that decides where what enters by device `index` goes. name: for who lists it.

    The filter `handle` is made, or its program swapped in one step.
    """
    options = u32(TCA_BPF_FD, program) + text(TCA_BPF_NAME, name) + u32(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT)
    body = _filter(index, handle, priority) + text(TCA_KIND, "bpf")
    return RTM_NEWTFILTER, CREATE | REPLACE, body + nest(TCA_OPTIONS, options)


def drop_filter(index: int, handle: int, *, priority: int) -> Message:
    """Of any kind: to name one that the kernel lacks would have it look for a module."""
    return RTM_DELTFILTER, 0, _filter(index, handle, priority)


def put_chase(index: int, mac: str) -> Message:
    raw = mac_bytes(mac)
    words = [(b"\0\0\xff\xff", b"\0\0" + raw[:2], -16), (b"\xff\xff\xff\xff", raw[2:], -12)]
    return put_redirect(index, words, index, priority=CHASE_PRIORITY)


def drop_chase(index: int, handle: int) -> Message:
    return drop_filter(index, handle, priority=CHASE_PRIORITY)


def _filter(index: int, handle: int, priority: int) -> bytes:
    info = priority << 16 | socket.htons(ETH_P_ALL)
    return _TCMSG.pack(0, index, handle, TC_H_INGRESS_HOOK, info)


def _tunnel_entry(index: int, mac: str, vtep: str) -> bytes:
    _, packed = address_bytes(vtep)
    body = _NDMSG.pack(AF_BRIDGE, index, NUD_NOARP | NUD_PERMANENT, NTF_SELF, 0)
    return body + attribute(NDA_LLADDR, mac_bytes(mac)) + attribute(NDA_DST, packed)


def _address(index: int, address: str) -> bytes:
    plain, _, length = address.partition("/")
    family, packed = address_bytes(plain)
    body = _IFADDR.pack(family, int(length), IFA_F_NODAD if family == socket.AF_INET6 else 0, 0, index)
    return body + attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
