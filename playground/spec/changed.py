"""Pure. The connections that an edit of a playground, or of a site's policies, opens and cuts, as `plan` tells them."""

from __future__ import annotations

from itertools import islice
from typing import Any

from playground.spec.objects import PlaygroundSpec, SiteSpec
from playground.spec.scene import scene
from policies.difference import difference
from policies.model import Scene

MAX_LISTED = 1000
"""Pairs of ends; who changes more is told that there are more, and compares files with `policy diff`."""


def connections_changed(
    before: PlaygroundSpec | None, after: PlaygroundSpec, site: SiteSpec | None = None
) -> dict[str, Any]:
    """`{changed: [{from, to, opened, cut}], complete}`; before: None where there is no such playground yet.

    site: under whose tiers both are judged.
    """
    return _changed(scene(before, site=site) if before is not None else Scene((), ()), scene(after, site=site))


def connections_under(playground: PlaygroundSpec, before: SiteSpec, after: SiteSpec) -> dict[str, Any]:
    """The same of a playground that stays as it is, while the policies of its site change."""
    return _changed(scene(playground, site=before), scene(playground, site=after))


def _changed(before: Scene, after: Scene) -> dict[str, Any]:
    found = list(islice(difference(before, after), MAX_LISTED + 1))
    return {"changed": [one.to_json() for one in found[:MAX_LISTED]], "complete": len(found) <= MAX_LISTED}
