"""What all fuzzing here shares: measured bounds, values that are almost right, a corpus of what once broke something.

A target is a check of one input that raises when a claim does not hold; it knows nothing of where inputs come from, so
the suite, the corpus and the long run (`long.py`) all drive the same.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")
Json = Any

CORPUS = Path(__file__).parent / "corpus"

CPU_S = 30.0
"""Most CPU time that one input may cost, of this whole process. The dearest that is let in takes a third of it; what
this finds is the square and the exponential."""

PEAK_MIB = 256
"""Most memory that one input may take at a time, where that is measured: it costs half the speed."""


@contextmanager
def bounded(cpu_s: float = CPU_S, peak_mib: int | None = None) -> Iterator[None]:
    """The body costs no more than this. AssertionError with what it cost."""
    started_s = time.process_time()
    if peak_mib is not None:
        tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1] if peak_mib is not None else 0
    finally:
        if peak_mib is not None:
            tracemalloc.stop()
    spent_s = time.process_time() - started_s
    assert spent_s <= cpu_s, f"{spent_s:.1f} s of CPU, {cpu_s:g} are allowed"
    assert peak_mib is None or peak <= peak_mib << 20, f"{peak >> 20} MiB at a time, {peak_mib} are allowed"


# values that are almost right

WORDS: tuple[Json, ...] = (
    *(None, True, False, 0, 1, -1, 4096, 65535, 1 << 31, 1 << 63, -(1 << 63) - 1, 1 << 64, 10**30, 1e308, -0.0, 0.5),
    *(
        "",
        " ",
        "a",
        "A",
        "-",
        "a-",
        "*",
        "..",
        "../..",
        "a/b",
        "a\0b",
        "\n",
        "é",
        "\u202e",
        "\U0001f600",
        "null",
        "1e3",
    ),
    *(
        "a" * 63,
        "a" * 64,
        "x" * 300,
        "x" * 70_000,
        "%",
        "@world",
        "a=b",
        "room in (a",
        "h1",
        "n1",
        "atlas",
        "w-0",
        "grid",
    ),
    *("0.0.0.0", "0.0.0.0/0", "10.0.0.0/33", "10.20.0.1-10.20.0.0", "255.255.255.255", "::", "::/0", "fe80::1%lo"),
    *(
        "fd00::/64",
        "::ffff:10.0.0.1",
        "10.20.0.5",
        "1.1",
        "ff:ff:ff:ff:ff:ff",
        "01:00:5e:00:00:01",
        "00:00:00:00:00:00",
    ),
    *(
        "1h",
        "99999999999d",
        "-1s",
        "512MiB",
        "9" * 30 + "TiB",
        "running",
        "stopped",
        "forwarding",
        "requested",
        "bound",
    ),
)
"""What tends to break readers: the edges of every type, and words that mean something elsewhere."""


def deep(depth: int, inner: Json = None) -> Json:
    """Lists in lists."""
    for _ in range(depth):
        inner = [inner]
    return inner


ODD: st.SearchStrategy[Json] = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from(([], {}, [[]], [{}], {"": {}}, deep(30), {"x-y": deep(3)}, ["a"] * 300)),
    st.text(max_size=8),
    st.integers(),
)


def _places(value: Json, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a value, itself included."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, (*path, index))


def _edit(value: Json, path: Sequence[Any], verb: str, odd: Json) -> Json:
    """The value with one thing done at one path; always JSON again."""
    if not path:
        return odd if verb == "put" else [value, odd] if verb == "wrap" else value
    parent = value
    for part in path[:-1]:
        parent = parent[part]
    last = path[-1]
    match verb:
        case "put":
            parent[last] = odd
        case "drop":
            del parent[last]
        case "wrap":
            parent[last] = [parent[last]]
        case "twice" if isinstance(parent, list):
            parent.insert(last, copy.deepcopy(parent[last]))
        case "rename" if isinstance(parent, dict):
            parent[odd if isinstance(odd, str) else json.dumps(odd, default=str)] = parent.pop(last)
        case "add" if isinstance(parent, dict):
            parent[f"x{last}"] = odd
        case _:
            pass
    return value


@st.composite
def edited(draw: st.DrawFn, seeds: Sequence[Json], most: int = 4) -> Json:
    """One of the seeds with up to `most` edits."""
    value = copy.deepcopy(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, most))):
        path = draw(st.sampled_from(list(_places(value))))
        verb = draw(st.sampled_from(("put", "put", "put", "drop", "wrap", "twice", "rename", "add")))
        value = _edit(value, path, verb, copy.deepcopy(draw(ODD)))  # what is drawn is shared
    return value


SPLICES = (
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\\ud800",
    b'"',
    b"[" * 2000,
    b'{"a":' * 2000,
    b"9" * 5000,
    b"1e999",
    b"NaN",
)


@st.composite
def garbled(draw: st.DrawFn, whole: st.SearchStrategy[bytes], splices: Sequence[bytes] = SPLICES) -> bytes:
    """Mostly the bytes as they are; else cut, spliced, doubled in part, or with one byte changed."""
    raw = draw(whole)
    verb = draw(st.sampled_from(("keep", "keep", "keep", "cut", "splice", "double", "flip")))
    at = draw(st.integers(0, len(raw)))
    match verb:
        case "cut":
            return raw[:at]
        case "splice":
            return raw[:at] + draw(st.sampled_from(tuple(splices))) + raw[at:]
        case "double":
            end = draw(st.integers(at, min(len(raw), at + 200)))
            return raw[:at] + raw[at:end] * draw(st.integers(2, 20)) + raw[end:]
        case "flip" if at < len(raw):
            return raw[:at] + bytes([raw[at] ^ draw(st.integers(1, 255))]) + raw[at + 1 :]
        case _:
            return raw


def as_json(value: Json) -> bytes:
    """What a careless peer would send: lone surrogates and all."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


# targets and what once broke them


@dataclass(frozen=True)
class Target(Generic[T]):
    """One door and its claims. check raises for an input that breaks one; text keeps an input as a file, and back."""

    name: str
    inputs: st.SearchStrategy[T]
    check: Callable[[T], None]
    to_file: Callable[[T], bytes]
    from_file: Callable[[bytes], T]

    def __str__(self) -> str:
        return self.name

    def kept(self) -> list[Path]:
        """Inputs that once broke a claim, or nearly did."""
        return sorted((CORPUS / self.name).glob("*"))

    def keep(self, value: T) -> Path:
        """Adds an input to the corpus; its file."""
        raw = self.to_file(value)
        path = CORPUS / self.name / hashlib.sha256(raw).hexdigest()[:12]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        return path


def steps_to_file(value: Json) -> bytes:
    """JSON of nested lists, words and bytes; bytes as {"hex": …} where they are no UTF-8."""

    def plain(item: Json) -> Json:
        if isinstance(item, bytes):
            try:
                return {"bytes": item.decode()}
            except UnicodeDecodeError:
                return {"hex": item.hex()}
        return [plain(i) for i in item] if isinstance(item, list | tuple) else item

    return json.dumps(plain(value), indent=1).encode() + b"\n"


def steps_from_file(raw: bytes) -> Json:
    """What `steps_to_file` wrote; tuples come back as lists."""

    def thick(item: Json) -> Json:
        if isinstance(item, dict):
            return item["bytes"].encode() if "bytes" in item else bytes.fromhex(item["hex"])
        return [thick(i) for i in item] if isinstance(item, list) else item

    return thick(json.loads(raw))
