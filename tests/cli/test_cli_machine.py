"""What can be told without a controller, and that every command has its code."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
from cli_lab import Play, a_port

from playground.cli import demo, parser
from playground.cli.commands import COMMANDS, DAEMONS
from playground.cli.failure import Failure
from playground.cli.traffic import choose


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - DAEMONS))
def test_every_command_has_its_code(command: str) -> None:
    module, _, function = COMMANDS[command].run.partition(":")
    assert callable(getattr(import_module(f"playground.cli.{module}"), function))


def test_a_stores_problems_are_named(play: Play, tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    ran = play("store", "check", path)
    assert (ran.code, ran.out) == (1, "")
    assert "is not there" in ran.err
    ran = play("store", "check", path, "--json")
    assert ran.code == 1
    assert len(json.loads(ran.out)["problems"]) == 1


def test_the_doctor_lists_what_was_looked_at(play: Play) -> None:
    ran = play("doctor", "--json")
    found = json.loads(ran.out)
    assert {"name", "ok", "detail", "remedy"} <= found[0].keys()
    assert ran.code == (0 if all(check["ok"] or check["is_optional"] for check in found) else 1)


@pytest.mark.parametrize("kind", ["playground", "site"])
def test_schemas_are_json_schemas(kind: str, play: Play) -> None:
    ran = play("schema", kind)
    assert ran.code == 0
    schema = json.loads(ran.out)
    assert schema["type"] == "object"
    assert "name" in schema["properties"]


def test_the_demo_moves_a_worker_between_hosts_that_its_sender_is_not_on() -> None:
    ports = [a_port("head", "n1"), a_port("head", "n1", network="public"), a_port("worker-0", "n2", 101)]
    move = choose(ports, ["n1", "n2", "n3"])
    assert (move.moving, move.source, move.target) == ("worker-0", "n2", "n3")
    assert (move.sender, move.sender_host) == ("head", "n1")
    assert move.addresses == ("10.20.0.101", "fd00:20::65")


def test_the_demo_says_when_there_are_too_few_hosts() -> None:
    with pytest.raises(Failure, match="not three hosts"):
        choose([a_port("head", "n1"), a_port("worker-0", "n2")], ["n1", "n2"])


def test_the_demos_next_steps_are_commands() -> None:
    move = choose([a_port("head", "n1"), a_port("worker-0", "n2")], ["n1", "n2", "n3"])
    lines = [line.strip() for line in demo._next_steps("demo", move).splitlines()[1:]]
    assert len(lines) == 4
    for line in lines:
        words = line.split("   ")[0].split()
        assert words[0] == "playground"
        assert parser.parse(words[1:]).site == "demo"


def test_the_demo_leaves_a_site_alone_that_is_there(play: Play, run_dir: Path) -> None:
    (run_dir / "demo").mkdir(parents=True)
    (run_dir / "demo" / "controller.sock").touch()
    ran = play("demo", "--keep")
    assert ran.code == 1
    assert "playground --site demo down --all" in ran.err
    assert play("--server", "http://x", "demo").code == 1
