"""Random rulesets that a kernel takes, and what a kernel holds, so that two ways to one ruleset can be compared."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Hashable
from typing import Any

from hypothesis import strategies as st

from policies.compile.tables import Chain, Part, Ruleset, SetShape

POLICY, GUARD = ("inet", "playground_test_policy"), ("netdev", "playground_test_guard")

SHAPES = {
    "hashed": [
        SetShape("set", "typeof iifname . ip saddr;"),
        SetShape("set", "typeof iifname . ip saddr; size 4096;"),
    ],
    "ranges": [SetShape("set", "typeof ip daddr; flags interval;")],
    "packets": [SetShape("set", "typeof ip saddr; flags dynamic,timeout; size 100; timeout 60s;")],
    "jumps": [SetShape("map", "typeof iifname . ct original ip saddr : verdict;")],
    "marks": [SetShape("map", "typeof iifname . ip daddr : meta mark;")],
}

KEYS = {
    "hashed": ['"br1" . 10.0.0.1', '"br1" . 10.0.0.2', '"br2" . 10.0.0.1'],
    "ranges": ["10.0.0.0/8", "11.0.0.1-11.0.0.7", "11.0.0.8", "12.0.0.0/31"],
    "jumps": ['"br1" . 10.0.0.1', '"br1" . 10.0.0.2', '"br2" . 10.0.0.1'],
    "marks": ['"br1" . 10.0.0.1', '"br1" . 10.0.0.2'],
}

LEAVES = ("leaf0", "leaf1")
HOOKS = {
    "inet": [
        "type filter hook forward priority 0; policy accept;",
        "type filter hook forward priority 5; policy drop;",
    ],
    "netdev": ['type filter hook ingress device "lo" priority -500; policy accept;'],
}
MATCHES = ["meta l4proto tcp", "meta l4proto { tcp, udp }", "meta mark 7", ""]


@st.composite
def parts(draw: st.DrawFn, family: str) -> dict[Hashable, Part]:
    """Parts of one table: what is declared once, and up to two subjects with chains and elements of their own."""
    names = draw(st.sets(st.sampled_from(sorted(SHAPES)))) if family == "inet" else set()
    sets = {name: draw(st.sampled_from(SHAPES[name])) for name in sorted(names)}
    counters = draw(st.frozensets(st.sampled_from(["c0", "c1"])))
    leaves = draw(st.sets(st.sampled_from(LEAVES)))
    endings = ["drop", "return", *(f'counter name "{name}" drop' for name in sorted(counters))]
    bodies = st.lists(
        st.builds(lambda a, b: f"{a} {b}".strip(), st.sampled_from(MATCHES), st.sampled_from(endings)), max_size=3
    )
    chains = {name: Chain(tuple(draw(bodies))) for name in sorted(leaves)}
    jumps = [f"jump {name}" for name in sorted(leaves)]
    rules: list[str] = []
    uses = {
        "hashed": "iifname . ip saddr @hashed drop",
        "ranges": "ip daddr @ranges drop",
        "packets": "add @packets { ip saddr limit rate over 5/second } drop",
        "jumps": "iifname . ct original ip saddr vmap @jumps",
        "marks": "meta mark set iifname . ip daddr map @marks",
    }
    for name in sorted(names):
        if draw(st.booleans()):
            rules.append(uses[name])
    rules += draw(st.lists(st.sampled_from(jumps), max_size=2)) if jumps else []
    if draw(st.booleans()):
        chains["base"] = Chain(tuple(rules), draw(st.sampled_from(HOOKS[family])))
    found: dict[Hashable, Part] = {"static": Part(chains, sets, {}, counters)}
    shared: dict[str, list[str]] = {name: draw(st.permutations(KEYS[name])) for name in sorted(names & KEYS.keys())}
    for subject in ("one", "two"):
        elements = {}
        for name, keys in shared.items():
            mine = [keys.pop() for _ in range(draw(st.integers(0, len(keys))))]
            values = {"jumps": [*jumps, "accept"], "marks": ["1", "2"]}.get(name, [""])
            elements[name] = {key: draw(st.sampled_from(values)) for key in mine}
        if draw(st.booleans()):
            found[subject] = Part({f"of_{subject}": Chain(tuple(draw(bodies)))}, {}, elements)
    return found


@st.composite
def rulesets(draw: st.DrawFn) -> Ruleset:
    found: dict[tuple[str, str], dict[Hashable, Part]] = {}
    for table in (POLICY, GUARD):
        if draw(st.integers(0, 3)):
            found[table] = draw(parts(table[0]))
    return found


def load(text: str) -> None:
    """Loads a text here, with the `nft` command."""
    done = subprocess.run(["nft", "-f", "-"], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{text}"


def listed() -> list[str]:
    """All that stands in the test's tables, in an order that does not depend on how it came there."""
    text = subprocess.run(["nft", "-j", "list", "ruleset"], text=True, capture_output=True, check=True).stdout
    return [line for line in plain(json.loads(text)) if line.startswith("playground_test")]


def plain(listing: dict[str, Any]) -> list[str]:
    """What `nft -j list ruleset` says, in an order that does not depend on how it came there, without counts."""
    found: list[str] = []
    places: dict[tuple[str, str], int] = {}
    for entry in listing["nftables"]:
        kind, body = next(iter(entry.items()))
        if kind == "metainfo":
            continue
        table = body.get("table", body.get("name"))
        place = 0
        if kind == "rule":
            place = places[table, body["chain"]] = places.get((table, body["chain"]), 0) + 1
        found.append(f"{table} {body.get('chain', body.get('name'))} {place} {json.dumps(_plain(entry))}")
    return sorted(found)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: _plain(part) for key, part in sorted(value.items()) if key not in ("handle", "packets", "bytes")}
        return {key: sorted(part, key=json.dumps) if _is_set(key, part) else part for key, part in kept.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def _is_set(key: str, value: Any) -> bool:
    return key in ("elem", "set") and isinstance(value, list)
