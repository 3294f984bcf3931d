"""Completion scripts: valid in their shells, and offering what can be typed there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_lab import FakeController, Play, a_host, a_port

from playground.cli import complete
from playground.cli.commands import COMMANDS, FAMILIES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH on which `playground` is this checkout's."""
    script = tmp_path / "playground"
    script.write_text(f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m playground "$@"\n')
    script.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def offered(path: str, *words: str) -> list[str]:
    """What bash offers for the last of the words, as a person with Tab would see it."""
    script = (
        f'{complete.bash()}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _playground; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    ran = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *words],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path},
        cwd=ROOT,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_valid_in_their_shell(shell: str, play: Play) -> None:
    ran = play("completion", shell)
    assert ran.code == 0
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    checked = subprocess.run([shell, "-n"], input=ran.out, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_commands_are_offered(path: str) -> None:
    assert sorted(offered(path, "playground", "")) == sorted({name.partition(" ")[0] for name in COMMANDS})
    assert sorted(offered(path, "playground", "--site", "campus", "st")) == ["start", "status", "stop", "store"]


def test_options_are_the_commands_own(path: str) -> None:
    assert "--emulate" in offered(path, "playground", "up", "--")
    assert "--emulate" not in offered(path, "playground", "down", "--")
    assert offered(path, "playground", "events", "--f") == ["--follow"]


def test_the_second_word_of_a_command_is_offered_and_then_its_own(path: str) -> None:
    assert offered(path, "playground", "policy", "") == list(FAMILIES["policy"])
    assert offered(path, "playground", "--site", "a", "policy", "ex") == ["explain", "export"]
    assert offered(path, "playground", "policy", "connections", "--d") == ["--dot", "--debug"]
    assert offered(path, "playground", "policy", "explain", "pyproj") == ["pyproject.toml"]
    assert offered(path, "playground", "policy", "export", "--to", "") == ["kubernetes"]


def test_choices_and_files_are_offered(path: str) -> None:
    assert offered(path, "playground", "schema", "") == ["playground", "site"]
    assert offered(path, "playground", "completion", "z") == ["zsh"]
    assert offered(path, "playground", "up", "pyproj") == ["pyproject.toml"]
    assert offered(path, "playground", "up", "x.yaml", "--token-file", "pyproj") == ["pyproject.toml"]


def test_names_are_the_controllers(path: str, controller: FakeController) -> None:
    controller.answers["GET hosts"] = [[a_host("n1"), a_host("n2")]]
    controller.answers["GET ports"] = [[a_port("head"), a_port("head", playground="beta"), a_port("worker-0")]]
    assert offered(path, "playground", "down", "") == ["atlas"]
    assert offered(path, "playground", "exec", "") == ["atlas/head", "beta/head", "worker-0"]
    assert offered(path, "playground", "exec", "--host", "") == ["n1", "n2"]
    assert offered(path, "playground", "migrate", "worker-0", "n") == ["n1", "n2"]


def test_without_a_controller_nothing_is_offered_nor_said(path: str, run_dir: Path) -> None:
    assert offered(path, "playground", "down", "") == []


def test_fish_knows_every_command_and_option() -> None:
    script = complete.fish()
    for command in COMMANDS.values():
        first, _, second = command.name.partition(" ")
        assert f"-a {second or first} " in script
        within = f"{first}; and __fish_seen_subcommand_from {second}" if second else first
        for option in command.options:
            if option.names[0].startswith("--"):
                assert f"'__fish_seen_subcommand_from {within}' -l {option.names[0][2:]}" in script
