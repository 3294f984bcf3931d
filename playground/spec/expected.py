"""Pure. Holds accepted files against their own `tests:`. Decides nothing; the evaluator in `policies` does."""

from __future__ import annotations

from playground.spec.objects import PlaygroundSpec
from playground.spec.problem import Place, Problem, SpecErrors
from playground.spec.scene import scene
from policies.expect import failures


def check_tests(spec: PlaygroundSpec) -> None:
    """Raises SpecErrors with every pair that does not do what a line of `tests:` says, at the line's place."""
    found = spec.connectivity
    if not found.tests:
        return
    problems = []
    for failure in failures(scene(spec), found.tests):
        origin = failure.origin
        problems.append(Problem.at(found.places.get(origin, Place(origin.file, origin.line, 1)), failure.message))
    if problems:
        raise SpecErrors(problems)
