"""A playground's tables: who is judged, by what, and what stays when something else changes."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenes import scenes

from policies.compile.changes import as_text, difference
from policies.compile.places import PolicedEnd, PolicedNetwork
from policies.compile.playground import (
    Compiled,
    PlaygroundCompiler,
    compile_playground,
    policy_table,
    policy_table_after,
)
from policies.compile.tables import whole
from policies.compile.ways import STATIC, TABLE
from policies.model import Endpoint, EndpointPeer, Mode, Origin, Policy, Rule, Scene, Subnet
from policies.ports import Ports, Protocol
from policies.resolve import Resolver, resolve
from policies.selector import parse_selector

ID = "0123456789ab"
NETWORK = PolicedNetwork("n", "br1", 7, ("10.0.0.254", "fe80::1"), ("10.0.0.0/24",))
HERE = Origin("f", 1)


def who(text: str) -> EndpointPeer:
    return EndpointPeer(parse_selector(text), frozenset({"p"}))


def a_policy(name: str, subject: str, *peers: str, ports: Ports | None = None, mode: Mode = Mode.ENFORCE) -> Policy:
    rules = (Rule(tuple(map(who, peers)), ports or Ports.of(Protocol.TCP, 22), HERE),)
    return Policy(name, (who(subject),), rules, None, HERE, playground="p", mode=mode)


def a_scene(*policies: Policy, size: int = 3) -> Scene:
    endpoints = tuple(
        Endpoint("p", f"w{n}", "n", {"workspace": f"w{n}", "network": "n", "playground": "p"}, (f"10.0.0.{n}",))
        for n in range(1, size + 1)
    )
    return Scene(endpoints, policies, subnets=(Subnet("p", "n", ip_network("10.0.0.0/24")),))


def ends_of(scene: Scene, *local: str) -> tuple[PolicedEnd, ...]:
    return tuple(
        PolicedEnd(one.workspace, one.network, one.addresses, not local or one.workspace in local)
        for one in scene.endpoints
    )


def compiled(scene: Scene, *local: str) -> Compiled | None:
    return compile_playground(resolve(scene), "p", ID, (NETWORK,), ends_of(scene, *local))


def text(one: Compiled | None) -> str:
    return whole({TABLE: policy_table([one] if one else [])})


def test_a_playground_that_nothing_polices_yields_nothing() -> None:
    assert compiled(a_scene()) is None
    assert policy_table([]) == {}


def test_only_local_ends_are_judged() -> None:
    scene = a_scene(a_policy("ssh", "*", "workspace=w1"))
    assert '"br1" . 10.0.0.2 : jump i_' in text(compiled(scene, "w2"))
    assert '"br1" . 10.0.0.3 : jump' not in text(compiled(scene, "w2"))
    assert '"br1" . 10.0.0.3 : ' in text(compiled(scene, "w2"))  # as the other end it has a number


def shared(address: str, *local: str) -> str:
    """The table where w1 and w2, which policies tell apart, and w3 and w4, which none does, are allowed an address."""
    scene = a_scene(a_policy("one", "workspace=w1", "workspace=w5"), a_policy("two", "workspace=w2"), size=5)
    pair = ("w1", "w2") if address.startswith("10.0.0.1") else ("w3", "w4")
    ends = tuple(
        replace(end, addresses=(*end.addresses, address)) if end.workspace in pair else end
        for end in ends_of(scene, *local)
    )
    return text(compile_playground(resolve(scene), "p", ID, (NETWORK,), ends))


def test_an_address_that_different_ends_share_is_closed_where_both_are_and_the_worlds_elsewhere() -> None:
    assert shared("10.0.0.100").count('"br1" . 10.0.0.100 : drop') == 1
    assert '"br1" . 10.0.0.100 : 0' in shared("10.0.0.100")
    assert '"br1" . 10.0.0.100 : jump i_' in shared("10.0.0.100", "w1")
    assert '"br1" . 10.0.0.100 : drop' not in shared("10.0.0.100", "w1")


def test_an_address_that_ends_of_one_identity_share_is_theirs() -> None:
    table = shared("10.0.0.200")
    own = next(line.split(" : ")[1] for line in re.split("[,\n]", table) if '"br1" . 10.0.0.3 : ' in line)
    assert f'"br1" . 10.0.0.200 : {own.split()[0]}' in table
    assert '"br1" . 10.0.0.200 : 0' not in table


def test_a_block_that_different_ends_share_is_judged_by_each_and_nobodys() -> None:
    table = shared("10.0.0.128/26")
    assert len(set(re.findall(r"10\.0\.0\.128/26 } jump (i_\w+)", table))) == 2
    assert "10.0.0.128/26 } meta mark set" not in table


def test_a_block_within_another_is_left_out_of_that_one_only() -> None:
    scene = a_scene(a_policy("ssh", "*", "workspace=w1"))
    wide, narrow = ("10.9.0.0/16",), ("10.9.8.0/24",)
    ends = tuple(replace(end, addresses=wide if end.workspace == "w1" else narrow) for end in ends_of(scene)[:2])
    table = text(compile_playground(resolve(scene), "p", ID, (NETWORK,), ends))
    assert "{ 10.9.0.0/21, 10.9.9.0-10.9.255.255 }" in table and "{ 10.9.8.0/24 }" in table


def test_what_a_closed_end_is_allowed_is_closed_for_multicast_too_but_for_what_another_has_of_it() -> None:
    closed = replace(a_policy("closed", "workspace=w1", "workspace=w1"), ingress=None, egress=())
    scene = a_scene(closed)
    wide, narrow = ("10.9.0.0/16",), ("10.9.8.0/24",)
    ends = tuple(replace(end, addresses=wide if end.workspace == "w1" else narrow) for end in ends_of(scene)[:2])
    table = text(compile_playground(resolve(scene), "p", ID, (NETWORK,), ends))
    for span in ("10.9.0.0-10.9.7.255", "10.9.9.0-10.9.255.255"):
        assert f'iifname "br1" ip saddr {span} drop' in table
    elsewhere = tuple(replace(end, is_local=False) for end in ends)
    assert 'iifname "br1" ip saddr' not in text(compile_playground(resolve(scene), "p", ID, (NETWORK,), elsewhere))


def test_a_policed_playground_has_its_network_policed_where_nobody_of_it_is_judged() -> None:
    one = compiled(a_scene(a_policy("ssh", "workspace=w1", "workspace=w2")), "w3")
    assert one is not None and one.bridges == {"br1"} and "jump i_" not in text(one)


def test_equal_content_has_equal_generation_and_whatever_is_else_another() -> None:
    scene = a_scene(a_policy("ssh", "*", "workspace=w1"))
    first = compiled(scene)
    others = [
        compiled(a_scene(a_policy("ssh", "*", "workspace=w2"))),
        compiled(a_scene(a_policy("ssh", "*", "workspace=w1", ports=Ports.of(Protocol.TCP, 23)))),
        compiled(scene, "w1"),
        compiled(a_scene(a_policy("ssh", "*", "workspace=w1"), size=4)),
    ]
    assert first and all(others)
    assert first.generation & 0x80000000
    assert len({first.generation, *(one.generation for one in others if one)}) == 5
    again = compiled(scene)
    assert again and again.generation == first.generation and text(again) == text(first)


def test_a_changed_policy_changes_its_chain_and_the_mark_and_nothing_else() -> None:
    policies = [a_policy(f"of-{n}", f"workspace=w{n}", "workspace=w1") for n in range(1, 10)]
    resolver, compiler = Resolver(), PlaygroundCompiler("p", ID)
    scene = a_scene(*policies, size=9)
    before = compiler.compile(resolver.resolve(scene), (NETWORK,), ends_of(scene))
    policies[4] = a_policy("of-5", "workspace=w5", "workspace=w1", ports=Ports.of(Protocol.UDP, 53))
    changed = replace(scene, policies=tuple(policies))
    after = compiler.compile(resolver.resolve(changed), (NETWORK,), ends_of(changed))
    assert before and after
    found = as_text(difference({TABLE: policy_table([before])}, {TABLE: policy_table([after])}))
    flushed = [line.split()[-1] for line in found.splitlines() if line.startswith("flush")]
    elements = [line.split()[4:-1] for line in found.splitlines() if " element " in line]
    assert sorted(name[0] for name in flushed) == ["i", "p", "r"]
    assert elements == [["accepted", "{", str(one.generation)] for one in (before, after)]


def test_what_is_kept_is_what_would_be_made_anew() -> None:
    resolver, compiler = Resolver(), PlaygroundCompiler("p", ID)
    for policies in ([], ["w1"], ["w1", "w2"], ["w2"], ["w2", "*"], []):
        subjects = {name: name if name == "*" else f"workspace={name}" for name in policies}
        scene = a_scene(*(a_policy(name, subject, "workspace=w3") for name, subject in subjects.items()))
        kept = compiler.compile(resolver.resolve(scene), (NETWORK,), ends_of(scene))
        fresh = compiled(scene)
        assert (kept is None) == (fresh is None)
        if kept and fresh:
            assert kept.generation == fresh.generation and kept.judgements == fresh.judgements
            assert kept.parts == fresh.parts


def test_a_staged_policy_is_counted_and_logged_and_stops_nothing() -> None:
    one = compiled(a_scene(a_policy("ssh", "*", "workspace=w1", mode=Mode.STAGE)))
    assert one and all(judgement.is_staged for judgement in one.judgements.values())
    chains = {name: chain for part in one.parts.values() for name, chain in part.chains.items()}
    rules = [rule for name, chain in chains.items() if not name.startswith("p_") for rule in chain.rules]
    assert any("log prefix" in rule for rule in rules) and not any("drop" in rule for rule in rules)


def test_counters_are_of_judgements() -> None:
    one = compiled(a_scene(a_policy("ssh", "*", "workspace=w1")))
    assert one
    counters = {name for part in one.parts.values() for name in part.counters}
    assert counters == {f"j{id}" for id in one.judgements}
    assert {(judgement.rule, judgement.is_allowed) for judgement in one.judgements.values()} == {(1, True), (0, False)}


@pytest.mark.system
def test_the_kernel_takes_it() -> None:
    from kernel_rulesets import load

    load(text(compiled(a_scene(a_policy("ssh", "*", "workspace=w1")))) + f"delete table {' '.join(TABLE)}\n")
    assert STATIC.counters


@pytest.mark.system
def test_the_kernel_takes_the_lenient_form_and_its_generation_is_the_same() -> None:
    from kernel_rulesets import load

    scene = a_scene(a_policy("ssh", "*", "workspace=w1"))
    strict = compiled(scene)
    lenient = compile_playground(resolve(scene), "p", ID, (NETWORK,), ends_of(scene), is_lenient=True)
    assert strict and lenient and strict.generation == lenient.generation
    load(text(lenient) + f"delete table {' '.join(TABLE)}\n")


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Scene, frozenset[str], bool]]:
    """Scenes with those that are judged here, and whether they are lenient: mostly with policies as they were."""
    history: list[tuple[Scene, frozenset[str], bool]] = []
    scene, local, is_lenient = draw(scenes()), frozenset({"w0", "w1", "w2"}), False
    for _ in range(draw(st.integers(2, 5))):
        match draw(st.integers(0, 4)):
            case 0:
                local = draw(st.frozensets(st.sampled_from(["w0", "w1", "w2"])))
            case 1:
                is_lenient = not is_lenient
            case 2:
                scene = draw(scenes())
            case _:
                other = draw(scenes()).policies
                kept = tuple(one for one in scene.policies if draw(st.booleans()))
                scene = replace(scene, policies=kept + other[:1])
        history.append((scene, local, is_lenient))
    return history


@given(histories())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_over_any_history_what_is_kept_is_what_would_be_made_anew(
    history: list[tuple[Scene, frozenset[str], bool]],
) -> None:
    resolver, compilers = Resolver(), {name: PlaygroundCompiler(name, f"{name:0>12}") for name in ("p", "q")}
    before: dict[str, Compiled] = {}
    table = policy_table([])
    for scene, local, is_lenient in history:
        ir = resolver.resolve(scene)
        after: dict[str, Compiled] = {}
        for playground, compiler in compilers.items():
            mine = {(one.workspace, one.network) for one in scene.endpoints if one.playground == playground}
            networks = tuple(PolicedNetwork(name, f"br-{name}", 7) for name in sorted({name for _, name in mine}))
            ends = tuple(
                PolicedEnd(name, network, (f"10.0.{name[1:]}.{network[1:]}", "10.9.0.0/16"), name in local)
                for name, network in sorted(mine)
            )
            kept = compiler.compile(ir, networks, ends, is_lenient=is_lenient)
            anew = PlaygroundCompiler(playground, f"{playground:0>12}")
            fresh = anew.compile(resolve(scene), networks, ends, is_lenient=is_lenient)
            assert kept == fresh
            if kept and fresh:
                assert kept.judgements == fresh.judgements
                after[playground] = kept
        table = policy_table_after(table, before, after)
        assert table == policy_table(after.values())
        before = after
