"""The file loader's door: any bytes are a spec or SpecErrors, whatever they are, in bounded time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fuzz_lab import SPLICES, Json, Target, as_json, bounded, edited, garbled
from hypothesis import strategies as st
from ruamel.yaml import YAML

from playground.spec import PlaygroundSpec, SiteSpec, SpecErrors, load_playground, load_site

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
TEXTS = [path.read_bytes() for path in EXAMPLES]
VALUES: list[Json] = [YAML(typ="safe", pure=True).load(text) for text in TEXTS]

TOKENS: tuple[bytes, ...] = (
    *SPLICES,
    *(
        b"&a ",
        b"*a",
        b"<<: *a\n",
        b"<<: [*a, *a]\n",
        b"&a [*a]",
        b"!!python/object:os.system ",
        b"!!binary ",
        b"!!set ",
    ),
    *(b"!!int ", b"!!str ", b"! ", b"--- \n", b"...\n", b"%YAML 1.1\n", b"%TAG ! tag:x,2000:\n", b"? ", b": ", b"- "),
    *(b"|\n", b">-\n", b"|9\n", b"\t", b"\r", b"\r\n", b"\xc2\x85", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"#", b"{", b"}"),
    *(b"]", b"'", b'"\\U00110000"', b'"\\x00"', b"0o777", b"0x" + b"f" * 40, b"-.inf", b".nan", b"2001-01-01", b"1:30"),
    *(b"networks: {a: {subnets: [10.0.0.0/8]}}\n", b"name: b\n", b"a: &a {b: *a}\n", b"scale: 10000\n", b"{" * 30),
)


@st.composite
def _relined(draw: st.DrawFn) -> bytes:
    """An example with lines taken out, doubled, moved or pushed in, and a token where none belongs."""
    lines: list[bytes] = draw(st.sampled_from(TEXTS)).splitlines(keepends=True)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(lines) - 1)) if lines else 0
        match draw(st.sampled_from(("out", "twice", "move", "push", "token"))):
            case "out" if lines:
                del lines[at]
            case "twice" if lines:
                lines.insert(at, lines[at])
            case "move" if lines:
                lines.append(lines.pop(at))
            case "push" if lines:
                lines[at] = b"  " + lines[at]
            case _:
                token = draw(st.sampled_from(TOKENS))
                line = lines[at] if lines else b""
                cut = draw(st.integers(0, len(line)))
                lines[at : at + 1] = [line[:cut] + token + line[cut:]]
    return b"".join(lines)


def _bomb(levels: int, width: int, merge: bool) -> bytes:
    """Ten of ten of ten…: aliases that would be `width ** levels` values when written out."""
    lines = [b"x-0: &a0 {k0: 1}" if merge else b"x-0: &a0 [1]"]
    for n in range(1, levels):
        inside = b", ".join(b"*a%d" % (n - 1) for _ in range(width))
        lines.append(
            b"x-%d: &a%d {<<: [%s], k%d: 1}" % (n, n, inside, n) if merge else b"x-%d: &a%d [%s]" % (n, n, inside)
        )
    return b"\n".join([b"name: a", *lines, b""])


BOMBS = st.builds(_bomb, st.integers(2, 40), st.integers(1, 60), st.booleans())

NET = b"name: a\nnetworks: {n: {subnets: [10.0.0.0/8]}}\n"


def large(size: int) -> dict[str, bytes]:
    """Files of about `size` bytes, each of one thing only, by what that is."""

    def much(unit: bytes, head: bytes = b"name: a\n", tail: bytes = b"") -> bytes:
        unit_size = len(unit.replace(b"%d", b"12345"))
        many = range(max(1, (size - len(head) - len(tail)) // unit_size))
        return head + b"".join(unit.replace(b"%d", b"%d" % n) for n in many) + tail

    one_network = b"name: a\nnetworks: {n: {subnets: [10.0.0.0/8]"
    return {
        "open lists": much(b"[", b""),
        "open mappings": much(b"{a: ", b""),
        "nested items": much(b"- ", b""),
        "nested keys": much(b"? ", b""),
        "an alias of itself": much(b"*a, ", b"a: &a [", b"]"),
        "values": much(b"1,", b"name: a\nx-a: [", b"]"),
        "unknown keys": much(b"k%d: 1\n"),
        "one key": much(b"same: 1\n"),
        "a long key": much(b"k", b"name: a\n", b": 1\n"),
        "networks that overlap": much(b"  n%d: {subnets: [10.0.0.0/24]}\n", b"name: a\nnetworks:\n"),
        "subnets that overlap": much(b"10.0.0.0/24, ", b"name: a\nnetworks: {n: {subnets: [", b"]}}"),
        "exclusions": much(b"10.0.0.1-10.255.0.0, ", one_network + b", exclude: [", b"]}}"),
        "pools": much(b"10.0.0.1-10.0.0.2, ", one_network + b", pools: [", b"]}}"),
        "scaled workspaces": much(b"  w%d: {scale: 10000, networks: [n]}\n", NET + b"workspaces:\n"),
        "ports of one workspace": much(b"n, ", NET + b"workspaces: {w: {networks: [", b"]}}"),
        "terms of a selector": much(b"a in (b),", NET + b"workspaces: {w: {networks: n, host: '", b"'}}"),
        "labels": much(b"l%d: x, ", NET + b"workspaces: {w: {networks: n, labels: {", b"}}}"),
        "hosts that share an underlay": much(b"  h%d: {underlay: 10.0.0.1}\n", b"name: a\nhosts:\n"),
        "resolvers": much(b"10.0.0.1, ", b"name: a\nresolvers: [", b"]"),
        "a long name": much(b"a", b"name: "),
        "a long number": much(b"9", b"name: a\nx: "),
        "a long comment": much(b"#", b"name: a "),
        "UTF-16": much(b"a\0", b"\xff\xfen\0"),
        "lines of a text": much(b" \n", b"name: |\n"),
        "quotes": much(b"'", b""),
        "anchors": much(b"&a ", b""),
        "tags": much(b"!!str ", b""),
        "directives": much(b"%YAML 1.2\n", b""),
        "documents": much(b"---\n", b""),
    }


FILES: st.SearchStrategy[bytes] = st.one_of(
    garbled(_relined(), TOKENS),
    garbled(_relined(), TOKENS),
    garbled(edited(VALUES).map(as_json), TOKENS),
    garbled(edited(VALUES).map(as_json), TOKENS),
    BOMBS,
    st.lists(st.sampled_from(TOKENS), max_size=12).map(b"".join),
    st.binary(max_size=64),
)


def check_file(raw: bytes) -> None:
    """Either kind of file: read, or refused with places that lie in the file and sentences that can be printed."""
    for load in (load_playground, load_site):
        with bounded():
            try:
                spec: PlaygroundSpec | SiteSpec = load(raw, "fuzz.yaml")
            except SpecErrors as refusal:
                _assert_told(refusal, raw)
                continue
        assert load(spec.text, "fuzz.yaml") == spec, "the text that is kept says the same as the file"
        spec.text.encode()


def _assert_told(refusal: SpecErrors, raw: bytes) -> None:
    problems: Sequence[object] = refusal.problems
    assert problems, "a refusal says why"
    lines = raw.count(b"\n") + raw.count(b"\r") + raw.count(b"\xc2\x85") + raw.count(b"\xe2\x80") + 2
    for problem in refusal.problems:
        assert problem.file == "fuzz.yaml"
        assert 1 <= problem.line <= lines and problem.column >= 1, problem
        assert problem.message and len(problem.message) < 4000, problem
        str(problem).encode("utf-8", "surrogatepass")


FILE = Target("file", FILES, check_file, bytes, bytes)
