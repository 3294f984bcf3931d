"""The policies of a running site, as people and programs see them change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_lab import FakeController, Play, Row

SITE = "name: campus\npolicies:\n  - {name: p, priority: 1, subject: a=b, ingress: []}\n"
CUT = {"from": "a", "to": "b", "opened": [], "cut": [{"protocol": "TCP", "ports": [[22, 22]]}]}
SHOWN: Row = {"name": "local", "file": "c.yaml", "text": SITE, "change": "c1", "waiting": []}
A_POLICY = {"name": "p", "tier": "admin", "priority": 1, "mode": "enforce", "says": "subject a=b", "place": "c.yaml:3"}


@pytest.fixture
def campus(run_dir: Path) -> Path:
    file = run_dir.parent / "campus.yaml"
    file.write_text(SITE)
    return file


def an_answer(*, is_failing: bool = False, unapplied: list[str] | None = None, **more: object) -> Row:
    failing = [{"file": "lab.yaml", "line": 4, "column": 9, "path": "tests[0]", "message": "expected allow"}]
    lab = {"name": "lab", "connections": {"changed": [CUT], "complete": True}, "failing": failing[: int(is_failing)]}
    changes = [{"action": "create", "object": "policy p", "detail": "subject a=b"}]
    return {"name": "local", "changes": changes, "playgrounds": [lab], "unapplied": unapplied or [], **more}


def test_a_plan_says_what_changes_and_whose_tests_would_fail(
    campus: Path, controller: FakeController, play: Play
) -> None:
    controller.answers["POST site/policies/plan"] = an_answer(is_failing=True, unapplied=["hosts"])
    ran = play("site", "plan", str(campus))
    assert (ran.code, ran.out.splitlines()) == (
        0,
        [
            "site local: 1 change",
            "  + policy p  subject a=b",
            "playground lab: connections: 0 opened, 1 cut",
            "  - a  b  tcp/22",
        ],
    )
    assert ran.err.splitlines() == [
        "lab.yaml:4:9: warning: expected allow",
        f"playground: 1 test of lab would not hold; {campus} would outrank them",
        "playground: only its policies count; hosts: when the controller starts with it",
    ]
    assert json.loads(play("site", "plan", str(campus), "--json").out)["unapplied"] == ["hosts"]
    assert controller.asked[-1][2] == {"file": str(campus), "text": SITE}


def test_it_is_waited_until_every_host_has_what_was_applied(
    campus: Path, controller: FakeController, play: Play
) -> None:
    late = SHOWN | {"waiting": [{"object": "host n2", "cause": "has not converged"}], "policies": []}
    controller.answers["PUT site/policies"] = an_answer(change="c1")
    controller.answers["GET site/policies"] = [late, late, SHOWN | {"policies": [A_POLICY]}]
    ran = play("site", "apply", str(campus))
    assert ran.code == 0 and "site local: in force, rules verified on 3 hosts" in ran.out
    assert [key for key, _, _ in controller.asked] == [
        *("PUT site/policies", *["GET site/policies"] * 3, "POST policy/verify")
    ]
    told = json.loads(play("site", "apply", str(campus), "--json", "--no-wait").out)
    assert (told["change"], told["verified"]) == ("c1", None)
    controller.answers["GET site/policies"] = late
    ran = play("site", "apply", str(campus), "--timeout", "0")
    assert ran.code == 3 and "host n2: has not converged; it goes on" in ran.err


def test_what_a_kernel_holds_otherwise_is_no_success(campus: Path, controller: FakeController, play: Play) -> None:
    controller.answers["PUT site/policies"] = an_answer(change="c1")
    controller.answers["GET site/policies"] = SHOWN
    wrong = {"hosts": 3, "differences": [{"host": "n1", "difference": "x"}], "mended": [], "unobserved": []}
    controller.answers["POST policy/verify"] = wrong
    assert play("site", "apply", str(campus)).code == 1


def test_what_is_in_force_is_a_line_each_or_the_file(controller: FakeController, play: Play) -> None:
    controller.answers["GET site/policies"] = SHOWN | {"policies": [A_POLICY]}
    assert [line.split() for line in play("site", "show").out.splitlines()] == [
        ["POLICY", "TIER", "PRIORITY", "MODE", "SAYS", "PLACE"],
        ["p", "admin", "1", "enforce", "subject", "a=b", "c.yaml:3"],
    ]
    assert play("site", "show", "--text").out == SITE
    assert json.loads(play("site", "show", "--json").out)["policies"] == [A_POLICY]
    controller.answers["GET site/policies"] = SHOWN | {"policies": []}
    ran = play("site", "show")
    assert (ran.code, ran.out) == (0, "") and "playground site apply FILE" in ran.err


def test_a_bad_file_is_refused_before_anybody_is_asked(campus: Path, controller: FakeController, play: Play) -> None:
    campus.write_text("name: campus\npolicies: [{subject: a=b, ingress: []}]\n")
    for verb in ("plan", "apply"):
        ran = play("site", verb, str(campus))
        assert ran.code == 1 and "policies[0]: priority is missing" in ran.err
        assert "name a site's file" in play("site", verb, "nope.yaml").err
    assert controller.asked == []
