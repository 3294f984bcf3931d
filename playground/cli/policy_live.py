"""`policy log`, `counters`, `verify`: what policies really do on the hosts, as their agents show it."""

from __future__ import annotations

import argparse
import ipaddress
import json
import sys
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from playground.cli import render, site
from playground.cli.failure import DONE, REFUSED, Failure, UsageFailure
from playground.cli.following import Following
from playground.client import Client, Refused

WAIT_S = 10
"""How long the controller may hold an answer back."""

VERIFY_S = 150.0

LATELY_S = 600.0
"""How long what was put back is worth a word."""

Row = dict[str, Any]


def log(args: argparse.Namespace) -> int:
    """With --follow, until it is interrupted; each verdict once."""
    if args.denied and args.allowed:
        raise UsageFailure("--denied and --allowed are two; take one, or neither for both")
    client = site.client_of(args)
    answer = client.get("policy/log", {"playground": args.name})
    source, to = (_meant(client, args.name, word) for word in (args.source, args.to))
    rows = list(_wanted(args, source, to, answer["verdicts"]))
    if not args.follow:
        _say_lost(answer["lost"])
        if args.json:
            print(render.json_text(rows))
        elif rows:
            print(verdict_table(rows, render.Ink.of(sys.stdout)))
        elif others := len(answer["verdicts"]):
            print(f"playground: nothing of that was logged; {render.count(others, 'other verdict')}", file=sys.stderr)
        else:
            print("playground: nothing was logged; policies with `mode: log` or `mode: stage` log", file=sys.stderr)
        return DONE
    following = Following(args)
    lost = 0
    while True:
        _say_missed(answer["missed"])
        if rows:
            lines = (json.dumps(row, ensure_ascii=False) for row in rows) if args.json else map(_line, rows)
            print("\n".join(lines), flush=True)
        _say_lost(answer["lost"] - lost)
        lost = answer["lost"]
        try:
            answer = following.ask(
                *(partial(_next, client, args.name, answer["last"], wait_s) for wait_s in (WAIT_S, 0))
            )
        except Refused as refusal:
            if refusal.status != 404:
                raise
            print(f"playground: {args.name} was removed; nothing more is logged of it", file=sys.stderr)
            return DONE
        rows = list(_wanted(args, source, to, answer["verdicts"]))


def _meant(client: Client, only: str | None, word: str | None) -> tuple[str, str] | None:
    """The playground ("" where the word names none) and the name or address of an end; None for any end. Raises Failure
    where no workspace has the name: verdicts carry the names of now, so nothing would ever be shown."""
    if word is None:
        return None
    if word == "@services" or word.startswith("@gateway/"):
        return "", word
    try:
        return "", str(ipaddress.ip_address(word))
    except ValueError:
        playground, _, name = word.rpartition("/")
    rows = [row for row in client.get("ports") if only in (None, row["playground"])]
    if not any(row["workspace"] == name and playground in ("", row["playground"]) for row in rows):
        have = sorted({row["workspace"] if only else f"{row['playground']}/{row['workspace']}" for row in rows})
        known = ", ".join([*have[:20], *(["…"] if len(have) > 20 else [])]) or "none"
        raise Failure(f"no workspace {word}; there are: {known}; or say an address, @services or @gateway/NAME")
    return playground, name


def _next(client: Client, name: str | None, last: str, wait_s: int) -> Row:
    """Verdicts after `last`; the controller holds its answer back until there are some."""
    started = time.monotonic()
    answer: Row = client.get("policy/log", {"playground": name, "after": last, "wait_s": wait_s})
    if wait_s and not answer["verdicts"] and time.monotonic() - started < 1:
        time.sleep(0.5)  # those that came are of other playgrounds, and as many may come again
    return answer


def _say_missed(missed: Iterable[Row]) -> None:
    """What was not told while the controller, or an agent, was away."""
    for row in missed:
        host, count = render.word(row, "host"), render.count(row["verdicts"], "verdict")
        if row["verdicts"]:
            print(f"playground: {count} of {host} can't be shown any more: only the latest are kept", file=sys.stderr)
        if row["restarted"]:
            print(f"playground: {host}'s agent was started again; what it had not told yet is lost", file=sys.stderr)


def _say_lost(lost: int) -> None:
    if lost > 0:
        print(f"playground: {render.count(lost, 'verdict')} could not be told, there were too many", file=sys.stderr)


def _wanted(
    args: argparse.Namespace, source: tuple[str, str] | None, to: tuple[str, str] | None, rows: Iterable[Row]
) -> Iterable[Row]:
    verdict = "deny" if args.denied else "allow" if args.allowed else None
    for row in rows:
        if verdict in (None, row["verdict"]) and _is_end(row, "from", source) and _is_end(row, "to", to):
            yield row


def _is_end(row: Row, which: str, meant: tuple[str, str] | None) -> bool:
    if meant is None:
        return True
    playground, word = meant
    return playground in ("", row["playground"]) and word in (row[which], row[f"{which}_address"])


def _line(row: Row) -> str:
    return "  ".join(_cells(row))


def _cells(row: Row) -> tuple[str, ...]:
    at = time.strftime("%H:%M:%S", time.localtime(row["at"])) + f".{int(row['at'] * 1000) % 1000:03d}"
    ends = (_end(row, "from"), _end(row, "to"))
    verdict = f"would {row['verdict']}" if row["staged"] else render.word(row, "verdict")
    return at, *ends, render.word(row, "port"), verdict, *_rule_cells(row), render.word(row, "host")


def _end(row: Row, which: str) -> str:
    name, address = render.word(row, which), render.word(row, f"{which}_address")
    return name if name == address else f"{name} ({address})"


def _rule_cells(row: Row) -> tuple[str, str, str]:
    policies = render.printable(", ".join(row["policies"]))
    rule = f"{render.word(row, 'direction')} rule {row['rule']}" if row["rule"] else f"{render.word(row, 'direction')}"
    return render.word(row, "tier"), policies, rule if row["rule"] else f"{rule}: no rule allows it"


def verdict_table(rows: Sequence[Row], ink: render.Ink) -> str:
    """A line a verdict."""
    columns = ("TIME", "FROM", "TO", "PORT", "VERDICT", "TIER", "POLICY", "RULE", "HOST")
    return render.table(columns, map(_cells, rows), ink)


def counters(args: argparse.Namespace) -> int:
    """1 where a host could not be asked. With --over, what was decided in that time."""
    if args.over is not None and args.over <= 0:
        raise UsageFailure("--over takes a number of seconds, above 0")
    client = site.client_of(args)
    rows, unobserved = _counted(client, args.name)
    if args.over is not None:
        before, started = {_key(row): row for row in rows}, time.monotonic()
        time.sleep(args.over)
        after, unobserved = _counted(client, args.name)
        seconds = time.monotonic() - started
        rows = [_since(before.get(_key(row)), row, seconds) for row in after]
    if args.json:
        print(render.json_text(rows))
    elif rows:
        print(counter_table(rows, render.Ink.of(sys.stdout)))
    else:
        print("playground: no policy is in force, so nothing is counted", file=sys.stderr)
    _say_unobserved(unobserved)
    return REFUSED if unobserved else DONE


def _counted(client: Client, only: str | None) -> tuple[list[Row], list[Row]]:
    """Counters, and the hosts that were not asked."""
    names = [only] if only is not None else client.get("site")["playgrounds"]
    answers = [client.get("policy/counters", {"playground": name}) for name in names]
    return ([row for one in answers for row in one["counters"]], [row for one in answers for row in one["unobserved"]])


def _key(row: Row) -> str:
    return json.dumps({key: value for key, value in row.items() if key not in ("packets", "bytes")}, sort_keys=True)


def _since(before: Row | None, now: Row, seconds: float) -> Row:
    """What was counted since; of a counter that began anew meanwhile, all that it has."""
    since = dict(now)
    if before is not None and before["packets"] <= now["packets"] and before["bytes"] <= now["bytes"]:
        since |= {key: now[key] - before[key] for key in ("packets", "bytes")}
    return since | {"seconds": round(seconds, 3), "per_second": round(since["packets"] / seconds, 1)}


def counter_table(rows: Sequence[Row], ink: render.Ink) -> str:
    """A line a rule, and one for what is refused as no rule allows it; the playground's column where there are
    several."""
    several = len({row["playground"] for row in rows}) > 1
    columns = ("PLAYGROUND", "TIER", "POLICY", "RULE", "VERDICT", "PACKETS", "BYTES", "A SECOND")
    return render.table(
        columns,
        (
            (
                render.word(row, "playground") if several else "",
                *_rule_cells(row),
                f"would {row['verdict']}" if row["staged"] else render.word(row, "verdict"),
                str(row["packets"]),
                str(row["bytes"]),
                str(row.get("per_second", "")),
            )
            for row in rows
        ),
        ink,
    )


def verify(args: argparse.Namespace) -> int:
    """1 where a kernel holds something else, or could not be read."""
    answer = verified(site.client_of(args), args.name)
    if args.json:
        print(render.json_text(answer))
    else:
        print(verified_text(answer))
    return REFUSED if answer["differences"] or answer["unobserved"] else DONE


def verified(client: Client, name: str | None) -> Row:
    """`{hosts, differences, unobserved}`: what reading back the kernels' rules has shown."""
    query = f"?playground={name}" if name is not None else ""
    answer: Row = client.post(f"policy/verify{query}", timeout=VERIFY_S)
    return answer


def verified_text(answer: Row) -> str:
    """One line where all is as it should be; else each difference, and each host that was not read. What was put back
    within `LATELY_S` is told, too."""
    differences, unobserved = answer["differences"], answer["unobserved"]
    what = render.count(len(differences), "difference") if differences else "as compiled"
    parts = [f"rules in the kernels of {render.count(answer['hosts'], 'host')}: {what}"]
    if unobserved:
        parts[0] += f"; {render.count(len(unobserved), 'host')} not read"
    for rows, columns in ((differences, ("host", "difference")), (unobserved, ("host", "cause"))):
        if rows:
            heads = tuple(column.upper() for column in columns)
            parts.append(render.table(heads, ([render.word(row, key) for key in columns] for row in rows)))
    if differences:
        parts.append("The hosts' agents put this back within seconds; what stays is among the problems of `hosts`.")
    if lately := [row for row in answer["mended"] if time.time() - row["at"] < LATELY_S]:
        rows = ((_clock(row["at"]), render.word(row, "host"), render.word(row, "difference")) for row in lately)
        parts.append("put back lately:\n" + render.table(("TIME", "HOST", "WHAT WAS FOUND"), rows))
    return "\n\n".join(parts)


def _clock(utc_s: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(utc_s))


def _say_unobserved(rows: Iterable[Row]) -> None:
    for row in rows:
        print(f"playground: {render.word(row, 'host')} was not asked: {render.word(row, 'cause')}", file=sys.stderr)
