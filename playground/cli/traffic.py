"""A stream of datagrams and a TCP transfer to a workspace while it moves, and what arrived. Knows no terminal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from playground.cli import lifecycle, remote, render
from playground.cli.failure import Failure
from playground.client import Client

UDP_PORT, TCP_PORT = 47001, 47002
RATE = 1000
"""Datagrams a second: a gap is known to the millisecond."""

TCP_MBPS = 100

MOVE_S = 30.0
"""How long a move may take, and the streams last at most."""

AROUND_S = 0.4
"""How long the streams run before the move, and after it."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Move:
    """A worker, where it goes, and a workspace on a third host that shares a network with it."""

    moving: str
    source: str
    target: str
    sender: str
    sender_host: str
    addresses: tuple[str, ...]
    """The moving one's on the shared network."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the receivers counted: `receive` and `tcp-receive` of `playground.workspaces.stream`.

    late_ms: the most that a datagram left after its time; a silence up to that says nothing of the network.
    """

    udp: Row
    tcp: Row
    late_ms: float


class Streams:
    """A stream of datagrams and a TCP transfer from one workspace to another, around a move of the latter."""

    def __init__(self, client: Client, playground: str, move: Move) -> None:
        self._client = client
        self._playground = playground
        self._plan = move
        self._receivers: list[remote.Command] = []
        self._senders: list[remote.Command] = []

    def start(self) -> None:
        """Both run, and have for `AROUND_S`."""
        plan = self._plan
        udp, tcp = ["--port", str(UDP_PORT)], ["--port", str(TCP_PORT)]
        for verb, where in (("receive", udp), ("tcp-receive", tcp)):
            self._receivers.append(self._run(plan.moving, [verb, *where, "--patience", f"{MOVE_S:g}"]))
        if not remote.attend(self._receivers, lambda: all(b"listening" in r.stderr for r in self._receivers), 10.0):
            raise Failure(f"the receivers in {plan.moving} do not listen: {_words(self._receivers)}")
        first, last = plan.addresses[0], plan.addresses[-1]
        lasting = ["--seconds", f"{MOVE_S:g}"]
        self._senders.append(self._run(plan.sender, ["send", "--to", first, *udp, "--rate", str(RATE), *lasting]))
        self._senders.append(
            self._run(plan.sender, ["tcp-send", "--to", last, *tcp, "--mbps", str(TCP_MBPS), *lasting])
        )
        self._keep_running(AROUND_S)

    def move(self) -> Row:
        """The move's result, while the streams go on. Raises Failure when it does not end in time."""
        asked = self._client.post(
            "migrate",
            {"workspace": f"{self._playground}/{self._plan.moving}", "host": self._plan.target, "measure": False},
        )
        query = {"workspace": f"{asked['playground']}/{asked['workspace']}", "generation": asked["generation"]}
        result: Row = {}

        def is_over() -> bool:
            result.update(self._client.get("migrations", query))
            return result["state"] in lifecycle.ENDED

        if not remote.attend(self._commands(), is_over, MOVE_S):
            raise Failure(f"{self._plan.moving} did not arrive within {MOVE_S:g} s: the move is {result['state']}")
        self._keep_running(AROUND_S)
        return result

    def finish(self) -> Measured:
        """Ends the senders; what the receivers counted. Raises Failure when any of them did not end well."""
        for sender in self._senders:
            sender.signal("TERM")
        commands = self._commands()
        ended = remote.attend(commands, lambda: all(command.code is not None for command in commands), 15.0)
        if not ended or any(command.code for command in commands):
            raise Failure(f"the streams did not end as they should: {_words(commands)}")
        udp, tcp, sent, _ = (json.loads(command.stdout) for command in commands)
        return Measured(udp, tcp, sent["late_ms"])

    def close(self) -> None:
        """Hangs up on all of them."""
        for command in self._commands():
            command.close()

    def _commands(self) -> list[remote.Command]:
        return [*self._receivers, *self._senders]

    def _run(self, workspace: str, words: list[str]) -> remote.Command:
        return remote.Command(self._client, remote.Order(["@stream", *words], f"{self._playground}/{workspace}"))

    def _keep_running(self, seconds: float) -> None:
        remote.attend(self._commands(), lambda: False, seconds)
        if any(sender.code is not None for sender in self._senders):
            raise Failure(f"a stream ended early: {_words(self._senders)}")


def choose(ports: list[Row], hosts: list[str]) -> Move:
    """A worker to move, with sender, source and target on three hosts. Raises Failure where there is none."""
    for port in ports:
        if not port["workspace"].startswith("worker"):
            continue
        for other in ports:
            targets = [host for host in hosts if host not in (port["host"], other["host"])]
            if other["network"] == port["network"] and other["host"] != port["host"] and targets:
                return Move(
                    moving=port["workspace"],
                    source=port["host"],
                    target=targets[0],
                    sender=other["workspace"],
                    sender_host=other["host"],
                    addresses=tuple(port["addresses"]),
                )
    raise Failure("no worker can be moved: there are not three hosts with workspaces of one network")


def _words(commands: list[remote.Command]) -> str:
    said = [command.stderr.decode(errors="replace").strip() for command in commands]
    return render.printable("; ".join(filter(None, said)) or "they said nothing")
