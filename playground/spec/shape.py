"""Pure. Holds a document against its shape: what fits goes on, every misfit is a problem at its place."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from playground.spec.base import Shape, described
from playground.spec.problem import Problem, suggestion
from playground.spec.source import Document

S = TypeVar("S", bound=Shape)

_KINDS = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping of names",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def fit(shape: type[S], document: Document, problems: list[Problem]) -> S | None:
    """The document as a `shape`, without those parts that have problems, so that the rest is checked all the same.

    A part is one entry of a top-level mapping or list (a network, a workspace, a policy), else a top-level key. A list
    keeps its length: what is left out of it is `is_left_out`. None when not even the rest fits.
    """
    data = document.value()
    if not isinstance(data, dict):
        message = f"read {described(data)}; a file is a mapping with the keys {', '.join(shape.keys())}"
        problems.append(Problem.at(document.place(()), message))
        return None
    while True:
        try:
            return shape.model_validate(data)
        except ValidationError as error:
            details = error.errors(include_url=False)
        problems.extend(_problem(shape, document, detail) for detail in details)
        for detail in details:
            _take_out(shape, data, detail["loc"])
        if any(detail["type"] == "missing" and len(detail["loc"]) == 1 for detail in details):
            for name, field in shape.model_fields.items():
                if field.is_required() and name not in data:
                    data[name] = "unnamed"


def is_left_out(entry: Shape) -> bool:
    """Whether an entry of a list stands for one that has problems."""
    return not entry.model_fields_set


_MAPPINGS = ("networks", "workspaces", "hosts", "groups", "gateways")
_LISTS = ("policies", "tests")


def _take_out(shape: type[Shape], data: dict[str, Any], loc: Sequence[str | int]) -> None:
    first = str(loc[0]) if loc else ""
    part = data.get(first)
    if len(loc) > 1 and isinstance(part, dict) and first in _MAPPINGS:
        part.pop(str(loc[1]), None)
    elif len(loc) > 1 and isinstance(part, list) and first in _LISTS:
        part[int(loc[1])] = _owner(shape, loc[:2]).model_construct(set())
    else:
        data.pop(first, None)


def _problem(shape: type[Shape], document: Document, detail: ErrorDetails) -> Problem:
    loc, kind, value = detail["loc"], detail["type"], detail["input"]
    match kind:
        case "extra_forbidden":
            owner = _owner(shape, loc[:-1])
            return Problem.at(document.key_place(loc), _unknown(owner, str(loc[-1])))
        case "missing":
            place = document.key_place(loc[:-1]) if len(loc) > 1 else document.place(())
            return Problem.at(place, f"{loc[-1]} is missing; it is needed here")
        case "value_error":
            return Problem.at(document.place(loc), str(detail["ctx"]["error"]))
        case "too_short":
            return Problem.at(document.key_place(loc), "the list is empty; name at least one")
        case "finite_number" | "greater_than" | "greater_than_equal" | "less_than_equal":
            bound = " ".join(detail["msg"].removeprefix("Input should be ").split())
            return Problem.at(document.place(loc), f"read {described(value)}; it has to be {bound}")
        case _ if kind in _KINDS:
            hint = f', as "{value}"' if kind == "string_type" and isinstance(value, int | float) else ""
            return Problem.at(document.place(loc), f"read {described(value)}; allowed: {_KINDS[kind]}{hint}")
        case _:
            return Problem.at(document.place(loc), f"read {described(value)}: {detail['msg']}")


def _unknown(owner: type[Shape], key: str) -> str:
    if key in owner.elsewhere:
        return f"{key} belongs into {owner.elsewhere[key]}"
    hint = suggestion(key, owner.keys())
    if key in owner.not_yet or (owner.only_yet and "did you mean" not in hint):
        return f"{key} is not built yet; leave it out (built: {', '.join(owner.keys())})"
    return f"unknown key {key[:60]!r}{hint}"


def _owner(shape: type[Shape], loc: Sequence[str | int]) -> type[Shape]:
    """The shape of the mapping at `loc`."""
    at: Any = shape
    for part in loc:
        at = _inner(at)
        if isinstance(at, type) and issubclass(at, Shape):
            field = at.keys().get(str(part))
            if field is None:
                break
            at = at.model_fields[field].annotation
        else:
            at = typing.get_args(at)[-1]
    at = _inner(at)
    if not (isinstance(at, type) and issubclass(at, Shape)):
        raise TypeError(f"no shape at {loc}")
    return at


def _inner(annotation: Any) -> Any:
    """An annotation without `Annotated` and `| None`."""
    while True:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif origin in (types.UnionType, typing.Union):
            annotation = next(arg for arg in typing.get_args(annotation) if arg is not type(None))
        else:
            return annotation
