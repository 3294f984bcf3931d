"""Pure. Turns a scene into the intermediate form: whom policies select and name, as numbered ends, and in which order.

A `Resolver` keeps what it made of each policy object while nothing that it read changes; `resolve` keeps nothing, and
is what the kept one is tested against. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

from policies.bitset import numbers
from policies.identity import Identity, LabelIndex, Terms, identities, terms_of
from policies.ir import FIRST_IDENTITY, HOST, IR, SERVICES, Chain, PolicyHead, ResolvedRule
from policies.model import (
    BlockPeer,
    Direction,
    EndpointPeer,
    GatewayPeer,
    HostPeer,
    Mode,
    Peer,
    Policy,
    Rule,
    SamePeer,
    Scene,
    ServicesPeer,
    Tier,
    WorldPeer,
)
from policies.renumber import Renumbering, can_renumber
from policies.world import Span, World, owned_spans, part_world

TIERS = {tier: place for place, tier in enumerate(Tier)}


def resolve(scene: Scene) -> IR:
    """The whole, from nothing."""
    return Resolver().resolve(scene)


Variant = tuple[str, tuple[str | None, ...]]
"""What `same` depends on: the subject's playground, and its values of the labels that a policy compares."""


class _Read:
    """What a policy is by itself: all that does not depend on who is there."""

    __slots__ = ("blocks", "head", "order", "policy", "rules", "same", "terms")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.head = _head(policy)
        self.order = policy_order(self.head)
        self.rules = {direction: policy.rules(direction) for direction in Direction}
        self.same = {direction: _same(rules or ()) for direction, rules in self.rules.items()}
        self.terms = terms_of(policy)
        self.blocks = tuple(
            peer
            for rules in self.rules.values()
            for rule in rules or ()
            for peer in rule.peers
            if isinstance(peer, BlockPeer)
        )


class _Resolved:
    """A policy against the ends that there are. serial: never given twice by one resolver."""

    __slots__ = ("head", "order", "rules", "same", "serial", "subjects", "variants")

    def __init__(self, serial: int, read: _Read, ends: _Ends) -> None:
        self.serial = serial
        self.head, self.order, self.rules, self.same = read.head, read.order, read.rules, read.same
        self.subjects = 0
        for subject in read.policy.subjects:
            self.subjects |= ends.matching(subject)
        self.variants: dict[tuple[Direction, Variant | None], tuple[ResolvedRule, ...]] = {}

    def resolved(self, direction: Direction, variant: Variant | None, ends: _Ends) -> tuple[ResolvedRule, ...]:
        """The rules as they stand for subjects of one variant."""
        known = self.variants.get((direction, variant))
        if known is None:
            values = dict(zip(self.same[direction], variant[1], strict=True)) if variant else {}
            known = self.variants[direction, variant] = tuple(
                ResolvedRule(
                    self.head,
                    direction,
                    number,
                    ends.of(rule.peers, self.head.playground, variant[0] if variant else "", values),
                    rule.ports,
                    rule.action,
                    rule.origin,
                    rule.name,
                )
                for number, rule in enumerate(self.rules[direction] or (), start=1)
            )
        return known


class _Ends:
    """Numbers of all who can be at an end, by what names them."""

    def __init__(self, known: tuple[Identity, ...], gateways: tuple[tuple[str, str], ...], world: World) -> None:
        self.identities, self.gateways, self.world = known, gateways, world
        self.first_cell = FIRST_IDENTITY + len(known) + len(gateways)
        self._index = LabelIndex(known)

    def matching(self, peer: EndpointPeer) -> int:
        return self._index.matching(peer) << FIRST_IDENTITY

    def variant(self, end: int, labels: tuple[str, ...]) -> Variant:
        identity = self.identities[end - FIRST_IDENTITY]
        mine = dict(identity.labels)
        return identity.playground, tuple(mine.get(label) for label in labels)

    def of(self, peers: Iterable[Peer], owner: str, playground: str, values: dict[str, str | None]) -> int:
        """All whom any of the peers means. owner: the policy's playground; playground, values: the subject's."""
        found = 0
        for peer in peers:
            match peer:
                case EndpointPeer():
                    found |= self.matching(peer)
                case SamePeer(label):
                    value = values[label]
                    if value is not None:
                        found |= self._index.having(playground, label, value) << FIRST_IDENTITY
                case WorldPeer():
                    found |= ((1 << len(self.world.cells)) - 1) << self.first_cell
                case BlockPeer():
                    found |= self.world.blocks[peer] << self.first_cell
                case ServicesPeer():
                    found |= 1 << SERVICES
                case HostPeer():
                    found |= 1 << HOST
                case GatewayPeer(name):
                    for number, (place, known) in enumerate(self.gateways, FIRST_IDENTITY + len(self.identities)):
                        if known == name and owner in ("", place):
                            found |= 1 << number
        return found


@dataclass(slots=True)
class _Present:
    """What the last resolution read and made, for the next to compare with."""

    scene: Scene
    terms: Terms
    blocks: frozenset[BlockPeer]
    owned: dict[str, list[Span]]
    ends: _Ends
    owned_ends: dict[str, int] = field(default_factory=dict)


_ChainKey = tuple[Direction, tuple[int, ...], tuple[Variant, ...]]


class Resolver:
    """Resolves scene after scene. What a policy means is kept as long as the very same object comes again, and while
    endpoints, gateways and cells stay; so one changed policy costs its own rules and the chains that hold them."""

    def __init__(self) -> None:
        self._read: dict[int, _Read] = {}
        self._resolved: dict[int, _Resolved] = {}
        self._chains: dict[_ChainKey, Chain] = {}
        self._present: _Present | None = None
        self._serials = count()

    def resolve(self, scene: Scene) -> IR:
        """The same as `resolve(scene)`, for less."""
        read = {id(policy): self._read.get(id(policy)) or _Read(policy) for policy in scene.policies}
        present = self._ends(scene, list(read.values()))
        ends = present.ends
        last = self._present
        if last is None or last.ends is not ends:
            self._carry(last.ends if last else None, ends)
        self._resolved = {
            key: self._resolved.get(key) or _Resolved(next(self._serials), one, ends) for key, one in read.items()
        }
        self._read, self._present = read, present
        ordered = sorted(self._resolved.values(), key=lambda one: one.order)
        tables = _Tables(ends, self._chains)
        enforced, staged = {}, {}
        for direction in Direction:
            enforced[direction], staged[direction] = tables.select(direction, ordered)
        self._chains = tables.used
        return IR(
            ends.identities,
            ends.gateways,
            ends.world.cells,
            present.owned_ends,
            tuple(tables.chains),
            enforced[Direction.EGRESS],
            enforced[Direction.INGRESS],
            staged[Direction.EGRESS],
            staged[Direction.INGRESS],
        )

    def _carry(self, before: _Ends | None, after: _Ends) -> None:
        """Takes what is kept over to other identities, or drops it where more than those has changed."""
        if before is None or before.world is not after.world or not can_renumber(before.identities):
            self._chains, self._resolved = {}, {}
            return
        renumbering = Renumbering(before.identities, after.identities)
        for one in self._resolved.values():
            one.subjects = renumbering.ends(one.subjects)
            one.variants = {key: renumbering.rules(rules) for key, rules in one.variants.items()}
        self._chains = {key: renumbering.chain(chain) for key, chain in self._chains.items()}

    def _ends(self, scene: Scene, read: list[_Read]) -> _Present:
        """Those of the last time, if nothing that they depend on has changed."""
        last = self._present
        terms = Terms()
        for one in read:
            terms.add(one.terms)
        blocks = frozenset(block for one in read for block in one.blocks)
        is_same_place = last is not None and (last.scene.endpoints, last.scene.subnets, last.scene.gateways) == (
            scene.endpoints,
            scene.subnets,
            scene.gateways,
        )
        if last and is_same_place and last.terms == terms and last.blocks == blocks:
            return last
        owned = last.owned if last and is_same_place else owned_spans(scene)
        is_same_world = last is not None and is_same_place and last.blocks == blocks
        world = last.ends.world if last and is_same_world else part_world(blocks, owned)
        gateways = tuple(sorted({(gateway.playground, gateway.name) for gateway in scene.gateways}))
        ends = _Ends(identities(scene.endpoints, terms), gateways, world)
        owned_ends = {name: cells << ends.first_cell for name, cells in world.owned.items() if cells}
        return _Present(scene, terms, blocks, owned, ends, owned_ends)


class _Tables:
    """Numbers chains in the order in which identities need them."""

    def __init__(self, ends: _Ends, known: dict[_ChainKey, Chain]) -> None:
        self.chains: list[Chain] = []
        self.used: dict[_ChainKey, Chain] = {}
        self._numbers: dict[_ChainKey, int] = {}
        self._ends, self._known = ends, known

    def select(self, direction: Direction, ordered: list[_Resolved]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """For each identity the number of its chain as enforced, and with what is staged."""
        selected: list[list[_Resolved]] = [[] for _ in self._ends.identities]
        replaced = {
            (one.head.playground, one.head.tier, one.head.replaces)
            for one in ordered
            if one.head.mode is Mode.STAGE and one.head.replaces
        }
        is_any_staged = False
        for one in ordered:
            if one.rules[direction] is not None:
                is_any_staged |= one.head.mode is Mode.STAGE
                for end in numbers(one.subjects):
                    selected[end - FIRST_IDENTITY].append(one)
        if not is_any_staged and not replaced:
            table = tuple(self._number(direction, end, mine) for end, mine in enumerate(selected, FIRST_IDENTITY))
            return table, table
        enforced, staged = [], []
        for end, mine in enumerate(selected, FIRST_IDENTITY):
            enforced.append(self._number(direction, end, [one for one in mine if one.head.mode is not Mode.STAGE]))
            staged.append(self._number(direction, end, [one for one in mine if not _is_replaced(one.head, replaced)]))
        return tuple(enforced), tuple(staged)

    def _number(self, direction: Direction, end: int, mine: list[_Resolved]) -> int:
        variants: tuple[Variant, ...] = ()
        if any(one.same[direction] for one in mine):
            variants = tuple(self._ends.variant(end, one.same[direction]) for one in mine)
        key = (direction, tuple([one.serial for one in mine]), variants)
        number = self._numbers.get(key)
        if number is None:
            chain = self._known.get(key)
            if chain is None:
                chain = self._chain(direction, mine, variants)
            self.used[key] = chain
            number = self._numbers[key] = len(self.chains)
            self.chains.append(chain)
        return number

    def _chain(self, direction: Direction, mine: list[_Resolved], variants: tuple[Variant, ...]) -> Chain:
        rules: dict[Tier, list[ResolvedRule]] = {tier: [] for tier in Tier}
        for place, one in enumerate(mine):
            variant = variants[place] if variants and one.same[direction] else None
            rules[one.head.tier].extend(one.resolved(direction, variant, self._ends))
        return Chain(
            direction,
            tuple(rules[Tier.ADMIN]),
            tuple(one.head for one in mine if one.head.tier is Tier.OWNER),
            tuple(rules[Tier.OWNER]),
            tuple(rules[Tier.BASELINE]),
        )


def policy_order(head: PolicyHead) -> tuple[int, int, str, str, str, int]:
    """Tiers in order; in a tier by priority, and where that is equal by what never changes: name and place."""
    return TIERS[head.tier], head.priority, head.playground, head.name, head.origin.file, head.origin.line


def _same(rules: Iterable[Rule]) -> tuple[str, ...]:
    labels = {peer.label for rule in rules for peer in rule.peers if isinstance(peer, SamePeer)}
    return tuple(sorted(labels))


def _is_replaced(head: PolicyHead, replaced: set[tuple[str, Tier, str]]) -> bool:
    return head.mode is not Mode.STAGE and (head.playground, head.tier, head.name) in replaced


def _head(policy: Policy) -> PolicyHead:
    return PolicyHead(
        policy.name,
        policy.tier,
        policy.origin,
        policy.priority,
        policy.mode,
        policy.on_deny,
        policy.playground,
        policy.replaces,
        policy.keeps_established,
    )
