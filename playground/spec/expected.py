"""Pure. Holds accepted files against their own `tests:`, and the tiers of a site against who is there. Decides
nothing; the evaluator in `policies` does."""

from __future__ import annotations

from playground.spec.objects import PlaygroundSpec, SiteSpec
from playground.spec.problem import Place, Problem, SpecErrors
from playground.spec.scene import scene
from policies.expect import failures
from policies.lint import Severity, lint
from policies.model import Mode, Scene, Tier


def check_tiers(found: Scene) -> None:
    """Raises SpecErrors where two policies of the site have one priority on one workspace: no order would be told."""
    ordered = [one for one in found.policies if one.tier is not Tier.OWNER and one.mode is not Mode.STAGE]
    if len({(one.tier, one.priority) for one in ordered}) == len(ordered):
        return
    errors = [one for one in lint(found) if one.severity is Severity.ERROR]
    if errors:
        raise SpecErrors(Problem(one.origin.file, one.origin.line, 0, "", one.message) for one in errors)


def check_tests(spec: PlaygroundSpec, site: SiteSpec | None = None) -> None:
    """Raises SpecErrors with every pair that does not do what a line of `tests:` says, at the line's place. site: under
    whose tiers they are held."""
    found = spec.connectivity
    if not found.tests:
        return
    problems = []
    for failure in failures(scene(spec, site=site), found.tests):
        origin = failure.origin
        problems.append(Problem.at(found.places.get(origin, Place(origin.file, origin.line, 1)), failure.message))
    if problems:
        raise SpecErrors(problems)
