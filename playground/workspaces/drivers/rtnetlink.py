"""The netns driver's door to the kernel: veth pairs and redirects by raw rtnetlink. Knows nothing of guests or hosts.

Messages are built as plain bytes and sent as one batch in one `send`, so a flip of several filters takes tens of
microseconds and needs no process. Layouts: linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/veth.h,
linux/pkt_cls.h, linux/tc_act/tc_mirred.h. Integers are in host byte order unless said otherwise.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from playground.workspaces.drivers.namespaces import in_network_namespace

_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_REPLACE, _EXCL, _CREATE = 0x100, 0x200, 0x400
_EXTENDED_ACK = 0x200
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWQDISC, _RTM_NEWTFILTER, _RTM_DELTFILTER = 36, 44, 45
_IFF_UP = 0x1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_LINKINFO = 1, 3, 4, 5, 18
_IFLA_AF_SPEC, _IFLA_NET_NS_FD = 26, 28
_TC_INGRESS_FILTERS = 0xFFFFFFF2
_CLSACT_HANDLE, _CLSACT_PARENT = 0xFFFF0000, 0xFFFFFFF1
_ETH_P_ALL = 3


@dataclass(frozen=True, slots=True)
class Link:
    """A device as a dump shows it. peer: ifindex of a veth's other end, in whatever namespace that is, or 0."""

    index: int
    name: str
    up: bool
    peer: int


@dataclass(frozen=True, slots=True)
class Message:
    """One request. accept: errno values that mean it is so already. what: for the error's text."""

    kind: int
    flags: int
    payload: bytes
    what: str
    accept: frozenset[int] = frozenset()


class NetlinkError(OSError):
    """The kernel refused a message; the text names the operation, the object and the kernel's own words."""


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _u32(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _ifinfomsg(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, change)


def new_veth(
    name: str, mtu: int, peer: str, peer_namespace: int, peer_mtu: int, peer_mac: str | None = None
) -> Message:
    """A veth pair, both ends down: `name` in the socket's namespace, `peer` in that of the descriptor `peer_namespace`.

    The peer is made where it belongs and never moved. mtu: bytes of IP packet.
    """
    end = _ifinfomsg() + _text(_IFLA_IFNAME, peer) + _u32(_IFLA_MTU, peer_mtu) + _u32(_IFLA_NET_NS_FD, peer_namespace)
    if peer_mac:
        end += _attribute(_IFLA_ADDRESS, bytes.fromhex(peer_mac.replace(":", "")))
    veth = _text(1, "veth") + _attribute(2, _attribute(1, end))  # IFLA_INFO_KIND, IFLA_INFO_DATA(VETH_INFO_PEER)
    payload = _ifinfomsg() + _text(_IFLA_IFNAME, name) + _u32(_IFLA_MTU, mtu) + _attribute(_IFLA_LINKINFO, veth)
    return Message(_RTM_NEWLINK, _CREATE | _EXCL, payload, f"make {name} with its peer {peer}")


def set_up(name: str) -> Message:
    """Brings a device up."""
    return Message(_RTM_NEWLINK, 0, _ifinfomsg(0, _IFF_UP, _IFF_UP) + _text(_IFLA_IFNAME, name), f"bring {name} up")


def set_silent(name: str) -> Message:
    """The device gets no IPv6 link-local address (addrgenmode none), so that the host itself never talks through it."""
    mode = _attribute(socket.AF_INET6, _attribute(8, b"\x01"))  # IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE
    payload = _ifinfomsg() + _text(_IFLA_IFNAME, name) + _attribute(_IFLA_AF_SPEC, mode)
    unsupported = frozenset({errno.EAFNOSUPPORT, errno.EOPNOTSUPP})  # a kernel without IPv6 has nothing to silence
    return Message(_RTM_NEWLINK, 0, payload, f"silence {name}", unsupported)


def delete_link(name: str) -> Message:
    """Removes a device, and with it a veth's other end."""
    payload = _ifinfomsg() + _text(_IFLA_IFNAME, name)
    return Message(_RTM_DELLINK, 0, payload, f"remove {name}", frozenset({errno.ENODEV}))


def add_clsact(index: int) -> Message:
    """Gives a device the place where ingress filters hang."""
    payload = struct.pack("=BxxxiIII", 0, index, _CLSACT_HANDLE, _CLSACT_PARENT, 0) + _text(1, "clsact")
    return Message(_RTM_NEWQDISC, _CREATE | _EXCL, payload, f"add clsact to device {index}", frozenset({errno.EEXIST}))


@dataclass(frozen=True, slots=True)
class Match:
    """A u32 key on the word that holds the first octets of the destination MAC. node: its place in the filter table."""

    node: int
    mask: int
    value: int


EVERY_FRAME = Match(0x800, 0, 0)
UNICAST = Match(0x800, 0x100, 0)
GROUP = Match(0x801, 0x100, 0x100)
"""Multicast and broadcast: the low bit of the first octet (IEEE 802 §8.2). u32 reads aligned words, relative to the
network header: the MAC's first two octets are the low half of the word at -16."""


def _tcmsg(index: int, match: Match) -> bytes:
    info = 1 << 16 | socket.htons(_ETH_P_ALL)  # one priority: adding or removing a node never swaps the chain's head
    return struct.pack("=BxxxiIII", 0, index, 0x80000000 | match.node, _TC_INGRESS_FILTERS, info) + _text(1, "u32")


def redirect(index: int, match: Match, to: int) -> Message:
    """Frames that enter device `index` and match leave by device `to`. The target of an existing node is swapped."""
    key = struct.pack("!II", match.mask, match.value) + struct.pack("=ii", -16, 0)
    selector = struct.pack("=BBBxHHhhI", 1, 0, 1, 0, 0, 0, 0, 0) + key  # TC_U32_TERMINAL, one key
    mirred = struct.pack("=IIiiiiI", 0, 0, 4, 0, 0, 1, to)  # TC_ACT_STOLEN, TCA_EGRESS_REDIR
    action = _text(1, "mirred") + _attribute(
        2, _attribute(2, mirred)
    )  # TCA_ACT_KIND, TCA_ACT_OPTIONS(TCA_MIRRED_PARMS)
    options = _attribute(5, selector) + _attribute(7, _attribute(1, action))  # TCA_U32_SEL, TCA_U32_ACT
    payload = _tcmsg(index, match) + _attribute(2, options)
    return Message(_RTM_NEWTFILTER, _CREATE | _REPLACE, payload, f"redirect device {index} to {to}")


def no_redirect(index: int, match: Match) -> Message:
    """Removes one node; what it matched then ends at the device, where nobody listens."""
    absent = frozenset({errno.ENOENT, errno.EINVAL, errno.ENODEV})  # EINVAL: no filter table on this device yet
    return Message(_RTM_DELTFILTER, 0, _tcmsg(index, match), f"remove a redirect of device {index}", absent)


class Rtnetlink:
    """A route netlink socket in one network namespace; the socket stays there whatever the caller does."""

    def __init__(self, namespace: int) -> None:
        self._socket = in_network_namespace(namespace, _open_socket)
        self._sequence = 0

    def __enter__(self) -> Rtnetlink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def batch(self, messages: Sequence[Message]) -> None:
        """Sends all messages at once; the kernel does them in order. Raises NetlinkError for the first that it refused.

        Messages after a refused one are still carried out, as the kernel does with a batch.
        """
        if not messages:
            return
        waiting: dict[int, Message] = {}
        out = bytearray()
        for message in messages:
            self._sequence += 1
            waiting[self._sequence] = message
            header = (len(message.payload) + 16, message.kind, message.flags | _REQUEST | _ACK, self._sequence, 0)
            out += struct.pack("=IHHII", *header) + message.payload
        self._socket.send(out)
        refused: NetlinkError | None = None
        while waiting:
            for kind, flags, sequence, body in _split(self._socket.recv(1 << 18)):
                answered = waiting.pop(sequence, None) if kind == _NLMSG_ERROR else None
                if answered is None:
                    continue
                code = -struct.unpack_from("=i", body)[0]
                if code and code not in answered.accept and refused is None:
                    refused = NetlinkError(code, f"cannot {answered.what}: {_reason(code, flags, body)}")
        if refused:
            raise refused

    def links(self) -> dict[str, Link]:
        """All devices of the namespace, by name."""
        self._sequence += 1
        header = struct.pack("=IHHII", 32, _RTM_GETLINK, _REQUEST | _DUMP, self._sequence, 0)
        self._socket.send(header + _ifinfomsg())
        found: dict[str, Link] = {}
        while True:
            for kind, _, sequence, body in _split(self._socket.recv(1 << 18)):
                if sequence != self._sequence:
                    continue
                if kind == _NLMSG_DONE:
                    return found
                if kind == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", body)[0]
                    raise NetlinkError(code, f"cannot list devices: {os.strerror(code)}")
                link = _parse_link(body)
                found[link.name] = link


def _open_socket() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    opened.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
    opened.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
    return opened


def _split(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message in one datagram."""
    messages, at = [], 0
    while at + 16 <= len(data):
        length, kind, flags, sequence, _ = struct.unpack_from("=IHHII", data, at)
        messages.append((kind, flags, sequence, data[at + 16 : at + length]))
        at += length + -length % 4
    return messages


def _attributes(data: bytes, at: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += length + -length % 4
    return found


def _parse_link(body: bytes) -> Link:
    index, flags = struct.unpack_from("=iI", body, 4)
    attributes = _attributes(body, 16)
    peer = attributes.get(_IFLA_LINK)
    name = attributes[_IFLA_IFNAME].rstrip(b"\0").decode()
    return Link(index, name, bool(flags & _IFF_UP), int(struct.unpack("=I", peer)[0]) if peer else 0)


def _reason(code: int, flags: int, body: bytes) -> str:
    """The errno's text and, where the kernel gave one, its own sentence (NLMSGERR_ATTR_MSG)."""
    said = _attributes(body, 20).get(1) if flags & _EXTENDED_ACK else None
    return f"{os.strerror(code)} ({said.rstrip(bytes(1)).decode()})" if said else os.strerror(code)
