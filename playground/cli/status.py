"""`status`: desired, programmed and probed, and one sentence of cause where they differ. Changes nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from playground.cli import render, site
from playground.cli.failure import DONE
from playground.cli.show import hosts_table


def status(args: argparse.Namespace) -> int:
    """The whole site, or one playground of it."""
    answer = site.client_of(args).get("status", {"playground": args.name})
    if args.json:
        print(render.json_text(answer))
    else:
        print(text(answer, render.Ink.of(sys.stdout)))
    return DONE


def text(answer: dict[str, Any], ink: render.Ink) -> str:
    """The answer of `GET /v1/status` for people."""
    hosts = answer["hosts"]
    up = sum(host["state"] == "up" for host in hosts)
    parts = [f"{ink.strong('site ' + render.word(answer, 'site'))}: {render.count(len(hosts), 'host')}, {up} up"]
    if hosts:
        parts.append(hosts_table(hosts, ink))
    parts += [_playground(playground, ink) for playground in answer["playgrounds"]]
    if not answer["playgrounds"]:
        parts.append("no playgrounds")
    return "\n\n".join(parts)


def _playground(playground: dict[str, Any], ink: render.Ink) -> str:
    lines = [
        ink.strong("playground " + render.word(playground, "name")),
        f"  desired     {render.word(playground, 'desired')}",
        f"  programmed  {ink.state(render.word(playground, 'programmed'))}",
        f"  probed      {_probed(playground.get('probed') or {}, ink)}",
    ]
    if cause := render.word(playground, "cause"):
        lines.append(f"  cause       {ink.bad(cause)}")
    networks = render.table(
        ("NETWORK", "VNI", "MTU", "SUBNETS"),
        ([render.word(row, key) for key in ("name", "vni", "mtu", "subnets")] for row in playground["networks"]),
        ink,
    )
    workspaces = render.table(
        ("WORKSPACE", "DESIRED", "STATE", "HOST", "ADDRESSES", "CAUSE"),
        (
            (
                render.word(row, "name"),
                render.word(row, "desired"),
                ink.state(render.word(row, "state")),
                render.word(row, "host"),
                render.word(row, "addresses"),
                render.word(row, "cause"),
            )
            for row in playground["workspaces"]
        ),
        ink,
    )
    gateways = [_indented(_gateways(playground["gateways"], ink))] if playground.get("gateways") else []
    return "\n\n".join(["\n".join(lines), _indented(networks), *gateways, _indented(workspaces)])


def _gateways(rows: Sequence[dict[str, Any]], ink: render.Ink) -> str:
    return render.table(
        ("GATEWAY", "KIND", "STATE", "HOST", "NETWORKS", "ADDRESSES", "CAUSE"),
        (
            (
                render.word(row, "name"),
                render.word(row, "kind"),
                ink.state(render.word(row, "state")),
                render.word(row, "host"),
                render.word(row, "networks"),
                render.word(row, "addresses"),
                render.word(row, "cause"),
            )
            for row in rows
        ),
        ink,
    )


def _probed(probed: dict[str, Any], ink: render.Ink) -> str:
    """`as modelled, 30 pairs, 12 s ago`; `never`, with the command that would."""
    state = render.word(probed, "state") or "never"
    if probed.get("age_s") is None:
        return f"{ink.state(state)} (`playground probe NAME` tries all pairs)"
    found = [ink.state(state), render.count(probed.get("pairs") or 0, "pair")]
    if mismatches := probed.get("mismatches"):
        found.append(ink.bad(f"{mismatches} not as modelled"))
    if unobserved := probed.get("unobserved"):
        found.append(ink.bad(f"{unobserved} not observed"))
    return ", ".join([*found, render.age(probed["age_s"])])


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
