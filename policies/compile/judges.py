"""Pure. One chain of the intermediate form as chains of nft: what a subject's own side says of each other end.

A flow comes with the number of its other end as the packet's mark, is counted and logged by the rule that decides, and
goes back to the caller if this side consents; else it ends here. What decides is `evaluate`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, summarize_address_range

from policies.bitset import numbers
from policies.compile.match import matches
from policies.compile.numbers import NO_END, EndNumbers
from policies.compile.tables import Chain as KernelChain
from policies.compile.tables import Part, fingerprint
from policies.evaluate import Decision, Way, judge
from policies.ir import SERVICES, Chain, ResolvedRule
from policies.model import Direction, Mode, OnDeny, Tier
from policies.ports import EVERYTHING, Ports, Protocol
from policies.verdicts import LOG_GROUP, Judgement, log_prefix
from policies.world import Span

_LOG_LIMIT = "limit rate 20/second burst 40 packets"
"""Of each rule: enough to see what happens, too little to hurt (10 000 a second cost a tenth of a core)."""

ACCEPTED = 0x80000000
"""A bit of the mark of every connection that was accepted, by whichever version of the policies."""

REFUSE = "refuse"
"""The chain for packets that are refused, and their senders told."""

_CONSENT = ("return",)
_TCP = Ports.of(Protocol.TCP)

_Body = tuple[str, ...]


@dataclass(frozen=True)
class Judges:
    """What a chain became. entry: the chain to jump to, "" if it would never say no, count or log.

    parts: by subject, to be put into the policy table; those of equal rules are the same for all. judgements: what the
    counters and logs mean. is_closed: a policy of the owner's selects the subjects. digest: tells all that is said, but
    for backwards: the chain to jump to, if made for it, with a TCP flow that may be known the wrong way round.
    """

    entry: str
    parts: Mapping[tuple[str, ...], Part]
    judgements: Mapping[str, Judgement]
    is_closed: bool = False
    digest: str = ""
    backwards: str = ""


def counter_name(judgement: Judgement) -> str:
    """The counter of a judgement: its id after a letter, as a name may not begin with a digit."""
    return f"j{judgement.id}"


def forwards_name(table_id: str) -> str:
    """The chain in which a playground's flows are judged by the direction in which they are known."""
    return f"f_{table_id}"


def has_nothing_to_say(chain: Chain) -> bool:
    """Whether it allows everything to everyone, as nothing speaks of its subjects."""
    return not chain.rules and not chain.closed_by


def compile_judges(
    chain: Chain, staged: Chain, ends: EndNumbers, table_id: str, name: str, is_lenient: bool = False
) -> Judges:
    """name: of the entry, unique for the two chains in a direction. staged: the same object where nothing is staged.

    is_lenient: makes `backwards`, too, which goes back to the caller if this side would have consented to the flow the
    other way round, and else on to `forwards_name`.
    """
    made = _Making(ends, table_id)
    rules: list[str] = []
    if staged is not chain:
        rehearsal = made.dispatch(staged, is_rehearsal=True)
        if rehearsal:
            made.parts["chain", f"s{name}"] = Part({f"s{name}": KernelChain(tuple(rehearsal))})
            rules.append(f"jump s{name}")
    rules += made.dispatch(chain, is_rehearsal=False)
    if not rules:
        return Judges("", {}, {})
    made.parts["chain", name] = Part({name: KernelChain(tuple(rules))})
    digest = fingerprint(repr(sorted((key, part.chains) for key, part in made.parts.items() if part.chains)))
    backwards = ""
    if is_lenient and (rules := made.backwards(chain)):
        backwards = f"b{name}"
        made.parts["chain", backwards] = Part({backwards: KernelChain(tuple(rules))})
    return Judges(name, made.parts, made.judgements, bool(chain.closed_by), digest, backwards)


class _Making:
    def __init__(self, ends: EndNumbers, table_id: str) -> None:
        self.parts: dict[tuple[str, ...], Part] = {}
        self.judgements: dict[str, Judgement] = {}
        self._ends, self._table_id = ends, table_id

    def dispatch(self, chain: Chain, *, is_rehearsal: bool) -> list[str]:
        """Rules that lead each end to what is said of it."""
        say = self._rehearsed if is_rehearsal else self._judged
        return self._dispatched(chain, say, "daddr" if chain.direction is Direction.EGRESS else "saddr")

    def backwards(self, chain: Chain) -> list[str]:
        """The same for flows that are known the wrong way round."""
        return self._dispatched(chain, self._reversed, "saddr" if chain.direction is Direction.EGRESS else "daddr")

    def _dispatched(self, chain: Chain, say: Callable[[Chain, list[Decision]], _Body], side: str) -> list[str]:
        """What is said of most stands at the end, without a jump. side: where the other end's address is."""
        bodies: dict[_Body, int] = {}
        for ends in _alike(chain, self._ends.ends):
            decisions = _merged(judge(chain, numbers(ends & -ends)[0], EVERYTHING))
            body = say(chain, decisions)
            bodies[body] = bodies.get(body, 0) | ends
        most = max(bodies, key=lambda body: (bodies[body].bit_count(), body))
        cells_of = {body: [cell for cell in self._ends.cells if ends >> cell & 1] for body, ends in bodies.items()}
        world = {body: cells for body, cells in cells_of.items() if cells}
        rest = max(world, key=lambda body: (len(world[body]), body), default=most)
        rules = []
        for body, cells in sorted(world.items()):
            if body != rest:
                for key, spans in _addresses(self._ends, cells):
                    rules.append(f"meta mark {NO_END} ct original {key} {side} {{ {spans} }} {self._led_to(body)}")
        marks = {
            self._ends.numbers[end]: body
            for body, ends in bodies.items()
            if body != most
            for end in numbers(ends)
            if end in self._ends.numbers
        }
        if rest != most:
            marks[NO_END] = rest
        if marks:
            listed = ", ".join(f"{number} : {self._led_to(body)}" for number, body in sorted(marks.items()))
            rules.append(f"meta mark vmap {{ {listed} }}")
        return rules + [rule for rule in most if rule != _CONSENT[0]]

    def _led_to(self, body: _Body) -> str:
        if body in (_CONSENT, ()):
            return "return"
        name = f"r_{self._table_id}_{fingerprint(repr(body))}"
        self.parts["chain", name] = Part({name: KernelChain(body)})
        return f"goto {name}"

    def _judged(self, chain: Chain, decisions: list[Decision]) -> _Body:
        """Rules whose matches are disjoint but for the last, which takes the rest."""
        rules: list[str] = []
        for place, decision in enumerate(decisions, 1):
            for match in matches(decision.ports) if place < len(decisions) else ("",):
                rules += [" ".join(rule.split()) for rule in self._rules(chain, decision, match)]
        return tuple(rules)

    def _rules(self, chain: Chain, decision: Decision, match: str) -> Iterator[str]:
        judgement = _judgement(self._ends.playground, chain.direction, decision, is_staged=False)
        if judgement is None:
            yield f"{match} return"
            return
        counted = f'counter name "{self._counted(judgement)}"'
        if not decision.is_allowed and _is_kept(decision):
            yield f"{match} ct mark and {ACCEPTED} == {ACCEPTED} return"
        if _is_logged(decision, Mode.LOG):
            yield from _logs(match, judgement)
        if decision.is_allowed:
            yield f"{match} {counted} return"
        elif _is_rejected(decision):
            yield f"{match} {counted} ct mark set 0 goto {REFUSE}"
        else:
            yield f"{match} {counted} ct mark set 0 drop"

    def _reversed(self, chain: Chain, decisions: list[Decision]) -> _Body:
        """Of TCP alone: consent, or else the other way round."""
        denied = Ports.union(decision.ports for decision in decisions if not decision.is_allowed) & _TCP
        return tuple(f"{match} goto {forwards_name(self._table_id)}" for match in matches(denied, "proto-src"))

    def _rehearsed(self, chain: Chain, decisions: list[Decision]) -> _Body:
        """What would have been said, counted and logged; only what staged policies say."""
        rules: list[str] = []
        for decision in decisions:
            judgement = _judgement(self._ends.playground, chain.direction, decision, is_staged=True)
            if judgement is None or not _is_logged(decision, Mode.STAGE):
                continue
            counter = self._counted(judgement)
            for match in matches(decision.ports):
                lines = [*_logs(match, judgement), f'{match} counter name "{counter}"']
                rules += [" ".join(line.split()) for line in lines]
        return tuple(rules)

    def _counted(self, judgement: Judgement) -> str:
        name = counter_name(judgement)
        self.judgements[judgement.id] = judgement
        self.parts["counter", name] = _counter_part(name)
        return name


def _counter_part(name: str) -> Part:
    return Part(counters=frozenset([name]))


def _logs(match: str, judgement: Judgement) -> Iterator[str]:
    for direction, is_reply in (("original", False), ("reply", True)):
        prefix = log_prefix(judgement.id, is_reply)
        yield f'{match} ct direction {direction} {_LOG_LIMIT} log prefix "{prefix}" group {LOG_GROUP}'


def _alike(chain: Chain, among: int) -> list[int]:
    """Ends of whom the same rules speak; SERVICES, whom only one tier judges, apart."""
    services = among & 1 << SERVICES
    found = [services, among & ~services]
    for rule in chain.rules:
        parted = []
        for ends in found:
            spoken = ends & rule.ends
            parted += [spoken, ends & ~spoken] if spoken and spoken != ends else [ends]
        found = parted
    return [ends for ends in found if ends]


def _merged(decisions: tuple[Decision, ...]) -> list[Decision]:
    """One decision for each cause; what no rule of its own decides comes last."""
    found: dict[tuple[ResolvedRule | None, Way], list[Decision]] = {}
    for decision in decisions:
        found.setdefault((decision.rule, decision.way), []).append(decision)
    merged = [
        Decision(Ports.union(one.ports for one in alike), first.is_allowed, first.way, first.rule, first.closed_by)
        for alike in found.values()
        for first in alike[:1]
    ]
    return sorted(merged, key=lambda one: one.way is not Way.RULE)


def _judgement(playground: str, direction: Direction, decision: Decision, *, is_staged: bool) -> Judgement | None:
    if decision.rule is not None:
        policy, number = decision.rule.policy, decision.rule.number
        return Judgement(playground, policy.tier, (policy.name,), direction, number, decision.is_allowed, is_staged)
    if decision.closed_by:
        names = tuple(head.name for head in decision.closed_by)
        return Judgement(playground, Tier.OWNER, names, direction, 0, False, is_staged)
    return None


def _is_logged(decision: Decision, mode: Mode) -> bool:
    heads = [decision.rule.policy] if decision.rule else decision.closed_by
    return any(head.mode is mode for head in heads)


def _is_kept(decision: Decision) -> bool:
    heads = [decision.rule.policy] if decision.rule else decision.closed_by
    return bool(heads) and all(head.keeps_established for head in heads)


def _is_rejected(decision: Decision) -> bool:
    heads = [decision.rule.policy] if decision.rule else decision.closed_by
    return bool(heads) and all(head.on_deny is OnDeny.REJECT for head in heads)


def _addresses(ends: EndNumbers, cells: list[int]) -> Iterator[tuple[str, str]]:
    """("ip" or "ip6", elements of a set) for the addresses of some cells."""
    for version, key in ((4, "ip"), (6, "ip6")):
        spans = sorted(span for cell in cells for span in ends.cells[cell] if span[0] == version)
        if spans:
            yield key, ", ".join(map(span_text, spans))


def span_text(span: Span) -> str:
    """As nft lists an interval: a prefix where it is one, else FIRST-LAST."""
    version, first, last = span
    kind = IPv4Address if version == 4 else IPv6Address
    if first == last:
        return str(kind(first))
    prefixes = list(summarize_address_range(kind(first), kind(last)))
    return str(prefixes[0]) if len(prefixes) == 1 else f"{kind(first)}-{kind(last)}"
