"""`plan`, `up`, `down`: refused before anything changes, followed to the end, and told as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_lab import FakeController, Play, Row, a_progress

from playground.cli import progress, site
from playground.cli.failure import Failure
from playground.doctor.packages import Tool

ATLAS = str(Path(__file__).resolve().parents[2] / "examples" / "atlas.yaml")

CHANGES = [
    {"action": "create", "object": "network grid", "detail": "10.20.0.0/24"},
    {"action": "change", "object": "workspace head", "detail": "labels"},
    {"action": "remove", "object": "workspace worker-9", "detail": ""},
]


@pytest.fixture
def bad_file(tmp_path: Path) -> str:
    path = tmp_path / "lab.yaml"
    path.write_text("name: lab\nnetworks:\n  grid:\n    subnets: [10.0.0.0/99]\n  dmz: {subnets: [10.1.0.0/33]}\n")
    return str(path)


@pytest.fixture
def atlas_is_up(controller: FakeController) -> FakeController:
    controller.answers["PUT playgrounds"] = {"name": "atlas", "change": "c1", "changes": CHANGES}
    controller.answers["GET playgrounds/atlas/progress"] = [a_progress(False), a_progress()]
    return controller


@pytest.mark.parametrize("words", [["up"], ["up", "--emulate", "3"], ["plan"]])
def test_a_bad_file_is_refused_before_anything_is_asked_or_made(
    words: list[str], bad_file: str, controller: FakeController, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "emulate", lambda *args, **options: pytest.fail("a sandbox was started"))
    ran = play(*words, bad_file)
    assert (ran.code, ran.out) == (1, "")
    lines = ran.err.splitlines()
    assert len(lines) >= 3
    assert lines[0].startswith(f"{bad_file}:4:")
    assert lines[1].startswith(f"{bad_file}:5:")
    assert "10.1.0.0/33" in lines[1]
    assert lines[-1].endswith("nothing was changed")
    assert controller.asked == []


def test_problems_are_json_for_programs(bad_file: str, play: Play) -> None:
    problems = json.loads(play("plan", bad_file, "--json").out)["problems"]
    assert {problem["line"] for problem in problems} >= {4, 5}
    assert {key for problem in problems for key in problem} == {"file", "line", "column", "path", "message"}


@pytest.mark.parametrize("command", ["up", "plan"])
def test_a_missing_file_is_one_sentence(command: str, play: Play) -> None:
    ran = play(command, "none.yaml")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("playground: none.yaml: no such file or directory")


def test_the_controllers_own_problems_are_told_like_ours(controller: FakeController, play: Play) -> None:
    problem = {"file": "atlas.yaml", "line": 7, "column": 5, "path": "networks.grid", "message": "exhausted"}
    controller.answers["PUT playgrounds"] = (422, {"problems": [problem]})
    ran = play("up", ATLAS)
    assert ran.code == 1
    assert ran.err == "atlas.yaml:7:5: networks.grid: exhausted\nplayground: 1 problem, nothing was changed\n"


def test_up_says_what_changed_and_waits(atlas_is_up: FakeController, play: Play) -> None:
    ran = play("up", ATLAS)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[:4] == [
        "atlas: 3 changes",
        "  + network grid        10.20.0.0/24",
        "  ~ workspace head      labels",
        "  - workspace worker-9",
    ]
    assert lines[4].startswith("atlas: up, 2 workspaces, 3 ports, rules verified on 3 hosts, ")
    assert ran.err == ""
    _, _, body = next(asked for asked in atlas_is_up.asked if asked[0].startswith("PUT"))
    assert body == {"file": ATLAS, "text": Path(ATLAS).read_text()}


def test_up_lists_the_connections_that_the_edit_opens_and_cuts(atlas_is_up: FakeController, play: Play) -> None:
    changed = [
        {"from": "worker-0", "to": "worker-4", "opened": "all", "cut": []},
        {"from": "worker-0", "to": "head", "opened": [], "cut": [{"protocol": "TCP", "ports": [[22, 22]]}]},
    ]
    connections = {"changed": changed, "complete": True}
    atlas_is_up.answers["PUT playgrounds"] = {
        "name": "atlas",
        "change": "c1",
        "changes": CHANGES,
        "connections": connections,
    }
    out = play("up", ATLAS).out
    assert "connections: 1 opened, 1 cut" in out
    assert "  + worker-0  worker-4  everything" in out and "  - worker-0  head      tcp/22" in out


def test_up_again_says_that_there_is_nothing_to_change(atlas_is_up: FakeController, play: Play) -> None:
    atlas_is_up.answers["PUT playgrounds"] = {"name": "atlas", "change": "c1", "changes": []}
    ran = play("up", ATLAS)
    assert (ran.code, ran.out) == (0, "atlas: nothing to change\n")


@pytest.mark.parametrize(
    ("differences", "unobserved", "code", "said"),
    [
        ([{"host": "n1", "difference": "table inet t is missing"}], [], 1, "n1    table inet t is missing"),
        ([], [{"host": "n2", "cause": "host n2 is gone"}], 0, "1 host not read"),
    ],
)
def test_up_ends_by_verifying_and_a_difference_is_no_success(
    differences: list[Row], unobserved: list[Row], code: int, said: str, atlas_is_up: FakeController, play: Play
) -> None:
    verified = {"hosts": 2, "differences": differences, "mended": [], "unobserved": unobserved}
    atlas_is_up.answers["POST policy/verify"] = verified
    ran = play("up", ATLAS)
    assert ran.code == code
    assert said in ran.err
    assert json.loads(play("up", ATLAS, "--json").out)["verified"] == verified


def test_up_as_json_is_one_object(atlas_is_up: FakeController, play: Play) -> None:
    told = json.loads(play("up", ATLAS, "--json").out)
    assert told["changes"] == CHANGES
    assert told["converged"] is True


def test_what_is_not_up_in_time_is_three_and_named(atlas_is_up: FakeController, play: Play) -> None:
    failed = [{"object": "workspace worker-0", "cause": "no memory"}]
    atlas_is_up.answers["GET playgrounds/atlas/progress"] = a_progress(False, failed=failed)
    ran = play("up", ATLAS, "--timeout", "0")
    assert ran.code == 3
    assert ran.err.splitlines() == [
        "playground: atlas is not up within 0 s; it goes on, `playground status` shows how far it is",
        "  workspace worker-0: no memory",
        "  workspace worker-1: waits for a host",
    ]


def test_an_edit_that_another_one_replaces_is_a_refusal_that_names_it(atlas_is_up: FakeController, play: Play) -> None:
    other = a_progress(change="c2", file="other.yaml")
    atlas_is_up.answers["GET playgrounds/atlas/progress"] = [a_progress(False), other]
    ran = play("up", ATLAS)
    assert ran.code == 1 and "atlas: up" not in ran.out
    assert ran.err == (
        "playground: this edit of atlas (c1) was replaced by another one, other.yaml (change c2), before it was up; "
        "`playground plan` shows how your file differs from it\n"
    )


def test_an_edit_whose_playground_is_removed_meanwhile_is_a_refusal(atlas_is_up: FakeController, play: Play) -> None:
    gone = a_progress(False, change=None, file=None, removed=True)
    atlas_is_up.answers["GET playgrounds/atlas/progress"] = [a_progress(False), gone]
    ran = play("up", ATLAS)
    assert ran.code == 1 and "was removed by a `down`" in ran.err


def test_no_wait_returns_once_it_is_accepted(atlas_is_up: FakeController, play: Play) -> None:
    assert play("up", ATLAS, "--no-wait").code == 0
    assert not any("progress" in key for key, _, _ in atlas_is_up.asked)


def test_a_controller_that_restarts_meanwhile_is_waited_for(atlas_is_up: FakeController, play: Play) -> None:
    atlas_is_up.answers["GET playgrounds/atlas/progress"] = [(200, b""), a_progress(False), a_progress()]
    assert play("up", ATLAS).code == 0


def test_many_changes_are_told_as_counts(atlas_is_up: FakeController, play: Play) -> None:
    many = [{"action": "create", "object": f"workspace worker-{n}", "detail": ""} for n in range(400)]
    atlas_is_up.answers["PUT playgrounds"] = {"name": "atlas", "change": "c1", "changes": [*many, CHANGES[0]]}
    assert play("up", ATLAS).out.splitlines()[:3] == ["atlas: 401 changes", "  + 400 workspaces", "  + 1 network"]


def test_up_without_a_site_names_both_ways(play: Play) -> None:
    ran = play("up", ATLAS)
    assert ran.code == 1
    assert "--emulate" in ran.err
    assert "playground controller" in ran.err


def test_emulate_says_at_once_which_program_is_missing(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = [Tool("busybox", "busybox", "the DHCP client of namespace workspaces", applet="udhcpc")]
    monkeypatch.setattr("playground.doctor.packages.missing", lambda for_tests: absent)
    monkeypatch.setattr("playground.sandbox.ensure", lambda *args, **options: pytest.fail("a sandbox was started"))
    ran = play("up", ATLAS, "--emulate", "3")
    assert ran.code == 1
    assert "this machine lacks udhcpc (the DHCP client of namespace workspaces); " in ran.err
    assert "busybox" in ran.err


def test_emulate_makes_the_site_first(atlas_is_up: FakeController, play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, int]] = []
    monkeypatch.setattr(site, "emulate", lambda name, hosts, **options: made.append((name, hosts)))
    assert play("up", ATLAS, "--emulate", "3").code == 0
    assert made == [("local", 3)]


def test_a_site_made_for_a_refused_file_goes_again(
    atlas_is_up: FakeController, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(site, "emulate", lambda name, hosts, **options: None)
    monkeypatch.setattr(site, "end", ended.append)
    atlas_is_up.answers["PUT playgrounds"] = (422, {"error": "no host n9"})
    assert play("up", ATLAS, "--emulate", "3").code == 1
    assert ended == ["local"]


def test_a_sandbox_that_can_not_be_made_is_a_refusal(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, hosts: int, **options: object) -> None:
        raise Failure("this machine does not allow a sandbox; `playground doctor` says why")

    monkeypatch.setattr(site, "emulate", refuse)
    ran = play("up", ATLAS, "--emulate", "3")
    assert (ran.code, ran.out) == (1, "")
    assert "doctor" in ran.err


def test_plan_asks_the_controller_and_changes_nothing(controller: FakeController, play: Play) -> None:
    controller.answers["POST plan"] = {"name": "atlas", "changes": CHANGES[:1]}
    ran = play("plan", ATLAS)
    assert (ran.code, ran.out) == (0, "atlas: 1 change\n  + network grid  10.20.0.0/24\n")
    assert not any(key.startswith("PUT") for key, _, _ in controller.asked)


def test_plan_says_for_whom_there_is_no_room(controller: FakeController, play: Play) -> None:
    full = "no host fits; n1: 2 of 4 cpus free, 3 wanted; n2: draining"
    unplaced = [{"object": f"workspace w-{number}", "cause": full} for number in range(3)]
    overfull = [{"object": "workspace db", "cause": "n1: 2 of 4 cpus free, 3 wanted"}]
    controller.answers["POST plan"] = {"name": "a", "changes": [], "unplaced": unplaced, "overfull": overfull}
    ran = play("plan", ATLAS)
    assert (ran.code, ran.out.splitlines()[1:]) == (
        0,
        [
            f"  ! workspace w-0 and 2 more would wait: {full}",
            "  ! workspace db stays, though there is no room: n1: 2 of 4 cpus free, 3 wanted",
        ],
    )


def test_plan_without_a_controller_is_against_an_empty_site(play: Play) -> None:
    ran = play("plan", ATLAS, "--json")
    assert ran.code == 0
    created = {change["object"] for change in json.loads(ran.out)["changes"] if change["action"] == "create"}
    assert {"network grid", "network public", "workspace head", "workspace worker-3", "workspace mirror"} <= created
    assert "empty site" in ran.err


def test_down_waits_until_nothing_is_left(controller: FakeController, play: Play) -> None:
    controller.answers["DELETE playgrounds/atlas"] = {"name": "atlas"}
    left = a_progress(False, change=None, waiting=[{"object": "workspace head", "cause": "host n1 is ending it"}])
    controller.answers["GET playgrounds/atlas/progress"] = [left, a_progress(False, change=None, removed=True)]
    ran = play("down", "atlas")
    assert ran.code == 0
    assert ran.out.startswith("atlas: down, ")


def test_down_says_when_somebody_brings_it_up_again(controller: FakeController, play: Play) -> None:
    controller.answers["DELETE playgrounds/atlas"] = {"name": "atlas"}
    controller.answers["GET playgrounds/atlas/progress"] = [a_progress(False, change=None), a_progress(change="c2")]
    ran = play("down", "atlas")
    assert ran.code == 1
    assert "brought up again by another edit, atlas.yaml (change c2)" in ran.err


def test_what_is_not_gone_in_time_is_three_and_named(controller: FakeController, play: Play) -> None:
    controller.answers["DELETE playgrounds/atlas"] = {"name": "atlas"}
    left = a_progress(False, change=None, waiting=[{"object": "workspace head", "cause": "host n1 is ending it"}])
    controller.answers["GET playgrounds/atlas/progress"] = left
    ran = play("down", "atlas", "--timeout", "0")
    assert ran.code == 3
    assert "workspace head: host n1 is ending it" in ran.err


def test_down_of_an_unknown_name_says_which_there_are(controller: FakeController, play: Play) -> None:
    ran = play("down", "beta")
    assert (ran.code, ran.err) == (1, "playground: there is no playground beta here; there is: atlas\n")


def test_down_all_removes_every_playground_of_a_real_site(controller: FakeController, play: Play) -> None:
    controller.answers["DELETE playgrounds/atlas"] = {"name": "atlas"}
    ran = play("down", "--all")
    assert ran.code == 0
    assert ran.out.startswith("atlas: down, ")


def test_down_all_of_nothing_is_done(play: Play) -> None:
    ran = play("down", "--all")
    assert (ran.code, ran.out) == (0, "site local: nothing is up\n")


def test_down_all_ends_an_emulated_site_whatever_is_left_of_it(
    play: Play, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(site, "is_emulated", lambda name: True)
    monkeypatch.setattr(site, "end", ended.append)
    ran = play("--site", "lab", "down", "--all")
    assert ran.code == 0
    assert ended == ["lab"]


def test_interrupting_a_wait_is_130_and_stops_nothing(
    atlas_is_up: FakeController, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(progress, "follow", interrupt)
    assert play("up", ATLAS).code == 130
    assert not any(key.startswith("DELETE") for key, _, _ in atlas_is_up.asked)


CHANGED = {
    "changed": [
        {"from": "head", "to": "worker-0", "opened": "all", "cut": []},
        {
            "from": "worker-0",
            "to": "head",
            "opened": [],
            "cut": [{"protocol": "TCP", "ports": [[22, 22], [80, 90]]}, {"protocol": "ICMP", "ports": [[0, 255]]}],
        },
    ],
    "complete": True,
}


def test_plan_says_which_connections_are_opened_and_cut(controller: FakeController, play: Play) -> None:
    controller.answers["POST plan"] = {"name": "atlas", "changes": [], "connections": CHANGED}
    ran = play("plan", ATLAS)
    assert ran.out.splitlines() == [
        "atlas: nothing to change",
        "connections: 1 opened, 1 cut",
        "  + head      worker-0  everything",
        "  - worker-0  head      tcp/22, tcp/80-90, icmp",
    ]


def test_plan_counts_connections_where_they_are_many(controller: FakeController, play: Play) -> None:
    many = [{"from": f"a{n}", "to": "b", "opened": "all", "cut": []} for n in range(26)]
    controller.answers["POST plan"] = {"name": "a", "changes": [], "connections": {"changed": many, "complete": False}}
    assert play("plan", ATLAS).out.splitlines()[1:] == [
        "connections: 26 opened, 0 cut, and more; `playground policy diff` lists all"
    ]


CLOSED = """\
name: lab
networks: {grid: {subnets: [10.0.0.0/24]}}
workspaces: {a: {networks: grid}, b: {networks: grid}}
tests: [{from: a, to: b, expect: %s}]
%s
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    return tmp_path / "lab.yaml"


@pytest.mark.parametrize("words", [["plan"], ["up", "--emulate", "3"]])
def test_a_failing_test_refuses_at_its_own_place_before_a_site_is_made(
    words: list[str], lab: Path, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "emulate", lambda *args, **options: pytest.fail("a sandbox was started"))
    lab.write_text(CLOSED % ("deny", ""))
    ran = play(*words, str(lab))
    assert ran.code == 1
    assert ran.err.startswith(f"{lab}:4:9: tests[0]: expected deny, but everything from a to b is allowed by default")


def test_the_tests_of_a_file_are_held_by_the_controller_that_knows_the_sites_policies(
    lab: Path, controller: FakeController, play: Play
) -> None:
    lab.write_text(CLOSED % ("deny", ""))
    text = lab.read_text()
    controller.answers["POST plan"] = {"name": "lab", "changes": [], "connections": {"changed": [], "complete": True}}
    assert play("plan", str(lab)).code == 0
    assert controller.asked[-1][2] == {"file": str(lab), "text": text}


def test_a_file_is_planned_under_the_policies_of_a_site(lab: Path, play: Play) -> None:
    (lab.parent / "site.yaml").write_text(
        "name: s\npolicies: [{priority: 1, subject: workspace=b, ingress: [{action: deny}]}]\n"
    )
    lab.write_text(CLOSED % ("deny", ""))
    assert play("plan", str(lab)).code == 1
    assert play("plan", str(lab), "--site-file", str(lab.parent / "site.yaml")).code == 0


def test_a_controller_has_the_policies_of_its_own_site(lab: Path, controller: FakeController, play: Play) -> None:
    (lab.parent / "site.yaml").write_text("name: s\n")
    lab.write_text(CLOSED % ("allow", ""))
    for command in ("plan", "up"):
        ran = play(command, str(lab), "--site-file", str(lab.parent / "site.yaml"))
        assert ran.code == 2 and "--site-file" in ran.err


def test_the_policies_of_a_site_are_accepted_before_the_playground(
    lab: Path, controller: FakeController, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "emulate", lambda *args, **options: None)
    text = "name: s\npolicies: [{priority: 1, subject: workspace=b, ingress: [{action: deny}]}]\n"
    (lab.parent / "site.yaml").write_text(text)
    lab.write_text(CLOSED % ("deny", ""))
    controller.answers["PUT playgrounds"] = {"name": "lab", "change": "c1", "changes": []}
    ranks = {"name": "local", "change": "c0", "changes": [], "playgrounds": [], "unapplied": []}
    controller.answers["PUT site/policies"] = ranks
    words = ["up", str(lab), "--emulate", "1", "--no-wait", "--site-file", str(lab.parent / "site.yaml"), "--json"]
    ran = play(*words)
    assert (ran.code, json.loads(ran.out)["site"]) == (0, ranks)
    asked = [(key, body) for key, _, body in controller.asked if key.startswith("PUT")]
    assert asked[0] == ("PUT site/policies", {"file": str(lab.parent / "site.yaml"), "text": text})
    assert [key for key, _ in asked] == ["PUT site/policies", "PUT playgrounds"]


def test_policies_are_planned_with_what_they_open(lab: Path, play: Play) -> None:
    lab.write_text(CLOSED % ("deny", "policies: [{subject: b, ingress: []}]"))
    ran = play("plan", str(lab))
    assert ran.code == 0
    assert ran.out.splitlines()[-2:] == ["connections: 1 opened, 0 cut", "  + b  a  everything"]


def test_up_refuses_what_is_not_built_yet(lab: Path, play: Play) -> None:
    lab.write_text(CLOSED % ("allow", "gateways: {lan: {kind: bridge, networks: [grid]}}"))
    refused = play("up", str(lab))
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith(f"{lab}:5:12: gateways.lan: gateways of kind bridge are not built yet")


def test_included_files_are_sent_along(lab: Path, controller: FakeController, play: Play) -> None:
    lab.write_text(CLOSED % ("deny", "include: [more/*.yaml]"))
    (lab.parent / "more").mkdir()
    (lab.parent / "more" / "b.yaml").write_text("policies: [{subject: b, ingress: []}]\n")
    controller.answers["POST plan"] = {"name": "lab", "changes": []}
    assert play("plan", str(lab)).code == 0
    included = {"more/*.yaml": [[f"{lab.parent}/more/b.yaml", "policies: [{subject: b, ingress: []}]\n"]]}
    assert controller.asked[-1][2] == {"file": str(lab), "text": lab.read_text(), "included": included}
    (lab.parent / "more" / "b.yaml").write_text("policies: [{subject: c, ingress: []}]\n")
    ran = play("plan", str(lab))
    assert ran.err.startswith(f"{lab.parent}/more/b.yaml:1:22: policies[0].subject: 'c' is no group and no workspace")
