"""Reading YAML: every text gives a document or problems with a place, and never anything else."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playground.spec import SpecErrors, load_playground, load_site
from playground.spec.source import MAX_BYTES, read


def problem(text: str | bytes) -> str:
    with pytest.raises(SpecErrors) as caught:
        read(text, "f")
    return str(caught.value)


def test_anchors_merges_and_scalars_mean_what_yaml_1_2_says() -> None:
    text = """\
base: &base {a: 1, b: [x, 'y']}
copy: *base
merged: {<<: *base, a: 2}
both: {<<: [{c: 3}, *base], d: ~}
words: [yes, off, 010, 0x1f, 0o17, 1.5, 1e3, true, Null, 2001-12-14, '5', !!str 7, 1_000, 12:30]
"""
    base = {"a": 1, "b": ["x", "y"]}
    assert read(text, "f").value() == {
        "base": base,
        "copy": base,
        "merged": base | {"a": 2},
        "both": base | {"c": 3, "d": None},
        "words": ["yes", "off", 10, 31, 15, 1.5, 1000.0, True, None, "2001-12-14", "5", "7", "1_000", "12:30"],
    }


REFUSED = {
    "a: b: c": "f:1:5: not YAML: mapping values are not allowed here",
    "a: [1, 2": "f:1:9: not YAML: while parsing a flow sequence expected ',' or ']', but got '<stream end>'",
    "a: 'x": "f:1:6: not YAML: while scanning a quoted scalar found unexpected end of stream",
    "a:\n\t- b": "f:2:1: not YAML: a tab can't indent; write spaces",
    "a: \x07": "f:1:4: read '\\x07', a character that YAML doesn't allow",
    "a: 1\nb: {a: 1, a: 2}": "f:2:11: b: the key 'a' stands here a second time, first in line 2; keep one",
    "a: 1\na: 2\nb: 1\nb: 2": "f:2:1: the key 'a' stands here a second time, first in line 1; keep one\n"
    "f:4:1: the key 'b' stands here a second time, first in line 3; keep one",
    "a: *b": "f:1:4: *b stands for nothing yet; anchor it before with &b",
    "a: &a [*a]": "f:1:8: a: *a stands for nothing yet; anchor it before with &a",
    "a: &a {b: &a [*a]}": "f:1:15: a.b: *a stands for nothing yet; anchor it before with &a",
    "a: {<<: 5}": "f:1:9: a: << takes a mapping, as <<: *base, or a list of mappings",
    "? [a]\n: b": "f:1:3: a list or mapping can't be a key; write a word",
    "a: !!python/object:os.system {}": "f:1:4: the tag tag:yaml.org,2002:python/object:os.system is not allowed here; "
    "leave it out",
    "a: !x 5": "f:1:4: the tag !x is not allowed here; leave it out",
    "a: !!int x": "f:1:4: 'x' is no int",
    "a: 1\n---\nb: 2": "f:2:1: a second document starts here; write one document a file",
    "%YAML 1.1\n---\na: 1": "f:2:1: only YAML 1.2 is read; leave the %YAML line out",
    "": "f:1:1: the file is empty; it needs at least a name",
    "# nothing\n": "f:1:1: the file is empty; it needs at least a name",
    "[" * 30: "f:1:25: nested deeper than 24 levels",
}


@pytest.mark.parametrize("text", REFUSED)
def test_text_is_refused_at_its_place(text: str) -> None:
    assert problem(text).replace("[0]" * 23 + ": ", "") == REFUSED[text]


def test_bytes_that_are_no_utf_8_are_refused_at_their_place() -> None:
    assert problem(b"a: 1\nb: \xff\n") == "f:2:4: read byte 0xff, which is not UTF-8; save the file as UTF-8"
    assert problem("a: \ud800") == "f:1:4: read byte 0xed, which is not UTF-8; save the file as UTF-8"
    assert read("\ufeffa: 1".encode(), "f").value() == {"a": 1}


def test_a_billion_laughs_are_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    started = time.monotonic()
    assert "more than 500000 values, aliases counted in full" in problem("\n".join(lines))
    assert time.monotonic() - started < 2


def test_merges_count_as_much_as_aliases() -> None:
    lines = ["a0: &a0 {" + ", ".join(f"k{n}: x" for n in range(50)) + "}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    assert "aliases counted in full" in problem("\n".join(lines))


def test_size_and_depth_are_limits_and_not_crashes() -> None:
    assert "bytes" in problem("#" * (MAX_BYTES + 1))
    assert "nested deeper" in problem("[" * 100_000)
    assert "nested deeper" in problem("{a: " * 100_000)
    assert "nested deeper" in problem("- " * 100_000)


def test_places_are_those_of_the_written_text() -> None:
    document = read("base: &b\n  k: 1\nuse:\n  <<: *b\n  l: [x, {m: 2}]\none: y\n", "f")

    def at(*path: str | int) -> tuple[int, int, str]:
        place = document.place(path)
        return place.line, place.column, place.path

    assert at("use", "k") == (2, 6, "use.k")
    assert at("use", "l", 1, "m") == (5, 14, "use.l[1].m")
    assert at("use", "nothing", "here") == (4, 3, "use")
    assert at("one", 0) == (6, 6, "one")
    assert document.key_place(("use",)).line == 3
    assert document.key_place(("use", "l", 1, "m")).column == 11


WORDS = """
    name networks workspaces hosts grid subnets 10.0.0.0/24 scale &a *a << null x-y - : ? , # [ ] { } ' " | > ! !!int
    % ... --- 5 .inf -1 \\U0011ffff \\x
"""
SPACES = [": ", "- ", ", ", " #", "\n", "\n  ", "\n    ", "\t", "\r", "\0", "\x85", "\u2028", "\ud800", " "]
words = st.sampled_from([*WORDS.split(), *SPACES])


@settings(max_examples=250, deadline=None)
@given(st.lists(words, max_size=30).map("".join))
def test_any_text_is_accepted_or_refused_with_a_place(text: str) -> None:
    for load in (load_playground, load_site):
        try:
            load(text, "f")
        except SpecErrors as error:
            assert error.problems
            lines = text.encode("utf-8", "replace").decode().count("\n") + 1
            for found in error.problems:
                assert 1 <= found.line <= lines + text.count("\r") + text.count("\x85") + text.count("\u2028") + 1
                assert found.column >= 1


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_accepted_or_refused(raw: bytes) -> None:
    with pytest.raises(SpecErrors):
        load_playground(raw, "f")


trees = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text("abc: #'\"-\n{}[],&*!|>%@`é\\", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab :'-", max_size=4), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None)
@given(trees, st.sampled_from([None, 1, 2]))
def test_json_is_read_as_yaml_1_2_promises(tree: object, indent: int | None) -> None:
    """A second writer with rules of its own: ruamel's leaves `:a` unquoted in flow style, which no reader takes."""
    assert read(json.dumps({"top": tree}, indent=indent), "f").value() == {"top": tree}
