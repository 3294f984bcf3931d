"""`port bindings`, `bind`, `activate`, `abort`: the two-phase binding of a port that its owner moves."""

from __future__ import annotations

import argparse
import time
from typing import Any

from playground.cli import render, site
from playground.cli.failure import DONE, Failure, NotConverged
from playground.client import Client, Unreachable, segment

_HOLD_S = 5.0
"""How long the controller may hold an answer back, seconds."""

_COLUMNS = ("host", "state", "generation", "cause")


def show(args: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = site.client_of(args).get(_path(args))
    table = render.table(
        tuple(column.upper() for column in _COLUMNS), ([render.word(row, key) for key in _COLUMNS] for row in rows)
    )
    print(render.json_text(rows) if args.json else table)
    return DONE


def bind(args: argparse.Namespace) -> int:
    client = site.client_of(args)
    answer = client.post(f"{_path(args)}?wait_s=0", {"host": args.host})
    return _say(args, _once(client, args, answer, ("prepared", "active")))


def activate(args: argparse.Namespace) -> int:
    client = site.client_of(args)
    generation = _generation(client, args)
    answer = client.post(f"{_path(args, args.host)}/activate?wait_s=0", {"generation": generation})
    return _say(args, _once(client, args, answer, ("active",)))


def abort(args: argparse.Namespace) -> int:
    client = site.client_of(args)
    return _say(args, client.delete(f"{_path(args, args.host)}?generation={_generation(client, args)}"))


def _path(args: argparse.Namespace, host: str = "") -> str:
    return f"ports/{segment(args.port)}/bindings" + (f"/{segment(host)}" if host else "")


def _generation(client: Client, args: argparse.Namespace) -> int:
    if args.generation is not None:
        return int(args.generation)
    return int(client.get(_path(args, args.host))["generation"])


def _once(client: Client, args: argparse.Namespace, answer: dict[str, Any], wanted: tuple[str, ...]) -> dict[str, Any]:
    """The binding once it is in a wanted state. Raises NotConverged with what it waits for, and Failure when it was
    aborted, or another one has taken its place."""
    generation = answer["generation"]
    deadline = time.monotonic() + args.timeout
    while answer["state"] not in wanted:
        if answer["state"] == "aborted" or answer["generation"] != generation:
            raise Failure(f"generation {generation} on {args.host} is over: {answer['cause'] or answer['state']}")
        if (left := deadline - time.monotonic()) <= 0:
            cause = answer["cause"] or "its host has not said that it is ready"
            raise NotConverged(f"{answer['device']} is {answer['state']} on {args.host}: {cause}; it is tried on")
        try:
            answer = client.get(_path(args, args.host), {"wait_s": f"{min(left, _HOLD_S):.1f}"})
        except Unreachable:  # it was accepted; a controller that is started again goes on with it
            time.sleep(0.1)
    return answer


def _say(args: argparse.Namespace, answer: dict[str, Any]) -> int:
    said = f"{answer['device']}: {answer['state']} on {answer['host']}, generation {answer['generation']}"
    print(render.json_text(answer) if args.json else said)
    return DONE
