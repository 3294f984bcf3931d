"""Pure. Reads YAML 1.2 text into plain values, and knows the line and column of every key and value.

Knows no format. Built on ruamel.yaml's event stream alone: its composer recurses and expands, and this must stand any
text. Scalars are those of the core schema (YAML 1.2.2 §10.3.2): no dates, no `yes`, no octal by a leading zero.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from playground.spec.libyaml import Event, Kind, Unsure, events
from playground.spec.problem import Place, Problem, SpecErrors

MAX_BYTES = 4 << 20
"""Of a file: room for 10 000 policies of 400 bytes. Reading it takes seconds, and some hundred times its size."""

MAX_DEPTH = 24
MAX_NODES = 500_000
"""Keys and values, with every alias counted as what it stands for."""

_CORE = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_OCTAL = re.compile(r"0o([0-7]{1,20})")
_HEX = re.compile(r"0x([0-9a-fA-F]{1,15})")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INF = re.compile(r"([-+]?)\.(?:inf|Inf|INF)")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}

Path = Sequence[str | int]


@dataclass(slots=True)
class Scalar:
    """A leaf. text: as written; value: what it means."""

    line: int
    column: int
    text: str
    value: str | int | float | bool | None
    size: int = 1


@dataclass(slots=True)
class Items:
    """A list."""

    line: int
    column: int
    items: list[Node] = field(default_factory=list)
    size: int = 1


@dataclass(slots=True)
class Entries:
    """A mapping, merge keys resolved. keys: by their text, with the place where each is written."""

    line: int
    column: int
    keys: dict[str, Scalar] = field(default_factory=dict)
    values: dict[str, Node] = field(default_factory=dict)
    merged: list[Entries] = field(default_factory=list)
    size: int = 1


Node = Scalar | Items | Entries


class Document:
    """One file as read."""

    def __init__(self, file: str, root: Node) -> None:
        self.file = file
        self.root = root

    def value(self, path: Path = ()) -> Any:
        """Plain dicts, lists and scalars; aliases copied, so that nothing is shared. None where there is no `path`."""
        node, _, _, is_whole = self._walk(path)
        return _plain(node) if is_whole else None

    def keys(self, path: Path) -> tuple[str, ...]:
        """The keys of the mapping at `path`, in the file's order; empty when there is none."""
        node, _, _, is_whole = self._walk(path)
        return tuple(node.values) if isinstance(node, Entries) and is_whole else ()

    def place(self, path: Path) -> Place:
        """Where the value at `path` starts, or what is nearest above it. See `key_place`."""
        node, _, known, _ = self._walk(path)
        return Place(self.file, node.line, node.column, path_text(known))

    def key_place(self, path: Path) -> Place:
        """Where the key that ends `path` is written; where that is a list's item, the item itself."""
        node, key, known, is_whole = self._walk(path)
        at = key if key is not None and is_whole else node
        return Place(self.file, at.line, at.column, path_text(known))

    def _walk(self, path: Path) -> tuple[Node, Scalar | None, tuple[str | int, ...], bool]:
        """The deepest node on a path, its key, how much of the path exists, and whether that is all of it.

        An index into what is no list is stepped over: `networks: grid` is short for a list of one.
        """
        node, key = self.root, None
        known: list[str | int] = []
        for part in path:
            match node, part:
                case Entries(), str() if part in node.values:
                    key, node = node.keys[part], node.values[part]
                    known.append(part)
                case Items(), int() if part < len(node.items):
                    key, node = None, node.items[part]
                    known.append(part)
                case ((Entries() | Scalar()), 0):
                    continue
                case _:
                    return node, key, tuple(known), False
        return node, key, tuple(known), True


def path_text(path: Path) -> str:
    """`networks.grid.subnets[0]`; keys that would not read well are quoted in brackets."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z0-9_@-]+", part):
            text += f".{part}" if text else part
        else:
            text += f"[{part[:80]!r}]"
    return text


def read(text: str | bytes, file: str) -> Document:
    """Reads one YAML document. Raises SpecErrors: no YAML, no UTF-8, too large, too deep, a key twice."""
    text = _decoded(text, file)
    with contextlib.suppress(Unsure, SpecErrors):
        root = _composed(text, file)
        return Document(file, root)
    composer = _Composer(file)
    try:
        for event in parsed(text):
            composer.take(event)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        message = " ".join(str(part) for part in (error.context, error.problem) if part)
        if "'\\t' that cannot start" in message:
            message = "a tab can't indent; write spaces"
        raise SpecErrors([Problem(file, line, column, "", f"not YAML: {message}")]) from None
    except YAMLError as error:
        # the reader's: a character that YAML doesn't allow, by its position in the text
        at = getattr(error, "position", 0)
        at = at if isinstance(at, int) else 0
        line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
        raise SpecErrors(
            [Problem(file, line, column, "", f"read {text[at : at + 1]!r}, a character that YAML doesn't allow")]
        ) from None
    except (ValueError, OverflowError) as error:
        # an escape for a code point beyond Unicode reaches chr()
        raise SpecErrors([Problem(file, composer.line, 1, "", f"not YAML: {error}")]) from None
    if composer.problems:
        raise SpecErrors(composer.problems)
    if composer.root is None:
        raise SpecErrors([Problem(file, 1, 1, "", "the file is empty; it needs at least a name")])
    return Document(file, composer.root)


def _composed(text: str, file: str) -> Node:
    """The quick way: of a document without any mistake. Raises Unsure, and SpecErrors that are not told to anybody."""
    composer = _Composer(file)
    for event in events(text):
        composer.take(event)
    if composer.problems or not isinstance(composer.root, Entries):
        raise Unsure
    return composer.root


def parsed(text: str) -> Iterator[Event]:
    """The events of a document, as YAML 1.2 has them. Raises YAMLError; ValueError and OverflowError for escapes beyond
    Unicode."""
    for event in YAML(typ="safe", pure=True).parse(text):
        kind = _KINDS.get(type(event))
        if kind is None:
            continue
        mark = event.start_mark
        version = getattr(event, "version", None)
        yield Event(
            kind,
            mark.line + 1,
            mark.column + 1,
            getattr(event, "value", ""),
            bool(getattr(event, "style", None)),
            getattr(event, "anchor", None),
            None if (tag := getattr(event, "ctag", None)) is None else str(tag),
            version is None or tuple(version) == (1, 2),
        )


_KINDS = {
    DocumentStartEvent: Kind.DOCUMENT_START,
    AliasEvent: Kind.ALIAS,
    ScalarEvent: Kind.SCALAR,
    SequenceStartEvent: Kind.SEQUENCE_START,
    SequenceEndEvent: Kind.SEQUENCE_END,
    MappingStartEvent: Kind.MAPPING_START,
    MappingEndEvent: Kind.MAPPING_END,
}
"""Of the events that make a document; others say nothing that is not said by these."""


def _decoded(text: str | bytes, file: str) -> str:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_BYTES:
        raise SpecErrors([Problem(file, 1, 1, "", _too_large(len(raw)))])
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        message = f"read byte 0x{raw[error.start]:02x}, which is not UTF-8; save the file as UTF-8"
        raise SpecErrors([Problem(file, line, column, "", message)]) from None


def _too_large(size: int) -> str:
    return f"the file has {size} bytes; {MAX_BYTES} are allowed: put its policies into several that it includes"


def _plain(node: Node) -> Any:
    match node:
        case Scalar():
            return node.value
        case Items():
            return [_plain(item) for item in node.items]
        case Entries():
            return {key: _plain(value) for key, value in node.values.items()}


@dataclass(slots=True)
class _Open:
    """A list or mapping that has not ended yet. key: the mapping's key that waits for its value."""

    node: Items | Entries
    anchor: str | None
    key: Scalar | None = None


class _Composer:
    """Builds nodes from events without recursion, so that depth and size are limits and not crashes."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self.line = 1
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._documents = 0

    def take(self, event: Event) -> None:
        self.line = event.line
        line, column = event.line, event.column
        match event.kind:
            case Kind.DOCUMENT_START:
                self._documents += 1
                if self._documents > 1:
                    raise self._refusal(line, column, "a second document starts here; write one document a file")
                if not event.is_twelve:
                    raise self._refusal(line, column, "only YAML 1.2 is read; leave the %YAML line out")
            case Kind.ALIAS:
                node = self._anchors.get(event.anchor or "")
                if node is None:
                    raise self._refusal(
                        line, column, f"*{event.anchor} stands for nothing yet; anchor it before with &{event.anchor}"
                    )
                self._add(node, line, column)
            case Kind.SCALAR:
                scalar = Scalar(line, column, event.text, self._meaning(event, line, column))
                if event.anchor:
                    self._anchors[event.anchor] = scalar
                self._add(scalar, line, column)
            case Kind.SEQUENCE_START | Kind.MAPPING_START:
                is_list = event.kind is Kind.SEQUENCE_START
                self._check_tag(event, ("seq",) if is_list else ("map",), line, column)
                if len(self._open) >= MAX_DEPTH:
                    raise self._refusal(line, column, f"nested deeper than {MAX_DEPTH} levels")
                node = Items(line, column) if is_list else Entries(line, column)
                self._anchors.pop(event.anchor or "", None)
                self._open.append(_Open(node, event.anchor))
            case Kind.SEQUENCE_END | Kind.MAPPING_END:
                ended = self._open.pop()
                if isinstance(ended.node, Entries):
                    _merge(ended.node)
                if ended.anchor:
                    self._anchors[ended.anchor] = ended.node
                self._add(ended.node, ended.node.line, ended.node.column)
            case _:
                pass

    def _add(self, node: Node, line: int, column: int) -> None:
        """Puts a complete node where it belongs: line and column are where it is used, which an alias is not at."""
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        parent.node.size += node.size
        if parent.node.size > MAX_NODES:
            raise self._refusal(line, column, f"more than {MAX_NODES} values, aliases counted in full")
        match parent.node:
            case Items() as items:
                items.items.append(node)
            case Entries() as entries:
                if parent.key is None:
                    if not isinstance(node, Scalar):
                        raise self._refusal(line, column, "a list or mapping can't be a key; write a word")
                    parent.key = Scalar(line, column, node.text, node.value)
                    return
                key, parent.key = parent.key, None
                if key.text == "<<":
                    self._merge_key(entries, node, line, column)
                elif key.text in entries.keys:
                    first = entries.keys[key.text].line
                    message = f"the key {key.text!r} stands here a second time, first in line {first}; keep one"
                    self.problems.append(Problem(self._file, key.line, key.column, self._path(), message))
                else:
                    entries.keys[key.text] = key
                    entries.values[key.text] = node

    def _merge_key(self, entries: Entries, node: Node, line: int, column: int) -> None:
        sources = node.items if isinstance(node, Items) else [node]
        for source in sources:
            if not isinstance(source, Entries):
                raise self._refusal(line, column, "<< takes a mapping, as <<: *base, or a list of mappings")
            entries.merged.append(source)

    def _meaning(self, event: Event, line: int, column: int) -> str | int | float | bool | None:
        tag = self._check_tag(event, ("str", "int", "float", "bool", "null"), line, column)
        if tag is None:
            return event.text if event.is_quoted else _core(event.text)
        if tag == "str":
            return event.text
        value = _core(event.text)
        read = {bool: "bool", int: "int", float: "float", type(None): "null"}.get(type(value), "str")
        if read != tag and (read, tag) != ("int", "float"):
            raise self._refusal(line, column, f"{event.text[:60]!r} is no {tag}")
        return value

    def _check_tag(self, event: Event, allowed: tuple[str, ...], line: int, column: int) -> str | None:
        """The name of an explicit tag, or None; refuses all but the core schema's."""
        if event.tag is None:
            return None
        tag = event.tag
        if tag in ("", "!", "None"):
            return "str" if tag == "!" and "str" in allowed else None
        if tag.startswith("!!"):
            tag = _CORE + tag[2:]
        if not tag.startswith(_CORE) or (name := tag.removeprefix(_CORE)) not in allowed:
            raise self._refusal(line, column, f"the tag {tag[:60]} is not allowed here; leave it out")
        return name

    def _path(self) -> str:
        parts: list[str | int] = []
        for frame in self._open[:-1]:
            if isinstance(frame.node, Items):
                parts.append(len(frame.node.items))
            elif frame.key is not None:
                parts.append(frame.key.text)
        return path_text(parts)

    def _refusal(self, line: int, column: int, message: str) -> SpecErrors:
        return SpecErrors([*self.problems, Problem(self._file, line, column, self._path(), message)])


def _merge(entries: Entries) -> None:
    """What is written wins over what is merged, an earlier merge over a later one (the merge key's definition)."""
    for source in entries.merged:
        for key, value in source.values.items():
            if key not in entries.values:
                entries.keys[key] = source.keys[key]
                entries.values[key] = value
    entries.merged.clear()


def _core(text: str) -> str | int | float | bool | None:
    """What a plain scalar means in the core schema; longer numbers than anything here needs stay text."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INT.fullmatch(text):
        return int(text)
    if found := _OCTAL.fullmatch(text):
        return int(found[1], 8)
    if found := _HEX.fullmatch(text):
        return int(found[1], 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if found := _INF.fullmatch(text):
        return float(f"{found[1]}inf")
    if text in (".nan", ".NaN", ".NAN"):
        return float("nan")
    return text
