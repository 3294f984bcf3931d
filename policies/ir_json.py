"""Pure. The intermediate form as JSON and back: equal forms give equal text. Decides and resolves nothing.

Policies and rules are listed once and referred to by place; a set of ends is a list of [first, last] runs.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from policies.bitset import bits, numbers
from policies.identity import Identity
from policies.ir import IR, Chain, PolicyHead, ResolvedRule
from policies.model import Action, Direction, Mode, OnDeny, Origin, Tier
from policies.ports import Ports, Protocol
from policies.world import span_text

VERSION = 1

Json = dict[str, Any]


class Unreadable(ValueError):
    """What was read is no intermediate form of this version."""


def encode(ir: IR) -> Json:
    """The form as what `json.dumps` takes."""
    heads: dict[PolicyHead, int] = {}
    rules: dict[int, int] = {}
    listed: list[ResolvedRule] = []
    for chain in ir.chains:
        for head in chain.closed_by:
            heads.setdefault(head, len(heads))
        for rule in chain.rules:
            heads.setdefault(rule.policy, len(heads))
            if id(rule) not in rules:
                rules[id(rule)] = len(listed)
                listed.append(rule)
    return {
        "version": VERSION,
        "identities": [
            {"playground": one.playground, "labels": dict(one.labels), "members": [list(who) for who in one.members]}
            for one in ir.identities
        ],
        "gateways": [list(gateway) for gateway in ir.gateways],
        "cells": [[span_text(span) for span in cell] for cell in ir.cells],
        "owned": {playground: _runs(ends) for playground, ends in sorted(ir.owned.items())},
        "policies": [_policy(head) for head in heads],
        "rules": [
            {
                "policy": heads[rule.policy],
                "direction": rule.direction.value,
                "number": rule.number,
                "ends": _runs(rule.ends),
                "ports": {protocol.value: [list(one) for one in ranges] for protocol, ranges in rule.ports.parts},
                "action": rule.action.value,
                "origin": [rule.origin.file, rule.origin.line],
                "name": rule.name,
            }
            for rule in listed
        ],
        "chains": [
            {
                "direction": chain.direction.value,
                "admin": [rules[id(rule)] for rule in chain.admin],
                "closed_by": [heads[head] for head in chain.closed_by],
                "owner": [rules[id(rule)] for rule in chain.owner],
                "baseline": [rules[id(rule)] for rule in chain.baseline],
            }
            for chain in ir.chains
        ],
        "egress": [ir.numbers[id(chain)] for chain in ir.egress],
        "ingress": [ir.numbers[id(chain)] for chain in ir.ingress],
        "staged_egress": [ir.numbers[id(chain)] for chain in ir.staged_egress],
        "staged_ingress": [ir.numbers[id(chain)] for chain in ir.staged_ingress],
    }


def decode(read: Json) -> IR:
    """The reverse of encode. Raises Unreadable."""
    if read.get("version") != VERSION:
        raise Unreadable(f"version {read.get('version')!r} of the intermediate form; this program knows {VERSION}")
    try:
        return _decode(read)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise Unreadable(f"no intermediate form: {type(error).__name__} {error}") from error


def _decode(read: Json) -> IR:
    heads = [_head(one) for one in read["policies"]]
    rules = [
        ResolvedRule(
            heads[one["policy"]],
            Direction(one["direction"]),
            one["number"],
            _ends(one["ends"]),
            Ports.union(
                Ports.of(Protocol(protocol), first, last)
                for protocol, ranges in one["ports"].items()
                for first, last in ranges
            ),
            Action(one["action"]),
            Origin(*one["origin"]),
            one["name"],
        )
        for one in read["rules"]
    ]
    chains = [
        Chain(
            Direction(one["direction"]),
            tuple(rules[number] for number in one["admin"]),
            tuple(heads[number] for number in one["closed_by"]),
            tuple(rules[number] for number in one["owner"]),
            tuple(rules[number] for number in one["baseline"]),
        )
        for one in read["chains"]
    ]
    tables = ("egress", "ingress", "staged_egress", "staged_ingress")
    return IR(
        tuple(
            Identity(
                one["playground"],
                tuple(one["labels"].items()),
                tuple((workspace, network) for workspace, network in one["members"]),
            )
            for one in read["identities"]
        ),
        tuple((playground, name) for playground, name in read["gateways"]),
        tuple(tuple(map(_span, cell)) for cell in read["cells"]),
        {playground: _ends(runs) for playground, runs in read["owned"].items()},
        *(tuple(chains[number] for number in read[table]) for table in tables),
    )


def _policy(head: PolicyHead) -> Json:
    return {
        "name": head.name,
        "tier": head.tier.value,
        "origin": [head.origin.file, head.origin.line],
        "priority": head.priority,
        "mode": head.mode.value,
        "on_deny": head.on_deny.value,
        "playground": head.playground,
        "replaces": head.replaces,
        "keeps_established": head.keeps_established,
    }


def _head(one: Json) -> PolicyHead:
    return PolicyHead(
        one["name"],
        Tier(one["tier"]),
        Origin(*one["origin"]),
        one["priority"],
        Mode(one["mode"]),
        OnDeny(one["on_deny"]),
        one["playground"],
        one["replaces"],
        one["keeps_established"],
    )


def _runs(ends: int) -> list[list[int]]:
    runs: list[list[int]] = []
    for number in numbers(ends):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return runs


def _ends(runs: list[list[int]]) -> int:
    return bits(number for first, last in runs for number in range(first, last + 1))


def _span(text: str) -> tuple[int, int, int]:
    first, last = map(ip_address, text.split("-"))
    return first.version, int(first), int(last)
