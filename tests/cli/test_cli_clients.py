"""`leases`, `why` and `capture`: what is shown of clients, and what is asked of whom."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_lab import FakeController, Play, a_port

from playground.cli import clients
from playground.cli.failure import Failure
from playground.client import Client


def a_lease(**changes: Any) -> dict[str, Any]:
    lease = {
        "playground": "atlas",
        "workspace": "head",
        "network": "grid",
        "mac": "02:00:00:00:00:01",
        "address": "10.20.0.100",
        "host": "n1",
        "state": "bound",
        "since": 400.0,
        "until": 4000.0,
        "client_id": "01ff",
        "vendor": "udhcp\x1b[2J",
        "hostname": "head",
        "seen": 980.0,
    }
    return lease | changes


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It is 1000 s."""
    monkeypatch.setattr(clients.time, "time", lambda: 1000.0)
    yield


def test_leases_say_who_has_what_since_and_until_when(controller: FakeController, play: Play, noon: None) -> None:
    unknown = a_lease(
        address="10.20.0.101", since=None, until=None, seen=None, client_id="", vendor="", state="offered"
    )
    controller.answers["GET leases"] = [[a_lease(), unknown, a_lease(until=900.0)]]
    lines = play("leases").out.splitlines()
    assert lines[0].split() == [
        "ADDRESS", "WORKSPACE", "NETWORK", "MAC", "HOST", "STATE", "SINCE", "UNTIL", "CLIENT", "SEEN",
    ]  # fmt: skip
    assert "bound    10 min ago  in 50 min  udhcp\\x1b[2J 01ff  20 s ago" in lines[1]
    assert lines[2].split()[5:] == ["offered", "-", "-", "-", "-"]
    assert "100 s ago" in lines[3]


def test_why_says_its_findings_first_and_the_messages_after(
    controller: FakeController, play: Play, noon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients.time, "localtime", clients.time.gmtime)
    row = a_lease(addresses=["10.20.0.100"], findings=["once it asked\x07"], counts={"NAK": 1}) | {
        "exchanges": [{"at": 995.0, "what": "", "mac": "02:00:00:00:00:09", "address": "", "outcome": "foreign_mac"}]
    }
    controller.answers["GET why"] = [[row]]
    assert play("why", "head").out == (
        "atlas/head on grid: 10.20.0.100, 02:00:00:00:00:01, host n1\n"
        "  once it asked\\x07\n"
        "  its client: udhcp\\x1b[2J 01ff, heard 20 s ago\n"
        "  TIME      FROM               MESSAGE  ADDRESS  ANSWER\n"
        "  00:16:35  02:00:00:00:00:09  -        -        foreign mac\n"
    )
    assert json.loads(play("why", "head", "--json").out) == [row]
    assert controller.asked[0] == ("GET why", {"of": "head"}, None)


class FakePorts:
    """A client of a controller with these ports."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = list(rows)

    def get(self, path: str) -> list[dict[str, Any]]:
        assert path == "ports"
        return self.rows


def port(workspace: str, network: str | None, *rows: dict[str, Any]) -> dict[str, Any]:
    client: Client = FakePorts(*rows)  # type: ignore[assignment]
    return clients._port(client, workspace, network)


def test_a_capture_is_of_the_first_nic_or_of_the_network_that_is_named() -> None:
    rows = a_port(), a_port(network="public", device="pg2")
    assert port("head", None, *rows)["device"] == "pg0123456789ab"
    assert port("atlas/head", "public", *rows)["device"] == "pg2"


@pytest.mark.parametrize(
    ("workspace", "network", "said"),
    [
        ("head", None, "head is ambiguous; say one of atlas/head, beta/head"),
        ("atlas/head", "dmz", "atlas/head is not on dmz; it is on grid"),
        ("nobody", None, "no workspace nobody"),
        ("beta/head", None, "beta/head is on no host: waits for a host"),
    ],
)
def test_a_capture_of_no_port_says_which_there_are(workspace: str, network: str | None, said: str) -> None:
    rows = a_port(), a_port(playground="beta", host=None, state="unplaced", cause="waits for a host")
    with pytest.raises(Failure) as failed:
        port(workspace, network, *rows)
    assert str(failed.value) == said


def test_a_file_that_can_not_be_written_is_said_before_anything_is_captured(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="can't be written"), clients._output(str(tmp_path / "no" / "x.pcap")):
        pass
