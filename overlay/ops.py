"""Pure. The steps that change a data plane, as values with natural keys; knows neither why nor how they are taken.

Every step may be repeated: "put" on what is there and "drop" on what is gone are successes. `subject` is the word by
which steps are counted and reported.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from overlay.topology import PortFlags
from overlay.tunnels.vxlan import Tunnel


@dataclass(frozen=True, slots=True)
class CreateNamespace:
    """A service namespace with our mark. Fails when a foreign one has the name."""

    name: str
    subject: ClassVar[str] = "namespace"


@dataclass(frozen=True, slots=True)
class RemoveNamespace:
    """The service namespace and all that is in it."""

    name: str
    subject: ClassVar[str] = "namespace"


@dataclass(frozen=True, slots=True)
class CreateBridge:
    """Down, quiet, without multicast snooping."""

    name: str
    mtu: int
    subject: ClassVar[str] = "bridge"


@dataclass(frozen=True, slots=True)
class DisableSnooping:
    """Multicast goes to every port: with snooping, a group without a querier goes silent (RFC 4541 §2.1.2)."""

    name: str
    subject: ClassVar[str] = "bridge"


@dataclass(frozen=True, slots=True)
class CreateVxlan:
    """Down, quiet; its UDP socket is in the host's namespace and the device never was."""

    name: str
    mtu: int
    tunnel: Tunnel
    subject: ClassVar[str] = "vxlan"


@dataclass(frozen=True, slots=True)
class CreateLeg:
    """A veth pair, down: `name` here, `peer` with `mac` in the service namespace."""

    name: str
    peer: str
    namespace: str
    mac: str
    mtu: int
    subject: ClassVar[str] = "leg"


@dataclass(frozen=True, slots=True)
class DeleteLink:
    """With all that hangs on it: FDB entries, chase filters, a veth's peer."""

    name: str
    namespace: str = ""
    subject: ClassVar[str] = "link"


@dataclass(frozen=True, slots=True)
class Adopt:
    """Moves a device from the host's namespace into ours, and marks it as one to be given back. It arrives down."""

    name: str
    subject: ClassVar[str] = "port"


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Moves an adopted device back to the host's namespace, up, with the ifalias that it had."""

    name: str
    subject: ClassVar[str] = "port"


@dataclass(frozen=True, slots=True)
class SetMtu:
    """namespace: a service namespace, or empty for the data plane's."""

    name: str
    mtu: int
    namespace: str = ""
    subject: ClassVar[str] = "link"


@dataclass(frozen=True, slots=True)
class SetMac:
    """Of a device in a service namespace."""

    name: str
    mac: str
    namespace: str
    subject: ClassVar[str] = "leg"


@dataclass(frozen=True, slots=True)
class Quieten:
    """`addrgenmode none`."""

    name: str
    subject: ClassVar[str] = "link"


@dataclass(frozen=True, slots=True)
class SetUp:
    name: str
    namespace: str = ""
    subject: ClassVar[str] = "link"


@dataclass(frozen=True, slots=True)
class SetDown:
    name: str
    subject: ClassVar[str] = "link"


@dataclass(frozen=True, slots=True)
class Attach:
    """Makes the device a port of the bridge and sets its flags in the same breath."""

    name: str
    bridge: str
    flags: PortFlags
    subject: ClassVar[str] = "port"


@dataclass(frozen=True, slots=True)
class Detach:
    """Out of its bridge; its FDB entries go with it."""

    name: str
    subject: ClassVar[str] = "port"


@dataclass(frozen=True, slots=True)
class SetFlags:
    name: str
    flags: PortFlags
    subject: ClassVar[str] = "port"


@dataclass(frozen=True, slots=True)
class PutAddress:
    """An address with prefix length on a device in a service namespace, without duplicate address detection."""

    namespace: str
    name: str
    address: str
    subject: ClassVar[str] = "leg"


@dataclass(frozen=True, slots=True)
class DropAddress:
    namespace: str
    name: str
    address: str
    subject: ClassVar[str] = "leg"


@dataclass(frozen=True, slots=True)
class PutTunnelEntry:
    """VXLAN FDB: frames to `mac` go to `vtep`; replaces another VTEP in one step."""

    name: str
    mac: str
    vtep: str
    subject: ClassVar[str] = "fdb"


@dataclass(frozen=True, slots=True)
class DropTunnelEntry:
    name: str
    mac: str
    subject: ClassVar[str] = "fdb"


@dataclass(frozen=True, slots=True)
class PutForwarding:
    """Bridge FDB: frames to `mac` go to port `name`; replaces another port in one step."""

    name: str
    mac: str
    subject: ClassVar[str] = "fdb"


@dataclass(frozen=True, slots=True)
class DropForwarding:
    name: str
    mac: str
    subject: ClassVar[str] = "fdb"


@dataclass(frozen=True, slots=True)
class PutNeighbour:
    """A permanent entry: the bridge `name` answers ARP or ND for `address`; replaces another MAC in one step."""

    name: str
    address: str
    mac: str
    router: bool = False
    subject: ClassVar[str] = "neighbour"


@dataclass(frozen=True, slots=True)
class DropNeighbour:
    name: str
    address: str
    subject: ClassVar[str] = "neighbour"


@dataclass(frozen=True, slots=True)
class PutFlood:
    """`vtep` gets a copy of each broadcast and multicast frame."""

    name: str
    vtep: str
    subject: ClassVar[str] = "flood"


@dataclass(frozen=True, slots=True)
class DropFlood:
    name: str
    vtep: str
    subject: ClassVar[str] = "flood"


@dataclass(frozen=True, slots=True)
class PutChase:
    """Frames for `mac` that come in by the VXLAN device `name` leave by it again, to where its FDB says."""

    name: str
    mac: str
    subject: ClassVar[str] = "chase"


@dataclass(frozen=True, slots=True)
class DropChase:
    name: str
    mac: str
    subject: ClassVar[str] = "chase"


Op = (
    CreateNamespace
    | RemoveNamespace
    | CreateBridge
    | DisableSnooping
    | CreateVxlan
    | CreateLeg
    | DeleteLink
    | Adopt
    | GiveBack
    | SetMtu
    | SetMac
    | Quieten
    | SetUp
    | SetDown
    | Attach
    | Detach
    | SetFlags
    | PutAddress
    | DropAddress
    | PutTunnelEntry
    | DropTunnelEntry
    | PutForwarding
    | DropForwarding
    | PutNeighbour
    | DropNeighbour
    | PutFlood
    | DropFlood
    | PutChase
    | DropChase
)


def describe(op: Op) -> str:
    """One line: the step and its fields that are not empty, as in `put forwarding name=pg… mac=52:54:00:…`."""
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in type(op).__name__).strip()
    return " ".join(
        [words, *(f"{f.name}={_short(v)}" for f in fields(op) if (v := getattr(op, f.name)) not in ("", False))]
    )


def _short(value: object) -> str:
    match value:
        case PortFlags():
            return "+".join(f.name for f in fields(value) if getattr(value, f.name)) or "none"
        case Tunnel():
            return f"{value.vni}@{value.local}:{value.port}"
        case _:
            return str(value)
