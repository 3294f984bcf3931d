"""`host drain` and `host resume`: says the wish, and follows what comes of it."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from playground.cli import progress, render, site
from playground.cli.failure import DONE, REFUSED, NotConverged, UsageFailure
from playground.client import Client, Unreachable, segment

_HOLD_S = 1.0
"""How long the controller may hold an answer back, seconds."""

_POLL_S = 0.1

MOST = 64

Drain = dict[str, Any]


def drain(args: argparse.Namespace) -> int:
    """1 where something is left that can't leave by itself."""
    if args.parallel is not None and not 1 <= args.parallel <= MOST:
        raise UsageFailure(f"--parallel takes a number of moves, 1 to {MOST}")
    client = site.client_of(args)
    path = f"hosts/{segment(args.host)}/drain"
    answer = client.put(path, {"parallel": args.parallel})
    if not args.no_wait:
        try:
            answer = _follow(client, path, answer, args.timeout)
        except KeyboardInterrupt:
            print(f"playground: the drain goes on; `playground host resume {args.host}` ends it", file=sys.stderr)
            raise
    print(render.json_text(answer) if args.json else _summary(answer))
    stuck = [row for row in answer["left"] if row["state"] == "stuck"]
    if args.no_wait or not stuck:
        return DONE
    if not args.json:
        print("\n".join(_lines(answer)), file=sys.stderr)
    remedy = f"the wish stands, `playground host resume {args.host}` ends it"
    print(
        f"playground: {args.host} is not empty: {render.count(len(stuck), 'object')} can't leave; {remedy}",
        file=sys.stderr,
    )
    return REFUSED


def resume(args: argparse.Namespace) -> int:
    answer = site.client_of(args).delete(f"hosts/{segment(args.host)}/drain")
    print(render.json_text(answer) if args.json else f"{args.host}: takes workspaces again")
    return DONE


def _follow(client: Client, path: str, answer: Drain, timeout: float) -> Drain:
    """Until the host is empty, or nothing more leaves it by itself. Raises NotConverged."""
    line = progress.Line()
    deadline = time.monotonic() + timeout
    total = len(answer["left"])
    try:
        while True:
            if answer["drain"] != "draining" or all(row["state"] == "stuck" for row in answer["left"]):
                return answer
            left = deadline - time.monotonic()
            if left <= 0:
                causes = "".join(f"\n{line}" for line in _lines(answer))
                raise NotConverged(f"{answer['host']} is not empty within {timeout:g} s; it goes on{causes}")
            total = max(total, len(answer["left"]))
            line.show(f"{_summary(answer)}, {total - len(answer['left'])} of {total} have left")
            try:
                answer = client.get(path, {"wait_s": f"{min(_HOLD_S, left):.1f}"})
            except Unreachable as error:  # the wish stands; a controller that is started again goes on with it
                line.show(f"{answer['host']}: {error}")
                time.sleep(_POLL_S)
    finally:
        line.clear()


def _summary(answer: Drain) -> str:
    """`n1: drained`, `n1: draining, 2 moving, 3 waiting, 1 stuck`."""
    if answer["drain"] is None:
        return f"{answer['host']}: takes workspaces; the drain was ended"
    states = [row["state"] for row in answer["left"]]
    counts = [f"{states.count(state)} {state}" for state in ("moving", "waiting", "stuck") if state in states]
    return ", ".join([f"{answer['host']}: {answer['drain']}", *counts])


def _lines(answer: Drain) -> list[str]:
    """A line for each that is left: `  workspace atlas/w: stuck, it is pinned to n1, and n1: draining`."""
    found = []
    for row in answer["left"]:
        kind, _, name = row["object"].partition(" ")
        said = [row["state"], *([f"to {row['to']}"] if row["to"] else []), *([row["cause"]] if row["cause"] else [])]
        found.append(render.printable(f"  {kind} {row['playground']}/{name}: {', '.join(said)}"))
    return found
