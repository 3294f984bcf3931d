"""The JSON Schema agrees with what is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from playground.spec import json_schema
from playground.spec.models import PlaygroundShape, Shape, SiteShape


def shapes(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    root = {"playground": PlaygroundShape, "site": SiteShape}[schema["title"]]
    return {root.__name__: schema, **schema.get("$defs", {})}


@pytest.mark.parametrize(("kind", "root"), [("playground", PlaygroundShape), ("site", SiteShape)])
def test_the_schema_has_exactly_the_keys_that_are_read(kind: Any, root: type[Shape]) -> None:
    schema = json_schema(kind)
    json.dumps(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    found = shapes(schema)
    for shape in _below(root):
        entry = found[shape.__name__]
        assert set(entry["properties"]) == set(shape.keys())
        assert entry["additionalProperties"] is False
        assert entry["patternProperties"] == {"^x-": {}}


@pytest.mark.parametrize("kind", ["playground", "site"])
def test_titles_are_words_of_the_file(kind: Any) -> None:
    schema = json_schema(kind)
    assert schema["title"] == kind
    titles = {shape["title"] for shape in schema["$defs"].values()}
    assert len(titles) == len(schema["$defs"]) and not any("Shape" in title for title in titles)
    for shape in shapes(schema).values():
        assert not any("title" in value for value in shape["properties"].values())


def test_short_forms_and_empty_keys_are_in_the_schema() -> None:
    found = shapes(json_schema("playground"))
    types = {
        choice.get("type") or choice["$ref"] for choice in found["WorkspaceShape"]["properties"]["networks"]["anyOf"]
    }
    assert types == {"string", "array", "#/$defs/NicShape"}
    nulls = found["NicShape"]["properties"]["addresses"]["anyOf"]
    assert {"type": "null"} in nulls and {"type": "string"} in nulls
    assert found["WorkspaceShape"]["required"] == ["networks"]
    assert found["PlaygroundShape"]["required"] == ["name"]


def test_keys_that_are_refused_without_a_value_are_marked_by_editors() -> None:
    found = shapes(json_schema("playground"))
    for shape, keys in (("PolicyShape", ("ingress", "egress")), ("IngressShape", ("from", "ports"))):
        for key in keys:
            entry = found[shape]["properties"][key]
            assert {"type": "null"} not in entry.get("anyOf", [])
            assert "default" not in entry
    assert found["PolicyShape"]["properties"]["mode"]["anyOf"][0]["enum"] == ["enforce", "log", "stage"]


def _below(root: type[Shape]) -> list[type[Shape]]:
    from playground.spec import models

    reached = json_schema("playground" if root is PlaygroundShape else "site").get("$defs", {})
    return [root, *(getattr(models, name) for name in reached)]
