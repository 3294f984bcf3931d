"""Pure. Connections as lists for people and programs: in order, a line a pair, without holding all lines at once."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache

from playground.cli import render
from policies.connections import Block, ports_json
from policies.explain import ports_text
from policies.ports import Ports, Protocol

Line = tuple[str, str, Ports]
"""(from, to, ports)."""


def lines(blocks: Iterable[Block]) -> Iterator[Line]:
    """Each pair of different ends, ordered by names as people count (worker-2 before worker-10), workspaces first."""
    by_source: dict[str, list[Block]] = {}
    for block in blocks:
        for source in block.sources:
            by_source.setdefault(source, []).append(block)
    for source in sorted(by_source, key=counted):
        found = [(to, block.ports) for block in by_source[source] for to in block.destinations if to != source]
        for to, ports in sorted(found, key=lambda one: counted(one[0])):
            yield source, to, ports


@cache
def counted(name: str) -> tuple[bool, tuple[tuple[int, str], ...]]:
    """What sorts a name: the world last, runs of digits as numbers."""
    parts = re.findall(r"\d+|\D+", name)
    is_world = name.startswith("@") or bool(re.match(r"[0-9a-f.:]+-[0-9a-f.:]+$", name))
    return is_world, tuple((int(part), "") if part.isascii() and part.isdigit() else (-1, part) for part in parts)


@cache
def _text(ports: Ports) -> str:
    return ports_text(ports)


@cache
def _json(ports: Ports) -> str:
    return json.dumps(ports_json(ports))


def as_table(found: Iterable[Line]) -> Iterator[str]:
    """FROM TO PORTS, in columns."""
    rows = [(source, to, _text(ports)) for source, to, ports in found]
    if rows:
        yield render.table(("FROM", "TO", "PORTS"), rows)


def as_json(found: Iterable[Line]) -> Iterator[str]:
    """A list of `{from, to, connections}`, an entry a line."""
    names: dict[str, str] = {}
    head = "["
    for source, to, ports in found:
        for name in (source, to):
            if name not in names:
                names[name] = json.dumps(name, ensure_ascii=False)
        yield f'{head}\n  {{"from": {names[source]}, "to": {names[to]}, "connections": {_json(ports)}}}'
        head = ","
    yield "[]" if head == "[" else "\n]"


def as_csv(found: Iterable[Line]) -> Iterator[str]:
    """A line for each range of ports; `all,,` where nothing is left out."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("from", "to", "protocol", "first", "last"))
    for source, to, ports in found:
        for row in _ranges(ports):
            writer.writerow((source, to, *row))
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


def as_dot(found: Iterable[Line]) -> Iterator[str]:
    """A directed graph; edges that allow everything have no label."""
    yield "digraph connections {\n  node [shape=box];\n"
    for source, to, ports in found:
        label = "" if ports.is_everything else f" [label={_quoted(_text(ports))}]"
        yield f"  {_quoted(source)} -> {_quoted(to)}{label};\n"
    yield "}\n"


def _ranges(ports: Ports) -> Iterator[tuple[str, str, str]]:
    if ports.is_everything:
        yield "all", "", ""
        return
    for protocol, ranges in ports.parts:
        for first, last in ranges if protocol is not Protocol.OTHER else ():
            yield protocol.value, str(first), str(last)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
