"""Pure. The files that people write: reading, checking, and the specs that come of them. Knows no records."""

from playground.spec.changed import connections_changed, connections_under
from playground.spec.expected import check_tests, check_tiers
from playground.spec.load import MAX_INCLUDED, Included, load_playground, load_site
from playground.spec.objects import (
    Connectivity,
    GatewaySpec,
    HostSpec,
    NetworkSpec,
    NicSpec,
    PlaygroundSpec,
    PoolSpec,
    SiteSpec,
    SubnetSpec,
    WorkspaceSpec,
)
from playground.spec.problem import Place, Problem, SpecErrors
from playground.spec.scene import scene
from playground.spec.schema import json_schema
from playground.spec.unenforced import check_enforced
from policies.selector import Selector, SelectorError, parse_selector

__all__ = [
    "MAX_INCLUDED",
    "Connectivity",
    "GatewaySpec",
    "HostSpec",
    "Included",
    "NetworkSpec",
    "NicSpec",
    "Place",
    "PlaygroundSpec",
    "PoolSpec",
    "Problem",
    "Selector",
    "SelectorError",
    "SiteSpec",
    "SpecErrors",
    "SubnetSpec",
    "WorkspaceSpec",
    "check_enforced",
    "check_tests",
    "check_tiers",
    "connections_changed",
    "connections_under",
    "json_schema",
    "load_playground",
    "load_site",
    "parse_selector",
    "scene",
]
