"""Which hosts take part in which playgrounds, kept by the change: what a host is shown and waited for follows from it.

Belongs to the world, which tells it of every record that matters. Knows no sessions.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from playground.records import BindingRecord


def ends(binding: BindingRecord) -> set[str]:
    """The hosts that a binding names: one at rest, two in a move."""
    return {host for host in (binding.active, binding.source, binding.target) if host is not None}


@dataclass(slots=True)
class Ties:
    """A host takes part in a playground by ports bound to it and by workspaces that concern it.

    bound: playground → host → number of bindings, and of records of machines' addresses, that name it. concerned: host
    → playground → names of workspaces.
    """

    bound: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    concerned: dict[str, dict[str, set[str]]] = field(default_factory=lambda: defaultdict(dict))
    _hosts: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    def takes_part(self, host: str, playground: str) -> bool:
        """Whether a host is to be shown a playground."""
        return host in self.bound.get(playground, ()) or playground in self.concerned.get(host, ())

    def playgrounds(self, host: str) -> set[str]:
        """All that a host takes part in."""
        return {p for p, hosts in self.bound.items() if host in hosts} | self.concerned.get(host, {}).keys()

    def hosts(self, playground: str) -> set[str]:
        """The hosts that carry, or will carry or have just carried, a port of a playground."""
        return set(self.bound.get(playground, ()))

    def does_concern(self, host: str, playground: str, workspace: str) -> bool:
        """Whether a workspace is placed on a host, moving to or from it, or has left something there."""
        return host in self._hosts.get((playground, workspace), ())

    def bind(self, before: BindingRecord | None, after: BindingRecord | None) -> set[str]:
        """Takes a binding's change; returns the hosts that may have come or gone by it."""
        gone = ends(before) if before else set()
        come = ends(after) if after else set()
        if (either := after or before) is not None:
            self.hold(either.playground, gone, come)
        return gone ^ come

    def hold(self, playground: str, before: set[str], after: set[str]) -> None:
        """Takes a change of the hosts that one record of a playground names."""
        counts = self.bound[playground]
        for hosts, number in ((before - after, -1), (after - before, 1)):
            for host in hosts:
                counts[host] += number
                if not counts[host]:
                    del counts[host]
        if not counts:
            del self.bound[playground]

    def concern(self, playground: str, workspace: str, hosts: frozenset[str]) -> frozenset[str]:
        """Says which hosts a workspace concerns now; returns those for which that is new or over."""
        name = (playground, workspace)
        before = self._hosts.pop(name, frozenset())
        if hosts:
            self._hosts[name] = hosts
        for host in before - hosts:
            names = self.concerned[host][playground]
            names.discard(workspace)
            if not names:
                del self.concerned[host][playground]
        for host in hosts - before:
            self.concerned[host].setdefault(playground, set()).add(workspace)
        return before ^ hosts
