"""The quick reader beside the exact one: whatever it is sure of, the other reads alike, and at the same places."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playground.spec import libyaml
from playground.spec.libyaml import Event, Kind, Unsure, events
from playground.spec.source import parsed, read

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("*.yaml"))
TEXTS = (
    *(path.read_text() for path in EXAMPLES),
    "a: b\n",
    "a: &x {b: c, d: [e, f: g]}\nb: *x\n",
    "'q': \"d\\n\\x41\"\nb: 'it''s'\n? a\n: b\n",
    "{\"a\":1,'b':2, c: }\n",
    "a:\n  - b\n  -\n  - c: d\n    e: f\n#c\n",
    "--- \na: 1\n...\n",
    "k: |\n  text\nl: >-\n  fold\n  ed\nx: a b\n  c d\n\n  e\n",
)
TOKENS = (
    *"abc:-?,[]{}#&*!|>'\"%@` \n",
    *(
        ": ",
        "- ",
        "\n  ",
        "? ",
        "|\n",
        ">-\n",
        "&a ",
        "*a",
        "<<: ",
        "---\n",
        "...\n",
        "\\n",
        "\\u263a",
        "é",
        "~",
        " #c",
    ),
    *("]: ", "::", "a:b", "-a", ":a", "\t", "\r\n", "\u2028", "!!str ", "%YAML 1.1\n"),
)

pytestmark = pytest.mark.skipif(libyaml._library() is None, reason="libyaml is not installed")


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Pieces of what people write, with mistakes."""
    text = draw(st.sampled_from(TEXTS))
    first = draw(st.integers(0, max(len(text) - 20, 0)))
    text = text[first : first + draw(st.integers(10, 250))]
    for _ in range(draw(st.integers(0, 5))):
        place, gone = draw(st.integers(0, len(text))), draw(st.integers(0, 2))
        text = text[:place] + draw(st.sampled_from(TOKENS)) + text[place + gone :]
    return text


def that_count(found: list[Event]) -> list[Event]:
    """Without those that say nothing, and the places of ends, which nobody reads."""
    ends = (Kind.SEQUENCE_END, Kind.MAPPING_END)
    silent = (Kind.STREAM_START, Kind.STREAM_END, Kind.DOCUMENT_END)
    return [Event(one.kind, 0, 0) if one.kind in ends else one for one in found if one.kind not in silent]


@settings(max_examples=250, deadline=None)
@given(documents())
def test_what_the_quick_one_is_sure_of_the_exact_one_reads_alike(text: str) -> None:
    try:
        quick = that_count(list(events(text)))
    except Unsure:
        return
    if quick[1:] and quick[1].kind is Kind.MAPPING_START:  # as every file of ours begins
        assert quick == that_count(list(parsed(text)))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_files_as_people_write_them_are_read_the_quick_way(path: Path) -> None:
    assert that_count(list(events(path.read_text()))) == that_count(list(parsed(path.read_text())))


@pytest.mark.parametrize(
    "text",
    [
        "a:\tb\n",
        "a: b\r\n",
        "%YAML 1.2\n---\na: b\n",
        "a: b\n...\n",
        "a: !!str b\n",
        "a: &x?y b\n",
        "a:\n",
        "a: |\n  b\n",
        "[\n",
    ],
)
def test_what_it_is_not_sure_of_is_left_to_the_exact_one(text: str) -> None:
    with pytest.raises(Unsure):
        list(events(text))


def test_without_the_library_everything_is_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = [read(text, "f").root for text in TEXTS[: len(EXAMPLES)]]
    monkeypatch.setattr(libyaml, "_library", lambda: None)
    assert [read(text, "f").root for text in TEXTS[: len(EXAMPLES)]] == quick
