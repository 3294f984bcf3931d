"""What this machine is: processors, memory, the device that carries the underlay, who sees our names. Changes
nothing."""

from __future__ import annotations

import ipaddress
import logging
import os
from pathlib import Path
from typing import Any

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

    async def look(self) -> None:
        """Reads device and MTU. Raises UnderlayError when no device has the address (now)."""
        from pyroute2 import AsyncIPRoute, NetlinkError  # takes 0.1 s, which only an agent that runs has to pay

        carriers: dict[ipaddress.IPv4Address | ipaddress.IPv6Address, int] = {}
        try:
            async with AsyncIPRoute() as kernel:
                async for found in await kernel.addr("dump"):
                    carriers.setdefault(ipaddress.ip_address(_local(found)), found["index"])
                links = {link["index"]: link async for link in await kernel.link("dump")}
        except NetlinkError as error:
            raise UnderlayError(f"the kernel does not list this host's addresses: {error}") from error
        link = links.get(carriers.get(self._address, 0))
        if link is None:
            others = ", ".join(
                f"{address} ({links[index].get('ifname')})"
                for address, index in sorted(carriers.items(), key=lambda one: (one[0].version, one[0]))
                if index in links and not (address.is_loopback or address.is_link_local)
            )
            raise UnderlayError(
                f"no device of this host has the address {self._address}; addresses are {others or 'none'}: "
                "give --underlay one of them, or the address to a device first"
            )
        self.device, self.mtu = str(link.get("ifname")), int(link.get("mtu"))

    async def look_again(self) -> None:
        """As `look`, but that the address has gone meanwhile is only a warning: it may come back, and tunnels wait."""
        before = self.device, self.mtu
        try:
            await self.look()
        except UnderlayError as error:
            log.warning("underlay address gone error=%s", error)
            return
        if (self.device, self.mtu) != before:
            log.warning("underlay changed device=%s mtu=%d was=%s/%d", self.device, self.mtu, *before)


def _local(found: Any) -> str:
    """A point-to-point device's IFA_ADDRESS is its peer's; IPv6 has IFA_LOCAL with a peer only (rtnetlink(7))."""
    return str(found.get("local") or found.get("address"))
