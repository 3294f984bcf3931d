"""Pure. Selectors over labels: parsing, and whether labels match. Knows nothing of what carries the labels.

    selector := "*" | term ("," term)*
    term     := KEY "=" VALUE | KEY "!=" VALUE | KEY "in" "(" VALUES ")" | KEY "notin" "(" VALUES ")"
              | "has" "(" KEY ")" | "!" "has" "(" KEY ")"

All terms have to hold; `*`, which has none, holds everywhere. `!=` and `notin` also hold where the label is missing, as
in Kubernetes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

MAX_LABEL = 63
"""Characters of a label's name, and of its value."""

_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_./-]*[A-Za-z0-9])?")
_TOKENS = re.compile(r"\s*(?:(?P<word>[A-Za-z0-9_./-]+)|(?P<sign>!=|=|!|\(|\)|,|\*)|(?P<bad>\S))")


class Operator(Enum):
    """How a term compares a label."""

    IN = "in"
    NOT_IN = "notin"
    HAS = "has"
    HAS_NOT = "!has"


@dataclass(frozen=True, slots=True)
class Term:
    """One condition on one label; values are empty for HAS and HAS_NOT. `a=b` is `a in (b)`."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet this condition."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.HAS:
                return self.key in labels
            case Operator.HAS_NOT:
                return self.key not in labels


@dataclass(frozen=True, slots=True)
class Selector:
    """A conjunction of terms. text: as written, the form in which records keep it; no part of what is selected."""

    text: str = field(compare=False)
    terms: tuple[Term, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet all terms."""
        return all(term.matches(labels) for term in self.terms)


def selector_text(terms: Iterable[Term]) -> str:
    """The grammar's one text for these terms, values sorted."""
    return ",".join(map(_term_text, terms)) or "*"


def _term_text(term: Term) -> str:
    values = ",".join(sorted(term.values))
    match term.operator:
        case Operator.IN if len(term.values) == 1:
            return f"{term.key}={values}"
        case Operator.NOT_IN if len(term.values) == 1:
            return f"{term.key}!={values}"
        case Operator.IN | Operator.NOT_IN:
            return f"{term.key} {term.operator.value} ({values})"
        case Operator.HAS | Operator.HAS_NOT:
            return f"{term.operator.value}({term.key})"


class SelectorError(ValueError):
    """A text is no selector; says what was read where, and what is allowed there."""


def is_label_key(text: str) -> bool:
    """Letters, digits and inner `-_./`, at most MAX_LABEL."""
    return len(text) <= MAX_LABEL and bool(_WORD.fullmatch(text))


def is_label_value(text: str) -> bool:
    """As a key."""
    return is_label_key(text)


def is_selector(text: str) -> bool:
    """Whether a text is meant as a selector; otherwise it is a bare word, a name."""
    return bool(re.search(r"[=!(),*\s]", text.strip()))


def parse_selector(text: str) -> Selector:
    """Parses the grammar above. Raises SelectorError."""
    reader = _Reader(text)
    if reader.peek() == "*":
        reader.take()
        terms = []
    else:
        terms = [reader.term()]
    while terms and reader.peek() == ",":
        reader.take()
        terms.append(reader.term())
    if (rest := reader.peek()) is not None:
        raise reader.error(f"read {rest!r} after a complete condition; join conditions with commas")
    return Selector(text, tuple(terms))


class _Reader:
    """Recursive descent over the tokens of one selector."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, int]] = []
        for found in _TOKENS.finditer(text):
            kind = found.lastgroup or "bad"
            self._tokens.append((found[kind], found.start(kind)))
            if kind == "bad":
                raise self.error(f"read {found[kind]!r} at character {found.start(kind) + 1}")
        self._at = 0

    def error(self, what: str) -> SelectorError:
        return SelectorError(
            f"{self._text!r} is no selector: {what}; "
            "allowed: a=b, a!=b, a in (x,y), a notin (x,y), has(a), !has(a), joined by commas, or * alone"
        )

    def peek(self, ahead: int = 0) -> str | None:
        at = self._at + ahead
        return self._tokens[at][0] if at < len(self._tokens) else None

    def take(self) -> str | None:
        token = self.peek()
        self._at += 1
        return token

    def term(self) -> Term:
        if self.peek() == "!":
            self.take()
            if self.take() != "has":
                raise self.error("'!' stands only before has(…)")
            return Term(self._parenthesised_key(), Operator.HAS_NOT)
        if self.peek() == "has" and self.peek(1) == "(":
            self.take()
            return Term(self._parenthesised_key(), Operator.HAS)
        key = self._key()
        match self.take():
            case "=":
                return Term(key, Operator.IN, frozenset([self._value()]))
            case "!=":
                return Term(key, Operator.NOT_IN, frozenset([self._value()]))
            case "in":
                return Term(key, Operator.IN, self._values())
            case "notin":
                return Term(key, Operator.NOT_IN, self._values())
            case None:
                raise self.error(f"{key!r} alone is no condition")
            case other:
                raise self.error(f"read {other!r} after {key!r}")

    def _key(self) -> str:
        token = self.take()
        if token is None:
            raise self.error("a condition is missing at the end" if self._tokens else "it is empty")
        if not is_label_key(token):
            raise self.error(f"read {token!r} where a label's name should be")
        return token

    def _value(self) -> str:
        token = self.take()
        if token is None or not is_label_value(token):
            raise self.error(f"read {'nothing' if token is None else repr(token)} where a label's value should be")
        return token

    def _parenthesised_key(self) -> str:
        self._expect("(")
        key = self._key()
        self._expect(")")
        return key

    def _values(self) -> frozenset[str]:
        self._expect("(")
        values = {self._value()}
        while self.peek() == ",":
            self.take()
            values.add(self._value())
        self._expect(")")
        return frozenset(values)

    def _expect(self, token: str) -> None:
        read = self.take()
        if read != token:
            raise self.error(f"read {'nothing' if read is None else repr(read)} where {token!r} should be")
