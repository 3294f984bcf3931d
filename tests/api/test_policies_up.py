"""Policies from a file to the records: planned with what they open and cut, accepted, judged under the site's tiers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from api_lab import Doors, within

from playground.controller.changes import accepted

LAB = "name: lab\nnetworks: {n: {subnets: [10.0.0.0/24]}}\nworkspaces: {a: {networks: n}, b: {networks: n}%s}\n%s"
SHUT = "policies: [{name: shut, subject: b, ingress: []}]"


async def ask(made: Doors, method: str, path: str, text: str, **more: object) -> tuple[int, Any]:
    body = json.dumps({"file": "lab.yaml", "text": text, **more}).encode()
    status, answer = await made.ask(method, f"/v1/{path}", body, local=True, content_type="application/json")
    return status, json.loads(answer)


def test_a_plan_says_what_an_edit_opens_and_cuts(tmp_path: Path) -> None:
    async def claim(made: Doors) -> None:
        both = [{"from": one, "to": other, "opened": "all", "cut": []} for one, other in ("ab", "ba")]
        status, answer = await ask(made, "POST", "plan", LAB % ("", ""))
        assert (status, answer["connections"]) == (200, {"changed": both, "complete": True})
        assert (await ask(made, "PUT", "playgrounds", LAB % ("", "")))[0] == 200
        status, answer = await ask(made, "POST", "plan", LAB % ("", SHUT))
        assert answer["connections"]["changed"] == [{"from": "a", "to": "b", "opened": [], "cut": "all"}]
        assert answer["changes"] == [
            {"action": "create", "object": "policy shut", "detail": "subject b, ingress closed"}
        ]

    within(tmp_path, claim)


def test_an_accepted_policy_is_a_record_with_its_place(tmp_path: Path) -> None:
    async def claim(made: Doors) -> None:
        assert (await ask(made, "PUT", "playgrounds", LAB % ("", SHUT)))[0] == 200
        assert set(made.controller.world.grids["lab"].policies) == {"shut"}
        found = made.controller.written("lab", "shut")
        assert found is not None and str(found.origin) == "lab.yaml:4"
        assert (await ask(made, "PUT", "playgrounds", LAB % ("", f"# why\n{SHUT}")))[1]["changes"] == []
        found = made.controller.written("lab", "shut")
        assert found is not None and str(found.origin) == "lab.yaml:5"
        nameless = SHUT.replace("name: shut, ", "")
        assert (await ask(made, "PUT", "playgrounds", LAB % ("", nameless)))[0] == 200
        [name] = made.controller.world.grids["lab"].policies
        assert made.controller.called("lab", name) == "lab.yaml:4"
        gone = (await ask(made, "PUT", "playgrounds", LAB % ("", "")))[1]["changes"]
        assert [(one["action"], one["object"]) for one in gone] == [("remove", "policy lab.yaml:4")]

    within(tmp_path, claim)


def test_included_files_come_along_and_are_kept(tmp_path: Path) -> None:
    text = LAB % ("", "include: ['more/*.yaml']")

    async def claim(made: Doors) -> None:
        included = {"more/*.yaml": [["more/a.yaml", f"\n{SHUT}"]]}
        status, answer = await ask(made, "PUT", "playgrounds", text, included=included)
        assert status == 200
        root = made.controller.world.grids["lab"].root
        assert root is not None
        [policy] = accepted(root).connectivity.policies
        assert str(policy.origin) == "more/a.yaml:2"
        status, answer = await ask(made, "PUT", "playgrounds", text, included={"more/*.yaml": [["more/a.yaml", "{}"]]})
        assert [change["object"] for change in answer["changes"]] == ["policy shut"]
        assert answer["connections"]["changed"] == [{"from": "a", "to": "b", "opened": "all", "cut": []}]

    within(tmp_path, claim)


def test_a_file_is_judged_under_the_tiers_of_the_running_site(tmp_path: Path) -> None:
    site = "name: here\npolicies:\n- {name: strict, priority: 5, subject: workspace=b, ingress: [{action: deny}]}\n"

    async def claim(made: Doors) -> None:
        controller = made.controller
        await controller.tiers.apply("site.yaml", site)
        status, answer = await ask(made, "POST", "plan", LAB % ("", ""))
        ends = [(one["from"], one["to"]) for one in answer["connections"]["changed"]]
        assert (status, ends) == (200, [("b", "a")])
        status, answer = await ask(made, "PUT", "playgrounds", LAB % ("", "tests: [{from: a, to: b, expect: allow}]"))
        [problem] = answer["problems"]
        assert status == 422 and problem["line"] == 4 and "strict" in problem["message"]

    within(tmp_path, claim)


def test_tiers_that_give_no_order_are_refused(tmp_path: Path) -> None:
    twice = "".join(f"- {{priority: 5, subject: '{who}', ingress: []}}\n" for who in ("workspace=b", "network=n"))

    async def claim(made: Doors) -> None:
        controller = made.controller
        await controller.tiers.apply("site.yaml", f"name: here\npolicies:\n{twice}")
        status, answer = await ask(made, "PUT", "playgrounds", LAB % ("", ""))
        assert status == 422 and "priority 5" in answer["problems"][0]["message"]

    within(tmp_path, claim)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("gateways: {wan: {kind: bridge, networks: n}}", "gateways of kind bridge are not built yet"),
        ("include: [x.yaml]", "the files that it includes were not sent along with it"),
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
