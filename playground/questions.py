"""Pure. What a controller asks a host about its policies and its clients, and what its agent answers.

A question is a kind of `wire.Ask`; the struct named in its docstring is the body of each `wire.Answer` to it. What is
said here is evidence: nothing of it is kept as a record.
"""

from __future__ import annotations

import msgspec

from playground.responder.protocol import PortTold
from playground.workspaces.departure import Departure
from policies.flows import Flow

MOST_FLOWS = 16384
"""Flows that go along with a workspace; beyond that, those that were seen to be answered go first."""


class _Question(msgspec.Struct, frozen=True, tag_field="ask"):
    pass


class FollowVerdicts(_Question, frozen=True, tag="follow-verdicts"):
    """`Verdicts`: those kept with a number beyond `after`, then each as it comes, until `wire.Enough`."""

    after: int


class CheckPolicies(_Question, frozen=True, tag="check-policies"):
    """`Checked`: whether the kernel holds what it should, read back object by object."""


class CountVerdicts(_Question, frozen=True, tag="count-verdicts"):
    """`Counted`: of one playground, since each rule was put in force here."""

    playground: str


class TellFlows(_Question, frozen=True, tag="tell-flows"):
    """`Flows`: those of ports, by id."""

    ports: list[str]


class PortFlows(msgspec.Struct, frozen=True):
    """Flows of one port. Their zones are numbers of the host that tells; another one has its own."""

    port: str
    flows: list[Flow]


class TakeFlows(_Question, frozen=True, tag="take-flows"):
    """`Taken`: has flows known before their packets come."""

    flows: list[PortFlows]


class TellClients(_Question, frozen=True, tag="tell-clients"):
    """`Clients`: what happened at ports, by id, between their clients and this host's responder."""

    ports: list[str]


class TellDeparture(_Question, frozen=True, tag="tell-departure"):
    """`Departing`: of a guest, by id, that may be copied by its driver. to: the target's `Hypervisor.peer`. underlay:
    the target's address, size: that of an underlay packet, in bytes."""

    driver: str
    guest: str
    to: str
    underlay: str
    size: int


class TellArrival(_Question, frozen=True, tag="tell-arrival"):
    """`Arrival`: whether a guest that departs so might come. copies_storage: disks that its host made come along."""

    driver: str
    departure: Departure
    copies_storage: bool


class TellLeaving(_Question, frozen=True, tag="tell-leaving"):
    """`Leaving`: whether a guest, by id, is being copied from this host to another one now."""

    guest: str
    driver: str


class Leaving(msgspec.Struct, frozen=True):
    """By the hypervisor's word."""

    is_leaving: bool


Question = (
    FollowVerdicts
    | CheckPolicies
    | CountVerdicts
    | TellFlows
    | TakeFlows
    | TellClients
    | TellDeparture
    | TellArrival
    | TellLeaving
)


class Verdict(msgspec.Struct, frozen=True):
    """A packet that a rule logged. number: grows on each host, over its agent's restarts too. utc_s: seconds.

    The rest is `policies.verdicts.Judgement` and `policies.verdicts.LoggedPacket`.
    """

    number: int
    utc_s: float
    playground: str
    tier: str
    policies: tuple[str, ...]
    direction: str
    rule: int
    is_allowed: bool
    is_staged: bool
    protocol: int
    source: str
    destination: str
    ports: tuple[int, int] | None
    icmp_type: int | None


class Verdicts(msgspec.Struct, frozen=True):
    """lost: how many more there were since the last answer that nobody could read in time. begun: where this agent's
    count began: its verdicts are numbered from the next number on, without a gap."""

    rows: list[Verdict]
    lost: int = 0
    begun: int = 0


class Mended(msgspec.Struct, frozen=True):
    """What somebody had changed, and the agent has put back. utc_s: when it did, seconds."""

    utc_s: float
    text: str


class Checked(msgspec.Struct, frozen=True):
    """differences: one sentence each; none where the kernel holds all. mended: the last of what was put back."""

    differences: list[str]
    mended: list[Mended] = []


class Count(msgspec.Struct, frozen=True):
    """What one rule, or the closing of a policy (rule 0), decided."""

    tier: str
    policies: tuple[str, ...]
    direction: str
    rule: int
    is_allowed: bool
    is_staged: bool
    packets: int
    bytes: int


class Counted(msgspec.Struct, frozen=True):
    rows: list[Count]


class Clients(msgspec.Struct, frozen=True):
    """problems: what hinders answers here, by the responder's key: of the ports that were asked for, or of all."""

    ports: list[PortTold]
    problems: dict[str, str]


class Departing(msgspec.Struct, frozen=True):
    """passes: whether a packet of the size that was asked for came back from the target, None where nothing did."""

    departure: Departure
    passes: bool | None


class Flows(msgspec.Struct, frozen=True):
    """left: how many there were beyond `MOST_FLOWS`."""

    flows: list[PortFlows]
    left: int = 0


class Taken(msgspec.Struct, frozen=True):
    """refused: how many could not be, and why the first of them."""

    taken: int
    refused: int = 0
    cause: str = ""
