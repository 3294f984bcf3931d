"""What policies really do on the hosts, as people and programs are shown it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from cli_lab import FakeController, Play, Row

OPEN: Row = {"lost": 0, "last": "n1:8", "missed": []}


def a_verdict(**changes: Any) -> Row:
    verdict = {
        "at": 3661.25,
        "playground": "atlas",
        "from": "worker-0",
        "to": "head",
        "from_address": "10.20.0.101",
        "to_address": "10.20.0.100",
        "port": "tcp/22",
        "tier": "owner",
        "policies": ["only-the-head"],
        "direction": "egress",
        "rule": 1,
        "verdict": "allow",
        "staged": False,
        "host": "n1",
    }
    return verdict | changes


DENIED = a_verdict(
    **{"from": "203.0.113.9", "from_address": "203.0.113.9"}, verdict="deny", rule=0, policies=["a", "b"], staged=True
)

PORTS = [{"playground": p, "workspace": w} for p, w in (("atlas", "head"), ("atlas", "worker-0"), ("blue", "worker-0"))]


def test_verdicts_are_a_table_for_people_and_a_list_for_programs(controller: FakeController, play: Play) -> None:
    controller.answers["GET policy/log"] = {"verdicts": [a_verdict(), DENIED], **OPEN}
    head, *lines = (line.split("  ") for line in play("policy", "log", "atlas").out.splitlines())
    assert [word.strip() for word in head if word] == [
        *("TIME", "FROM", "TO", "PORT", "VERDICT", "TIER", "POLICY", "RULE", "HOST")
    ]
    assert [[word.strip() for word in line if word] for line in lines] == [
        ["01:01:01.250", "worker-0 (10.20.0.101)", "head (10.20.0.100)", "tcp/22", "allow", "owner", "only-the-head",
         "egress rule 1", "n1"],
        ["01:01:01.250", "203.0.113.9", "head (10.20.0.100)", "tcp/22", "would deny", "owner", "a, b",
         "egress: no rule allows it", "n1"],
    ]  # fmt: skip
    assert json.loads(play("policy", "log", "--json").out) == [a_verdict(), DENIED]
    assert [query for _, query, _ in controller.asked] == [{"playground": "atlas"}, {}]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--denied"], [DENIED]),
        (["--allowed"], [a_verdict()]),
        (["--from", "worker-0"], [a_verdict()]),
        (["--from", "203.0.113.9", "--to", "10.20.0.100"], [DENIED]),
        (["--from", "head"], []),
        (["--from", "atlas/worker-0"], [a_verdict()]),
        (["--from", "blue/worker-0"], []),
        (["--to", "@gateway/wan"], []),
    ],
)
def test_verdicts_are_shown_of_those_who_are_asked_for(
    words: list[str], found: list[Row], controller: FakeController, play: Play
) -> None:
    controller.answers["GET policy/log"] = {"verdicts": [a_verdict(), DENIED], **OPEN}
    controller.answers["GET ports"] = [PORTS]
    assert json.loads(play("policy", "log", "--json", *words).out) == found


def test_an_end_that_can_not_be_logged_is_refused_with_those_that_can(controller: FakeController, play: Play) -> None:
    controller.answers["GET policy/log"] = {"verdicts": [a_verdict()], **OPEN}
    controller.answers["GET ports"] = [PORTS]
    for words in (["--from", "wroker-0"], ["--to", "wroker-0", "--follow"]):
        ran = play("policy", "log", *words)
        assert (ran.code, ran.out) == (1, "")
        assert "no workspace wroker-0; there are: atlas/head, atlas/worker-0, blue/worker-0; or say an" in ran.err
    assert "there are: head, worker-0;" in play("policy", "log", "atlas", "--from", "blue/worker-0").err


def test_what_was_not_logged_is_told_from_that_nothing_was(controller: FakeController, play: Play) -> None:
    controller.answers["GET policy/log"] = {"verdicts": [a_verdict()], **OPEN}
    assert "nothing of that was logged; 1 other verdict" in play("policy", "log", "--denied").err


def test_who_follows_is_told_each_verdict_once_and_how_many_were_lost(controller: FakeController, play: Play) -> None:
    controller.answers["GET policy/log"] = [
        {"verdicts": [a_verdict()], **OPEN},
        {"verdicts": [DENIED], **OPEN, "last": "n1:9", "lost": 3},
        (409, {"error": "enough"}),
    ]
    ran = play("policy", "log", "--follow", "--json")
    assert [json.loads(line) for line in ran.out.splitlines()] == [a_verdict(), DENIED]
    assert "3 verdicts could not be told" in ran.err
    assert [query.get("after") for _, query, _ in controller.asked] == [None, "n1:8", "n1:9"]


def test_who_follows_is_told_what_was_missed_while_the_controller_was_away(
    controller: FakeController, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playground.cli.following.RETRY_S", 0)
    missed = [{"host": "n1", "verdicts": 12, "restarted": False}, {"host": "n2", "verdicts": 0, "restarted": True}]
    controller.answers["GET policy/log"] = [
        {"verdicts": [a_verdict()], **OPEN},
        *[(200, b"")] * 3,
        {"verdicts": [DENIED], **OPEN, "missed": missed},
        (409, {"error": "enough"}),
    ]
    ran = play("policy", "log", "--follow", "--json")
    assert [json.loads(line) for line in ran.out.splitlines()] == [a_verdict(), DENIED]
    assert [query.get("after") for _, query, _ in controller.asked] == [None, *["n1:8"] * 5]
    said = [line.removeprefix("playground: ") for line in ran.err.splitlines() if line.startswith("playground: ")]
    assert said[1:-1] == [
        "the controller answers again",
        "12 verdicts of n1 can't be shown any more: only the latest are kept",
        "n2's agent was started again; what it had not told yet is lost",
    ]


def test_a_log_ends_with_its_playground_and_says_so(controller: FakeController, play: Play) -> None:
    gone = (404, {"error": "no playground atlas"})
    controller.answers["GET policy/log"] = [{"verdicts": [a_verdict()], **OPEN}, gone]
    ran = play("policy", "log", "atlas", "--follow")
    assert (ran.code, ran.err) == (0, "playground: atlas was removed; nothing more is logged of it\n")


def test_nothing_logged_leaves_stdout_empty_and_says_what_logs(controller: FakeController, play: Play) -> None:
    controller.answers["GET policy/log"] = {"verdicts": [], **OPEN}
    ran = play("policy", "log")
    assert (ran.code, ran.out) == (0, "")
    assert "mode: log" in ran.err
    assert play("policy", "log", "--json").out == "[]\n"


def test_two_verdicts_can_not_be_the_only_one(play: Play) -> None:
    assert play("policy", "log", "--denied", "--allowed").code == 2


def a_count(**changes: Any) -> Row:
    return {k: v for k, v in a_verdict().items() if k in ("playground", "tier", "policies", "direction", "rule")} | {
        "verdict": "allow",
        "staged": False,
        "packets": 3,
        "bytes": 180,
        **changes,
    }


def test_counters_are_a_line_a_rule_of_each_playground(controller: FakeController, play: Play) -> None:
    controller.answers["GET policy/counters"] = {"counters": [a_count()], "unobserved": []}
    ran = play("policy", "counters")
    assert (ran.code, ran.out) == (
        0,
        "TIER   POLICY         RULE           VERDICT  PACKETS  BYTES\n"
        "owner  only-the-head  egress rule 1  allow    3        180\n",
    )
    assert json.loads(play("policy", "counters", "atlas", "--json").out) == [a_count()]


def test_what_is_counted_in_a_while_is_the_difference_and_how_often(controller: FakeController, play: Play) -> None:
    renewed, others = a_count(rule=2, packets=50), a_count(rule=3, packets=5)
    controller.answers["GET policy/counters"] = [
        {"counters": [a_count(), renewed], "unobserved": []},
        {"counters": [a_count(packets=13, bytes=800), a_count(rule=2, packets=4), others], "unobserved": []},
    ]
    rows = json.loads(play("policy", "counters", "atlas", "--over", "0.05", "--json").out)
    assert [(row["rule"], row["packets"], row["bytes"]) for row in rows] == [(1, 10, 620), (2, 4, 180), (3, 5, 180)]
    assert all(row["seconds"] >= 0.05 and 0 < row["per_second"] <= row["packets"] / 0.05 for row in rows)
    assert "A SECOND" in play("policy", "counters", "atlas", "--over", "0.01").out
    assert play("policy", "counters", "--over", "0").code == 2


def test_a_count_that_lacks_a_host_is_no_success(controller: FakeController, play: Play) -> None:
    lacks = [{"host": "n2", "cause": "host n2 is gone"}]
    controller.answers["GET policy/counters"] = {"counters": [], "unobserved": lacks}
    ran = play("policy", "counters", "atlas", "--json")
    assert (ran.code, ran.out) == (1, "[]\n")
    assert "n2" in ran.err


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ({"hosts": 3}, 0, "3 hosts: as compiled"),
        ({"hosts": 3, "differences": [{"host": "n1", "difference": "chain p lacks"}]}, 1, "p lacks"),
        (
            {"hosts": 3, "differences": [{"host": "n1", "difference": "chain p lacks"}]},
            1,
            "put this back within seconds",
        ),
        ({"hosts": 2, "unobserved": [{"host": "n3", "cause": "gone"}]}, 1, "1 host not read"),
        (
            {"hosts": 3, "mended": [{"host": "n2", "at": time.time(), "difference": "set s lacks"}]},
            0,
            "n2    set s lacks",
        ),
    ],
)
def test_verify_is_as_good_as_what_it_has_read(
    answer: Row, code: int, said: str, controller: FakeController, play: Play
) -> None:
    answer = {"differences": [], "mended": [], "unobserved": [], **answer}
    controller.answers["POST policy/verify"] = answer
    ran = play("policy", "verify", "atlas")
    assert ran.code == code
    assert said in ran.out
    assert json.loads(play("policy", "verify", "--json").out) == answer
    assert [query for _, query, _ in controller.asked] == [{"playground": "atlas"}, {}]
