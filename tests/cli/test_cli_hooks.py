"""`host install-hooks`: where it is put, and for whose agent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_lab import Play

from playground import paths
from playground.workspaces.drivers.libvirt import hooks


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLAYGROUND_RUN", str(tmp_path / "run"))
    monkeypatch.setattr(hooks, "version", lambda: hooks.SINCE)
    monkeypatch.setattr(hooks, "FOLDER", tmp_path / "etc")


def test_it_asks_the_one_agent_that_runs_here_and_goes_again(tmp_path: Path, play: Play) -> None:
    paths.host_run_dir("local", "n1").mkdir(parents=True)
    path = tmp_path / "etc" / "qemu.d" / hooks.NAME
    ran = play("host", "install-hooks")
    assert (ran.code, ran.out) == (0, f"{path}: asks the agent of n1; restart libvirtd once\n")
    assert str(paths.host_run_dir("local", "n1") / hooks.SOCKET) in path.read_text()
    again = json.loads(play("host", "install-hooks", "--json").out)
    assert (again["changed"], again["host"], again["path"]) == (False, "n1", str(path))
    assert play("host", "install-hooks", "--remove").out == f"removed: {path}\n" and not path.exists()
    assert play("host", "install-hooks", "--remove").out == f"{tmp_path / 'etc'}: none of ours was there\n"


def test_of_several_agents_one_has_to_be_named(tmp_path: Path, play: Play) -> None:
    ran = play("host", "install-hooks")
    assert ran.code == 1 and "--name HOST says so; agents of local that ran here: none" in ran.err
    for name in ("n1", "n2"):
        paths.host_run_dir("local", name).mkdir(parents=True)
    ran = play("host", "install-hooks")
    assert ran.code == 1 and "ran here: n1, n2" in ran.err
    assert play("host", "install-hooks", "--name", "n2", "--dir", str(tmp_path / "own")).code == 0
    assert (tmp_path / "own" / "qemu.d" / hooks.NAME).exists()


def test_an_agent_that_never_ran_here_may_be_named_beforehand_and_that_is_said(play: Play) -> None:
    ran = play("host", "install-hooks", "--name", "n7")
    assert ran.code == 0 and "no agent of n7 has run here" in ran.err


def test_without_libvirt_or_beside_somebody_elses_it_says_what_to_do(
    tmp_path: Path, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "version", lambda: None)
    ran = play("host", "install-hooks", "--name", "n1")
    assert ran.code == 1 and "this host has no libvirtd" in ran.err
    monkeypatch.setattr(hooks, "version", lambda: (5, 0))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "qemu").write_text("#!/bin/sh\n")
    ran = play("host", "install-hooks", "--name", "n1")
    assert ran.code == 1 and "somebody else's hook" in ran.err
