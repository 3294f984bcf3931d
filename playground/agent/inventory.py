"""What this machine is and offers: processors, memory, the device of the underlay, who sees our names. Changes
nothing."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

from overlay.kernel import messages as m
from overlay.kernel.netlink import Netlink, NetlinkError, number, parse, string
from policies.selector import is_label_key, is_label_value

log = logging.getLogger("agent")


class UnderlayError(OSError):
    """The underlay address is none, or no device of this host has it; the text says what to do."""


def cpus() -> float:
    """Processors that this process may use."""
    return float(len(os.sched_getaffinity(0)))


def memory_mib() -> int:
    """Memory of the machine, in MiB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return 0


def fact(text: str) -> tuple[str, str]:
    """What a host offers, written WORD or KEY=VALUE, as a label. Raises ValueError."""
    key, equals, value = text.partition("=")
    if not is_label_key(key) or (equals and not is_label_value(value)):
        raise ValueError(f"{text!r} can't be what a host offers; write a word, as gpu, or KEY=VALUE, as gpu=a100")
    return key, value if equals else "yes"


def facts(offers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """What workspaces may require of this host: what it was told to offer, and what it is, whatever was said."""
    return {**dict(offers), "arch": platform.machine()}


def refuse_hidden_names(directory: Path) -> None:
    """Raises OSError where what is mounted below `directory`, as the names of namespaces are, shows in this process's
    mount namespace alone: then nobody else finds our namespaces, and an agent that starts anew does not either."""
    try:
        is_outermost = Path("/proc/self/ns/mnt").stat().st_ino == Path("/proc/1/ns/mnt").stat().st_ino
    except PermissionError:
        return  # in a user namespace nobody outside could use the names anyway
    holder, is_slave = Path("/"), False
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        point = Path(fields[4])
        if directory.is_relative_to(point) and len(point.parts) >= len(holder.parts):
            holder = point
            is_slave = any(field.startswith("master:") for field in fields[6 : fields.index("-")])  # proc(5)
    if is_slave and not is_outermost:
        raise OSError(
            f"names made in {directory} would be seen by this process only (it was started with mounts of its own, as "
            "`ip netns exec` and some systemd options do); start it with `nsenter --net=/run/netns/NAME`"
        )


class Underlay:
    """The device of this host that carries the underlay address, as it was when looked at last.

    mtu: of that device, in bytes.
    """

    def __init__(self, address: str) -> None:
        """Raises UnderlayError when `address` is no IPv4 or IPv6 address."""
        try:
            self._address = ipaddress.ip_address(address)
        except ValueError as error:
            raise UnderlayError(f"--underlay {address}: this is no IPv4 or IPv6 address") from error
        self.device = ""
        self.mtu = 0

    def look(self) -> None:
        """Reads device and MTU, in the calling thread's network namespace: two lists, 1 ms. Raises UnderlayError when
        no device has the address (now)."""
        try:
            with contextlib.closing(Netlink()) as kernel:
                addresses = kernel.dump(m.RTM_GETADDR, m.list_addresses())
                links = dict(map(_device, kernel.dump(m.RTM_GETLINK, m.list_links())))
        except NetlinkError as error:
            raise UnderlayError(f"the kernel does not list this host's addresses: {error}") from error
        carriers: dict[ipaddress.IPv4Address | ipaddress.IPv6Address, int] = {}
        for index, address in filter(None, map(_carried, addresses)):
            carriers.setdefault(address, index)
        device = links.get(carriers.get(self._address, 0))
        if device is None:
            others = ", ".join(
                f"{address} ({links[index][0]})"
                for address, index in sorted(carriers.items(), key=lambda one: (one[0].version, one[0]))
                if index in links and not (address.is_loopback or address.is_link_local)
            )
            raise UnderlayError(
                f"no device of this host has the address {self._address}; addresses are {others or 'none'}: "
                "give --underlay one of them, or the address to a device first"
            )
        self.device, self.mtu = device

    def look_again(self) -> None:
        """As `look`, but that the address has gone meanwhile is only a warning: it may come back, and tunnels wait."""
        before = self.device, self.mtu
        try:
            self.look()
        except UnderlayError as error:
            log.warning("underlay address gone error=%s", error)
            return
        if (self.device, self.mtu) != before:
            log.warning("underlay changed device=%s mtu=%d was=%s/%d", self.device, self.mtu, *before)


def _device(link: bytes) -> tuple[int, tuple[str, int]]:
    """Index, name and MTU out of an RTM_NEWLINK."""
    attributes = parse(link, 16)
    return int.from_bytes(link[4:8], sys.byteorder), (string(attributes[m.IFLA_IFNAME]), number(attributes[m.IFLA_MTU]))


def _carried(address: bytes) -> tuple[int, ipaddress.IPv4Address | ipaddress.IPv6Address] | None:
    """A device's index and its own address out of an RTM_NEWADDR. A point-to-point device's IFA_ADDRESS is its peer's;
    IPv6 has IFA_LOCAL with a peer only (rtnetlink(7))."""
    attributes = parse(address, 8)
    packed = attributes.get(m.IFA_LOCAL) or attributes.get(m.IFA_ADDRESS)
    return (
        None if packed is None else (int.from_bytes(address[4:8], sys.byteorder), ipaddress.ip_address(bytes(packed)))
    )
