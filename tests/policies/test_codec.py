"""Policies as they are stored: what decides comes back, nothing else is kept, nothing foreign is read."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.codec import PackedPolicy, Unreadable, moved, pack, unpack
from policies.model import BlockPeer, EndpointPeer, OnDeny, Origin, Policy, Rule, Tier
from policies.ports import EVERYTHING, Ports, Protocol
from policies.selector import Selector, parse_selector, selector_text
from tests.policies.scenes import SELECTORS, policies

KEPT = Origin("policy/p/x", 0)


def a_policy(**changes: Any) -> Policy:
    who = EndpointPeer(parse_selector("role in (b,a)"), frozenset({"p"}))
    rule = Rule((who,), Ports.of(Protocol.TCP, 22), Origin("lab.yaml", 7), name="ssh")
    return replace(Policy("x", (who,), (), (rule,), Origin("lab.yaml", 3), playground="p"), **changes)


def stored(policy: Policy) -> bytes:
    return msgspec.json.encode(pack(policy))


def read(text: bytes) -> Policy:
    return unpack(msgspec.json.decode(text, type=PackedPolicy), "x", "p", KEPT)


@settings(max_examples=60, deadline=None)
@given(policies(1), st.sampled_from(OnDeny), st.booleans())
def test_all_that_decides_comes_back(policy: Policy, on_deny: OnDeny, keeps: bool) -> None:
    policy = replace(policy, name="x", playground="p", on_deny=on_deny, keeps_established=keeps)
    found = read(stored(policy))
    assert found == moved(policy, KEPT)
    assert stored(found) == stored(policy)


def test_a_selector_comes_back_in_one_spelling_however_it_was_written() -> None:
    spellings = {stored(a_policy(subjects=(EndpointPeer(parse_selector(text), None),))) for text in ("a=b", " a  = b")}
    assert len(spellings) == 1
    assert read(spellings.pop()).subjects[0].selector.text == "a=b"


def test_a_word_comes_back_as_people_wrote_it() -> None:
    heads = EndpointPeer(replace(parse_selector("role=head"), text="heads"), frozenset({"p"}))
    found = read(stored(a_policy(subjects=(heads,))))
    assert (found.subjects[0].selector.text, found.subjects) == ("heads", (heads,))


@given(st.sampled_from(SELECTORS).map(parse_selector))
def test_the_text_of_terms_is_read_as_these_terms(selector: Selector) -> None:
    assert parse_selector(selector_text(selector.terms)) == selector


def test_where_a_policy_was_written_is_not_kept() -> None:
    assert stored(moved(a_policy(), Origin("other.yaml", 99))) == stored(a_policy())


def test_a_policy_is_kept_in_few_bytes() -> None:
    assert len(stored(a_policy())) < 260


def test_no_rule_and_no_word_on_a_direction_are_told_apart() -> None:
    closed, open_ = read(stored(a_policy(ingress=()))), read(stored(a_policy(ingress=None)))
    assert (closed.ingress, open_.ingress) == ((), None)


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b'{"subjects":[],"colour":"red"}',
        b'{"subjects":[],"tier":"king"}',
        b'{"subjects":[["same","team"]]}',
        b'{"subjects":[],"egress":[{"peers":[["world",1]]}]}',
        b'{"subjects":[],"egress":[{"peers":[["moon"]]}]}',
        b'{"subjects":[],"egress":[{"peers":[["block","10.0.0.1/8"]]}]}',
        b'{"subjects":[],"egress":[{"peers":[["block","ten"]]}]}',
        b'{"subjects":[],"egress":[{"peers":[],"ports":{"TCP":[]}}]}',
        b'{"subjects":[],"egress":[{"peers":[],"ports":{"TCP":[[22,21]]}}]}',
        b'{"subjects":[],"egress":[{"peers":[],"ports":{"TCP":[[1,5],[6,9]]}}]}',
        b'{"subjects":[],"egress":[{"peers":[],"ports":{"TCP":[[9,9],[1,5]]}}]}',
        b'{"subjects":[],"egress":[{"peers":[],"ports":{"TCP":[[0,9]]}}]}',
        b'{"subjects":[],"egress":[{"peers":[],"ports":{"IGMP":[[1,9]]}}]}',
        b'{"subjects":[["endpoints",["a",[["a","in",[]]]],null]]}',
        b'{"subjects":[["endpoints",["a",[["a","has",["b"]]]],null]]}',
    ],
)
def test_what_is_no_policy_is_refused(text: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(text)


def test_a_refusal_names_the_policy() -> None:
    with pytest.raises(Unreadable, match=r"policy x: .* has host bits"):
        read(b'{"subjects":[],"egress":[{"peers":[["block","10.0.0.1/8"]]}]}')


def test_every_protocol_and_the_tiers_are_kept() -> None:
    ports = EVERYTHING - Ports.of(Protocol.TCP, 22)
    rule = Rule((BlockPeer(ip_network("2001:db8::/32"), (ip_network("2001:db8:1::/48"),)),), ports, KEPT)
    policy = a_policy(tier=Tier.BASELINE, priority=7, egress=(rule,), replaces="y")
    assert read(stored(policy)) == moved(policy, KEPT)
