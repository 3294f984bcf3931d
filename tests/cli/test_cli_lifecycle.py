"""`start`, `stop`, `migrate`, `probe`: what is asked, how the end is told, and the exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_lab import FakeController, Play, a_move, a_status, a_workspace

from playground.cli import lifecycle, timeline

WANTED = {
    "start": "running",
    "stop": "stopped",
    "suspend": "suspended",
    "resume": "running",
    "save": "saved",
    "restore": "running",
    "reboot": "running",
}


@pytest.mark.parametrize(("verb", "wanted"), WANTED.items())
def test_starting_and_stopping_wait_for_the_end(verb: str, wanted: str, controller: FakeController, play: Play) -> None:
    controller.answers[f"POST {verb}"] = {"workspace": "atlas/worker-0", "desired": wanted}
    states = [a_status(workspaces=[a_workspace("worker-0", state=state)]) for state in ("preparing", wanted)]
    controller.answers["GET status"] = states
    ran = play(verb, "worker-0")
    assert (ran.code, ran.out) == (0, f"atlas/worker-0: {wanted}\n")
    assert controller.asked[0] == (f"POST {verb}", {}, {"workspace": "worker-0"})


def test_a_stop_says_how_long_the_workspace_has(controller: FakeController, play: Play) -> None:
    controller.answers["POST stop"] = {"workspace": "atlas/worker-0", "desired": "stopped"}
    assert play("stop", "worker-0", "--grace", "0", "--no-wait").code == 0
    assert controller.asked == [("POST stop", {}, {"workspace": "worker-0", "grace_s": 0.0})]
    ran = play("stop", "worker-0", "--grace", "4000")
    assert (ran.code, ran.err) == (2, "playground: --grace takes seconds from 0 to 3600\n")


def test_a_workspace_that_does_not_start_in_time_is_three_with_its_cause(
    controller: FakeController, play: Play
) -> None:
    controller.answers["POST start"] = {"workspace": "atlas/worker-0", "desired": "running"}
    waiting = a_workspace("worker-0", state="unplaced", cause="no host has room")
    controller.answers["GET status"] = a_status(workspaces=[waiting])
    ran = play("start", "worker-0", "--timeout", "0")
    assert (ran.code, ran.out) == (3, "")
    assert "atlas/worker-0: unplaced, no host has room; not running within 0 s" in ran.err
    assert play("start", "worker-0", "--no-wait").code == 0


def test_interrupting_the_wait_says_that_it_goes_on(
    controller: FakeController, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    controller.answers["POST reboot"] = {"workspace": "atlas/worker-0", "desired": "running"}
    controller.answers["GET status"] = a_status(workspaces=[a_workspace("worker-0", state="rebooting")])
    monkeypatch.setattr(lifecycle.time, "sleep", interrupt)
    ran = play("reboot", "worker-0")
    assert ran.code == 130 and "atlas/worker-0 is to be running, and that goes on" in ran.err


@pytest.mark.parametrize("words", [("--max-gap", "0"), ("--timeout", "0"), ("--max-gap", "nan"), ("--timeout", "-1")])
def test_a_limit_that_nobody_can_mean_is_refused_with_what_is_allowed(
    words: tuple[str, str], controller: FakeController, play: Play
) -> None:
    ran = play("migrate", "worker-1", "n3", *words)
    assert ran.code == 2 and f"argument {words[0]}: read {words[1]!r}; allowed: " in ran.err
    assert not controller.asked


def test_an_ambiguous_workspace_names_the_candidates(controller: FakeController, play: Play) -> None:
    controller.answers["POST stop"] = (409, {"error": "head is in several playgrounds: atlas/head, beta/head"})
    ran = play("stop", "head")
    assert (ran.code, ran.err) == (1, "playground: head is in several playgrounds: atlas/head, beta/head\n")


def test_a_move_is_followed_to_its_end_and_measured(controller: FakeController, play: Play) -> None:
    controller.answers["POST migrate"] = (202, a_move() | {"generation": 4, "timeout_s": 60.0})
    controller.answers["GET migrations"] = [a_move("copying", gap_ms=None, generation=4), a_move(generation=4)]
    ran = play("migrate", "worker-1", "n3")
    assert ran.out == "worker-1: n1 → n3, settled; gap 2.1 ms, lost 0, duplicated 0, pause 0.4 ms\n"
    assert ran.code == 0
    asked = {key: (query, body) for key, query, body in controller.asked}
    assert asked["POST migrate"][1] == {"workspace": "worker-1", "host": "n3", "measure": True}
    assert asked["GET migrations"][0]["workspace"] == "atlas/worker-1"
    assert asked["GET migrations"][0]["generation"] == "4"


def test_an_unmeasured_move_claims_nothing(controller: FakeController, play: Play) -> None:
    controller.answers["POST migrate"] = (202, a_move() | {"generation": 1, "timeout_s": 60.0})
    controller.answers["GET migrations"] = a_move(gap_ms=None, lost=None, duplicated=None, pause_ms=None)
    ran = play("migrate", "worker-1", "n3", "--no-measure")
    assert ran.out == "worker-1: n1 → n3, settled; not measured\n"
    assert controller.asked[0][2]["measure"] is False


def test_a_moves_json_is_the_controllers(controller: FakeController, play: Play) -> None:
    controller.answers["POST migrate"] = (202, a_move() | {"generation": 1, "timeout_s": 60.0})
    controller.answers["GET migrations"] = a_move()
    assert json.loads(play("migrate", "worker-1", "n3", "--json").out) == a_move()


def test_an_aborted_move_is_a_refusal_with_its_cause(controller: FakeController, play: Play) -> None:
    controller.answers["POST migrate"] = (202, a_move() | {"generation": 1, "timeout_s": 60.0})
    controller.answers["GET migrations"] = a_move("aborted", gap_ms=None, cause="host n3 is gone")
    ran = play("migrate", "worker-1", "n3")
    assert ran.code == 1
    assert "aborted: host n3 is gone" in ran.err


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, {"error": "no workspace atlas/worker-1"}), "atlas/worker-1 was removed while it was moved to n3"),
        (a_move("copying", **{"from": "n3", "to": "n2"}, generation=2), "arrived, and another one has followed it"),
        (a_move("copying", **{"from": "n1", "to": "n2"}, generation=2), "is over, and another one has followed it"),
    ],
)
def test_a_move_that_something_else_overtakes_is_a_refusal_that_says_so(
    controller: FakeController, play: Play, answer: Any, said: str
) -> None:
    controller.answers["POST migrate"] = (202, a_move() | {"generation": 1, "timeout_s": 60.0})
    controller.answers["GET migrations"] = [a_move("copying", gap_ms=None), answer]
    ran = play("migrate", "worker-1", "n3")
    assert (ran.code, ran.out) == (1, "")
    assert said in ran.err


def test_a_move_of_which_nobody_says_how_it_ended_is_three(
    controller: FakeController, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "BEYOND_S", 0.0)
    controller.answers["POST migrate"] = (202, a_move() | {"generation": 1, "timeout_s": 0.1})
    controller.answers["GET migrations"] = a_move("copying")
    ran = play("migrate", "worker-1", "n3")
    assert ran.code == 3
    assert "not settled within 0.1 s (copying)" in ran.err


def test_how_a_move_is_to_be_made_is_asked_for_as_it_was_said(controller: FakeController, play: Play) -> None:
    controller.answers["POST migrate"] = (202, a_move() | {"generation": 1, "timeout_s": 9.0})
    controller.answers["GET migrations"] = a_move()
    words = [
        "--post-copy",
        "--auto-converge",
        "--copy-storage",
        "--bandwidth",
        "8",
        "--timeout",
        "9",
        "--max-gap",
        "50",
    ]
    assert play("migrate", "worker-1", "n3", *words).code == 0
    assert controller.asked[0][2] == {
        "workspace": "worker-1",
        "host": "n3",
        "measure": True,
        "post_copy": True,
        "auto_converge": True,
        "copy_storage": True,
        "bandwidth_mib_s": 8,
        "timeout_s": 9.0,
        "max_gap_ms": 50.0,
    }


@pytest.mark.parametrize(
    ("promise", "code", "said"),
    [
        ("kept", 0, ""),
        ("broken", 4, "--max-gap 2 was not kept: the longest silence was 2.1 ms"),
        ("unknown", 4, "whether --max-gap 2 was kept is not known"),
    ],
)
def test_a_promise_that_was_not_kept_is_four(
    controller: FakeController, play: Play, promise: str, code: int, said: str
) -> None:
    controller.answers["POST migrate"] = (202, a_move() | {"generation": 1, "timeout_s": 60.0})
    controller.answers["GET migrations"] = a_move(promise=promise, max_gap_ms=2.0)
    ran = play("migrate", "worker-1", "n3", "--max-gap", "2")
    assert ran.code == code and said in ran.err


@pytest.mark.parametrize(("may_move", "code"), [(True, 0), (False, 1)])
def test_a_dry_run_says_what_speaks_for_and_against_a_move(
    controller: FakeController, play: Play, may_move: bool, code: int
) -> None:
    findings = [{"about": "processor", "said": "fine", "text": "n3 has it"}]
    head = {"workspace": "worker-1", "from": "n1", "to": "n3"}
    controller.answers["POST migrate"] = head | {"may_move": may_move, "findings": findings}
    ran = play("migrate", "worker-1", "n3", "--dry-run")
    assert ran.code == code
    assert f"worker-1: n1 → n3, {'may' if may_move else 'may not'} be moved\n" in ran.out
    assert "processor  fine  n3 has it" in ran.out
    assert len(controller.asked) == 1


PHASES = [{"state": s, "at_s": at} for s, at in (("requested", 0.0), ("copying", 0.5), ("settled", 2.0))]


def test_a_moves_timeline_has_a_bar_for_each_phase_and_for_the_silence() -> None:
    move = a_move(phases=PHASES, gap_ms=500.0, gap_at_s=1.0, losses=[{"at_s": 1.1, "packets": 3}])
    lines = timeline.text(move).splitlines()
    assert [line.split()[0] for line in lines] == ["requested", "copying", "silence", "lost"]
    bars = [line[13 : 13 + timeline.WIDTH] for line in lines]
    assert bars[0] == "=" * 12 + " " * 36 and bars[1] == " " * 12 + "=" * 36
    assert bars[2] == " " * 24 + "#" * 12 + " " * 12 and bars[3].index("x") == 26
    assert "3 packets, the first at 1.10 s" in lines[3]


def test_a_plot_that_could_not_be_drawn_is_refused_before_the_move(
    tmp_path: Path, controller: FakeController, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for path, cause in (
        ("a.txt", "ends in .png"),
        (f"{tmp_path}/no/a.png", "no folder"),
        ("a.png", "playground[plot]"),
    ):
        ran = play("migrate", "worker-1", "n3", "--plot", path)
        assert ran.code == 1 and cause in ran.err
    assert controller.asked == []


@pytest.mark.parametrize("ending", timeline.ENDINGS)
def test_a_plot_is_drawn_into_its_file(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    file = tmp_path / f"move{ending}"
    timeline.check(str(file))
    timeline.draw(a_move(phases=PHASES, gap_at_s=1.0, losses=[{"at_s": 1.1, "packets": 3}]), str(file))
    assert file.stat().st_size > 1000


@pytest.mark.parametrize(("state", "said"), [("aborted", "is called off"), ("copying", "is being called off")])
def test_a_move_is_called_off(state: str, said: str, controller: FakeController, play: Play) -> None:
    controller.answers["POST abort"] = {"workspace": "worker-1", "state": state}
    ran = play("migrate", "worker-1", "--abort")
    assert (ran.code, ran.out) == (0, f"worker-1: the move {said} ({state})\n")


def test_a_probe_says_how_many_pairs(controller: FakeController, play: Play) -> None:
    controller.answers["POST probe"] = {"pairs": 30, "mismatches": []}
    ran = play("probe", "atlas")
    assert (ran.code, ran.out) == (0, "atlas: 30 pairs tried, all as modelled\n")
    assert controller.asked == [("POST probe", {}, {"playground": "atlas"})]


def test_pairs_that_nobody_could_try_are_no_mismatches_and_still_one(controller: FakeController, play: Play) -> None:
    away = {"from": "worker-1", "pairs": 5, "cause": "host n2 is gone"}
    controller.answers["POST probe"] = {"pairs": 25, "mismatches": [], "unobserved": [away]}
    ran = play("probe", "atlas")
    assert ran.code == 1
    assert ran.out == (
        "atlas: 25 pairs tried, all as modelled; 5 pairs not observed\n\n"
        "FROM      PAIRS  CAUSE\n"
        "worker-1  5      host n2 is gone\n"
    )


def test_a_probe_that_differs_names_each_difference_and_is_one(controller: FakeController, play: Play) -> None:
    wrong = {"from": "head", "to": "worker-0", "port": "icmp", "expected": "allow", "observed": "deny"}
    controller.answers["POST probe"] = {"pairs": 30, "mismatches": [wrong]}
    ran = play("probe", "atlas")
    assert ran.code == 1
    assert ran.out == (
        "atlas: 30 pairs tried, 1 not as modelled\n\n"
        "FROM  TO        PORT  EXPECTED  OBSERVED\n"
        "head  worker-0  icmp  allow     deny\n"
    )
    assert play("probe", "atlas", "--json").code == 1


def a_binding(state: str, **more: Any) -> dict[str, Any]:
    return {"device": "pg1", "host": "n2", "generation": 7, "state": state, "cause": "", **more}


def test_a_port_is_bound_once_its_host_has_prepared_it(controller: FakeController, play: Play) -> None:
    controller.answers["POST ports/pg1/bindings"] = a_binding("preparing")
    controller.answers["GET ports/pg1/bindings/n2"] = [a_binding("preparing", cause="waits"), a_binding("prepared")]
    ran = play("port", "bind", "pg1", "n2")
    assert (ran.code, ran.out) == (0, "pg1: prepared on n2, generation 7\n")
    controller.answers["GET ports/pg1/bindings/n2"] = a_binding("preparing", cause="waits for a tap")
    ran = play("port", "bind", "pg1", "n2", "--timeout", "0")
    assert ran.code == 3
    assert "waits for a tap" in play("port", "bind", "pg1", "n2", "--timeout", "0.1").err
    controller.answers["GET ports/pg1/bindings/n2"] = a_binding("aborted", cause="nobody came")
    ran = play("port", "bind", "pg1", "n2")
    assert (ran.code, ran.err) == (1, "playground: generation 7 on n2 is over: nobody came\n")


def test_a_port_is_activated_by_the_generation_that_counts_or_that_is_named(
    controller: FakeController, play: Play
) -> None:
    controller.answers["GET ports/pg1/bindings/n2"] = a_binding("prepared")
    controller.answers["POST ports/pg1/bindings/n2/activate"] = a_binding("active")
    assert play("port", "activate", "pg1", "n2").out == "pg1: active on n2, generation 7\n"
    assert controller.asked[-1][2] == {"generation": 7}
    assert play("port", "activate", "pg1", "n2", "--generation", "5", "--json").code == 0
    assert controller.asked[-1][2] == {"generation": 5}
    controller.answers["DELETE ports/pg1/bindings/n2"] = (409, {"error": "generation 7 on n2 is active already"})
    ran = play("port", "abort", "pg1", "n2")
    assert (ran.code, ran.err) == (1, "playground: generation 7 on n2 is active already\n")
