"""Owns the sockets by which a workspace's init asks for IPv6 addresses, and puts them on its NICs. Writes no file.

The kernel says whether routers advertise that addresses are to be had by DHCPv6 (M) or other things (O); `dhcp6` says
what follows. An address is put beside those that the kernel forms by itself, which are left alone. Standard library
only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

from playground.workspaces.guest.dhcp6 import FOREVER, Client
from playground.workspaces.guest.routers import Told

RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_DELADDR = 16, 18, 20, 21
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 1, 4, 0x300, 0x100, 0x200, 0x400
IPV6_IFADDR_GROUP, IPV6_IFINFO_GROUP = 9, 12
IFLA_ADDRESS, IFLA_IFNAME, IFLA_PROTINFO, IFLA_INET6_FLAGS = 1, 3, 12, 1
IFA_ADDRESS, IFA_CACHEINFO, IFA_FLAGS = 1, 6, 8
IF_RA_MANAGED, IF_RA_OTHERCONF = 0x40, 0x80
IFA_F_NOPREFIXROUTE, IFA_F_DADFAILED = 0x200, 0x08
"""linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h; net/if_inet6.h"""
SERVERS, SERVER_PORT, CLIENT_PORT = "ff02::1:2", 547, 546
SO_BINDTODEVICE = 25
CHECK_S = 5.0
"""An address that goes within this time was found to be another's; one that goes later was taken away by hand."""
AGAIN_S = 0.1
"""A message that could not be sent, because the NIC has no address to send from yet, is tried again after this."""

Nic = tuple[str, bytes, int]
"""Name, MAC, flags."""


class _Of:
    """What belongs to one NIC: its client, the socket of that, a message that is to be sent at retry_s, and the
    addresses that were put: since when, until when by choice and at all."""

    def __init__(self, index: int, nic: Nic) -> None:
        self.index = index
        self.client = Client(nic[1], os.urandom)
        self.put: dict[bytes, tuple[float, tuple[float, float]]] = {}
        self.retry_s = float("inf")
        self.unsaid = b""
        self.told: Told = ((), ())
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, nic[0].encode() + b"\0")
        self.socket.bind(("::", CLIENT_PORT))
        _signalled(self.socket.fileno())


class Leases6:
    """Of all NICs. Time is monotonic seconds."""

    def __init__(self) -> None:
        self._of: dict[int, _Of] = {}
        self._heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._heard.bind((0, 1 << (IPV6_IFADDR_GROUP - 1) | 1 << (IPV6_IFINFO_GROUP - 1)))
        _signalled(self._heard.fileno())
        self._kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._kernel.bind((0, 0))

    def next_s(self) -> float:
        """When `changed` should be asked though there is no news."""
        return min((min(one.client.due_s(), one.retry_s) for one in self._of.values()), default=float("inf"))

    def renew(self, now_s: float) -> None:
        """Every client asks at once whether what it has is still its own."""
        for one in self._of.values():
            one.client.renew(now_s)

    def changed(self, now_s: float) -> dict[int, Told]:
        """Hears, says and sets what is due. Each NIC, by index, of which another name server or domain is told now than
        when this was last asked."""
        if self._is_news():
            self._look(now_s)
        found: dict[int, Told] = {}
        for one in self._of.values():
            for message in _received(one.socket):
                one.client.hear(message, now_s)
            self._say(one, now_s)
            self._set(one, now_s)
            if one.client.told != one.told:
                one.told = found[one.index] = one.client.told
        return found

    def _is_news(self) -> bool:
        is_news = False
        while True:
            try:
                self._heard.recv(1 << 16)
            except BlockingIOError:
                return is_news
            except OSError:  # ENOBUFS: some was lost
                pass
            is_news = True

    def _look(self, now_s: float) -> None:
        """What routers advertise at each NIC, and whether the addresses that were put there are still there."""
        nics = self._nics()
        for index in [index for index in self._of if index not in nics]:
            self._of.pop(index).socket.close()
        for index, nic in nics.items():
            managed, other = bool(nic[2] & IF_RA_MANAGED), bool(nic[2] & IF_RA_OTHERCONF)
            if index not in self._of and nic[0].startswith("eth") and len(nic[1]) == 6 and (managed or other):
                self._of[index] = _Of(index, nic)
            if index in self._of:
                self._of[index].client.heed(managed, other, now_s)
        there = {(index, address) for index, address, flags in _addresses() if not flags & IFA_F_DADFAILED}
        for index, one in self._of.items():
            for address, (since_s, _) in list(one.put.items()):
                if (index, address) in there:
                    continue
                del one.put[address]
                if now_s - since_s < CHECK_S:
                    one.client.decline(address, now_s)
                else:
                    one.client.renew(now_s)

    def _say(self, one: _Of, now_s: float) -> None:
        if message := one.client.said(now_s):
            one.unsaid, one.retry_s = message, now_s
        if one.retry_s > now_s:
            return
        try:
            one.socket.sendto(one.unsaid, (SERVERS, SERVER_PORT, 0, one.index))
            one.retry_s = float("inf")
        except OSError:
            one.retry_s = now_s + AGAIN_S

    def _set(self, one: _Of, now_s: float) -> None:
        wanted = one.client.addresses
        head = struct.pack("=BBBBi", socket.AF_INET6, 128, 0, 0, one.index)
        for address in [address for address in one.put if address not in wanted]:
            self._ask(RTM_DELADDR, 0, head, (IFA_ADDRESS, address))
            del one.put[address]
        for address, ends in wanted.items():
            since_s, known = one.put.get(address, (now_s, None))
            if known == ends:
                continue
            how = NLM_F_CREATE | (NLM_F_EXCL if known is None else NLM_F_REPLACE)
            times = struct.pack("=4I", *(_left(end, now_s) for end in ends), 0, 0)
            flags = (IFA_FLAGS, struct.pack("=I", IFA_F_NOPREFIXROUTE))
            refused = self._ask(RTM_NEWADDR, how, head, (IFA_ADDRESS, address), (IFA_CACHEINFO, times), flags)
            if not refused:
                one.put[address] = since_s, ends

    def _nics(self) -> dict[int, Nic]:
        """Each NIC by index, as IPv6 has it."""
        found: dict[int, Nic] = {}
        self._kernel.send(_message(RTM_GETLINK, NLM_F_DUMP, struct.pack("=BxHiII", socket.AF_INET6, 0, 0, 0, 0)))
        while True:
            for kind, body in _messages(self._kernel.recv(1 << 16)):
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    return found
                if kind != RTM_NEWLINK:
                    continue
                (index,) = struct.unpack_from("=i", body, 4)
                said = dict(_attributes(body[16:]))
                inner = dict(_attributes(said.get(IFLA_PROTINFO, b"")))
                (flags,) = struct.unpack("=I", inner.get(IFLA_INET6_FLAGS, bytes(4)))
                name = said.get(IFLA_IFNAME, b"").rstrip(b"\0").decode()
                found[index] = name, said.get(IFLA_ADDRESS, b""), flags

    def _ask(self, kind: int, flags: int, head: bytes, *attributes: tuple[int, bytes]) -> int:
        """The kernel's answer: 0, or the number of an error; that it is so already is an error of its own."""
        body = head + b"".join(struct.pack("=HH", 4 + len(value), code) + value for code, value in attributes)
        self._kernel.send(_message(kind, NLM_F_ACK | flags, body))
        for answer, said in _messages(self._kernel.recv(1 << 16)):
            if answer == NLMSG_ERROR:
                return -int(struct.unpack_from("=i", said)[0])
        return errno.EBADMSG


def _signalled(descriptor: int) -> None:
    """It tells by SIGIO that there is something to read, and never blocks."""
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)


def _received(opened: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield opened.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:  # an ICMPv6 error that a message met
            continue


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST | flags, 0, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        if length < 16:
            return
        yield kind, data[at + 16 : at + length]
        at += (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3


def _addresses() -> Iterator[tuple[int, bytes, int]]:
    """NIC index, address, flags of every IPv6 address."""
    with open("/proc/net/if_inet6") as table:  # noqa: PTH123
        for line in table:
            address, index, _, _, flags, _ = line.split()
            yield int(index, 16), bytes.fromhex(address), int(flags, 16)


def _left(until_s: float, now_s: float) -> int:
    return FOREVER if until_s == float("inf") else max(int(until_s - now_s), 0)
