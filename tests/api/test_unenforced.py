"""Policies that nobody enforces yet: planned with what they open and cut, and refused by whoever would ignore them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from api_lab import Doors, within

from playground.controller import __main__ as daemon

LAB = "name: lab\nnetworks: {n: {subnets: [10.0.0.0/24]}}\nworkspaces: {a: {networks: n}, b: {networks: n}%s}\n%s"


async def ask(made: Doors, method: str, path: str, text: str) -> tuple[int, Any]:
    body = json.dumps({"file": "lab.yaml", "text": text}).encode()
    status, answer = await made.ask(method, f"/v1/{path}", body, local=True, content_type="application/json")
    return status, json.loads(answer)


def test_a_plan_says_what_an_edit_opens_and_cuts(tmp_path: Path) -> None:
    async def claim(made: Doors) -> None:
        both = [{"from": one, "to": other, "opened": "all", "cut": []} for one, other in ("ab", "ba")]
        status, answer = await ask(made, "POST", "plan", LAB % ("", ""))
        assert (status, answer["connections"]) == (200, {"changed": both, "complete": True})
        assert (await ask(made, "PUT", "playgrounds", LAB % ("", "")))[0] == 200
        status, answer = await ask(made, "POST", "plan", LAB % ("", "policies: [{subject: b, ingress: []}]"))
        assert answer["connections"]["changed"] == [{"from": "a", "to": "b", "opened": [], "cut": "all"}]

    within(tmp_path, claim)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("policies: [{subject: b, ingress: []}]", "policies are not enforced yet; leave them out"),
        ("gateways: {wan: {kind: bridge, networks: n}}", "gateways of kind bridge are not built yet"),
        ("include: [x.yaml]", "included files can't be sent to a controller yet"),
        ("tests: [{from: a, to: b, expect: deny}]", "expected deny, but everything from a to b is allowed by default"),
    ],
)
def test_what_would_be_ignored_is_refused_with_its_place(more: str, said: str, tmp_path: Path) -> None:
    async def claim(made: Doors) -> None:
        status, answer = await ask(made, "PUT", "playgrounds", LAB % ("", more))
        assert status == 422
        [problem] = answer["problems"]
        assert problem["line"] == 4 and problem["message"].startswith(said)
        assert "lab" not in made.controller.world.grids

    within(tmp_path, claim)


def test_a_controller_does_not_start_for_tiers_that_nobody_enforces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("name: s\npolicies: [{priority: 1, subject: '*', egress: []}]\n")
    assert daemon.main(["--site", "s", "--site-file", str(file), "--store", "memory"]) == 1
    assert "site.yaml:2:12: policies[0]: policies are not enforced yet" in capsys.readouterr().err
