"""`site plan`, `apply`, `show`: the policies of a site, which outrank every playground's."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from playground.cli import policy_live, progress, render, site, sources
from playground.cli.edits import change_text, connections_text
from playground.cli.failure import DONE, REFUSED, NotConverged
from playground.client import Client, Unreachable

if TYPE_CHECKING:
    from playground.spec import SiteSpec

JUDGING_S = 120.0
"""How long a controller may compare what every playground of its site means."""

Row = dict[str, Any]


def plan(args: argparse.Namespace) -> int:
    """What `apply` would change."""
    spec = _read(args.file)
    answer = site.client_of(args).post("site/policies/plan", _sent(spec), timeout=JUDGING_S)
    if args.json:
        print(render.json_text(answer))
    else:
        print(told(answer, render.Ink.of(sys.stdout)))
    say_failing(answer, f"would not hold; {spec.file} would outrank them")
    return DONE


def apply(args: argparse.Namespace) -> int:
    """Waits until every host enforces it, and has read back that it does."""
    spec = _read(args.file)
    client, started = site.client_of(args), time.monotonic()
    answer = put(client, spec)
    ink = render.Ink.of(sys.stdout)
    if not args.json:
        print(told(answer, ink), flush=True)
    say_failing(answer, f"do not hold any more; {spec.file} outranks them")
    verified = None
    if not args.no_wait:
        _await_in_force(client, args.timeout)
        verified = policy_live.verified(client, None)
    seconds = time.monotonic() - started
    if args.json:
        print(render.json_text({**answer, "seconds": round(seconds, 3), "verified": verified}))
    elif verified is not None and answer["changes"]:
        hosts = render.count(verified["hosts"], "host")
        print(f"site {answer['name']}: {ink.good('in force')}, rules verified on {hosts}, {seconds:.1f} s")
    if verified is None or not (verified["differences"] or verified["unobserved"]):
        return DONE
    print(f"playground: {policy_live.verified_text(verified)}", file=sys.stderr)
    return REFUSED if verified["differences"] else DONE


def show(args: argparse.Namespace) -> int:
    """In the order in which they count."""
    answer = site.client_of(args).get("site/policies")
    if args.json:
        print(render.json_text(answer))
    elif args.text:
        sys.stdout.write(answer["text"] or "")
    elif rows := answer["policies"]:
        print(_table(rows, render.Ink.of(sys.stdout)))
    else:
        print(f"playground: site {answer['name']} has no policies; `playground site apply FILE`", file=sys.stderr)
    return DONE


def put(client: Client, spec: SiteSpec) -> Row:
    """Has the policies of a site's file accepted: the controller's answer."""
    answer: Row = client.put("site/policies", _sent(spec), timeout=JUDGING_S)
    return answer


def told(answer: Row, ink: render.Ink) -> str:
    """The policies that change, and what that opens and cuts in each playground."""
    parts = [change_text(f"site {answer['name']}", answer["changes"], ink)]
    for one in answer["playgrounds"]:
        if connections := connections_text(one["connections"], ink):
            parts.append(f"playground {one['name']}: {connections}")
    return "\n".join(parts)


def say_failing(answer: Row, what: str) -> None:
    """Lines of `tests:` that fail under these policies, and what of the file counts only later."""
    for one in answer["playgrounds"]:
        for problem in one["failing"]:
            place = ":".join(str(problem[key]) for key in ("file", "line", "column") if problem[key])
            print(render.printable(f"{place}: warning: {problem['message']}"), file=sys.stderr)
        if one["failing"]:
            print(f"playground: {render.count(len(one['failing']), 'test')} of {one['name']} {what}", file=sys.stderr)
    if answer["unapplied"]:
        listed = render.spelled(answer["unapplied"])
        print(f"playground: only its policies count; {listed}: when the controller starts with it", file=sys.stderr)


def _read(file: str) -> SiteSpec:
    found = sources.site(file)
    assert found is not None
    return found


def _sent(spec: SiteSpec) -> Row:
    return {"file": spec.file, "text": spec.text}


def _await_in_force(client: Client, timeout: float) -> None:
    """Until every live host that carries anything has converged to it. Raises NotConverged."""
    line, deadline = progress.Line(), time.monotonic() + timeout
    try:
        while True:
            try:
                waiting = [f"{one['object']}: {one['cause']}" for one in client.get("site/policies")["waiting"]]
            except Unreachable as error:
                waiting = [str(error)]
            if not waiting:
                return
            if time.monotonic() > deadline:
                said = "; ".join(waiting[:10])
                raise NotConverged(f"accepted, and not in force everywhere within {timeout:g} s: {said}; it goes on")
            line.show(waiting[0])
            time.sleep(progress.QUICK_S)
    finally:
        line.clear()


def _table(rows: list[Row], ink: render.Ink) -> str:
    columns = ("name", "tier", "priority", "mode", "says", "place")
    heads = ("POLICY", *(column.upper() for column in columns[1:]))
    return render.table(heads, ([render.word(row, key) for key in columns] for row in rows), ink)
