"""The command line itself: help, usage, exit codes of what the parser can tell, and how little it imports."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_lab import Play

from playground.cli import parser, reference
from playground.cli.command import Command
from playground.cli.commands import COMMANDS, DAEMONS, FAMILIES, GROUPS

ROOT = Path(__file__).resolve().parents[2]

Golden = Callable[[str, Path], None]


def test_the_reference_in_docs_is_what_the_commands_say(golden: Golden) -> None:
    golden(reference.markdown(), ROOT / "docs" / "commands.md")


def test_the_overview_names_every_command_once() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_every_command_teaches_by_examples_that_parse(command: Command) -> None:
    assert command.description
    assert command.exits
    if command.name in DAEMONS:
        return
    for line, _ in command.examples:
        words = line.split("playground ", 1)[1].split(" | ")[0].split(" > ")[0].rstrip(')"').split()
        assert parser.parse(words).command == command.name


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - DAEMONS))
def test_help_says_what_it_does_shows_examples_and_exit_codes(command: str, play: Play) -> None:
    ran = play(*command.split(), "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"usage: playground {command}")
    assert "examples:" in ran.out
    assert "exit codes:" in ran.out


def test_help_imports_nothing_slow() -> None:
    slow = ["asyncio", "http.client", "pydantic", "fastapi", "pyroute2", "msgspec", "ruamel", "ssl", "socket"]
    script = (
        "import sys; from playground.cli.main import main; assert main(['--help']) == 0;"
        f"print([name for name in {slow} if name in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (ran.returncode, ran.stderr) == (0, "[]\n")


def test_the_package_is_a_command_too() -> None:
    ran = subprocess.run([sys.executable, "-m", "playground", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0
    assert ran.stdout.startswith("playground 0.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "COMMAND"),
        (["up"], "the following arguments are required: FILE"),
        (["up", "lab.yaml", "--emulat", "3"], "there is no option --emulat; did you mean --emulate?"),
        (["up", "lab.yaml", "--emulate", "x"], "invalid int value: 'x'"),
        (["up", "lab.yaml", "--timeout", "-1"], "read '-1'; allowed: a number from 0"),
        (["fly"], "there is no command fly; `playground --help` lists them"),
        (["stauts"], "there is no command stauts; did you mean status?"),
        (
            ["policy"],
            "write one of check, connections, explain, diff, log, counters, verify, promote, import, export after "
            "policy",
        ),
        (["policy", "chek"], "there is no command policy chek; did you mean policy check?"),
        (["policy", "check"], "name a playground's file"),
        (["policy", "connections", "a", "--json", "--csv"], "three forms"),
        (["policy", "connections", "a", "--from", "x", "--source", "y"], "take one"),
        (["policy", "diff", "-", "-"], "one of the two only"),
        (["policy", "import", "--from", "kubernetes", "a", "-o", "b", "--name", "B_1"], "can't be a DNS label"),
        (["plan", "a", "b"], "usage: playground plan FILE"),
        (["exec", "head", "ip", "addr"], "not understood: ip addr; the words of CMD come after `--`"),
        (["status", "--", "x"], "`--` goes with `playground exec` only"),
        (["schema", "host"], "invalid choice: 'host'"),
        (["exec", "--", "ls"], "name a workspace or --host HOST"),
        (["exec", "head", "--host", "n1", "--", "ls"], "name a workspace or --host HOST"),
        (["exec", "head"], "no command was given"),
        (["down"], "name a playground, or --all"),
        (["down", "atlas", "--all"], "name a playground, or --all"),
        (["migrate", "head"], "name a host to move to, or --abort"),
        (["migrate", "head", "n1", "--abort"], "name a host to move to, or --abort"),
        (["hosts", "token"], "name the host"),
        (["--site", "No/Such", "hosts"], "is no site name"),
        (["--server", "ftp://x", "hosts"], "is no controller's address"),
        (["up", "examples/atlas.yaml", "--emulate", "0"], "1 or more"),
    ],
)
def test_wrong_words_are_told_apart_from_refusals(words: list[str], said: str, play: Play) -> None:
    ran = play(*words)
    assert ran.code == 2
    assert said in ran.err
    assert ran.out == ""


def test_help_is_a_word_too(play: Play) -> None:
    assert play("help").out.startswith(f"usage: {parser.OVERALL}")
    assert play("help", "up").out == play("up", "--help").out
    assert play("help", "policy", "check").out == play("policy", "check", "--help").out


def test_the_first_word_of_two_has_its_help(play: Play) -> None:
    ran = play("policy", "--help")
    assert ran.code == 0
    assert [line.split()[1] for line in ran.out.splitlines()[2:]] == list(FAMILIES["policy"])


def test_options_of_every_command_may_stand_before_or_after_it() -> None:
    assert parser.parse(["--site", "a", "status"]).site == "a"
    assert parser.parse(["status", "--site", "b"]).site == "b"
    assert parser.parse(["--site", "a", "status", "--site", "b"]).site == "b"
    assert parser.parse(["status"]).site is None


def test_words_after_two_dashes_are_the_commands_own() -> None:
    args = parser.parse(["exec", "head", "--", "sh", "-c", "echo --json", "--", "--site"])
    assert args.workspace == "head"
    assert args.rest == ["sh", "-c", "echo --json", "--", "--site"]


@pytest.mark.parametrize("daemon", sorted(DAEMONS))
def test_daemons_get_their_own_words_and_the_site(daemon: str, play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[list[str]] = []

    class Program:
        @staticmethod
        def main(argv: list[str]) -> int:
            passed.append(argv)
            return 7

    monkeypatch.setitem(sys.modules, f"playground.{daemon}.__main__", Program)  # type: ignore[arg-type]
    assert play("--site", "campus", daemon, "--help", "--", "x").code == 7
    assert play(daemon, "--name", "n1").code == 7
    assert passed == [["--site", "campus", "--help", "--", "x"], ["--name", "n1"]]


@pytest.mark.parametrize("daemon", ["agent", "controller"])
def test_a_daemons_examples_are_lines_that_it_takes(daemon: str) -> None:
    module = importlib.import_module(f"playground.{daemon}.__main__")
    text = module.parser().format_help().partition("examples")[2].partition("exit codes")[0].replace("\\\n", " ")
    lines = [re.split(r"  +(?=[a-z ]+$)", line.strip())[0] for line in text.splitlines()]
    shown = [shlex.split(line) for line in lines if line.startswith(f"playground {daemon} ")]
    assert len(shown) >= 2
    for words in shown:
        module.parser().parse_args(words[2:])
