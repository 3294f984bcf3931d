"""`start`, `stop` and their kind, `migrate`, `probe`: asks for it, waits for the end, and says how it went."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from typing import Any

from playground.cli import progress, render, site, timeline
from playground.cli.failure import BROKEN, DONE, REFUSED, Failure, NotConverged, UsageFailure
from playground.client import Client, Refused, Unreachable
from playground.machine import MOST_GRACE_S

_POLL_S = 0.1
_HOLD_S = 5
"""How long the controller may hold an answer about a move back, seconds."""

PROBE_S = 300.0
"""How long all pairs of a playground may take."""

ENDED = frozenset({"settled", "aborted"})

BEYOND_S = 30.0
"""How much longer than a move may last its result is waited for: calling it off, settling and measuring take time."""


def start(args: argparse.Namespace) -> int:
    return _ask(args, "start")


def stop(args: argparse.Namespace) -> int:
    if args.grace is not None and not 0 <= args.grace <= MOST_GRACE_S:
        raise UsageFailure(f"--grace takes seconds from 0 to {MOST_GRACE_S:g}")
    return _ask(args, "stop", {} if args.grace is None else {"grace_s": args.grace})


def suspend(args: argparse.Namespace) -> int:
    return _ask(args, "suspend")


def resume(args: argparse.Namespace) -> int:
    return _ask(args, "resume")


def save(args: argparse.Namespace) -> int:
    return _ask(args, "save")


def restore(args: argparse.Namespace) -> int:
    return _ask(args, "restore")


def reboot(args: argparse.Namespace) -> int:
    return _ask(args, "reboot")


def _ask(args: argparse.Namespace, verb: str, more: Mapping[str, Any] | None = None) -> int:
    client = site.client_of(args)
    answer = client.post(verb, {"workspace": args.workspace, **(more or {})})
    wanted = answer["desired"]
    if not args.no_wait:
        try:
            answer["state"] = _wait_for_state(client, answer["workspace"], wanted, args.timeout)
        except KeyboardInterrupt:
            said = f"{render.word(answer, 'workspace')} is to be {wanted}, and that goes on"
            print(f"playground: {said}; see `playground status`", file=sys.stderr)
            raise
    print(render.json_text(answer) if args.json else f"{render.word(answer, 'workspace')}: {wanted}")
    return DONE


def _wait_for_state(client: Client, workspace: str, wanted: str, timeout: float) -> str:
    """Until PLAYGROUND/NAME is in the wanted state. Raises NotConverged with the cause."""
    playground, _, name = workspace.partition("/")
    line = progress.Line()
    deadline = time.monotonic() + timeout
    try:
        while True:
            try:
                found = _workspace(client, playground, name)
                if found["state"] == wanted:
                    return wanted
                said = f"{workspace}: {found['state']}" + (f", {found['cause']}" if found.get("cause") else "")
            except Unreachable as error:  # it was accepted; a controller that is started again goes on with it
                said = f"{workspace}: {error}"
            if time.monotonic() > deadline:
                raise NotConverged(f"{said}; not {wanted} within {timeout:g} s")
            line.show(said)
            time.sleep(_POLL_S)
    finally:
        line.clear()


def _workspace(client: Client, playground: str, name: str) -> dict[str, Any]:
    answer = client.get("status", {"playground": playground})
    for found in answer["playgrounds"]:
        for workspace in found["workspaces"]:
            if workspace["name"] == name:
                return dict(workspace)
    raise Failure(f"{playground}/{name} is gone: its playground was changed meanwhile")


def migrate(args: argparse.Namespace) -> int:
    """Moves, or calls a move off."""
    if args.abort == (args.host is not None):
        raise UsageFailure("name a host to move to, or --abort, one of them: playground migrate WORKSPACE HOST")
    if args.plot:
        timeline.check(args.plot)
    client = site.client_of(args)
    if args.abort:
        answer = client.post("abort", {"workspace": args.workspace})
        done = "is" if answer["state"] == "aborted" else "is being"  # a hypervisor is asked, and may say no
        said = f"{render.word(answer, 'workspace')}: the move {done} called off ({render.word(answer, 'state')})"
        print(render.json_text(answer) if args.json else said)
        return DONE
    order = {"workspace": args.workspace, "host": args.host, "measure": not args.no_measure}
    manner = {
        "dry_run": args.dry_run,
        "post_copy": args.post_copy,
        "auto_converge": args.auto_converge,
        "copy_storage": args.copy_storage,
        "bandwidth_mib_s": args.bandwidth,
        "timeout_s": args.timeout,
        "max_gap_ms": args.max_gap,
    }
    order |= {word: value for word, value in manner.items() if value}
    asked = client.post("migrate", order)
    if args.dry_run:
        print(render.json_text(asked) if args.json else verdict_text(asked))
        return DONE if asked["may_move"] else REFUSED
    try:
        result = follow_move(client, asked, asked["timeout_s"] + BEYOND_S)
    except KeyboardInterrupt:
        ref = f"{asked['playground']}/{asked['workspace']}"
        print(f"playground: the move goes on; `playground migrate {ref} --abort` calls it off", file=sys.stderr)
        raise
    print(
        render.json_text(result) if args.json else "\n".join(filter(None, (move_text(result), timeline.text(result))))
    )
    if args.plot:
        timeline.draw(result, args.plot)
    if result["state"] != "settled":
        print(f"playground: the move was aborted: {result.get('cause') or 'no cause was given'}", file=sys.stderr)
        return REFUSED
    if result.get("promise") in ("broken", "unknown"):
        print(f"playground: it has moved, and {_broken(result)}", file=sys.stderr)
        return BROKEN
    return DONE


def _broken(result: dict[str, Any]) -> str:
    allowed = f"--max-gap {result['max_gap_ms']:g}"
    if result["promise"] == "unknown":
        return f"whether {allowed} was kept is not known: its measurement failed"
    return f"{allowed} was not kept: the longest silence was {render.milliseconds(result['gap_ms'])}"


def verdict_text(verdict: dict[str, Any]) -> str:
    """Whether a workspace may be moved, and each thing that was looked at."""
    may = "may be moved" if verdict["may_move"] else "may not be moved"
    head = f"{render.word(verdict, 'workspace')}: {render.word(verdict, 'from')} → {render.word(verdict, 'to')}, {may}"
    return f"{head}\n\n{_table(('about', 'said', 'text'), verdict['findings'])}"


def follow_move(client: Client, asked: dict[str, Any], timeout: float) -> dict[str, Any]:
    """The result of the move that `POST /v1/migrate` answered with. Raises NotConverged, and Failure when the workspace
    is removed, or moved again, before that was read."""
    workspace = f"{asked['playground']}/{asked['workspace']}"
    line = progress.Line()
    deadline = time.monotonic() + timeout
    state = "requested"
    try:
        while True:
            left = deadline - time.monotonic()
            hold = max(min(_HOLD_S, left), 0.0)
            query = {"workspace": workspace, "generation": asked["generation"], "wait_s": f"{hold:.1f}"}
            try:
                result: dict[str, Any] = client.get("migrations", query)
                state = result["state"]
                if result["generation"] > asked["generation"]:
                    raise Failure(_overtaken(workspace, asked, result))
                if state in ENDED and result.get("finished", True):
                    return result
            except Refused as refusal:
                if refusal.status != 404:
                    raise
                raise Failure(f"{workspace} was removed while it was moved to {asked['to']}") from refusal
            except Unreachable as error:
                state = str(error)
            if left <= 0:
                raise NotConverged(f"{workspace}: the move is not settled within {timeout:g} s ({state}); it goes on")
            line.show(f"{workspace}: {asked['from']} → {asked['to']}, {state}")
            time.sleep(_POLL_S)
    finally:
        line.clear()


def _overtaken(workspace: str, asked: dict[str, Any], newer: dict[str, Any]) -> str:
    """What became of a move whose result a newer one has replaced; a move begins where the last one ended."""
    ended = "arrived" if newer["from"] == asked["to"] else "is over"
    onward = f"{render.word(newer, 'from')} → {render.word(newer, 'to')}, {render.word(newer, 'state')}"
    return f"{workspace}: the move to {asked['to']} {ended}, and another one has followed it ({onward})"


def move_text(result: dict[str, Any]) -> str:
    """`worker-1: n1 → n3, settled; gap 2.1 ms, lost 0, duplicated 0, pause 0.4 ms`."""
    moved = f"{render.word(result, 'workspace')}: {render.word(result, 'from')} → {render.word(result, 'to')}"
    measured = "not measured"
    if result.get("gap_ms") is not None:
        measured = (
            f"gap {render.milliseconds(result['gap_ms'])}, lost {result['lost']}, duplicated {result['duplicated']}"
        )
    pause = f", pause {render.milliseconds(result['pause_ms'])}" if result.get("pause_ms") is not None else ""
    return f"{moved}, {render.word(result, 'state')}; {measured}{pause}"


def probe(args: argparse.Namespace) -> int:
    """1 where anything differs, or could not be observed."""
    client = site.client_of(args)
    line = progress.Line()
    line.show(f"{args.name}: trying all pairs")
    try:
        answer = client.post("probe", {"playground": args.name}, timeout=PROBE_S)
    finally:
        line.clear()
    if args.json:
        print(render.json_text(answer))
    else:
        print(probe_text(args.name, answer))
    return REFUSED if answer["mismatches"] or answer.get("unobserved") else DONE


def probe_text(name: str, answer: dict[str, Any]) -> str:
    """How many pairs, each that differs, and those that nobody could try."""
    mismatches, unobserved = answer["mismatches"], answer.get("unobserved", [])
    verdict = f"{len(mismatches)} not as modelled" if mismatches else "all as modelled"
    knocks = f" by ping and {render.count(answer['knocks'], 'port')}" if answer.get("knocks") else ""
    head = f"{name}: {render.count(answer['pairs'], 'pair')} tried{knocks}, {verdict}"
    if answer.get("alike"):
        head += f"; at ports, {render.count(answer['alike'], 'pair')} left to others of the same kind"
    if unobserved:
        head += f"; {render.count(sum(row['pairs'] for row in unobserved), 'pair')} not observed"
    parts = [head]
    if mismatches:
        columns = ("from", "to", "address", "port", "expected", "observed")
        parts.append(_table(columns, mismatches))
    if unobserved:
        parts.append(_table(("from", "pairs", "cause"), unobserved))
    return "\n\n".join(parts)


def _table(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> str:
    return render.table(
        tuple(column.upper() for column in columns), ([render.word(row, key) for key in columns] for row in rows)
    )
