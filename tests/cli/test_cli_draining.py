"""`host drain` and `host resume`: what is asked, when it ends, and what is said of those that stay."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cli_lab import FakeController, Play

from playground.cli import draining

PUT, GET, DELETE = (f"{verb} hosts/n1/drain" for verb in ("PUT", "GET", "DELETE"))


def a_drain(*left: dict[str, Any], drain: str | None = "draining") -> dict[str, Any]:
    return {"host": "n1", "drain": drain, "since": 1.0, "parallel": 2, "left": list(left)}


def one(name: str, state: str, cause: str = "", to: str | None = None) -> dict[str, Any]:
    return {"playground": "atlas", "object": f"workspace {name}", "state": state, "to": to, "cause": cause}


EMPTY = a_drain(drain="drained")


def test_a_drain_is_followed_until_the_host_is_empty(controller: FakeController, play: Play) -> None:
    controller.answers[PUT] = a_drain(one("w", "waiting", to="n2"), one("v", "waiting", to="n3"))
    controller.answers[GET] = [a_drain(one("v", "moving", "copying", "n3")), EMPTY]
    ran = play("host", "drain", "n1", "--parallel", "4")
    assert (ran.code, ran.out) == (0, "n1: drained\n")
    assert controller.asked[0] == (PUT, {}, {"parallel": 4})


def test_what_can_leave_by_itself_is_waited_for_and_what_cannot_is_named(
    controller: FakeController, play: Play
) -> None:
    stuck = one("db", "stuck", "it is pinned to n1, and n1: draining")
    controller.answers[PUT] = a_drain(stuck, one("w", "moving", "copying", "n2"))
    controller.answers[GET] = [a_drain(stuck, one("w", "moving", "copying", "n2")), a_drain(stuck)]
    ran = play("host", "drain", "n1")
    assert (ran.code, ran.out) == (1, "n1: draining, 1 stuck\n")
    assert ran.err == (
        "  workspace atlas/db: stuck, it is pinned to n1, and n1: draining\n"
        "playground: n1 is not empty: 1 object can't leave; the wish stands, `playground host resume n1` ends it\n"
    )
    as_json = play("host", "drain", "n1", "--json")
    assert json.loads(as_json.out)["left"] == [stuck] and as_json.code == 1


def test_a_drain_that_takes_longer_is_three_and_goes_on(controller: FakeController, play: Play) -> None:
    controller.answers[PUT] = a_drain(one("w", "moving", "copying", "n2"))
    ran = play("host", "drain", "n1", "--timeout", "0")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err == (
        "playground: n1 is not empty within 0 s; it goes on\n  workspace atlas/w: moving, to n2, copying\n"
    )
    assert play("host", "drain", "n1", "--no-wait").out == "n1: draining, 1 moving\n"


def test_a_drain_that_somebody_ends_is_over(controller: FakeController, play: Play) -> None:
    controller.answers[PUT] = a_drain(one("w", "moving", "copying", "n2"))
    controller.answers[GET] = a_drain(drain=None)
    ran = play("host", "drain", "n1")
    assert (ran.code, ran.out) == (0, "n1: takes workspaces; the drain was ended\n")


def test_resume_says_that_the_host_takes_workspaces_again(controller: FakeController, play: Play) -> None:
    controller.answers[DELETE] = a_drain(drain=None)
    assert play("host", "resume", "n1").out == "n1: takes workspaces again\n"
    controller.answers[DELETE] = (404, {"error": "no host n1; hosts are n2"})
    ran = play("host", "resume", "n1")
    assert (ran.code, ran.err) == (1, "playground: no host n1; hosts are n2\n")


@pytest.mark.parametrize("number", ["0", "65", "x"])
def test_so_many_moves_at_a_time_are_not_to_be(number: str, controller: FakeController, play: Play) -> None:
    ran = play("host", "drain", "n1", "--parallel", number)
    assert ran.code == 2 and not controller.asked


def test_ctrl_c_ends_the_waiting_and_not_the_drain(
    controller: FakeController, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.answers[PUT] = a_drain(one("w", "moving", "copying", "n2"))

    def interrupted(*words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(draining, "_follow", interrupted)
    ran = play("host", "drain", "n1")
    assert (ran.code, ran.err) == (130, "playground: the drain goes on; `playground host resume n1` ends it\n")
    assert [key for key, _, _ in controller.asked] == [PUT]
