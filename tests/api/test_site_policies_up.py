"""The policies of a running site: planned, accepted and written at once; what a controller that starts does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from api_lab import SITE, Doors, within

from playground.controller.controller import Controller
from playground.spec import load_site
from playground.store.api import Delete

LAB = "name: lab\nnetworks: {n: {subnets: [10.0.0.0/24]}}\nworkspaces: {a: {networks: n}, b: {networks: n}}\n"
STRICT = "- {name: strict, priority: 5, subject: workspace=b, ingress: [{action: deny}]}\n"
LAST = "- {name: last, tier: baseline, priority: 1, subject: '*', ingress: [{action: deny, from: workspace=b}]}\n"


def a_site(*policies: str, **more: object) -> str:
    return f"name: here\n{''.join(f'{key}: {json.dumps(value)}{chr(10)}' for key, value in more.items())}" + (
        f"policies:\n{''.join(policies)}" if policies else "policies: []\n"
    )


async def ask(made: Doors, method: str, path: str, text: str = "", file: str = "site.yaml") -> tuple[int, Any]:
    body = json.dumps({"file": file, "text": text}).encode() if text else b""
    status, answer = await made.ask(method, f"/v1/{path}", body, local=True, content_type="application/json")
    return status, json.loads(answer)


def test_a_plan_says_what_it_opens_and_cuts_in_each_playground_and_changes_nothing(tmp_path: Path) -> None:
    async def claim(made: Doors) -> None:
        tests = "tests: [{from: a, to: b, expect: allow}]\n"
        assert (await ask(made, "PUT", "playgrounds", LAB + tests, "lab.yaml"))[0] == 200
        status, answer = await ask(made, "POST", "site/policies/plan", a_site(STRICT))
        assert status == 200
        assert answer["changes"] == [
            {
                "action": "create",
                "object": "policy strict",
                "detail": "subject workspace=b, tier admin 5, ingress deny from anybody",
            }
        ]
        [lab] = answer["playgrounds"]
        assert lab["connections"] == {
            "changed": [{"from": "a", "to": "b", "opened": [], "cut": "all"}],
            "complete": True,
        }
        [failing] = lab["failing"]
        assert (failing["file"], failing["line"]) == ("lab.yaml", 4)
        assert "admin" in failing["message"] or "strict" in failing["message"]
        assert made.controller.world.site_policies == {}

    within(tmp_path, claim)


def test_what_is_applied_is_shown_in_the_order_in_which_it_counts(tmp_path: Path) -> None:
    async def claim(made: Doors) -> None:
        status, first = await ask(made, "PUT", "site/policies", a_site(LAST, STRICT))
        assert status == 200 and first["change"]
        status, shown = await ask(made, "GET", "site/policies")
        assert [(one["name"], one["tier"], one["priority"], one["place"]) for one in shown["policies"]] == [
            ("strict", "admin", 5, "site.yaml:4"),
            ("last", "baseline", 1, "site.yaml:3"),
        ]
        assert (shown["file"], shown["text"], shown["waiting"]) == ("site.yaml", a_site(LAST, STRICT), [])
        status, again = await ask(made, "PUT", "site/policies", "# why\n" + a_site(LAST, STRICT))
        assert (again["changes"], again["change"]) == ([], first["change"])
        assert (await ask(made, "GET", "site/policies"))[1]["policies"][0]["place"] == "site.yaml:5"
        status, gone = await ask(made, "PUT", "site/policies", a_site())
        assert [(one["action"], one["object"]) for one in gone["changes"]] == [
            ("remove", "policy last"),
            ("remove", "policy strict"),
        ]
        assert (await ask(made, "GET", "site/policies"))[1]["policies"] == []

    within(tmp_path, claim)


def test_policies_that_give_no_order_among_those_who_are_there_are_refused(tmp_path: Path) -> None:
    async def claim(made: Doors) -> None:
        assert (await ask(made, "PUT", "playgrounds", LAB, "lab.yaml"))[0] == 200
        twin = "- {name: twin, priority: 5, subject: network=n, ingress: [{action: allow}]}\n"
        for method, path in (("POST", "site/policies/plan"), ("PUT", "site/policies")):
            status, answer = await ask(made, method, path, a_site(STRICT, twin))
            assert status == 422 and "priority 5" in answer["problems"][0]["message"]
            assert answer["problems"][0]["file"] == "site.yaml"
        status, answer = await ask(made, "PUT", "site/policies", a_site("- {name: x, subject: wroker, ingress: []}\n"))
        assert status == 422 and answer["problems"][0]["line"] == 3
        assert made.controller.world.site_policies == {} and made.controller.world.site_file is None

    within(tmp_path, claim)


def test_what_a_running_controller_does_not_take_up_is_said(tmp_path: Path) -> None:
    async def claim(made: Doors) -> None:
        known = {name: {"underlay": host.underlay} for name, host in made.controller.world.hosts.items()}
        assert (await ask(made, "PUT", "site/policies", a_site(STRICT, hosts=known)))[1]["unapplied"] == []
        roomier = a_site(STRICT, hosts=known, capacity={"overcommit": {"cpus": 4}})
        assert (await ask(made, "PUT", "site/policies", roomier))[1]["unapplied"] == ["hosts"]
        other = a_site(STRICT, hosts={"n9": {"underlay": "192.0.2.9"}}, domain="lab.example")
        assert (await ask(made, "PUT", "site/policies", other))[1]["unapplied"] == ["hosts", "domain"]

    within(tmp_path, claim)


async def started(made: Doors, own: str | None) -> dict[str, str]:
    """The site's policies, with their places, of another controller over the same store that starts with a file."""
    controller = Controller(made.controller.store, SITE)
    await controller.world.load()
    await controller.tiers.begin(None if own is None else load_site(own, "own.yaml"))
    await controller.world.load()
    return {name: str(policy.origin) for name, policy in controller.tiers.written.items()}


def test_a_controller_that_starts_again_goes_on_with_what_was_applied(tmp_path: Path) -> None:
    async def claim(made: Doors) -> None:
        own = a_site(LAST)
        assert await started(made, own) == {"last": "own.yaml:3"}
        await made.controller.world.load()
        assert (await ask(made, "PUT", "site/policies", a_site(STRICT)))[0] == 200
        assert await started(made, own) == {"strict": "site.yaml:3"}
        assert await started(made, None) == {"strict": "site.yaml:3"}
        assert await started(made, "# moved\n" + own) == {"strict": "site.yaml:3"}

    within(tmp_path, claim)


def test_a_file_that_was_edited_counts_when_the_controller_starts(tmp_path: Path) -> None:
    async def claim(made: Doors) -> None:
        assert await started(made, a_site(LAST)) == {"last": "own.yaml:3"}
        await made.controller.world.load()
        assert (await ask(made, "PUT", "site/policies", a_site(STRICT)))[0] == 200
        assert await started(made, a_site(LAST, STRICT)) == {"last": "own.yaml:3", "strict": "own.yaml:4"}
        assert await started(made, "# moved\n" + a_site(LAST, STRICT)) == {"last": "own.yaml:4", "strict": "own.yaml:5"}
        assert await started(made, a_site()) == {}
        assert made.controller.world.site_policies.keys() <= {"strict", "last"}

    within(tmp_path, claim)


def test_what_a_dead_controller_left_half_written_is_finished_by_the_next(tmp_path: Path) -> None:
    async def claim(made: Doors) -> None:
        assert (await ask(made, "PUT", "site/policies", a_site(STRICT)))[0] == 200
        await made.controller.store.commit([], [Delete("policy/@site/strict")])
        await started(made, None)
        await made.controller.world.load()
        assert set(made.controller.world.site_policies) == {"strict"}

    within(tmp_path, claim)
