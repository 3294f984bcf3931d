"""Pure. Refuses, of an accepted file, what no host does yet: nothing is ever accepted and ignored."""

from __future__ import annotations

from playground.spec.objects import PlaygroundSpec
from playground.spec.problem import Problem, SpecErrors

_BRIDGE = "gateways of kind bridge are not built yet; write `kind: nat` (`playground policy` reads both)"


def check_enforced(spec: PlaygroundSpec) -> None:
    """Raises SpecErrors, with the places of all that would be ignored."""
    gateways = spec.connectivity.gateways
    if problems := [Problem.at(one.place, _BRIDGE) for one in gateways if one.kind != "nat"]:
        raise SpecErrors(problems)
