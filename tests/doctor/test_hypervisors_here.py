"""Whether emulated hosts can have hypervisors, said with its remedy before anything is made."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from playground import paths
from playground.cli.main import main as cli
from playground.doctor import hypervisors, packages
from playground.doctor.packages import Tool
from playground.sandbox import hypervisor
from playground.sandbox import namespaces as ns

ABSENT = Tool("no-such-program", "no-such-package", "nothing")


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine that lacks nothing; the folder of its switches."""
    monkeypatch.setattr(packages, "HYPERVISOR", ())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name, text in (("SETGROUPS", "allow\n"), ("TUN", "")):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(hypervisors, name, tmp_path / name)
    return tmp_path


def no_packages(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setattr(packages, "HYPERVISOR", (ABSENT,))


def no_bindings(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setattr(importlib.util, "find_spec", lambda name: None)


def an_ordinary_user(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setattr(os, "geteuid", lambda: 1000)


def a_user_namespace(patch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "SETGROUPS").write_text("deny\n")


def no_taps(patch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "TUN").unlink()


LACKS = {
    no_packages: "no-such-package",
    no_bindings: "pip install 'playground[libvirt]'",
    an_ordinary_user: "with sudo",
    a_user_namespace: "with sudo",
    no_taps: "modprobe tun",
}


def test_where_nothing_is_missing_nothing_is_said(able: Path) -> None:
    assert hypervisors.why_no_hypervisors() == ""


@pytest.mark.parametrize(("lack", "remedy"), LACKS.items())
def test_what_is_missing_is_said_with_its_remedy(
    lack: Callable[[pytest.MonkeyPatch, Path], None], remedy: str, able: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack(monkeypatch, able)
    assert remedy in hypervisors.why_no_hypervisors()


def test_up_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("PLAYGROUND_RUN", "PLAYGROUND_STATE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(packages, "HYPERVISOR", (ABSENT,))
    file = Path(__file__).parents[2] / "examples" / "machines.yaml"
    assert cli(["--site", "bare", "up", str(file), "--emulate", "3"]) == 1
    said = capsys.readouterr()
    assert "virtual machines need what this machine lacks: no-such-program; " in said.err and said.out == ""
    assert list(tmp_path.iterdir()) == [] and not paths.run_dir("bare").exists()


def test_a_folder_that_a_machine_lacks_is_not_made_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mount(source: str, target: str, **words: object) -> None:
        raise FileNotFoundError(target)

    lacking = tmp_path / "etc"
    monkeypatch.setattr(hypervisor, "PLACES", {"etc": str(lacking)})
    monkeypatch.setattr(ns, "mount", mount)
    words = ["--site", "s", "--name", "n1", "--address", "192.0.2.11", "--folder", str(tmp_path / "own")]
    monkeypatch.setattr(sys, "argv", ["hypervisor", *words])
    with pytest.raises(FileNotFoundError):
        hypervisor.main()
    assert not lacking.exists()
