"""What is shown, for people and for programs, and what is said when it can't be."""

from __future__ import annotations

import errno
import json
import socket
from pathlib import Path

import pytest
from cli_lab import FakeController, Play, a_host, a_port, a_status, a_workspace


def test_hosts_are_a_table_for_people_and_a_list_for_programs(controller: FakeController, play: Play) -> None:
    hosts = [a_host("n1", labels={"room": "a"}), a_host("n2", state="gone", ports=0, problems=["no vxlan module"])]
    controller.answers["GET hosts"] = [hosts]
    assert play("hosts").out == (
        "HOST  STATE  UNDERLAY    PORTS  LABELS  PROBLEMS\n"
        "n1    up     192.0.2.11  1      room=a  -\n"
        "n2    gone   192.0.2.12  0      -       no vxlan module\n"
    )
    assert json.loads(play("hosts", "--json").out) == hosts


def test_hosts_say_what_is_taken_of_them_and_who_is_drained(controller: FakeController, play: Play) -> None:
    room = {"cpus": {"given": 8.0, "taken": 2.5}, "memory_mib": {"given": 15872, "taken": 512}}
    never = {"cpus": {"given": None, "taken": 0}, "memory_mib": {"given": None, "taken": 0}}
    hosts = [a_host("n1", drain="draining", **room), a_host("n2", state="never", ports=0, drain=None, **never)]
    controller.answers["GET hosts"] = [hosts]
    assert play("hosts").out == (
        "HOST  STATE  DRAIN     UNDERLAY    PORTS  CPUS      MEMORY\n"
        "n1    up     draining  192.0.2.11  1      2.5 of 8  512 MiB of 15.5 GiB\n"
        "n2    never  -         192.0.2.12  0      -         -\n"
    )


def test_ports_name_their_playground_only_where_there_are_several(controller: FakeController, play: Play) -> None:
    controller.answers["GET ports"] = [[a_port()], [a_port(), a_port(playground="beta", host=None, state="unplaced")]]
    assert play("ports").out == (
        "WORKSPACE  NETWORK  ADDRESSES                 MAC                HOST  STATE\n"
        "head       grid     10.20.0.100, fd00:20::64  02:00:00:00:00:00  n1    forwarding\n"
    )
    assert play("ports").out.startswith("PLAYGROUND  WORKSPACE")


@pytest.mark.parametrize("command", ["hosts", "ports", "leases", "events"])
def test_an_empty_list_is_brackets_for_programs(command: str, controller: FakeController, play: Play) -> None:
    controller.answers[f"GET {command}"] = [[]]
    ran = play(command, "--json")
    assert (ran.code, ran.out) == (0, "[]\n")


@pytest.mark.parametrize("command", ["hosts", "ports", "leases"])
def test_an_empty_list_leaves_stdout_empty_and_says_what_to_do(
    command: str, controller: FakeController, play: Play
) -> None:
    controller.answers[f"GET {command}"] = [[]]
    ran = play(command)
    assert (ran.code, ran.out) == (0, "")
    assert "playground up FILE" in ran.err


def test_a_name_restricts_what_is_asked_for(controller: FakeController, play: Play) -> None:
    controller.answers["GET leases"] = [[]]
    play("leases", "atlas")
    assert controller.asked == [("GET leases", {"playground": "atlas"}, None)]


def test_events_are_a_line_each(controller: FakeController, play: Play) -> None:
    event = {"id": 1, "at": 3661.0, "kind": "host-up", "object": "host n1", "text": "from\x1b[2J 192.0.2.11"}
    controller.answers["GET events"] = [[event]]
    assert play("events").out == "01:01:01  host n1  host-up  from\\x1b[2J 192.0.2.11\n"


def test_following_events_shows_each_once_until_interrupted(controller: FakeController, play: Play) -> None:
    def event(number: int) -> dict[str, object]:
        return {"id": number, "at": 0.0, "kind": "k", "object": "o", "text": str(number)}

    def answer(query: dict[str, str], body: object) -> object:
        after = int(query["after"])
        return (500, b"") if after >= 3 else [event(after + 1)]

    controller.answers["GET events"] = answer
    ran = play("events", "--follow", "--json")
    assert [json.loads(line)["id"] for line in ran.out.splitlines()] == [1, 2, 3]
    assert ran.code == 1


def an_event(number: int) -> dict[str, object]:
    return {"id": number, "at": 0.0, "kind": "k", "object": "o", "text": str(number)}


def test_events_go_on_where_they_were_when_the_controller_comes_back(
    controller: FakeController, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playground.cli.following.RETRY_S", 0)
    controller.answers["GET events"] = [
        [an_event(1), an_event(2)],
        (200, b""),
        [an_event(2), an_event(3)],
        [an_event(7)],
        (200, b""),
        [an_event(1), an_event(2)],
        (409, {"error": "enough"}),
    ]
    ran = play("events", "--follow", "--json")
    assert [json.loads(line)["id"] for line in ran.out.splitlines()] == [1, 2, 3, 7, 1, 2]
    assert [query["after"] for _, query, _ in controller.asked] == ["0", "2", "0", "3", "7", "0", "2"]
    assert "3 events can't be shown any more" in ran.err
    assert "its store is another one" in ran.err


def test_what_is_followed_ends_with_an_emulated_site(
    controller: FakeController, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playground.cli.following.RETRY_S", 0)
    there = iter([True, True, False])
    monkeypatch.setattr("playground.cli.site.is_emulated", lambda name: next(there))
    controller.answers["GET events"] = [[an_event(1)], (200, b"")]
    ran = play("events", "--follow")
    assert (ran.code, ran.err.splitlines()[-1]) == (1, "playground: site local has ended")


def test_status_shows_desired_programmed_probed_and_the_cause(controller: FakeController, play: Play) -> None:
    controller.answers["GET status"] = a_status(
        programmed="converging",
        cause="workspace worker-0: waits for a host",
        workspaces=[a_workspace(), a_workspace("worker-0", state="unplaced", host=None, cause="waits for a host")],
    )
    ran = play("status")
    assert (
        ran.out
        == """\
site local: 2 hosts, 2 up

HOST  STATE  UNDERLAY    PORTS
n1    up     192.0.2.11  1
n2    up     192.0.2.12  0

playground atlas
  desired     present
  programmed  converging
  probed      as modelled, 30 pairs, 12 s ago
  cause       workspace worker-0: waits for a host

  NETWORK  VNI   MTU   SUBNETS
  grid     4097  1450  10.20.0.0/24, fd00:20::/64

  WORKSPACE  DESIRED  STATE     HOST  ADDRESSES                 CAUSE
  head       running  running   n1    10.20.0.100, fd00:20::64  -
  worker-0   running  unplaced  -     10.20.0.100, fd00:20::64  waits for a host
"""
    )
    assert ran.code == 0


def test_status_says_when_nothing_was_ever_probed(controller: FakeController, play: Play) -> None:
    partly = {"state": "incomplete", "age_s": 3.0, "pairs": 25, "mismatches": 0, "unobserved": 5}
    controller.answers["GET status"] = a_status(probed=partly)
    assert "probed      incomplete, 25 pairs, 5 not observed, 3 s ago" in play("status").out
    never = {"state": "never", "age_s": None, "pairs": None, "mismatches": None}
    controller.answers["GET status"] = a_status(probed=never)
    assert "probed      never (`playground probe NAME` tries all pairs)" in play("status").out


def test_a_hosts_token_is_all_that_stdout_holds(controller: FakeController, play: Play) -> None:
    controller.answers["POST hosts/n4/token"] = {"host": "n4", "token": "s3cret"}
    assert play("hosts", "token", "n4").out == "s3cret\n"
    assert json.loads(play("hosts", "token", "n4", "--json").out) == {"host": "n4", "token": "s3cret"}


@pytest.mark.parametrize("command", ["status", "hosts", "ports", "leases", "events"])
def test_without_a_controller_the_remedy_is_said(command: str, play: Play) -> None:
    ran = play(command)
    assert (ran.code, ran.out) == (1, "")
    assert "no controller answers at" in ran.err
    assert "playground up FILE --emulate N" in ran.err


def test_an_emulated_site_without_its_controller_is_told_to_be_waited_for(
    run_dir: Path, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playground.sandbox.find", lambda name: name if name == "local" else None)
    assert "starts it again: try again in a few seconds" in play("status").err
    assert "playground up FILE --emulate N" in play("--site", "other", "status").err


def test_a_folder_that_refuses_us_is_no_bug_of_ours(run_dir: Path, play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(site: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", f"/root/{site}/emulated.json")

    monkeypatch.setattr("playground.sandbox.find", find)
    ran = play("down", "--all")
    assert ran.code == 1
    assert ran.err.startswith("playground: /root/local/emulated.json: permission denied; PLAYGROUND_RUN and PLAYGROUND")


def test_a_refusal_is_the_controllers_own_sentence(controller: FakeController, play: Play) -> None:
    controller.answers["GET ports"] = (404, {"error": "no playground beta; playgrounds are atlas"})
    ran = play("ports", "beta")
    assert (ran.code, ran.err) == (1, "playground: no playground beta; playgrounds are atlas\n")


def test_a_bug_of_ours_is_said_in_a_line_and_kept_in_a_file(controller: FakeController, play: Play) -> None:
    controller.answers["GET hosts"] = [[{"unexpected": True}]]
    ran = play("hosts")
    assert ran.code == 0
    controller.answers["GET hosts"] = {"not": "a list"}
    ran = play("hosts")
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (70, "", 1)
    assert "Traceback" in Path(ran.err.rsplit(" ", 1)[1].strip()).read_text()
    assert "Traceback" in play("hosts", "--debug").err


def test_an_answer_that_is_no_json_is_no_controller(controller: FakeController, play: Play) -> None:
    controller.answers["GET hosts"] = (200, b"<html>")
    ran = play("hosts")
    assert ran.code == 1
    assert "speaks no JSON" in ran.err


def test_a_dead_socket_is_no_controller(play: Play, run_dir: Path) -> None:
    path = run_dir / "local" / "controller.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
    ran = play("hosts")
    assert ran.code == 1
    assert "connection refused" in ran.err


def test_a_controller_elsewhere_is_asked_with_its_token(
    controller: FakeController, play: Play, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.answers["GET hosts"] = [[]]
    token = run_dir / "token"
    token.write_text("s3cret\n")
    url = f"unix:{run_dir}/local/controller.sock"
    assert play("--site", "elsewhere", "--server", url, "--token-file", str(token), "hosts").code == 0
    monkeypatch.setenv("PLAYGROUND_SERVER", url)
    monkeypatch.setenv("PLAYGROUND_TOKEN", "other")
    assert play("hosts").code == 0
    assert controller.tokens == ["Bearer s3cret", "Bearer other"]
    token.write_text("")
    assert "is empty" in play("hosts", "--token-file", str(token)).err
    assert play("hosts", "--token-file", str(run_dir / "none")).code == 1


def test_status_shows_gateways_where_there_are_any(controller: FakeController, play: Play) -> None:
    cause = "this host has no default route for IPv6"
    gateway = {
        **{"name": "wan", "kind": "nat", "state": "running", "host": "n1", "cause": cause},
        **{"networks": ["dmz", "grid"], "addresses": ["10.0.0.9", "10.1.0.9"], "generation": 2},
    }
    controller.answers["GET status"] = a_status()
    assert "GATEWAY" not in play("status").out
    controller.answers["GET status"] = a_status(gateways=[gateway])
    [line] = [line for line in play("status").out.splitlines() if line.strip().startswith("wan")]
    assert all(word in line for word in ("nat", "running", "n1", "dmz, grid", cause))
