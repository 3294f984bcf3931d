"""Pure. What every shape of a file has in common: strict keys, short forms, and the words for what was read.

Knows no key of any file; those are in `models` and `policy_models`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator


def as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


def described(value: object) -> str:
    """What was read, for a message: short, and with its kind where the kind is the mistake."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the truth value {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "…")
        case list():
            return "a list"
        case _:
            return "a mapping"


class Shape(BaseModel):
    """A mapping of the file. Unknown keys are refused, `x-` keys left out, a key without a value counts as absent."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        json_schema_extra={"patternProperties": {"^x-": {}}},
    )
    not_yet: ClassVar[frozenset[str]] = frozenset()
    """Keys that the design names and this version refuses."""

    only_yet: ClassVar[bool] = False
    """Whether every other key is one that is not built yet, rather than a mistake."""

    elsewhere: ClassVar[Mapping[str, str]] = {}
    """Keys of the other kind of file, and where they belong."""

    not_null: ClassVar[frozenset[str]] = frozenset()
    """Keys that would mean something else when absent, so that one without a value is refused."""

    @classmethod
    def keys(cls) -> dict[str, str]:
        """Key in the file → field."""
        return {field.alias or name: name for name, field in cls.model_fields.items()}

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, value: Any) -> Any:
        if value is None:
            return {}
        if not isinstance(value, dict):
            return value
        empty = cls.keys().keys() - cls.not_null
        return {
            key: item for key, item in value.items() if not key.startswith("x-") and not (item is None and key in empty)
        }


Listed = Annotated[list[str], BeforeValidator(as_list, json_schema_input_type=str | list[str])]
"""A list of texts; one text is short for a list of one."""

Labels = dict[str, str]
