"""Pure. Elements of named sets and maps, from nft's text to what the kernel takes. Knows no rule and no socket."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from policies.compile.tables import SetShape
from policies.kernel.bytecode import verdict_of
from policies.kernel.fields import Field, Unspoken, field_named, span
from policies.kernel.netlink import attribute, nest

_KEY, _DATA, _KEY_END = 1, 2, 10
_LIST = 3
_MOST = 0xF000
"""Bytes of elements in one message: the length of a list is 16 bits."""


@dataclass(frozen=True, slots=True)
class _Keys:
    """How a set's keys are made: of one field, or of several in a row. value: what a map leads to, "" in a set."""

    fields: tuple[Field, ...]
    value: str
    is_interval: bool


def encoded(shape: SetShape, elements: Mapping[str, str], *, is_deleted: bool = False) -> Iterator[bytes]:
    """The lists of as many messages as it takes (NFTA_SET_ELEM_LIST_ELEMENTS). is_deleted: by keys alone, which is all
    that the kernel looks at. Raises Unspoken."""
    keys = _keys(shape)
    return lists(_element(keys, key, value, is_deleted) for key, value in elements.items())


def lists(elements: Iterable[bytes]) -> Iterator[bytes]:
    """NFTA_SET_ELEM_LIST_ELEMENTS, as many as it takes."""
    found: list[bytes] = []
    size = 0
    for one in elements:
        listed = nest(1, one)
        if found and size + len(listed) > _MOST:
            yield nest(_LIST, *found)
            found, size = [], 0
        found.append(listed)
        size += len(listed)
    if found:
        yield nest(_LIST, *found)


def _element(keys: _Keys, key: str, value: str, is_deleted: bool) -> bytes:
    try:
        return b"".join((*_key(keys, key), *_data(keys, value, is_deleted)))
    except (ValueError, struct.error) as error:
        raise Unspoken(f"{key} : {value}") from error


@lru_cache(maxsize=64)
def _keys(shape: SetShape) -> _Keys:
    first, *others = [one.strip() for one in shape.text.split(";")]
    typed, _, value = first.partition(" : ")
    word, _, names = typed.partition(" ")
    if word != "typeof" or (shape.kind == "map") != bool(value) or value not in ("", "verdict", "meta mark", "ct zone"):
        raise Unspoken(shape.text)
    fields = tuple(field_named(name) for name in names.split(" . "))
    flags = [one for one in others if one and not one.startswith("size ")]
    is_interval = flags == ["flags interval"]
    if (flags and not is_interval) or (is_interval and len(fields) < 2) or any(field.mask for field in fields):
        raise Unspoken(shape.text)
    return _Keys(fields, value, is_interval)


def _key(keys: _Keys, text: str) -> Iterator[bytes]:
    words = text.split(" . ")
    if len(words) != len(keys.fields):
        raise Unspoken(text)
    if not keys.is_interval:
        yield nest(_KEY, attribute(1, b"".join(map(_padded, keys.fields, words))))
        return
    spans = [span(field, word) for field, word in zip(keys.fields, words, strict=True)]
    first, last = (
        b"".join(value.ljust(field.padded, b"\0") for field, value in zip(keys.fields, side, strict=True))
        for side in zip(*spans, strict=True)
    )
    yield nest(_KEY, attribute(1, first))
    yield nest(_KEY_END, attribute(1, last))


def _padded(field: Field, word: str) -> bytes:
    return field.read(word).ljust(field.padded, b"\0")


def _data(keys: _Keys, text: str, is_deleted: bool) -> Iterator[bytes]:
    if bool(text) != bool(keys.value):
        raise Unspoken(text)
    if keys.value == "verdict" and not is_deleted:
        yield nest(_DATA, verdict_of(text))
    elif keys.value and not is_deleted:
        yield nest(_DATA, attribute(1, struct.pack("=H" if keys.value == "ct zone" else "=I", int(text))))
