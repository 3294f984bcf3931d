"""Pure. Turns a scene into the intermediate form: whom policies select and name, as numbered ends, and in which order.

A `Resolver` keeps what it made of each policy object while nothing that it read changes; `resolve` keeps nothing, and
is what the kept one is tested against. Decides nothing.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count
from typing import NamedTuple, TypeVar

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

_T = TypeVar("_T")

TIERS = {tier: place for place, tier in enumerate(Tier)}

_NO_CHAIN = Chain(Direction.EGRESS)


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


_ChainKey = tuple[Direction, tuple[int, ...], tuple[Variant, ...]]


class Changes(NamedTuple):
    """Policies of the scene before that are in this one no more, and those that are new in it: objects, not values."""

    gone: Sequence[Policy]
    come: Sequence[Policy]


class _Asked:
    """What the policies that there are ask of labels and of the world, counted, so that one less or more costs its
    own."""

    def __init__(self) -> None:
        self._terms: Counter[tuple[str, str, str]] = Counter()
        self._blocks: Counter[BlockPeer] = Counter()

    def change(self, gone: Iterable[_Read], come: Iterable[_Read]) -> tuple[bool, bool]:
        """Takes in what comes and goes; whether by that other terms are in use, and other blocks."""
        gone, come = list(gone), list(come)
        return (
            _recount(self._terms, [_words(one.terms) for one in gone], [_words(one.terms) for one in come]),
            _recount(self._blocks, [one.blocks for one in gone], [one.blocks for one in come]),
        )

    @property
    def blocks(self) -> frozenset[BlockPeer]:
        return frozenset(self._blocks)

    def terms(self) -> Terms:
        found = Terms()
        for kind, key, value in self._terms:
            if kind == _VALUE:
                found.values.setdefault(key, set()).add(value)
            else:
                (found.asked if kind == _HAS else found.whole).add(key)
        return found


_VALUE, _HAS, _SAME = "=", "has", "same"


def _words(terms: Terms) -> list[tuple[str, str, str]]:
    named = [(_VALUE, key, value) for key, values in terms.values.items() for value in values]
    return [*named, *((_HAS, key, "") for key in terms.asked), *((_SAME, key, "") for key in terms.whole)]


def _recount(counts: Counter[_T], gone: Iterable[Iterable[_T]], come: Iterable[Iterable[_T]]) -> bool:
    """Whether any was counted before and is not now, or the other way round."""
    by: Counter[_T] = Counter()
    for listed in come:
        by.update(listed)
    for listed in gone:
        by.subtract(listed)
    is_other = False
    for one, more in by.items():
        before = counts[one]
        counts[one] = before + more
        is_other |= bool(before) != bool(counts[one])
        if not counts[one]:
            del counts[one]
    return is_other


class Resolver:
    """Resolves scene after scene. What a policy means is kept as long as the very same object comes again, and while
    endpoints, gateways and cells stay; so one changed policy costs its own rules and the chains that hold them."""

    def __init__(self) -> None:
        self._read: dict[int, _Read] = {}
        self._asked = _Asked()
        self._resolved: dict[int, _Resolved] = {}
        self._scene: Scene | None = None
        self._owned: dict[str, list[Span]] = {}
        self._ends = _Ends((), (), World((), {}, {}))
        self._owned_ends: dict[str, int] = {}
        self._replaced: Counter[_Name] = Counter()
        self._chains: dict[_ChainKey, Chain] = {}
        self._sides: dict[Direction, _Side] = {}
        self._serials = count()

    def resolve(self, scene: Scene, changes: Changes | None = None) -> IR:
        """The same as `resolve(scene)`, for less. changes: by which this scene's policies are others than the last
        one's; found by looking at all of them where nobody says."""
        gone, come = changes if changes is not None else self._differing(scene.policies)
        old = {id(policy): self._read.pop(id(policy)) for policy in gone}
        new = {id(policy): _Read(policy) for policy in come}
        self._read.update(new)
        are_others, is_replaced_by_others = self._is_other(scene, old, new)
        if are_others:
            left, self._resolved = self._resolved, {}
            for key, one in self._read.items():
                known = left.get(key) if key not in new else None
                self._resolved[key] = known or _Resolved(next(self._serials), one, self._ends)
        else:
            left = {key: self._resolved.pop(key) for key in old}
            fresh = {key: _Resolved(next(self._serials), one, self._ends) for key, one in new.items()}
            self._resolved.update(fresh)
        if are_others or is_replaced_by_others:
            self._choose()
        else:
            for side in self._sides.values():
                side.change(left.values(), fresh.values(), self._replaced)
        self._scene = scene
        egress, ingress = (self._sides[direction] for direction in (Direction.EGRESS, Direction.INGRESS))
        return IR(
            self._ends.identities,
            self._ends.gateways,
            self._ends.world.cells,
            self._owned_ends,
            tuple(egress.enforced),
            tuple(ingress.enforced),
            tuple(egress.staged),
            tuple(ingress.staged),
        )

    def _differing(self, policies: tuple[Policy, ...]) -> Changes:
        now = {id(policy): policy for policy in policies}
        gone = [one.policy for key, one in self._read.items() if key not in now]
        return Changes(gone, [policy for key, policy in now.items() if key not in self._read])

    def _is_other(self, scene: Scene, old: Mapping[int, _Read], new: Mapping[int, _Read]) -> tuple[bool, bool]:
        """Whether ends are others than before, so that all is to be resolved and chosen anew; and whether policies are
        replaced that were not, or the other way round."""
        has_terms, has_blocks = self._asked.change(old.values(), new.values())
        is_replaced = _recount(self._replaced, map(_replacing, old.values()), map(_replacing, new.values()))
        last = self._scene
        is_same_place = last is not None and (last.endpoints, last.subnets, last.gateways) == (
            scene.endpoints,
            scene.subnets,
            scene.gateways,
        )
        if is_same_place and not has_terms and not has_blocks:
            return False, is_replaced
        before, is_first = self._ends, last is None
        if not is_same_place:
            self._owned = owned_spans(scene)
        world = before.world if is_same_place and not has_blocks else part_world(self._asked.blocks, self._owned)
        gateways = tuple(sorted({(gateway.playground, gateway.name) for gateway in scene.gateways}))
        self._ends = _Ends(identities(scene.endpoints, self._asked.terms()), gateways, world)
        self._owned_ends = {name: cells << self._ends.first_cell for name, cells in world.owned.items() if cells}
        if is_first or before.world is not world or not can_renumber(before.identities):
            self._chains, self._resolved = {}, {}
        else:
            self._renumber(Renumbering(before.identities, self._ends.identities))
        return True, is_replaced

    def _renumber(self, renumbering: Renumbering) -> None:
        """Takes what is kept over to other identities of the same endpoints."""
        for one in self._resolved.values():
            one.subjects = renumbering.ends(one.subjects)
            one.variants = {key: renumbering.rules(rules) for key, rules in one.variants.items()}
        self._chains = {key: renumbering.chain(chain) for key, chain in self._chains.items()}

    def _choose(self) -> None:
        """What selects whom, from all that is resolved."""
        ordered = sorted(self._resolved.values(), key=_order)
        kept = _KeptChains(self._ends, self._chains)
        self._sides = {direction: _Side(direction, kept, ordered, self._replaced) for direction in Direction}
        kept.drop_unused()
        self._chains = kept.chains


_Name = tuple[str, Tier, str]
"""(playground, tier, name) of a policy that a staged one replaces."""


class _KeptChains:
    """Chains by what they are made of, as long as an identity has them."""

    def __init__(self, ends: _Ends, chains: dict[_ChainKey, Chain]) -> None:
        self.chains = chains
        self.ends = ends
        self._users: Counter[_ChainKey] = Counter()

    def key(self, direction: Direction, end: int, mine: list[_Resolved]) -> _ChainKey:
        """What names the chain of an end that these policies select."""
        variants: tuple[Variant, ...] = ()
        if any(one.same[direction] for one in mine):
            variants = tuple(self.ends.variant(end, one.same[direction]) for one in mine)
        return direction, tuple([one.serial for one in mine]), variants

    def use(self, key: _ChainKey, mine: list[_Resolved]) -> Chain:
        """The one chain of that name, which one more has now."""
        self._users[key] += 1
        chain = self.chains.get(key)
        if chain is None:
            chain = self.chains[key] = self._made(key, mine)
        return chain

    def leave(self, key: _ChainKey) -> None:
        """One less has it; with the last it goes."""
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key], self.chains[key]

    def drop_unused(self) -> None:
        for key in self.chains.keys() - self._users.keys():
            del self.chains[key]

    def _made(self, key: _ChainKey, mine: list[_Resolved]) -> Chain:
        direction, _, variants = key
        rules: dict[Tier, list[ResolvedRule]] = {tier: [] for tier in Tier}
        for place, one in enumerate(mine):
            variant = variants[place] if variants and one.same[direction] else None
            rules[one.head.tier].extend(one.resolved(direction, variant, self.ends))
        return Chain(
            direction,
            tuple(rules[Tier.ADMIN]),
            tuple(one.head for one in mine if one.head.tier is Tier.OWNER),
            tuple(rules[Tier.OWNER]),
            tuple(rules[Tier.BASELINE]),
        )


class _Side:
    """One direction: which policies select each identity, in order, and the chains that these make."""

    def __init__(
        self, direction: Direction, chains: _KeptChains, ordered: Iterable[_Resolved], replaced: Collection[_Name]
    ) -> None:
        self._direction, self._chains = direction, chains
        many = len(chains.ends.identities)
        self._selecting: list[list[_Resolved]] = [[] for _ in range(many)]
        self._keys: list[tuple[_ChainKey, ...]] = [()] * many
        self.enforced: list[Chain] = [_NO_CHAIN] * many
        self.staged: list[Chain] = [_NO_CHAIN] * many
        for one in ordered:
            for place in self._selected(one):
                self._selecting[place].append(one)
        for place in range(many):
            self._lead(place, replaced)

    def change(self, gone: Iterable[_Resolved], come: Iterable[_Resolved], replaced: Collection[_Name]) -> None:
        """Some policies less and some more, of the same identities."""
        touched: dict[int, None] = {}
        for one in gone:
            for place in self._selected(one):
                self._selecting[place].remove(one)
                touched[place] = None
        for one in come:
            for place in self._selected(one):
                insort(self._selecting[place], one, key=_order)
                touched[place] = None
        for place in touched:
            self._lead(place, replaced)

    def _selected(self, one: _Resolved) -> list[int]:
        return numbers(one.subjects >> FIRST_IDENTITY) if one.rules[self._direction] is not None else []

    def _lead(self, place: int, replaced: Collection[_Name]) -> None:
        mine, end = self._selecting[place], place + FIRST_IDENTITY
        enforced = [one for one in mine if one.head.mode is not Mode.STAGE]
        staged = [one for one in mine if not _is_replaced(one.head, replaced)] if replaced else mine
        now = self._chains.key(self._direction, end, enforced)
        then = now if len(staged) == len(enforced) == len(mine) else self._chains.key(self._direction, end, staged)
        before, self._keys[place] = self._keys[place], (now, then)
        self.enforced[place] = self._chains.use(now, enforced)
        self.staged[place] = self._chains.use(then, staged)
        for key in before:
            self._chains.leave(key)


def _order(one: _Resolved) -> tuple[int, int, str, str, str, int]:
    return one.order


def policy_order(head: PolicyHead) -> tuple[int, int, str, str, str, int]:
    """Tiers in order; in a tier by priority, and where that is equal by what never changes: name and place."""
    return TIERS[head.tier], head.priority, head.playground, head.name, head.origin.file, head.origin.line


def _same(rules: Iterable[Rule]) -> tuple[str, ...]:
    labels = {peer.label for rule in rules for peer in rule.peers if isinstance(peer, SamePeer)}
    return tuple(sorted(labels))


def _replacing(read: _Read) -> tuple[_Name, ...]:
    head = read.head
    return ((head.playground, head.tier, head.replaces),) if head.mode is Mode.STAGE and head.replaces else ()


def _is_replaced(head: PolicyHead, replaced: Collection[_Name]) -> bool:
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
