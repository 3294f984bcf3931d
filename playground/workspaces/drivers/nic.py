"""The wiring of a movable NIC: eth<i> in the guest, nicp<i> in its hidden NIC namespace, a leg to each host. No files.

    guest            NIC namespace                       host's data plane namespace
    eth0 ═══════ nicp0 ──redirect──▶ leg0-<host> ═══════ pg<port>
                       ◀──redirect──

`eth0` is never touched by a move. A flip swaps the target of one redirect. While two hosts have a leg, both deliver
unicast (whoever is re-pointed late loses nothing) and only the active one delivers group-addressed frames (one
broadcast stays one copy).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from playground.workspaces.drivers.api import Nic
from playground.workspaces.drivers.namespaces import in_network_namespace
from playground.workspaces.drivers.rtnetlink import (
    EVERY_FRAME,
    GROUP,
    UNICAST,
    Link,
    Message,
    Rtnetlink,
    add_clsact,
    delete_link,
    new_veth,
    no_redirect,
    redirect,
    set_silent,
    set_up,
)

HIDDEN_MTU = 65535
"""Of every hidden device and of pg<port>, bytes: veth's largest, so that none of them is ever the one that drops. A
guest that raises its own MTU is answered by the bridge or VXLAN device (frag needed), not lost in between."""

DAD_INTERVAL_MS = 200
"""Time between neighbour solicitations in the guest, so also how long DAD takes (RFC 4862 §5.1 has 1000). 200 is more
than any round trip in a site; neighbour reachability then gives up after 3 · 200 ms."""


def leg_name(index: int, host: str) -> str:
    """The NIC namespace's end of NIC `index` towards `host` (14 bytes at most; IFNAMSIZ leaves 15)."""
    return f"leg{index}-{hashlib.sha256(host.encode()).hexdigest()[:6]}"


def _legs(links: dict[str, Link], index: int) -> list[Link]:
    return [link for name, link in links.items() if name.startswith(f"leg{index}-")]


class Wiring:
    """One guest's NIC namespace, opened. Every verb may be repeated, and finishes what an interrupted one began."""

    def __init__(self, nic_namespace: int) -> None:
        self._kernel = Rtnetlink(nic_namespace)

    def close(self) -> None:
        """Lets the NIC namespace go."""
        self._kernel.close()

    def has_legs(self, host: str, nics: Sequence[Nic]) -> bool:
        """Whether every NIC has an end at this host."""
        links = self._kernel.links()
        return all(leg_name(nic.index, host) in links for nic in nics)

    def make_nics(self, guest_namespace: int, nics: Sequence[Nic]) -> None:
        """eth<i> in the guest, down, with its MAC and MTU, and nicp<i> here, up."""
        links = self._kernel.links()
        missing = [nic for nic in nics if f"nicp{nic.index}" not in links]
        self._kernel.batch(
            [new_veth(f"nicp{n.index}", HIDDEN_MTU, f"eth{n.index}", guest_namespace, n.mtu, n.mac) for n in missing]
        )
        links = self._kernel.links()
        self._kernel.batch([add_clsact(links[f"nicp{nic.index}"].index) for nic in nics])
        self._kernel.batch([set_up(f"nicp{nic.index}") for nic in nics])

    def make_legs(self, host: str, dataplane: int, nics: Sequence[Nic]) -> None:
        """pg<port> in the data plane namespace, up and silent, and its other end here, delivering unicast only.

        A device of that name that is not our end (the remains of an earlier guest) is removed first.
        """
        with Rtnetlink(dataplane) as outside:
            links, there = self._kernel.links(), outside.links()
            missing = [
                nic for nic in nics if not _are_peers(links.get(leg_name(nic.index, host)), there.get(nic.device))
            ]
            self._kernel.batch([delete_link(leg_name(nic.index, host)) for nic in missing])
            there = outside.links() if missing else there
            outside.batch([delete_link(nic.device) for nic in missing if nic.device in there])
            self._kernel.batch(
                [new_veth(leg_name(n.index, host), HIDDEN_MTU, n.device, dataplane, HIDDEN_MTU) for n in missing]
            )
            in_network_namespace(dataplane, lambda: _disable_ipv6([nic.device for nic in nics]))
            outside.batch([set_silent(nic.device) for nic in nics])
            outside.batch([set_up(nic.device) for nic in nics])
        links = self._kernel.links()
        todo: list[Message] = []
        for nic in nics:
            leg, inner = links[leg_name(nic.index, host)], links[f"nicp{nic.index}"]
            todo += [add_clsact(leg.index), redirect(leg.index, UNICAST, inner.index), set_up(leg.name)]
        self._kernel.batch(todo)

    def flip(self, host: str, nics: Sequence[Nic]) -> float:
        """All traffic of the guest goes by this host's legs from now on: one batch. Returns how long it took, in ms."""
        links = self._kernel.links()
        todo: list[Message] = []
        for nic in nics:
            inner, to = links[f"nicp{nic.index}"], links[leg_name(nic.index, host)]
            todo += [no_redirect(leg.index, GROUP) for leg in _legs(links, nic.index) if leg != to]
            todo += [redirect(inner.index, EVERY_FRAME, to.index), redirect(to.index, GROUP, inner.index)]
        before = time.perf_counter()
        self._kernel.batch(todo)
        return (time.perf_counter() - before) * 1000

    def remove_legs(self, host: str | None, nics: Sequence[Nic]) -> None:
        """This host's ends are gone; with None, those of all hosts."""
        links = self._kernel.links()
        ends = [leg for nic in nics for leg in _legs(links, nic.index)]
        wanted = None if host is None else {leg_name(nic.index, host) for nic in nics}
        self._kernel.batch([delete_link(end.name) for end in ends if wanted is None or end.name in wanted])


def raise_nics(guest_namespace: int, nics: Sequence[Nic]) -> None:
    """Brings eth<i> up in the guest, with quick duplicate address detection."""

    def quicken() -> None:
        for nic in nics:
            interval = Path(f"/proc/sys/net/ipv6/neigh/eth{nic.index}/retrans_time_ms")
            if interval.exists():
                interval.write_text(str(DAD_INTERVAL_MS))

    in_network_namespace(guest_namespace, quicken)
    with Rtnetlink(guest_namespace) as inside:
        inside.batch([set_up(f"eth{nic.index}") for nic in nics])


def remove_devices(dataplane: int, nics: Sequence[Nic]) -> None:
    """Removes the ends that a dead guest may have left in this data plane namespace."""
    with Rtnetlink(dataplane) as outside:
        there = outside.links()
        outside.batch([delete_link(nic.device) for nic in nics if nic.device in there])


def device_names(dataplane: int) -> frozenset[str]:
    """Names of all devices in the data plane namespace."""
    with Rtnetlink(dataplane) as outside:
        return frozenset(outside.links())


def _are_peers(one: Link | None, other: Link | None) -> bool:
    return one is not None and other is not None and one.peer == other.index and other.peer == one.index


def _disable_ipv6(devices: Sequence[str]) -> None:
    for device in devices:
        switch = Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6")
        if switch.exists():
            switch.write_text("1")
