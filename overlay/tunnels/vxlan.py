"""Pure. Plans the VXLAN side of one network (RFC 7348): its device, where MACs lie, where floods go, what is chased.

Knows nothing of bridges, and does nothing itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from overlay.state import Network

PORT = 4789
"""UDP port assigned to VXLAN (RFC 7348 §8)."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """What a VXLAN device is made with; none of it can be changed later, so a difference means a new device.

    local: this host's underlay address, IPv4 or IPv6. learning: whether source addresses of packets make entries.
    """

    vni: int
    local: str
    port: int = PORT
    learning: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """entries: MAC → VTEP. behind: the MACs that the bridge reaches through the device. floods: VTEPs that get a copy
    of each broadcast and multicast frame. chases: MACs whose frames, come in by the tunnel, leave by it again."""

    device: Tunnel
    entries: Mapping[str, str]
    behind: frozenset[str]
    floods: frozenset[str]
    chases: frozenset[str]


def plan(network: Network, underlay: str, local_macs: Collection[str]) -> Plan:
    """The VXLAN side of `network` on the host whose tunnel address is `underlay`.

    local_macs: MACs of open ports here. They are neither sent away nor chased: a frame for an arrived guest must stay.
    This host itself is no VTEP, whatever the caller says: a copy sent to oneself is a duplicate at every local port.
    """
    behind = {
        mac: remote.vtep
        for _, remote in sorted(network.remotes.items())
        for mac in remote.macs
        if mac not in local_macs and remote.vtep != underlay
    }
    chased = {mac: vtep for mac, vtep in network.chase.items() if mac not in local_macs and vtep != underlay}
    return Plan(
        device=Tunnel(network.vni, underlay),
        entries={**behind, **chased},
        behind=frozenset(behind),
        floods=network.vteps - {underlay},
        chases=frozenset(chased),
    )
