"""Pure. What a policy is and what it is about: the words of the language after reading, before they are resolved.

Knows no file format: playground files, site files and Kubernetes documents are all read into these. Nothing here has
been checked against the endpoints that exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network, IPv6Network

from policies.ports import EVERYTHING, Ports
from policies.selector import Selector


class Direction(Enum):
    """As the subject sees it: egress is judged by the source's host, ingress by the destination's."""

    INGRESS = "ingress"
    EGRESS = "egress"

    __hash__ = object.__hash__  # as in Protocol: hashed for every chain


class Tier(Enum):
    """In order of judgement: the first tier that decides, decides."""

    ADMIN = "admin"
    OWNER = "owner"
    BASELINE = "baseline"


class Action(Enum):
    """What a rule says of what it matches. The owner's tier knows only ALLOW; PASS leaves it to the next tier."""

    ALLOW = "allow"
    DENY = "deny"
    PASS = "pass"


class Mode(Enum):
    """LOG is enforced and each verdict logged; STAGE is not enforced, and what it would have said is logged."""

    ENFORCE = "enforce"
    LOG = "log"
    STAGE = "stage"


class OnDeny(Enum):
    """What happens to a refused packet: nothing, or a reset or ICMP error to its sender."""

    DROP = "drop"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Where something was written. line counts from 1; 0 where the format has no lines."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class EndpointPeer:
    """The endpoints that a selector matches.

    playgrounds: names of the playgrounds looked in; None for all (site files), the policy's own by default.
    """

    selector: Selector
    playgrounds: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class SamePeer:
    """Endpoints of the subject's own playground that have this label with the subject's own value."""

    label: str


@dataclass(frozen=True, slots=True)
class WorldPeer:
    """`@world`: all that is outside every managed overlay, reached through a gateway; never a lookup miss."""


@dataclass(frozen=True, slots=True)
class BlockPeer:
    """A part of the world by address: in `cidr` and in none of `excepted`. Matches only what no workspace owns."""

    cidr: IPv4Network | IPv6Network
    excepted: tuple[IPv4Network | IPv6Network, ...] = ()


@dataclass(frozen=True, slots=True)
class ServicesPeer:
    """`@services`: DHCP, DNS, metadata and ping of the service leg. Only the admin tier may name it."""


@dataclass(frozen=True, slots=True)
class HostPeer:
    """`@host`: the host that the workspace runs on."""


@dataclass(frozen=True, slots=True)
class GatewayPeer:
    """`@gateway/NAME`: the gateway port itself, as an end of a connection."""

    name: str


Peer = EndpointPeer | SamePeer | WorldPeer | BlockPeer | ServicesPeer | HostPeer | GatewayPeer


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a policy. peers: any of them matches; an empty tuple matches no one (absent is written as all kinds).

    name: of the line where the format has one, else "".
    """

    peers: tuple[Peer, ...]
    ports: Ports
    origin: Origin
    action: Action = Action.ALLOW
    name: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy. ingress, egress: None leaves that direction alone; () selects it and allows nothing.

    priority: lower is judged first; 0 in the owner's tier, where there is no order. playground: whose policy it is, ""
    for a site's. subjects: any of them matches. replaces: the policy that this staged one is to replace, or "".
    keeps_established: whether running connections survive a change that no longer allows them.
    """

    name: str
    subjects: tuple[EndpointPeer, ...]
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None
    origin: Origin
    tier: Tier = Tier.OWNER
    priority: int = 0
    mode: Mode = Mode.ENFORCE
    on_deny: OnDeny = OnDeny.DROP
    playground: str = ""
    replaces: str = ""
    keeps_established: bool = False

    def rules(self, direction: Direction) -> tuple[Rule, ...] | None:
        """The rules of one direction; None if the policy does not select it."""
        return self.ingress if direction is Direction.INGRESS else self.egress


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A workspace's port on a network. labels: its own and the built-in ones (workspace, network, playground, index).

    addresses: canonical text, without prefix length; empty where the format has none.
    """

    playground: str
    workspace: str
    network: str
    labels: Mapping[str, str]
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where networks meet the world. is_open_inward: whether the world may begin connections through it (NAT: no)."""

    playground: str
    name: str
    networks: frozenset[str]
    is_open_inward: bool = False


@dataclass(frozen=True, slots=True)
class Subnet:
    """Addresses that a playground's network owns: no part of the world as that playground sees it."""

    playground: str
    network: str
    prefix: IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Scene:
    """All that verdicts depend on: who is there, how they are joined, and what the policies say.

    Endpoints of one (playground, network) reach each other by topology, and the world through its gateways; others
    don't meet. hidden: endpoints by (playground, workspace) that are judged but not listed. subnets: an endpoint's
    address outside all of them is owned by itself.
    """

    endpoints: tuple[Endpoint, ...]
    policies: tuple[Policy, ...]
    gateways: tuple[Gateway, ...] = ()
    hidden: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    subnets: tuple[Subnet, ...] = ()


@dataclass(frozen=True, slots=True)
class Expectation:
    """A line of `tests:`: what holds for every pair of different ends of sources and destinations, on all of ports.

    text: the line as people wrote it, for messages.
    """

    sources: tuple[Peer, ...]
    destinations: tuple[Peer, ...]
    ports: Ports
    is_allowed: bool
    origin: Origin
    text: str = ""


ALL_PORTS = EVERYTHING
"""What a rule without ports means: every protocol, every port, ICMP included."""
