"""Daemons that can't start: one line on stderr says of which file, and 1 is the exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from playground.agent.__main__ import main as agent
from playground.controller.__main__ import main as controller

AGENT = ["--site", "lab", "--name", "n1", "--controller", "http://127.0.0.1:1", "--underlay", "127.0.0.1"]


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYGROUND_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("PLAYGROUND_STATE", str(tmp_path / "state"))


def test_an_agent_names_the_token_file_that_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = tmp_path / "token"
    assert agent([*AGENT, "--token-file", str(token)]) == 1
    assert capsys.readouterr().err == f"playground agent: {token}: No such file or directory\n"


def test_an_agent_without_rights_says_that_it_needs_root(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refused(options: object) -> int:
        raise PermissionError(1, "setns: Operation not permitted", "descriptor 7")

    monkeypatch.setattr("playground.agent.__main__._run", refused)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert agent([*AGENT, "--token-file", "token"]) == 1
    assert capsys.readouterr().err.endswith("; an agent needs root, or a user namespace of its own\n")


def test_a_controller_names_the_site_file_that_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "site.yaml"
    assert controller(["--site", "lab", "--site-file", str(file), "--store", "memory"]) == 1
    assert capsys.readouterr().err == f"playground controller: {file}: No such file or directory\n"


def test_a_controller_names_the_mistake_in_the_sites_policies_by_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "campus.yaml"
    file.write_text("name: campus\npolicies: [{subject: a=b, ingress: []}]\n")
    assert controller(["--site", "lab", "--site-file", str(file), "--store", "memory"]) == 1
    assert capsys.readouterr().err.startswith(f"playground controller: {file}:2:12: policies[0]: priority is missing")
