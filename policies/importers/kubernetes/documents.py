"""Pure. Reads the documents of one YAML or JSON text into plain values that know their lines; knows no kinds.

Scalars mean what the API server's own reader makes of them (sigs.k8s.io/yaml, YAML 1.1): `yes` and `on` are truth
values, a leading zero is octal, dates are text; but a bare `y` or `n` stays text, as in YAML 1.2.

Built on the event stream alone: a composer that recurses or expands aliases can be made to take all memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

MAX_BYTES = 32 * 1024 * 1024
"""Of a file. YAML is read at about 200 kB a second, JSON far faster."""

MAX_DEPTH = 100
MAX_VALUES = 5_000_000
"""Keys and values of one document, with every alias counted as what it stands for."""

_CORE = "tag:yaml.org,2002:"
_TRUE = frozenset(("yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"))
_FALSE = frozenset(("no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"))
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_BASED = re.compile(r"([-+]?)0(b[01_]+|o?[0-7_]+|x[0-9a-fA-F_]+)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class Fields(dict[str, Any]):
    """A mapping. line: where it starts; lines: of each key. 0 where the text has no lines (JSON)."""

    __slots__ = ("line", "lines", "size")

    def __init__(self, line: int = 0) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}
        self.size = 1


class Items(list[Any]):
    """A list. line: where it starts; lines: of each item."""

    __slots__ = ("line", "lines", "size")

    def __init__(self, line: int = 0) -> None:
        super().__init__()
        self.line = line
        self.lines: list[int] = []
        self.size = 1


@dataclass(frozen=True, slots=True)
class Document:
    """One document. value: None, bool, int, float, str, Items or Fields."""

    value: Any
    line: int


class TextError(ValueError):
    """The text is neither YAML nor JSON, or larger, deeper or wider than is read. line: 0 if unknown."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def documents(text: str | bytes) -> tuple[Document, ...]:
    """All documents of a text, the empty ones left out. Raises TextError."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_BYTES:
        raise TextError(0, f"the file has {len(raw)} bytes; {MAX_BYTES} are read")
    try:
        decoded = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise TextError(line, f"read byte 0x{raw[error.start]:02x}, which is not UTF-8") from None
    if decoded.lstrip().startswith("{"):
        try:
            return tuple(_from_json(decoded))
        except _NoJsonError:
            pass  # a flow mapping that only YAML knows
    return tuple(_from_yaml(decoded))


class _NoJsonError(ValueError):
    """Not JSON; it may be YAML."""


def _from_json(text: str) -> Iterator[Document]:
    """A stream of JSON values, as kubectl takes them. Far faster than YAML's way, and right about surrogates."""
    decoder, at = json.JSONDecoder(object_pairs_hook=_json_fields), 0
    blank = re.compile(r"\s*")
    while (at := blank.match(text, at).end()) < len(text):  # type: ignore[union-attr]
        try:
            value, at = decoder.raw_decode(text, at)
        except TextError:
            raise
        except RecursionError:
            raise TextError(0, f"nested deeper than {MAX_DEPTH} levels") from None
        except ValueError:
            raise _NoJsonError from None
        _check_depth(value)
        yield Document(value, 0)


def _json_fields(pairs: list[tuple[str, Any]]) -> Fields:
    fields = Fields()
    for key, value in pairs:
        if key in fields:
            raise TextError(0, f"the key {key[:60]!r} stands twice in one object; keep one")
        fields[key] = value
    return fields


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise TextError(0, f"nested deeper than {MAX_DEPTH} levels")
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]


def _from_yaml(text: str) -> Iterator[Document]:
    composer = _Composer()
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            if composer.take(event):
                if composer.root is not None:
                    yield Document(composer.root, composer.root_line)
                composer = _Composer()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(str(part) for part in (error.context, error.problem) if part)
        raise TextError(mark.line + 1 if mark else 0, f"not YAML: {message}") from None
    except YAMLError as error:
        at = getattr(error, "position", None)
        if not isinstance(at, int):
            raise TextError(composer.line, "not YAML") from None
        character = text[at : at + 1]
        raise TextError(text.count("\n", 0, at) + 1, f"read {character!r}, which YAML doesn't allow") from None
    except TextError:
        raise
    except (ValueError, OverflowError) as error:
        # an escape for a code point beyond Unicode reaches chr(), one for half a pair reaches the encoder
        raise TextError(composer.line, f"not YAML: {error}") from None


@dataclass(slots=True)
class _Open:
    """A list or mapping that has not ended yet. key: the mapping's key that waits for its value, with its line."""

    node: Fields | Items
    anchor: str | None
    key: tuple[str, int] | None = None
    merges: list[Fields] | None = None


class _Composer:
    """Builds one document from events without recursion."""

    def __init__(self) -> None:
        self.root: Any = None
        self.root_line = 0
        self.line = 0
        self._open: list[_Open] = []
        self._anchors: dict[str, Any] = {}

    def take(self, event: Event) -> bool:
        """Takes the next event; True when the document is complete."""
        self.line = line = event.start_mark.line + 1
        match event:
            case ScalarEvent():
                value = self._scalar(event)
                if event.anchor:
                    self._anchors[event.anchor] = value
                return self._add(value, line, event.value if not event.style else None)
            case SequenceStartEvent() | MappingStartEvent():
                is_list = isinstance(event, SequenceStartEvent)
                self._check_tag(event, ("seq",) if is_list else ("map",))
                if len(self._open) >= MAX_DEPTH:
                    raise TextError(line, f"nested deeper than {MAX_DEPTH} levels")
                self._anchors.pop(event.anchor, None)
                self._open.append(_Open(Items(line) if is_list else Fields(line), event.anchor))
            case SequenceEndEvent() | MappingEndEvent():
                ended = self._open.pop()
                for source in ended.merges or ():
                    self._merge(ended.node, source)
                if ended.anchor:
                    self._anchors[ended.anchor] = ended.node
                return self._add(ended.node, ended.node.line)
            case AliasEvent():
                if event.anchor not in self._anchors:
                    raise TextError(line, f"*{event.anchor} stands for nothing yet")
                return self._add(self._anchors[event.anchor], line)
            case DocumentStartEvent():
                if event.version is not None and event.version[0] != 1:
                    raise TextError(line, "only YAML 1 is read")
            case _:
                pass
        return False

    def _add(self, value: Any, line: int, plain: str | None = None) -> bool:
        """Puts a complete value where it belongs; plain is its text if it was written without quotes."""
        if not self._open:
            self.root, self.root_line = value, line
            return True
        parent = self._open[-1]
        parent.node.size += value.size if isinstance(value, Fields | Items) else 1
        if parent.node.size > MAX_VALUES:
            raise TextError(line, f"more than {MAX_VALUES} values, aliases counted in full")
        if isinstance(parent.node, Items):
            parent.node.append(value)
            parent.node.lines.append(line)
        elif parent.key is None:
            if isinstance(value, Fields | Items):
                raise TextError(line, "a list or mapping can't be a key")
            parent.key = ("<<" if plain == "<<" else _key(value), line if plain != "<<" else -line)
        else:
            key, at = parent.key
            parent.key = None
            if at < 0:
                sources = value if isinstance(value, Items) else [value]
                if not all(isinstance(source, Fields) for source in sources):
                    raise TextError(line, "<< takes a mapping, or a list of mappings")
                parent.merges = [*(parent.merges or ()), *sources]
            elif key in parent.node:
                raise TextError(at, f"the key {key[:60]!r} stands here a second time; keep one")
            else:
                parent.node[key] = value
                parent.node.lines[key] = at
        return False

    def _merge(self, node: Fields | Items, source: Fields) -> None:
        """What is written wins over what is merged, an earlier merge over a later one (the merge key's definition)."""
        if isinstance(node, Fields):
            for key, value in source.items():
                if key not in node:
                    node[key] = value
                    node.lines[key] = source.lines[key]

    def _scalar(self, event: ScalarEvent) -> Any:
        tag = self._check_tag(event, ("str", "int", "float", "bool", "null", "timestamp", "binary"))
        if tag in ("str", "timestamp", "binary") or (tag is None and event.style):
            return event.value
        value = _plain(event.value)
        if tag == "float" and isinstance(value, int):
            return float(value)
        if tag is not None and {bool: "bool", int: "int", float: "float", type(None): "null"}.get(type(value)) != tag:
            raise TextError(self.line, f"{event.value[:60]!r} is no {tag}")
        return value

    def _check_tag(self, event: Any, allowed: tuple[str, ...]) -> str | None:
        """The name of an explicit tag, or None."""
        tag = "" if event.ctag is None else str(event.ctag)
        if tag in ("", "None"):
            return None
        if tag == "!":
            return "str" if "str" in allowed else None
        name = tag.removeprefix(_CORE).removeprefix("!!")
        if tag == name or name not in allowed:
            raise TextError(self.line, f"the tag {tag[:60]} is not allowed here")
        return name


def _key(value: Any) -> str:
    """The text of a key in JSON, which has no other keys."""
    return value if isinstance(value, str) else json.dumps(value)


def _plain(text: str) -> Any:
    """What a scalar without quotes means."""
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    first = text[0]
    if not (first.isascii() and (first.isdigit() or first in "+-.")) or len(text) > 60:
        return text
    if _WHOLE.fullmatch(text):
        return int(text.replace("_", ""))
    if (found := _BASED.fullmatch(text)) and (digits := found[2].lstrip("box").replace("_", "")):
        base = {"b": 2, "x": 16}.get(found[2][0], 8)
        return int(found[1] + digits, base)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
