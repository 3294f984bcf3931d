"""Pure. The JSON Schema of the files, for editors. Says shapes, not what values mean together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from playground.spec.base import Shape
from playground.spec.models import PlaygroundShape, SiteShape

_TITLES = {
    "PlaygroundShape": "playground",
    "NetworkShape": "network",
    "AllowShape": "allow",
    "DhcpShape": "dhcp",
    "DnsShape": "dns",
    "RecordShape": "names of a network",
    "NetworkDhcpShape": "dhcp of a network",
    "BootShape": "boot",
    "WorkspaceShape": "workspace",
    "NicShape": "network of a workspace",
    "MachineShape": "machine",
    "CloudInitShape": "cloud-init",
    "DiskShape": "disk",
    "PolicyShape": "policy",
    "IngressShape": "ingress rule",
    "EgressShape": "egress rule",
    "PeerShape": "peer",
    "ExpectationShape": "test",
    "GatewayShape": "gateway",
    "SiteShape": "site",
    "HostShape": "host",
    "CapacityShape": "capacity",
    "SiteCapacityShape": "capacity of a site",
    "ReserveShape": "reserve",
    "OvercommitShape": "overcommit",
    "PlacementShape": "placement",
    "PreferShape": "prefer",
    "SitePolicyShape": "policy of a site",
    "SiteIngressShape": "ingress rule of a site",
    "SiteEgressShape": "egress rule of a site",
}
"""What an editor calls each shape. Keys are called by themselves."""

_SHAPES: dict[str, type[Shape]] = {"playground": PlaygroundShape, "site": SiteShape}


def json_schema(kind: Literal["playground", "site"]) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a file, short forms and empty keys included."""
    schema = _SHAPES[kind].model_json_schema(by_alias=True)
    not_null = {one.__name__: one.not_null for one in _below(Shape)}
    for shape in (schema, *schema.get("$defs", {}).values()):
        never_null = not_null[shape["title"]]
        shape["title"] = _TITLES[shape["title"]]
        required = shape.get("required", [])
        for key, value in shape.get("properties", {}).items():
            value.pop("title", None)
            if key in never_null:
                shape["properties"][key] = _without_null(value)
            elif key not in required:
                shape["properties"][key] = _or_null(value)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _or_null(value: dict[str, Any]) -> dict[str, Any]:
    """A key without a value counts as absent, so an editor must not mark it."""
    kept: dict[str, Any] = {key: value[key] for key in ("description", "default") if key in value}
    rest = {key: item for key, item in value.items() if key not in kept}
    choices = rest["anyOf"] if rest.keys() == {"anyOf"} else [rest]
    if {"type": "null"} in choices:
        return value
    return {**kept, "anyOf": [*choices, {"type": "null"}]}


def _without_null(value: dict[str, Any]) -> dict[str, Any]:
    """A key that is refused without a value has no default either that could be written."""
    kept = {key: item for key, item in value.items() if key != "default"}
    if "anyOf" in kept:
        kept["anyOf"] = [choice for choice in kept["anyOf"] if choice != {"type": "null"}]
    return kept


def _below(shape: type[Shape]) -> Iterator[type[Shape]]:
    for one in shape.__subclasses__():
        yield one
        yield from _below(one)
