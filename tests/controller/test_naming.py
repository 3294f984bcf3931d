"""Why a workspace did not find a name, in sentences: each cause by itself, and none where all was found."""

from __future__ import annotations

import msgspec
import pytest

from playground.controller.naming import SHOWN, name_findings
from playground.responder.protocol import PortTold, Unanswered

NETWORKS = {"head": {"grid", "quiet"}, "worker-0": {"grid"}}


def told(*asked: tuple[str, str], kind: str = "A", **counts: int) -> PortTold:
    unanswered = tuple(
        Unanswered(at_utc_s=float(at), name=name, kind=kind, outcome=outcome)
        for at, (name, outcome) in enumerate(asked)
    )
    return PortTold(port="1", since_utc_s=0.0, origin="lab.internal", unanswered=unanswered, unnamed=counts)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (told(("nobody.lab.internal", "NO_SUCH_NAME")),
         "it asked for nobody.lab.internal (A): nothing in this playground has that name"),
        (told(("Worker-0.quiet.lab.internal", "NO_SUCH_NAME")),
         "it asked for Worker-0.quiet.lab.internal (A): worker-0 is not on quiet, but on grid"),
        (told(("head.other.internal", "NOT_FORWARDED")),
         "it asked for head.other.internal (A): other playgrounds' names are not seen, and it lies outside this one"),
        (told(("example.org", "NOT_FORWARDED")),
         "it asked for example.org (A): it lies outside, and its network says `forward: false`, or the site has no "
         "resolvers"),
        (told(("example.org", "NOT_RESOLVED")),
         "it asked for example.org (A): no resolver of the site answered, or they refused"),
        (told(("x.example.org", "UNKNOWN_ELSEWHERE")),
         "it asked for x.example.org (A): the site's resolvers know no such name"),
        (told(SHED=7),
         "7 questions of it for names went unanswered: it came among so many that others had to be answered first"),
        (msgspec.structs.replace(told(), stopped=9),
         "9 questions of it for names went no further than its port, which asked more than 5000 a second"),
        (told(("a.org", "CROWDED"), CROWDED=1),
         "one question of it for names went unanswered: its client had too many questions under way"),
    ],
)  # fmt: skip
def test_each_reason_is_said(known: PortTold, said: str) -> None:
    assert list(name_findings(known, NETWORKS)) == [said]


def test_nothing_is_said_of_who_found_all() -> None:
    assert list(name_findings(told(), NETWORKS)) == []


def test_the_last_few_are_said_once_each() -> None:
    asked = [(f"n{number}.lab.internal", "NO_SUCH_NAME") for number in range(9)]
    found = list(name_findings(told(*asked, asked[-1]), NETWORKS))
    assert [one.split()[3] for one in found] == [name for name, _ in asked[-SHOWN:]]
