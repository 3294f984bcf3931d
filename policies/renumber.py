"""Pure. Carries what is resolved over to other identities of the same endpoints, where that is cheaper than anew.

A set of ends that a policy means is a union of whole identities as long as its terms are in use, before and after. So
it is the union of the identities that the endpoints in it have now. Ends that are no identities only shift.
"""

from __future__ import annotations

from policies.bitset import bits, numbers
from policies.evaluate import carry_split
from policies.identity import Identity
from policies.ir import FIRST_IDENTITY, Chain, ResolvedRule


def can_renumber(known: tuple[Identity, ...]) -> bool:
    """Whether members name endpoints: not where a workspace has several endpoints on one network."""
    return len({(one.playground, *who) for one in known for who in one.members}) == sum(
        len(one.members) for one in known
    )


class Renumbering:
    """From `before` to `after`, of the same endpoints; gateways and cells are as they were."""

    def __init__(self, before: tuple[Identity, ...], after: tuple[Identity, ...]) -> None:
        was = {
            (identity.playground, *member): number
            for number, identity in enumerate(before)
            for member in identity.members
        }
        self._beyond = FIRST_IDENTITY + len(before)
        self._first_beyond = FIRST_IDENTITY + len(after)
        becomes: list[set[int]] = [set() for _ in before]
        for number, identity in enumerate(after, FIRST_IDENTITY):
            for member in identity.members:
                becomes[was[identity.playground, *member]].add(number)
        self._becomes = becomes
        self._known: dict[int, int] = {}
        self._rules: dict[int, ResolvedRule] = {}

    def ends(self, ends: int) -> int:
        """The same ends."""
        if ends < 0:
            return ~self.ends(~ends)
        known = self._known.get(ends)
        if known is None:
            inside = (ends & ((1 << self._beyond) - 1)) >> FIRST_IDENTITY
            known = bits(number for one in numbers(inside) for number in self._becomes[one])
            known |= ends & ((1 << FIRST_IDENTITY) - 1)
            known |= ends >> self._beyond << self._first_beyond
            self._known[ends] = known
        return known

    def rule(self, rule: ResolvedRule) -> ResolvedRule:
        """The same rule; one object for one object."""
        known = self._rules.get(id(rule))
        if known is None:
            ends = self.ends(rule.ends)
            known = self._rules[id(rule)] = ResolvedRule(
                rule.policy, rule.direction, rule.number, ends, rule.ports, rule.action, rule.origin, rule.name
            )
        return known

    def rules(self, rules: tuple[ResolvedRule, ...]) -> tuple[ResolvedRule, ...]:
        """The same rules, in order."""
        return tuple([self.rule(rule) for rule in rules])

    def chain(self, chain: Chain) -> Chain:
        """The same chain, with what is known of what it allows."""
        admin, owner, baseline = map(self.rules, (chain.admin, chain.owner, chain.baseline))
        made = Chain(chain.direction, admin, chain.closed_by, owner, baseline)
        carry_split(chain, made, self.ends)
        return made
