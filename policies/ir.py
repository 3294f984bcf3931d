"""Pure. The intermediate form: policies resolved against who is there. Evaluator and compilers read this and no policy.

Its size grows with identities and rules, never with pairs of endpoints. An end is whoever can be at one end of a
connection, as a number: SERVICES, HOST, then the identities, the gateways, and the cells of the world. A set of ends is
a `bitset`. How each tier decides is `evaluate`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from policies.identity import Identity
from policies.model import Action, Direction, Mode, OnDeny, Origin, Tier
from policies.ports import Ports
from policies.world import Cell

SERVICES, HOST, FIRST_IDENTITY = 0, 1, 2


@dataclass(frozen=True, slots=True)
class PolicyHead:
    """What a compiler needs of a policy besides its rules; see model.Policy."""

    name: str
    tier: Tier
    origin: Origin
    priority: int = 0
    mode: Mode = Mode.ENFORCE
    on_deny: OnDeny = OnDeny.DROP
    playground: str = ""
    replaces: str = ""
    keeps_established: bool = False


@dataclass(frozen=True, slots=True)
class ResolvedRule:
    """A rule with its peers as ends. number: from 1, among the policy's rules of this direction."""

    policy: PolicyHead
    direction: Direction
    number: int
    ends: int
    ports: Ports
    action: Action
    origin: Origin
    name: str = ""


@dataclass(frozen=True)
class Chain:
    """All that judges some subjects in one direction, in order. Shared by all whom the same policies select.

    closed_by: the owner's policies that select the subjects; where there is one, the owner's tier decides.
    """

    direction: Direction
    admin: tuple[ResolvedRule, ...] = ()
    closed_by: tuple[PolicyHead, ...] = ()
    owner: tuple[ResolvedRule, ...] = ()
    baseline: tuple[ResolvedRule, ...] = ()

    @property
    def rules(self) -> tuple[ResolvedRule, ...]:
        """Of all tiers, in order of judgement."""
        return self.admin + self.owner + self.baseline

    def towards(self, end: int) -> tuple[ResolvedRule, ...]:
        """The rules that speak of one end, in order: equal for all pairs (subject, end) that are judged alike."""
        return tuple(rule for rule in self.rules if rule.ends >> end & 1)


@dataclass(frozen=True)
class IR:
    """All ends, and what judges those that have a judge.

    gateways: (playground, name). cells: of the world; owned: by playground, the cells (as ends) that are no world to
    it. egress, ingress: for each identity its chain, as enforced; staged_…: with what is staged. Identities that are
    judged alike have one object.
    """

    identities: tuple[Identity, ...]
    gateways: tuple[tuple[str, str], ...]
    cells: tuple[Cell, ...]
    owned: Mapping[str, int]
    egress: tuple[Chain, ...]
    ingress: tuple[Chain, ...]
    staged_egress: tuple[Chain, ...]
    staged_ingress: tuple[Chain, ...]

    @cached_property
    def chains(self) -> tuple[Chain, ...]:
        """Each once, in the order in which identities need them."""
        found: dict[int, Chain] = {}
        for direction in Direction:
            for pair in zip(*self.tables(direction), strict=True):
                found.update((id(chain), chain) for chain in pair)
        return tuple(found.values())

    @cached_property
    def numbers(self) -> Mapping[int, int]:
        """The place of each chain in `chains`, by its id."""
        return {id(chain): number for number, chain in enumerate(self.chains)}

    @property
    def first_gateway(self) -> int:
        """The end that is the first gateway."""
        return FIRST_IDENTITY + len(self.identities)

    @property
    def first_cell(self) -> int:
        """The end that is the first cell of the world."""
        return self.first_gateway + len(self.gateways)

    def chain(self, direction: Direction, end: int, is_staged: bool = False) -> Chain:
        """The chain that judges an identity, given as an end."""
        return self.tables(direction)[is_staged][end - FIRST_IDENTITY]

    def tables(self, direction: Direction) -> tuple[tuple[Chain, ...], tuple[Chain, ...]]:
        """Of one direction: as enforced, and with what is staged."""
        if direction is Direction.EGRESS:
            return self.egress, self.staged_egress
        return self.ingress, self.staged_ingress

    def identity(self, end: int) -> Identity:
        """The identity that an end is."""
        return self.identities[end - FIRST_IDENTITY]

    def is_identity(self, end: int) -> bool:
        """Whether an end is an identity, so that it has chains."""
        return FIRST_IDENTITY <= end < self.first_gateway

    def world(self, playground: str) -> int:
        """The ends that are world to a playground."""
        whole = ((1 << len(self.cells)) - 1) << self.first_cell
        return whole & ~self.owned.get(playground, 0)
