"""Pure. The connections that an edit of a playground opens and cuts, as `plan` tells them."""

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
    old = scene(before, site=site) if before is not None else Scene((), ())
    found = list(islice(difference(old, scene(after, site=site)), MAX_LISTED + 1))
    return {"changed": [one.to_json() for one in found[:MAX_LISTED]], "complete": len(found) <= MAX_LISTED}
