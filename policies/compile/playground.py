"""Pure. A playground's policies as kernel tables of one host: who is local is judged, by the flow's original direction.

A flow is judged once for each version of all that is said here: its connection's mark then is that version's, and its
packets pass by one comparison. So a change judges every flow anew, and a restart, which finds the same, none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from operator import is_
from typing import NamedTuple

from policies.compile.judges import (
    ACCEPTED,
    Judges,
    compile_judges,
    counter_name,
    has_nothing_to_say,
)
from policies.compile.numbers import EndNumbers, number_ends
from policies.compile.places import (
    DIRECTIONS,
    Blocks,
    PolicedEnd,
    PolicedGateway,
    PolicedNetwork,
    host_elements,
    jumps,
)
from policies.compile.tables import Chain as KernelChain
from policies.compile.tables import KeptParts, Part, fingerprint
from policies.compile.ways import NEIGHBOURS, REVERSED, STATELESS, STATIC, judging, known, lenient_chains
from policies.ir import FIRST_IDENTITY, IR, SERVICES, Chain
from policies.model import Direction
from policies.prove import Claim, ProvedNetwork
from policies.verdicts import Judgement, judgement_text

NO_PARTS = KeptParts({})
_NO_PART = Part()


@dataclass(frozen=True, slots=True)
class _Read:
    """All that a compilation reads."""

    ir: IR
    numbers: EndNumbers
    networks: tuple[PolicedNetwork, ...]
    ends: tuple[PolicedEnd, ...]
    gateways: tuple[PolicedGateway, ...]

    def claim(self, counters: frozenset[str]) -> Claim:
        """The same for whoever proves it."""
        here: dict[str, dict[str, tuple[int, tuple[str, ...], bool]]] = {}
        for network in self.networks:
            here[network.name] = {"@services": (SERVICES, network.services, False)}
        for gateway in self.gateways:
            end = self.numbers.gateways.get(gateway.name)
            if gateway.network in here and end is not None:
                here[gateway.network][f"@gateway/{gateway.name}"] = end, gateway.addresses, False
        for one in self.ends:
            if one.network in here:
                end = self.numbers.members[one.workspace, one.network]
                here[one.network][one.workspace] = end, one.addresses, one.is_local
        networks = (ProvedNetwork(one.name, one.bridge, one.zone, here[one.name]) for one in self.networks)
        return Claim(self.ir, self.numbers.playground, tuple(networks), counters)


@dataclass(frozen=True)
class Compiled:
    """What one playground needs. bridges: whose packets have to meet the table. generation: the mark of flows that were
    accepted by just this."""

    parts: KeptParts
    bridges: frozenset[str]
    generation: int
    judges: tuple[Judges, ...] = field(compare=False, repr=False)
    read: _Read = field(compare=False, repr=False)

    @cached_property
    def zones(self) -> Mapping[str, int]:
        """Of connection tracking, by bridge."""
        return {network.bridge: network.zone for network in self.read.networks}

    @cached_property
    def judgements(self) -> Mapping[str, Judgement]:
        """What counters and logs mean, by id."""
        return {id: one for judges in self.judges for id, one in judges.judgements.items()}

    @cached_property
    def claim(self) -> Claim:
        """What the kernel should mean, once it holds this."""
        return self.read.claim(frozenset(f"j{id}" for id in self.judgements))

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Whom its chains judge, and what its counters count, for people."""
        playground, numbers = self.read.numbers.playground, self.read.numbers.numbers
        ends: dict[str, list[str]] = {}
        for (workspace, _), end in sorted(self.read.numbers.members.items()):
            ends.setdefault(f"{numbers[end]:x}", []).append(workspace)
        found = {counter_name(one): judgement_text(one) for one in self.judgements.values()}
        for chain in (chain for part in self.parts.values() for chain in part.chains):
            kind, _, rest = chain.partition("_")
            if kind in _KINDS:
                own = dict.fromkeys(ends.get(rest.rpartition("_")[2], ()))
                found[chain] = f"{_KINDS[kind]}{', '.join(own) or f'playground {playground}'}"
        return found


_KINDS = {"p": "", "e": "egress of ", "i": "ingress of ", "r": "rules of "}


def policy_table(compiled: Iterable[Compiled]) -> KeptParts:
    """All of a host's playgrounds as the parts of TABLE; none if none is policed."""
    found: dict[Hashable, Part] = {}
    for one in compiled:
        found.update(one.parts)
    return KeptParts({"static": STATIC, **found} if found else {})


def policy_table_after(table: KeptParts, before: Mapping[str, Compiled], after: Mapping[str, Compiled]) -> KeptParts:
    """The same, made of the table of others; by playground's id. It costs what differs."""
    changed: dict[Hashable, Part | None] = {}
    for id in before.keys() | after.keys():
        old = before[id].parts if id in before else NO_PARTS
        new = after[id].parts if id in after else NO_PARTS
        changed.update((key, new.get(key)) for key in new.differing(old))
    if bool(before) != bool(after):
        changed["static"] = STATIC if after else None
    return table.patched(changed)


def compile_playground(
    ir: IR,
    playground: str,
    id: str,
    networks: tuple[PolicedNetwork, ...],
    ends: tuple[PolicedEnd, ...],
    gateways: tuple[PolicedGateway, ...] = (),
    *,
    is_lenient: bool = False,
) -> Compiled | None:
    """From nothing; None where nothing polices the playground. id: 12 hex digits, of the playground.

    is_lenient: for the first seconds in which a network is policed. A TCP connection that runs already may be seen
    first by an answer, and so be known the wrong way round. If its two ends would have allowed it the other way, it
    is accepted, and REVERSED set in its connection's mark. Before the form that is not lenient takes over, these
    connections are to be turned round in the kernel, without that bit; what is left of them is judged as it is known.
    The generation is the same in both forms.
    """
    return PlaygroundCompiler(playground, id).compile(ir, networks, ends, gateways, is_lenient=is_lenient)


@dataclass(slots=True, eq=False)
class _Alike:
    """Ends that the same two chains judge in one direction; while it is kept, nothing else has their identity.

    judges: what those became that are local; None where nobody is, or nothing is said.
    """

    chain: Chain
    staged: Chain
    ends: set[int] = field(default_factory=set)
    number: int = 0
    judges: Judges | None = None

    @property
    def has_to_say(self) -> bool:
        return not (has_nothing_to_say(self.chain) and has_nothing_to_say(self.staged))


class _Place(NamedTuple):
    """What follows from who is there alone. local: the ends that are judged here."""

    where: tuple[EndNumbers, tuple[PolicedNetwork, ...], tuple[PolicedEnd, ...], tuple[PolicedGateway, ...]]
    local: frozenset[int]
    elements: dict[str, dict[str, str]]


class _Led(NamedTuple):
    """What follows from which judges each end is led to, and from who is there. elements: of both."""

    elements: Mapping[str, Mapping[str, str]]
    blocks: Blocks


class PlaygroundCompiler:
    """Compiles a playground again and again. What a chain became is kept as long as the very same chain object comes
    again, and while identities, gateways and cells stay: one changed policy costs the chains that hold it."""

    def __init__(self, playground: str, id: str) -> None:
        self._playground, self._id = playground, id
        self._numbered: tuple[object, EndNumbers] | None = None
        self._ir: IR | None = None
        self._is_lenient = False
        self._alike: dict[tuple[int, int], _Alike] = {}
        self._speaking = 0
        """Of these, how many have something to say."""
        self._entries: dict[tuple[Direction, int], Judges] = {}
        """What judges each local end."""
        self._users: Counter[tuple[str, ...]] = Counter()
        """How many judges have a part."""
        self._said = 0
        """The sum of all judges' digests: the same in whatever order they came."""
        self._parts = NO_PARTS
        self._place: _Place | None = None
        self._led: _Led | None = None
        self._digests: dict[str, tuple[Mapping[str, str], str]] = {}

    def compile(
        self,
        ir: IR,
        networks: tuple[PolicedNetwork, ...],
        ends: tuple[PolicedEnd, ...],
        gateways: tuple[PolicedGateway, ...] = (),
        *,
        is_lenient: bool = False,
    ) -> Compiled | None:
        """The same as `compile_playground`, for less."""
        numbers = self._numbers(ir)
        where = numbers, networks, ends, gateways
        bridges = {network.name: network for network in networks}
        place = self._place
        if place is None or place.where != where:
            local = frozenset(numbers.members[end.workspace, end.network] for end in ends if end.is_local)
            place = _Place(where, local, host_elements(self._id, numbers, bridges, ends, gateways))
        if place is self._place and self._ir is not None and is_lenient == self._is_lenient:
            is_led_anew = self._change(self._ir, ir, place)
        else:
            is_led_anew = True
            self._begin(ir, place, is_lenient)
        if is_led_anew or self._led is None:
            led = jumps(bridges, ends, numbers, self._entries)
            before = self._led.elements if self._led is not None else {}
            elements = {name: _kept(before.get(name), found) for name, found in {**place.elements, **led}.items()}
            self._led = _Led(elements, Blocks(bridges, ends, numbers, self._entries))
        self._ir, self._place, self._is_lenient = ir, place, is_lenient
        if not self._speaking:
            return None
        blocks = self._led.blocks
        generation = self._generation(self._led.elements, blocks)
        stateless = f"m_{self._id}" if blocks.silent else STATELESS
        passed = known(generation, stateless)
        chains = {f"p_{self._id}": KernelChain((*passed, *judging(generation, blocks)))}
        if is_lenient:
            chains = lenient_chains(self._id, generation, blocks, passed)
        if blocks.silent:
            chains[stateless] = KernelChain((f"jump {NEIGHBOURS}", *blocks.silent, f"goto {STATELESS}"))
        own: dict[Hashable, Part] = {
            (self._id, "elements"): Part({}, {}, self._led.elements),
            (self._id, "playground"): Part(chains, {}, {"accepted": {str(generation): ""}}),
        }
        self._parts = self._parts.patched(_differing(self._parts, own))
        read = _Read(ir, numbers, networks, ends, gateways)
        judges = tuple([one.judges for one in self._alike.values() if one.judges is not None])
        return Compiled(self._parts, frozenset(network.bridge for network in networks), generation, judges, read)

    def _numbers(self, ir: IR) -> EndNumbers:
        known = (ir.identities, ir.gateways, ir.cells, ir.world(self._playground))
        if self._numbered is None or self._numbered[0] != known:
            self._numbered = known, number_ends(ir, self._playground)
        return self._numbered[1]

    def _begin(self, ir: IR, place: _Place, is_lenient: bool) -> None:
        """Has all ends judged, of whom others are there, or in another form."""
        is_same_form = self._place is not None and self._place.where[0] is place.where[0]
        before = self._alike if is_same_form and is_lenient == self._is_lenient else {}
        gone = [one.judges for one in self._alike.values()]
        self._alike, self._entries, self._is_lenient = {}, {}, is_lenient
        for direction in Direction:
            tables = ir.tables(direction)
            for end in sorted(place.where[0].identities):
                self._join(end, tables[0][end - FIRST_IDENTITY], tables[1][end - FIRST_IDENTITY])
        for key, one in self._alike.items():
            if (known := before.get(key)) is not None:
                one.number, one.judges = known.number, known.judges
            self._judge(one, place)
        self._speaking = sum(one.has_to_say for one in self._alike.values())
        self._exchange(gone, [one.judges for one in self._alike.values()])

    def _change(self, before: IR, after: IR, place: _Place) -> bool:
        """Has those ends judged anew whose chains are others; whether any end is led elsewhere by that."""
        touched: dict[tuple[int, int], _Alike] = {}
        moved: set[tuple[Direction, int]] = set()
        for direction in Direction:
            now, then = before.tables(direction), after.tables(direction)
            for end in _differing_ends(*now, *then):
                if end in place.where[0].identities:
                    old = now[0][end - FIRST_IDENTITY], now[1][end - FIRST_IDENTITY]
                    new = then[0][end - FIRST_IDENTITY], then[1][end - FIRST_IDENTITY]
                    left = touched[_key(*old)] = self._alike[_key(*old)]
                    left.ends.remove(end)
                    touched[_key(*new)] = self._join(end, *new)
                    moved.add((direction, end))
        if not touched:
            return False
        gone, come = [], []
        led = {key: _led_to(self._entries.pop(key, None)) for key in moved}
        for key, one in touched.items():
            was, is_new = one.judges, one.number == 0
            if not one.ends:
                del self._alike[key]
                self._speaking -= one.has_to_say
                gone.append(was)
                continue
            self._speaking += is_new and one.has_to_say
            mine = [(one.chain.direction, end) for end in one.ends & place.local]
            led.update((end, _led_to(self._entries.get(end))) for end in mine if end not in led)
            self._judge(one, place)
            if one.judges is not was:
                gone.append(was)
                come.append(one.judges)
        self._exchange(gone, come)
        return any(_led_to(self._entries.get(end)) != before for end, before in led.items())

    def _join(self, end: int, chain: Chain, staged: Chain) -> _Alike:
        one = self._alike.get(_key(chain, staged))
        if one is None:
            one = self._alike[_key(chain, staged)] = _Alike(chain, staged)
        one.ends.add(end)
        return one

    def _judge(self, one: _Alike, place: _Place) -> None:
        """Makes its judges, if any of its ends is local, and has these led to them."""
        numbers, direction = place.where[0], one.chain.direction
        number = min([numbers.numbers[end] for end in one.ends])
        mine = one.ends & place.local if one.has_to_say else frozenset()
        if not mine:
            one.judges = None
        elif one.judges is None or number != one.number:
            name = f"{DIRECTIONS[direction][0]}_{self._id}_{number:x}"
            one.judges = compile_judges(one.chain, one.staged, numbers, self._id, name, self._is_lenient)
        one.number = number
        if one.judges is not None:
            self._entries.update(((direction, end), one.judges) for end in mine)

    def _exchange(self, gone: Iterable[Judges | None], come: Iterable[Judges | None]) -> None:
        """Has the parts of some judges go and those of others come; one that several have goes with the last."""
        changed: dict[Hashable, Part | None] = {}
        for judges in filter(None, gone):
            self._said -= int(judges.digest or "0", 16)
            for name in judges.parts:
                self._users[name] -= 1
                if not self._users[name]:
                    del self._users[name]
                    changed[(self._id, *name)] = None
        for judges in filter(None, come):
            self._said += int(judges.digest or "0", 16)
            for name, part in judges.parts.items():
                self._users[name] += 1
                if self._users[name] == 1:
                    known = self._parts.get((self._id, *name))
                    changed[(self._id, *name)] = known if known == part else part
        self._parts = self._parts.patched(changed)

    def _generation(self, elements: Mapping[str, Mapping[str, str]], blocks: Blocks) -> int:
        """30 bits that tell all of it, and the highest, so it is never nought."""
        digest = blake2b(self._id.encode(), digest_size=4)
        for name, found in sorted(elements.items()):
            if name.startswith("back_"):
                continue
            known = self._digests.get(name)
            if known is None or known[0] is not found:
                known = self._digests[name] = found, fingerprint(repr(sorted(found.items())))
            digest.update(f"{name} {known[1]} ".encode())
        digest.update(repr((blocks.marks, blocks.jumps, self._said)).encode())
        return int.from_bytes(digest.digest(), "big") & ~REVERSED | ACCEPTED


def _key(chain: Chain, staged: Chain) -> tuple[int, int]:
    return id(chain), id(staged)


def _led_to(judges: Judges | None) -> tuple[str, str, bool] | None:
    """All that leading an end there needs to know."""
    return (judges.entry, judges.backwards, judges.is_closed) if judges is not None else None


def _differing_ends(
    enforced: Sequence[Chain], staged: Sequence[Chain], enforced_now: Sequence[Chain], staged_now: Sequence[Chain]
) -> list[int]:
    """Identities, as ends, whose chains are not the same objects any more."""
    same = map(is_, enforced, enforced_now), map(is_, staged, staged_now)
    return [end for end, alike in enumerate(zip(*same, strict=True), FIRST_IDENTITY) if alike != (True, True)]


def _differing(parts: KeptParts, wanted: Mapping[Hashable, Part]) -> dict[Hashable, Part | None]:
    """Those that are not equal yet: what is as it was stays the very same object."""
    return {key: part for key, part in wanted.items() if parts.get(key) != part}


def _kept(known: Mapping[str, str] | None, found: Mapping[str, str]) -> Mapping[str, str]:
    """What is as it was, as the very same object."""
    return known if known is not None and (known is found or known == found) else found
