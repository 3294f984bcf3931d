"""`leases`, `why`, `capture`: workspaces' clients, what they have, why they don't, and what passes at their ports."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from playground.cli import render, site
from playground.cli.execute import join, signals_for
from playground.cli.failure import DONE, Failure
from playground.cli.remote import Command, Order
from playground.client import Client

Row = dict[str, Any]


def leases(args: argparse.Namespace) -> int:
    """Who has which address since when."""
    rows = site.client_of(args).get("leases", {"playground": args.name})
    if args.json:
        print(render.json_text(rows))
    elif rows:
        print(_leases_table(rows, render.Ink.of(sys.stdout), time.time()))
    else:
        print("playground: no leases: nothing is up; `playground up FILE` changes that", file=sys.stderr)
    return DONE


def _leases_table(rows: Sequence[Row], ink: render.Ink, now_utc_s: float) -> str:
    several = len({row["playground"] for row in rows}) > 1
    who = ("PLAYGROUND", "ADDRESS", "WORKSPACE", "NETWORK", "MAC", "HOST", "STATE")
    return render.table(
        (*who, "SINCE", "UNTIL", "CLIENT", "SEEN"),
        (
            (
                render.word(row, "playground") if several else "",
                *(render.word(row, key) for key in ("address", "workspace", "network", "mac", "host")),
                ink.state(render.word(row, "state")),
                _ago(row, "since", now_utc_s),
                _left(row, now_utc_s),
                _client(row),
                _ago(row, "seen", now_utc_s),
            )
            for row in rows
        ),
        ink,
    )


def _ago(row: Row, key: str, now_utc_s: float) -> str:
    return "" if row.get(key) is None else render.age(now_utc_s - row[key])


def _left(row: Row, now_utc_s: float) -> str:
    if row.get("until") is None:
        return ""
    left_s = row["until"] - now_utc_s
    return f"in {render.age(left_s).removesuffix(' ago')}" if left_s > 0 else render.age(-left_s)


def _client(row: Row) -> str:
    """What the client says of itself: its software, its identifier."""
    return " ".join(filter(None, (render.word(row, "vendor"), render.word(row, "client_id"))))


def why(args: argparse.Namespace) -> int:
    """Why a workspace, or whoever has an address, has what it has."""
    rows = site.client_of(args).get("why", {"of": args.of})
    if args.json:
        print(render.json_text(rows))
        return DONE
    print("\n\n".join(_why(row, time.time()) for row in rows))
    return DONE


def _why(row: Row, now_utc_s: float) -> str:
    where = f"{render.word(row, 'playground')}/{render.word(row, 'workspace')} on {render.word(row, 'network')}"
    facts = (render.word(row, "addresses"), render.word(row, "mac"), f"host {render.word(row, 'host') or 'none'}")
    lines = [f"{where}: {', '.join(filter(None, facts))}"]
    lines += [f"  {render.printable(finding)}" for finding in row["findings"]]
    if said := _client(row):
        lines.append(f"  its client: {said}, heard {_ago(row, 'seen', now_utc_s)}")
    if row["exchanges"]:
        table = render.table(
            ("TIME", "FROM", "MESSAGE", "ADDRESS", "ANSWER"),
            (
                (
                    time.strftime("%H:%M:%S", time.localtime(one["at"])),
                    render.word(one, "mac"),
                    render.word(one, "what") or "-",
                    render.word(one, "address") or "-",
                    render.word(one, "outcome").replace("_", " "),
                )
                for one in row["exchanges"]
            ),
        )
        lines += [f"  {line}" for line in table.splitlines()]
    return "\n".join(lines)


def capture(args: argparse.Namespace) -> int:
    """The exit code of what captures; until Ctrl-C."""
    client = site.client_of(args)
    row = _port(client, args.workspace, args.network)
    argv = ["@capture", *([] if args.write else ["--text"]), row["device"], *([args.filter] if args.filter else [])]
    with _output(args.write) as (stdout, stdin), signals_for(tty=False) as signals:
        command = Command(client, Order(argv, host=row["host"]))
        try:
            return join(command, stdin, stdout, 2, signals)
        finally:
            command.close()


def _port(client: Client, workspace: str, network: str | None) -> Row:
    """The port that is meant: of the first NIC where no network is named. Raises Failure."""
    playground, _, name = workspace.rpartition("/")
    rows: list[Row] = [
        row for row in client.get("ports") if row["workspace"] == name and playground in ("", row["playground"])
    ]
    if len({row["playground"] for row in rows}) > 1:
        names = ", ".join(sorted({f"{row['playground']}/{name}" for row in rows}))
        raise Failure(f"{workspace} is ambiguous; say one of {names}")
    chosen = [row for row in rows if network in (None, row["network"])]
    if not chosen:
        known = ", ".join(row["network"] for row in rows)
        raise Failure(f"{workspace} is not on {network}; it is on {known}" if rows else f"no workspace {workspace}")
    if chosen[0]["host"] is None:
        raise Failure(f"{workspace} is on no host: {chosen[0]['cause'] or chosen[0]['state']}")
    return chosen[0]


@contextlib.contextmanager
def _output(path: str | None) -> Iterator[tuple[int, int]]:
    """Where frames go, and an input that has ended. Raises Failure."""
    stdin = os.open(os.devnull, os.O_RDONLY)
    stdout = 1
    try:
        if path not in (None, "-"):
            try:
                stdout = os.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            except OSError as error:
                raise Failure(f"{path} can't be written: {error.strerror}") from None
        sys.stdout.flush()
        yield stdout, stdin
    finally:
        os.close(stdin)
        if stdout != 1:
            os.close(stdout)
