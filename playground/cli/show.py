"""`hosts`, `ports`, `events`: what the controller says, as a table or as JSON. Changes nothing but tokens."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from playground.cli import render, site
from playground.cli.failure import DONE, UsageFailure
from playground.cli.following import Following
from playground.client import Client, segment

_EVENTS_WAIT_S = 10

Row = dict[str, Any]


def hosts(args: argparse.Namespace) -> int:
    """The hosts; with `token NAME`, a new token."""
    client = site.client_of(args)
    if args.action == "token":
        if args.host is None:
            raise UsageFailure("name the host: playground hosts token NAME")
        answer = client.post(f"hosts/{segment(args.host)}/token")
        print(render.json_text(answer) if args.json else answer["token"])
        return DONE
    return _show(args, client.get("hosts"), hosts_table, "no hosts; `playground up FILE --emulate N` makes some")


def ports(args: argparse.Namespace) -> int:
    rows = site.client_of(args).get("ports", {"playground": args.name})
    return _show(args, rows, ports_table, "no ports: nothing is up; `playground up FILE` changes that")


def events(args: argparse.Namespace) -> int:
    """With --follow, until it is interrupted; each event once, over the controller's restarts too."""
    client = site.client_of(args)
    rows = _all_events(client)
    if not args.follow:
        print(render.json_text(rows) if args.json else _event_lines(rows))
        return DONE
    following = Following(args)
    last = 0
    while True:
        if rows:
            if last and (missed := rows[0]["id"] - last - 1) > 0:
                said = render.count(missed, "event")
                print(f"playground: {said} can't be shown any more: only the latest are kept", file=sys.stderr)
            last = rows[-1]["id"]
            lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
            print(lines if args.json else _event_lines(rows), flush=True)
        rows = following.ask(partial(_next_events, client, last), partial(_all_events, client))
        if rows and rows[-1]["id"] < last:
            print("playground: its store is another one, or was put back: all that it has", file=sys.stderr)
            last = 0
        rows = [row for row in rows if row["id"] > last]


def _all_events(client: Client) -> list[Row]:
    return list(client.get("events", {"after": 0}))


def _next_events(client: Client, last: int) -> list[Row]:
    """Events after `last`; the controller holds its answer back until there are some."""
    started = time.monotonic()
    rows: list[Row] = client.get("events", {"after": last, "wait_s": _EVENTS_WAIT_S})
    if not rows and time.monotonic() - started < 1:
        time.sleep(0.5)  # a controller that does not hold back is not asked again and again
    return rows


def _event_lines(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        at = _clock(row["at"])
        said = "  ".join(render.word(row, key) for key in ("object", "kind", "text"))
        lines.append(f"{at}  {said}".rstrip())
    return "\n".join(lines)


def _clock(utc_s: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(utc_s))


def hosts_table(rows: Sequence[Row], ink: render.Ink) -> str:
    """A line a host: what is taken of what it gives, since when where it is not up, labels and problems."""
    return render.table(
        ("HOST", "STATE", "DRAIN", "SINCE", "UNDERLAY", "PORTS", "CPUS", "MEMORY", "LABELS", "REPAIRED", "PROBLEMS"),
        (
            (
                render.word(row, "name"),
                ink.state(render.word(row, "state")),
                render.word(row, "drain"),
                _clock(row["since"]) if row.get("since") and row["state"] != "up" else "",
                render.word(row, "underlay"),
                render.word(row, "ports"),
                _taken(row.get("cpus"), lambda number: f"{number:g}"),
                _taken(row.get("memory_mib"), render.mebibytes),
                _pairs(row.get("labels")),
                _pairs(row.get("repaired")),
                render.word(row, "problems"),
            )
            for row in rows
        ),
        ink,
    )


def ports_table(rows: Sequence[Row], ink: render.Ink) -> str:
    """A line a port; the playground's column only where there are several."""
    several = len({row["playground"] for row in rows}) > 1
    return render.table(
        ("PLAYGROUND", "WORKSPACE", "NETWORK", "ADDRESSES", "MAC", "HOST", "STATE", "CAUSE"),
        (
            (
                render.word(row, "playground") if several else "",
                render.word(row, "workspace"),
                render.word(row, "network"),
                render.word(row, "addresses"),
                render.word(row, "mac"),
                render.word(row, "host"),
                ink.state(render.word(row, "state")),
                render.word(row, "cause"),
            )
            for row in rows
        ),
        ink,
    )


def _taken(room: dict[str, Any] | None, text: Callable[[float], str]) -> str:
    """`2 of 8`; nothing before the host has said what it has."""
    return f"{text(room['taken'])} of {text(room['given'])}" if room and room["given"] is not None else ""


def _pairs(values: Any) -> str:
    return render.printable(", ".join(f"{key}={value}" for key, value in sorted((values or {}).items())))


def _show(args: argparse.Namespace, rows: list[Row], table: Any, empty: str) -> int:
    if args.json:
        print(render.json_text(rows))
    elif rows:
        print(table(rows, render.Ink.of(sys.stdout)))
    else:
        print(f"playground: {empty}", file=sys.stderr)
    return DONE
