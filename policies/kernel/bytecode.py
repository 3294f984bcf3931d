"""Pure. One rule of ours, from nft's text to the kernel's expressions: what libnftables makes of the same text.

Knows the words that frequent rules are made of, those of devices, policies and playgrounds, and refuses whatever else
there is (`Unspoken`): that is libnftables' to say. Layouts: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from policies.kernel.fields import (
    Field,
    Unspoken,
    ct_key,
    expression,
    field_at,
    field_named,
    host,
    meta_key,
    note,
    register,
    span,
)
from policies.kernel.netlink import attribute, nest, u16, u32, u64

_EQUAL, _UNEQUAL, _AT_MOST, _AT_LEAST = 0, 1, 3, 5
_INVERTED = 1
_VERDICTS = {"drop": 0, "accept": 1, "jump": -3, "goto": -4, "return": -5}
_REJECT_RESET, _REJECT_ICMPX = 1, 2
_ICMPX = {"no-route": 0, "port-unreachable": 1, "host-unreachable": 2, "admin-prohibited": 3}
_SECONDS = {"second": 1, "minute": 60, "hour": 3600}
_OVER = 1
_COUNTER = 1

_ANONYMOUS, _CONSTANT, _INTERVAL, _MAP = 1, 2, 4, 8
_VERDICT_TYPE = 0xFFFFFF00
_ENDS = 1
"""NFT_SET_ELEM_INTERVAL_END: from here on up to the next beginning nothing is in the set."""
_OPEN = note(1, host(1))
"""libnftables' note beside the beginning of an interval that has no end."""

_TOKEN = re.compile(r'@(?:ll|nh|th),\d+,\d+|"[^"]*"|[{}(),]|[^\s{}(),"]+')


class Unnamed(NamedTuple):
    """A set of a rule's own. described: attributes of its message but for table, name and number; elements: each one
    that goes into a list."""

    name: bytes
    described: bytes
    elements: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Bytecode:
    """A rule. pieces: expressions, whole, and in their midst the places (indexes into sets) of its own sets."""

    sets: tuple[Unnamed, ...]
    pieces: tuple[bytes | _Lookup, ...]

    def expressions(self, ids: list[int]) -> bytes:
        """All of them; ids: the number that each own set has in the transaction."""
        return b"".join(one if isinstance(one, bytes) else one.expression(ids) for one in self.pieces)


class _Lookup(NamedTuple):
    """In an own set. target: attributes beyond it."""

    place: int
    name: bytes
    extra: bytes

    def expression(self, ids: list[int]) -> bytes:
        attributes = attribute(1, self.name) + u32(2, _FIRST) + u32(4, ids[self.place]) + self.extra
        return expression("lookup", attributes)


_FIRST = register(0)
"""Where a key begins, and where what was loaded for one comparison lies."""


@lru_cache(maxsize=1024)
def bytecode(rule: str, family: str) -> Bytecode:
    """rule: without comment. family: of its table. Raises Unspoken."""
    try:
        return _Reader(rule, family).read()
    except (ValueError, KeyError, IndexError) as error:
        raise Unspoken(rule) from error


def verdict(kind: str, chain: str = "") -> bytes:
    """NFTA_DATA_VERDICT. Raises KeyError for what is none."""
    code = _VERDICTS[kind] & 0xFFFFFFFF
    return nest(2, u32(1, code), *([attribute(2, chain.encode() + b"\0")] if chain else []))


def verdict_of(text: str) -> bytes:
    """The same, of the text of an element's value. Raises Unspoken."""
    kind, _, chain = text.partition(" ")
    if kind not in _VERDICTS or (kind in ("jump", "goto")) != bool(chain):
        raise Unspoken(text)
    return verdict(kind, chain)


class _Reader:
    """One rule's words, from the first to the last."""

    def __init__(self, rule: str, family: str) -> None:
        self._words = _TOKEN.findall(rule)
        if _squeezed("".join(self._words)) != _squeezed(rule):
            raise Unspoken(rule)
        self._place = 0
        self._family = family
        self._pieces: list[bytes | _Lookup] = []
        self._sets: list[Unnamed] = []
        self._known: set[tuple[str, str]] = set()
        """What an earlier match has made sure of."""

    def read(self) -> Bytecode:
        while self._place < len(self._words):
            statement = _STATEMENTS.get(self._words[self._place])
            is_set = self._words[self._place + 2 : self._place + 3] == ["set"]
            if statement is not None and (self._words[self._place] not in ("meta", "ct") or is_set):
                statement(self)
            else:
                self._match()
        return Bytecode(tuple(self._sets), tuple(self._pieces))

    def _take(self, *expected: str) -> str:
        """The next word, one of those expected if any are."""
        word: str = self._words[self._place]
        if expected and word not in expected:
            raise Unspoken(word)
        self._place += 1
        return word

    def _is_next(self, word: str) -> bool:
        is_next = self._words[self._place : self._place + 1] == [word]
        self._place += is_next
        return is_next

    def _say(self, name: str, *attributes: bytes) -> None:
        self._pieces.append(expression(name, *attributes))

    # statements

    def _verdict(self) -> None:
        kind = self._take()
        self._immediate(0, verdict(kind, self._take() if kind in ("jump", "goto") else ""))

    def _immediate(self, to: int, data: bytes) -> None:
        self._say("immediate", u32(1, to), nest(2, data))

    def _counter(self) -> None:
        self._take(), self._take("name")
        self._say("objref", u32(1, _COUNTER), attribute(2, _unquoted(self._take())))

    def _limit(self) -> None:
        self._take(), self._take("rate")
        is_over = self._is_next("over")
        rate, _, unit = self._take().partition("/")
        self._take("burst")
        burst = int(self._take())
        self._take("packets")
        self._say("limit", u64(1, int(rate)), u64(2, _SECONDS[unit]), u32(3, burst), u32(4, 0), u32(5, _OVER * is_over))

    def _log(self) -> None:
        self._take(), self._take("prefix")
        prefix = _unquoted(self._take()) + b"\0"
        self._take("group")
        self._say("log", attribute(2, prefix), u16(1, int(self._take())))

    def _reject(self) -> None:
        self._take(), self._take("with")
        if self._take("tcp", "icmpx") == "icmpx":
            self._say("reject", u32(1, _REJECT_ICMPX), attribute(2, bytes([_ICMPX[self._take()]])))
            return
        self._take("reset")
        if ("meta l4proto", "tcp") not in self._known:
            raise Unspoken("reset of what need not be TCP")
        self._say("reject", u32(1, _REJECT_RESET), attribute(2, b"\0"))

    def _forward(self) -> None:
        """Out by a device, by its index."""
        self._take(), self._take("to")
        self._immediate(_FIRST, attribute(1, host(int(self._take()))))
        self._say("fwd", u32(1, _FIRST))

    def _set(self) -> None:
        """Sets a mark: to a number, or to what a map has; or a frame's type."""
        kind = self._take("meta", "ct")
        what = self._take("mark", "pkttype") if kind == "meta" else self._take("mark")
        self._take("set")
        if what == "pkttype":
            self._immediate(_FIRST, attribute(1, field_named("meta pkttype").read(self._take())))
        elif self._words[self._place][0].isdigit():
            self._immediate(_FIRST, attribute(1, field_named("meta mark").read(self._take())))
        else:
            self._key()
            self._take("map")
            self._say("lookup", attribute(1, _name_of(self._take())), u32(2, _FIRST), u32(3, _FIRST))
        key, source = (meta_key(what), 3) if kind == "meta" else (ct_key(what), 4)
        self._say(kind, u32(2, key), u32(source, _FIRST))

    # matches

    def _key(self) -> list[Field]:
        """Loads a row of fields."""
        fields, names = [], []
        while True:
            begin = self._place
            field, self._place = field_at(self._words, begin)
            fields.append(field)
            names.append(" ".join(self._words[begin : self._place]))
            if not self._is_next("."):
                break
        for field in fields:
            self._require(field)
        place = 0
        for field in fields:
            if field.mask and len(fields) > 1:
                raise Unspoken("bits in a row of fields")
            self._pieces.append(field.load(register(place)))
            place += field.padded // 4
        if len(fields) == 1 and len(self._words) > self._place:
            self._known.add((names[0], self._words[self._place]))
        return fields

    def _require(self, field: Field) -> None:
        for family, (name, word) in field.needs:
            if family == self._family and (name, word) not in self._known:
                self._known.add((name, word))
                needed = field_named(name)
                self._pieces.append(needed.load(_FIRST))
                self._compare(_EQUAL, needed.read(word))

    def _match(self) -> None:
        fields = self._key()
        field = fields[0]
        if self._is_next("vmap"):
            self._in_map(fields)
            return
        if field.mask:
            self._masked(field.mask)
        elif self._is_next("&") or self._is_next("and"):
            self._masked(self._mask(field))
            comparison = _EQUAL if self._take("==", "!=") == "==" else _UNEQUAL
            self._compare(comparison, self._read(field, self._take()))
            return
        is_inverted = self._is_next("!=")
        if not is_inverted:
            self._is_next("==")
        word = self._take()
        if word.startswith("@"):
            self._say(
                "lookup",
                attribute(1, _name_of(word)),
                u32(2, _FIRST),
                *([u32(5, _INVERTED)] if is_inverted else []),
            )
        elif len(fields) > 1:
            raise Unspoken("a row of fields beside a value")
        elif word != "{":
            self._one(field, word, is_inverted)
        else:
            words = self._listed()
            if len(words) == 1:  # a set of one is no set to libnftables either
                self._one(field, words[0], is_inverted)
            else:
                self._in_set(field, words, is_inverted)

    def _mask(self, field: Field) -> bytes:
        """A number, or flags as (A | B)."""
        if not self._is_next("("):
            return field.read(self._take())
        found = int.from_bytes(field.read(self._take()), "big")
        while self._take("|", ")") == "|":
            found |= int.from_bytes(field.read(self._take()), "big")
        return found.to_bytes(field.length, "big")

    def _masked(self, mask: bytes) -> None:
        size, nothing = len(mask), attribute(1, bytes(len(mask)))
        here = u32(1, _FIRST), u32(2, _FIRST)
        self._say("bitwise", *here, u32(6, 0), u32(3, size), nest(4, attribute(1, mask)), nest(5, nothing))

    def _compare(self, comparison: int, value: bytes) -> None:
        self._say("cmp", u32(1, _FIRST), u32(2, comparison), nest(3, attribute(1, value)))

    @staticmethod
    def _read(field: Field, word: str) -> bytes:
        value = field.read(word)
        if len(value) != field.length:
            raise Unspoken(word)
        return value

    def _one(self, field: Field, word: str, is_inverted: bool) -> None:
        comparison = _UNEQUAL if is_inverted else _EQUAL
        if field.is_flags:
            if is_inverted:
                raise Unspoken("flags that are not set")
            self._masked(self._read(field, word))
            self._compare(_UNEQUAL, bytes(field.length))
            return
        first, last = span(field, word)
        if first == last:
            self._compare(comparison, first)
        elif "/" in word:
            self._prefix(field, first, int(word.partition("/")[2]), comparison)
        elif is_inverted:
            raise Unspoken("all but a range")
        else:
            self._compare(_AT_LEAST, first)
            self._compare(_AT_MOST, last)

    def _prefix(self, field: Field, first: bytes, length: int, comparison: int) -> None:
        if not field.typeof:
            raise Unspoken("a prefix of the packet's own bytes")  # of these libnftables loads fewer
        if length and not length % 8:
            self._compare(comparison, first[: length // 8])
            return
        ones = (1 << field.length * 8) - (1 << field.length * 8 - length)
        self._masked(ones.to_bytes(field.length, "big"))
        self._compare(comparison, first)

    def _listed(self) -> list[str]:
        """Words up to the brace that closes."""
        found = []
        while True:
            found.append(self._take())
            if self._take(",", "}") == "}":
                return found

    def _in_set(self, field: Field, words: list[str], is_inverted: bool) -> None:
        if not field.typeof or field.is_flags:
            raise Unspoken("a set of these")
        spans = [span(field, word) for word in words]
        is_interval = any("/" in word or first != last for word, (first, last) in zip(words, spans, strict=True))
        elements = tuple(_intervals(spans, field.length) if is_interval else _points(spans))
        size = len(elements) + (is_interval and _is_open(elements[-1]))
        userdata = note(0, host(1 if field.is_of_host else 2))
        if is_interval:
            userdata += note(2, host(1))
        userdata += note(3, field.typeof)
        flags = _ANONYMOUS | _CONSTANT | _INTERVAL * is_interval
        described = (
            u32(3, flags),
            u32(4, field.kind),
            u32(5, field.length),
            nest(9, u32(1, size)),
            attribute(13, userdata),
        )
        self._own(Unnamed(b"__set%d\0", b"".join(described), elements), u32(5, _INVERTED) if is_inverted else b"")

    def _in_map(self, fields: list[Field]) -> None:
        """To verdicts: a map by its name, or the rule's own."""
        word = self._take()
        if word != "{":
            self._say("lookup", attribute(1, _name_of(word)), u32(2, _FIRST), u32(3, 0))
            return
        field = fields[0]
        if len(fields) > 1 or not field.typeof or not field.is_of_host:
            raise Unspoken("a map of these")
        found: dict[bytes, bytes] = {}
        while True:
            key = self._read(field, self._take())
            self._take(":")
            kind = self._take()
            target = self._take() if kind in ("jump", "goto") else ""
            if key in found:
                raise Unspoken("one key twice")
            found[key] = nest(1, attribute(1, key)) + nest(2, verdict(kind, target))
            if self._take(",", "}") == "}":
                break
        userdata = note(0, host(1)) + note(1, host(0)) + note(4, note(0, host(1)) + note(1, b"")) + note(6, host(0))
        described = (
            u32(3, _ANONYMOUS | _CONSTANT | _MAP),
            u32(4, field.kind),
            u32(5, field.length),
            u32(6, _VERDICT_TYPE),
            u32(7, 0),
            nest(9, u32(1, len(found))),
            attribute(13, userdata),
        )
        self._own(Unnamed(b"__map%d\0", b"".join(described), tuple(found.values())), u32(3, 0))

    def _own(self, unnamed: Unnamed, extra: bytes) -> None:
        self._pieces.append(_Lookup(len(self._sets), unnamed.name, extra))
        self._sets.append(unnamed)


_STATEMENTS: dict[str, Callable[[_Reader], None]] = {
    **dict.fromkeys(_VERDICTS, _Reader._verdict),
    "counter": _Reader._counter,
    "limit": _Reader._limit,
    "log": _Reader._log,
    "reject": _Reader._reject,
    "fwd": _Reader._forward,
    "meta": _Reader._set,
    "ct": _Reader._set,
}


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _name_of(word: str) -> bytes:
    if not re.fullmatch(r"@\w+", word):
        raise Unspoken(word)
    return word[1:].encode() + b"\0"


def _unquoted(word: str) -> bytes:
    if not re.fullmatch(r'"[^"]*"', word):
        raise Unspoken(word)
    return word[1:-1].encode()


def _points(spans: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for key in sorted({first for first, _ in spans}):
        yield nest(1, attribute(1, key))


def _intervals(spans: list[tuple[bytes, bytes]], length: int) -> Iterator[bytes]:
    """Beginnings and ends in order, of spans that touch together; what comes before the first is said to be out."""
    merged: list[tuple[int, int]] = []
    for begin, end in sorted((int.from_bytes(a, "big"), int.from_bytes(b, "big")) for a, b in spans):
        if merged and begin <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))

    def at(number: int) -> bytes:
        return nest(1, attribute(1, number.to_bytes(length, "big")))

    if merged[0][0]:
        yield u32(3, _ENDS) + at(0)
    for begin, end in merged:
        if end + 1 >> length * 8:
            yield at(begin) + attribute(6, _OPEN)
        else:
            yield at(begin)
            yield u32(3, _ENDS) + at(end + 1)


def _is_open(element: bytes) -> bool:
    return element.endswith(attribute(6, _OPEN))
