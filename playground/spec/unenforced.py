"""Pure. Refuses, of an accepted file, what no host does yet: nothing is ever accepted and ignored."""

from __future__ import annotations

from collections.abc import Iterator

from playground.spec.objects import PlaygroundSpec, SiteSpec
from playground.spec.problem import Place, Problem, SpecErrors

_POLICIES = "policies are not enforced yet; leave them out: everything may pass (`playground policy` reads them)"
_BRIDGE = "gateways of kind bridge are not built yet; write `kind: nat` (`playground policy` reads both)"


def check_enforced(spec: PlaygroundSpec | SiteSpec) -> None:
    """Raises SpecErrors, with the places of all that would be ignored."""
    if problems := list(_problems(spec)):
        raise SpecErrors(problems)


def _problems(spec: PlaygroundSpec | SiteSpec) -> Iterator[Problem]:
    if isinstance(spec, SiteSpec):
        policies, places = spec.policies, spec.places
    else:
        policies, places = spec.connectivity.policies, spec.connectivity.places
        for gateway in spec.connectivity.gateways:
            if gateway.kind != "nat":
                yield Problem.at(gateway.place, _BRIDGE)
    for policy in policies:
        place = places.get(policy.origin, Place(policy.origin.file, policy.origin.line, 1))
        yield Problem.at(place, _POLICIES)
