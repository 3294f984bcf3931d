"""Pure. The files that people write: reading, checking, and the specs that come of them. Knows no records."""

from playground.spec.load import load_playground, load_site
from playground.spec.objects import (
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
from playground.spec.schema import json_schema
from policies.selector import Selector, SelectorError, parse_selector

__all__ = [
    "HostSpec",
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
    "json_schema",
    "load_playground",
    "load_site",
    "parse_selector",
]
