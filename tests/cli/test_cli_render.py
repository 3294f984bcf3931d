"""How values look to people."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playground.cli import render
from playground.cli.render import Ink


def test_columns_are_aligned_and_empty_ones_left_out() -> None:
    text = render.table(("A", "BB", "C"), [("one", "", "x"), ("seventeen", "", "")])
    assert text == "A          C\none        x\nseventeen  -"


def test_colour_changes_no_alignment() -> None:
    rows = [("up", "x"), ("forwarding", "y")]
    plain = render.table(("STATE", "Z"), rows)
    ink = Ink(True)
    coloured = render.table(("STATE", "Z"), [(ink.state(state), z) for state, z in rows], ink)
    assert coloured != plain
    assert render._ESCAPE.sub("", coloured) == plain


@given(st.lists(st.tuples(*[st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=9)] * 3), min_size=1))
def test_every_column_starts_where_its_heading_does(rows: list[tuple[str, str, str]]) -> None:
    headings = ("FIRST", "SECOND", "THIRD")
    lines = render.table(headings, rows).splitlines()
    for column, heading in enumerate(headings):
        if any(row[column] for row in rows):
            at = lines[0].index(heading)
            assert all(line[at:].startswith(row[column] or "-") for line, row in zip(lines[1:], rows, strict=True))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "never"),
        (-3, "0 s ago"),
        (119, "119 s ago"),
        (120, "2 min ago"),
        (7199, "119 min ago"),
        (7200, "2 h ago"),
        (172800, "2 d ago"),
    ],
)
def test_ages(seconds: float | None, text: str) -> None:
    assert render.age(seconds) == text


def test_counts_agree_with_their_nouns() -> None:
    assert [render.count(n, "address") for n in (0, 1, 2)] == ["0 addresses", "1 address", "2 addresses"]
    assert [render.count(n, "policy") for n in (1, 2)] == ["1 policy", "2 policies"]
    assert render.count(2, "gateway") == "2 gateways"
    assert [render.count(n, "port") for n in (0, 1, 2)] == ["0 ports", "1 port", "2 ports"]


def test_text_from_elsewhere_commands_no_terminal() -> None:
    assert render.printable("a\x1b[2Jb\nc\r\x9b") == "a\\x1b[2Jb c\\r\\x9b"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_only_on_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Ink.of(_Terminal()).enabled
    assert not Ink.of(io.StringIO()).enabled
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Ink.of(_Terminal()).enabled
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not Ink.of(_Terminal()).enabled
