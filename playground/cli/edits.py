"""An edit as people are told it: the objects that change, and the connections that are opened and cut. Asks nobody."""

from __future__ import annotations

from collections import Counter
from typing import Any

from playground.cli import render

SHOWN_CHANGES = 25
"""More than so many changes are told as counts."""

_SIGNS = {"create": "+", "change": "~", "remove": "-"}

Change = dict[str, str]


def change_text(name: str, changes: list[Change], ink: render.Ink) -> str:
    """A line a change, `+ workspace head  10.20.0.100`; counts where they are many."""
    if not changes:
        return f"{name}: nothing to change"
    if len(changes) > SHOWN_CHANGES:
        many = Counter((change["action"], change["object"].partition(" ")[0]) for change in changes)
        lines = [f"  {_SIGNS[action]} {render.count(number, noun)}" for (action, noun), number in many.items()]
    else:
        width = max(len(change["object"]) for change in changes)
        lines = [
            f"  {_SIGNS[action]} {thing:<{width}}  {detail}".rstrip()
            for action, thing, detail in (
                [render.word(change, key) for key in ("action", "object", "detail")] for change in changes
            )
        ]
    paint = {"+": ink.good, "-": ink.bad}
    painted = [paint.get(line[2], str)(line) for line in lines]
    return "\n".join([f"{name}: {render.count(len(changes), 'change')}", *painted])


def foreseen_text(foreseen: list[dict[str, str]], says: str, ink: render.Ink) -> str:
    """A line for each workspace for which there would be no room, those of one cause together."""
    together: dict[str, list[str]] = {}
    for one in foreseen:
        together.setdefault(render.word(one, "cause"), []).append(render.word(one, "object"))
    lines = []
    for cause, objects in together.items():
        more = f" and {len(objects) - 1} more" if len(objects) > 1 else ""
        lines.append(ink.bad(f"  ! {objects[0]}{more} {says}: {cause}"))
    return "\n".join(lines)


def connections_text(connections: dict[str, Any] | None, ink: render.Ink) -> str:
    """What is opened and cut between whom; counts where it is much, nothing where it is nothing."""
    changed = connections["changed"] if connections else []
    if not connections or not changed:
        return ""
    opened = sum(bool(one["opened"]) for one in changed)
    cut = sum(bool(one["cut"]) for one in changed)
    more = "" if connections["complete"] else ", and more; `playground policy diff` lists all"
    head = f"connections: {opened} opened, {cut} cut{more}"
    if len(changed) > SHOWN_CHANGES:
        return head
    rows = [
        (sign, render.word(one, "from"), render.word(one, "to"), _ports(one[key]))
        for one in changed
        for sign, key in (("+", "opened"), ("-", "cut"))
        if one[key]
    ]
    widths = [max(len(row[column]) for row in rows) for column in (1, 2)]
    paint = {"+": ink.good, "-": ink.bad}
    lines = [
        paint[sign](f"  {sign} {begin:<{widths[0]}}  {end:<{widths[1]}}  {ports}") for sign, begin, end, ports in rows
    ]
    return "\n".join([head, *lines])


def _ports(connections: Any) -> str:
    """`everything`, `tcp/22, udp/5000-5100`: of the JSON that says it."""
    from policies.explain import ports_text
    from policies.ports import EVERYTHING, Ports, Protocol

    if connections == "all":
        return ports_text(EVERYTHING)
    listed = [(Protocol(part["protocol"]), *span) for part in connections for span in part["ports"]]
    return ports_text(Ports.union(Ports.of(*one) for one in listed))
