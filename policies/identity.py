"""Pure. Identities: endpoints that no policy in use can tell apart count as one. Knows nothing of what policies say.

Two endpoints are of one identity when they are in one playground and every term in use, on every label, holds for both
or for neither. A label's value counts only where a term names it; another value is "some other" where `has` is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from policies.bitset import bits
from policies.model import Endpoint, EndpointPeer, Policy, SamePeer
from policies.selector import Operator, Selector

Member = tuple[str, str]
"""(workspace, network) of an endpoint, in its identity's playground."""

Labels = tuple[tuple[str, str | None], ...]
"""By key; None is some other value than those that terms name. A key that is missing is absent, or nobody asks."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The labels in use, and who has them. (playground, labels) names it, the same in every resolution."""

    playground: str
    labels: Labels
    members: tuple[Member, ...]

    def __str__(self) -> str:
        return f"{self.playground}: " + ", ".join(
            f"{key}={'…' if value is None else value}" for key, value in self.labels
        )


@dataclass(slots=True)
class Terms:
    """What is asked of labels. values: by key, those named; asked: keys with `has`; whole: keys with `same`."""

    values: dict[str, set[str]] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)

    def add(self, other: Terms) -> None:
        """Takes in what another asks."""
        for key, values in other.values.items():
            self.values.setdefault(key, set()).update(values)
        self.asked |= other.asked
        self.whole |= other.whole

    def add_selector(self, selector: Selector) -> None:
        """Takes in what a selector asks."""
        for term in selector.terms:
            if term.operator in (Operator.IN, Operator.NOT_IN):
                self.values.setdefault(term.key, set()).update(term.values)
            else:
                self.asked.add(term.key)


def terms_of(policy: Policy) -> Terms:
    """What one policy asks of labels, as subjects and as peers."""
    terms = Terms()
    for subject in policy.subjects:
        terms.add_selector(subject.selector)
    for rule in (*(policy.ingress or ()), *(policy.egress or ())):
        for peer in rule.peers:
            if isinstance(peer, EndpointPeer):
                terms.add_selector(peer.selector)
            elif isinstance(peer, SamePeer):
                terms.whole.add(peer.label)
    return terms


def identities(endpoints: Iterable[Endpoint], terms: Terms) -> tuple[Identity, ...]:
    """The classes, sorted by playground and labels; members sorted."""
    nothing: set[str] = set()
    keys = [
        (key, terms.values.get(key, nothing), key in terms.asked, key in terms.whole)
        for key in sorted(terms.values.keys() | terms.asked | terms.whole)
    ]
    found: dict[tuple[str, Labels], list[Member]] = {}
    for endpoint in endpoints:
        labels: list[tuple[str, str | None]] = []
        for key, values, is_asked, is_whole in keys:
            value = endpoint.labels.get(key)
            if value is None:
                continue
            if is_whole or value in values:
                labels.append((key, value))
            elif is_asked:
                labels.append((key, None))
        found.setdefault((endpoint.playground, tuple(labels)), []).append((endpoint.workspace, endpoint.network))
    return tuple(
        Identity(playground, labels, tuple(sorted(members)))
        for (playground, labels), members in sorted(found.items(), key=_order)
    )


def _order(item: tuple[tuple[str, Labels], list[Member]]) -> tuple[str, list[tuple[str, bool, str]]]:
    (playground, labels), _ = item
    return playground, [(key, value is not None, value or "") for key, value in labels]


class LabelIndex:
    """Finds by label, as sets of identities: bit N of a number is identity N."""

    def __init__(self, known: tuple[Identity, ...]) -> None:
        self.everyone = (1 << len(known)) - 1
        values: dict[tuple[str, str | None], list[int]] = {}
        holders: dict[str, list[int]] = {}
        playgrounds: dict[str, list[int]] = {}
        for number, identity in enumerate(known):
            playgrounds.setdefault(identity.playground, []).append(number)
            for key, value in identity.labels:
                values.setdefault((key, value), []).append(number)
                holders.setdefault(key, []).append(number)
        self._values = {pair: bits(numbers) for pair, numbers in values.items()}
        self._holders = {key: bits(numbers) for key, numbers in holders.items()}
        self._playgrounds = {name: bits(numbers) for name, numbers in playgrounds.items()}

    def matching(self, peer: EndpointPeer) -> int:
        """Whom a selector matches in the playgrounds it looks in."""
        found = self.everyone
        if peer.playgrounds is not None:
            found = 0
            for name in peer.playgrounds:
                found |= self._playgrounds.get(name, 0)
        for term in peer.selector.terms:
            if term.operator is Operator.HAS:
                found &= self._holders.get(term.key, 0)
            elif term.operator is Operator.HAS_NOT:
                found &= ~self._holders.get(term.key, 0)
            else:
                named = 0
                for value in term.values:
                    named |= self._values.get((term.key, value), 0)
                found &= named if term.operator is Operator.IN else ~named
        return found

    def having(self, playground: str, key: str, value: str) -> int:
        """Those of a playground with this very value, which `same` asks for."""
        return self._values.get((key, value), 0) & self._playgrounds.get(playground, 0)
