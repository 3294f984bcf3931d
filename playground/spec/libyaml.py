"""Owns the library libyaml, where a machine has it: the events of a YAML document, some ten times as fast as in Python.

It reads YAML 1.1 as its authors understand it. So it is asked only for documents in which nobody could read anything
else, and whatever it is not sure of, or refuses, is the other parser's to read and to explain (`source`).
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from enum import IntEnum
from functools import cache
from typing import NamedTuple

_SONAME = "libyaml-0.so.2"
_UTF8 = 1
_PLAIN, _DOUBLE_QUOTED = 1, 3

_STRANGE = re.compile(
    r"[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
    r"|^(?:%|\.\.\.)|[&*][\w-]+[^\w\s,\]}-]",
    re.M,
)
"""What versions of YAML, or its readers, take for different things: tabs, other line ends than \\n and what may not be
there at all; directives and ends of documents; names of anchors with other characters."""


class Kind(IntEnum):
    """As yaml.h numbers them (yaml_event_type_t)."""

    STREAM_START = 1
    STREAM_END = 2
    DOCUMENT_START = 3
    DOCUMENT_END = 4
    ALIAS = 5
    SCALAR = 6
    SEQUENCE_START = 7
    SEQUENCE_END = 8
    MAPPING_START = 9
    MAPPING_END = 10


class Event(NamedTuple):
    """One event. line, column: from 1. anchor: also of what an alias stands for. tag: as written, None where none is.
    is_twelve: of a document, whether it says no other version than 1.2."""

    kind: Kind
    line: int
    column: int
    text: str = ""
    is_quoted: bool = False
    anchor: str | None = None
    tag: str | None = None
    is_twelve: bool = True


class Unsure(Exception):
    """The library is not there, refuses, or might mean something else."""


class _Mark(ctypes.Structure):
    _fields_ = (("index", ctypes.c_size_t), ("line", ctypes.c_size_t), ("column", ctypes.c_size_t))


class _Scalar(ctypes.Structure):
    _fields_ = (
        ("anchor", ctypes.c_char_p),
        ("tag", ctypes.c_char_p),
        ("value", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("plain_implicit", ctypes.c_int),
        ("quoted_implicit", ctypes.c_int),
        ("style", ctypes.c_int),
    )


class _Start(ctypes.Structure):
    """Of a sequence or a mapping; of an alias, its anchor alone."""

    _fields_ = (("anchor", ctypes.c_char_p), ("tag", ctypes.c_char_p), ("implicit", ctypes.c_int))


class _Data(ctypes.Union):
    _fields_ = (("scalar", _Scalar), ("start", _Start))


class _Event(ctypes.Structure):
    """yaml_event_t; libyaml 0.2 has kept its form since 2006."""

    _fields_ = (("type", ctypes.c_int), ("data", _Data), ("start_mark", _Mark), ("end_mark", _Mark))


def events(text: str) -> Iterator[Event]:
    """All events of a document, in order. Raises Unsure, also in the midst of them."""
    library = _library()
    if library is None or _STRANGE.search(text):
        raise Unsure
    data = text.encode()
    parser, event = ctypes.create_string_buffer(8192), _Event()  # yaml_parser_t has some 500 bytes
    if not library.yaml_parser_initialize(parser):
        raise Unsure
    try:
        library.yaml_parser_set_encoding(parser, _UTF8)
        library.yaml_parser_set_input_string(parser, data, len(data))
        place = ctypes.byref(event)
        while True:
            if not library.yaml_parser_parse(parser, place):
                raise Unsure
            try:
                found = _read(event)
            finally:
                library.yaml_event_delete(place)
            yield found
            if found.kind is Kind.STREAM_END:
                return
    finally:
        library.yaml_parser_delete(parser)


def _read(event: _Event) -> Event:
    kind, line, column = _KINDS[event.type], event.start_mark.line + 1, event.start_mark.column + 1
    if kind is Kind.SCALAR:
        scalar = event.data.scalar
        if scalar.tag is not None:
            raise Unsure
        text = ctypes.string_at(scalar.value, scalar.length).decode()
        if (not text and scalar.style == _PLAIN) or scalar.style > _DOUBLE_QUOTED:
            raise Unsure  # readers differ in where nothing stands, and in how blocks of text begin
        anchor = scalar.anchor.decode() if scalar.anchor is not None else None
        return Event(kind, line, column, text, scalar.style != _PLAIN, anchor)
    if kind in _NAMED:
        start = event.data.start
        if kind is not Kind.ALIAS and start.tag is not None:
            raise Unsure
        return Event(kind, line, column, anchor=start.anchor.decode() if start.anchor is not None else None)
    return Event(kind, line, column)


_KINDS = {kind.value: kind for kind in Kind}
_NAMED = (Kind.ALIAS, Kind.SEQUENCE_START, Kind.MAPPING_START)


@cache
def _library() -> ctypes.PyDLL | None:
    try:
        library = ctypes.PyDLL(_SONAME)  # each call takes less than to let others run meanwhile
    except OSError:
        return None
    parser, event = ctypes.c_char_p, ctypes.POINTER(_Event)
    library.yaml_parser_initialize.argtypes = [parser]
    library.yaml_parser_set_encoding.argtypes = [parser, ctypes.c_int]
    library.yaml_parser_set_encoding.restype = None
    library.yaml_parser_set_input_string.argtypes = [parser, ctypes.c_char_p, ctypes.c_size_t]
    library.yaml_parser_set_input_string.restype = None
    library.yaml_parser_parse.argtypes = [parser, event]
    library.yaml_event_delete.argtypes = [event]
    library.yaml_event_delete.restype = None
    library.yaml_parser_delete.argtypes = [parser]
    library.yaml_parser_delete.restype = None
    return library
