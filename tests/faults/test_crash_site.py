"""A real site whose controller, agents and responders die by kill -9 at the boundaries of their effects, and are
started again as ever: it converges, nothing is twice, nothing is open that should be closed, and nobody else loses a
packet.

The covering sample kills fourteen in four changes, three of them with another one; `make test-long` goes through the
boundaries that were counted, one of each program at a time: a fourth of them, or with PLAYGROUND_EVERY_BOUNDARY=1 all,
in four parts; then so that one program of each turn takes another one with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from playground.cli import policy_live
from playground.client import Refused, Unreachable
from playground.records import workspace_id
from playground.sandbox.commands import programs
from playground.sandbox.plan import Program, SandboxPlan
from tests.faults.mortal_lab import a_site
from tests.site.site_lab import Json, Site
from tests.waiting import eventually

pytestmark = pytest.mark.system

HOSTS = ("n1", "n2", "n3")
PROGRAMS = ("controller", *(f"agent-{host}" for host in HOSTS), *(f"responder-{host}" for host in HOSTS))

STILL = """\
name: still
networks:
  calm: {subnets: [10.8.0.0/24]}
workspaces:
  one: {networks: [calm], host: n1}
  two: {networks: [calm], host: n2}
"""

LAB = """\
name: lab
networks:
  grid: {subnets: [10.9.0.0/24, "fd09::/64"]}
gateways:
  wan: {kind: nat, networks: [grid], host: n2}
workspaces:
  a: {networks: [grid], host: n1}
  b: {networks: [grid], host: n2}
policies:
  - {name: b-hears-a, subject: b, ingress: [{from: a, ports: [icmp]}]}
  - {name: a-hears-nobody, subject: a, ingress: []}
"""

EDITED = """\
name: lab
networks:
  grid: {subnets: [10.9.0.0/24, "fd09::/64"]}
  public: {subnets: [10.7.0.0/24]}
gateways:
  wan: {kind: nat, networks: [grid], host: n3}
workspaces:
  a: {networks: [grid]}
  c: {networks: [grid, public], host: n3}
policies:
  - {name: c-hears-a, subject: c, ingress: [{from: a, ports: [icmp]}]}
  - {name: a-hears-nobody, subject: a, ingress: []}
"""
WORLD = "203.0.113.1"
TALK = {LAB: ("a", "b.grid"), EDITED: ("a", "c.grid")}
"""Who may speak to whom, and not the other way."""


def mortal(plan: SandboxPlan, top: Path) -> tuple[Program, ...]:
    """The programs of any sandbox, each started by `launch`."""
    return tuple(
        replace(p, argv=(p.argv[0], "-m", "tests.faults.launch", str(top), p.name, *p.argv[2:])) for p in programs(plan)
    )


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with a_site("mortal", 3, mortal) as made:
        made.up(STILL)
        yield made


# -- what is done ----------------------------------------------------------------------------------------------------


def answered(ask: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What is answered in the end: asked again when nobody was there, or died over it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except (Unreachable, OSError):
            assert time.monotonic() < deadline, "no controller answers"
            time.sleep(0.05)


def whole(site: Site, *names: str) -> None:
    """All of these converged, every host up, no move open; whoever is killed meanwhile has come back."""

    def look() -> object:
        with contextlib.suppress(Unreachable, Refused, OSError):
            up = all(row["state"] == "up" for row in site.hosts().values())
            return up and all(site.progress(name)["converged"] for name in names)
        return False

    eventually(look, 40.0, f"{', '.join(names)} converged")


def up(site: Site, text: str) -> None:
    answered(lambda: site.client.put("playgrounds", {"file": "lab.yaml", "text": text}))
    whole(site, "lab", "still")


def move(site: Site, target: str = "n2") -> None:
    """Until it is there: a move that a death has aborted is asked for again. It has a connection to take along."""
    speak(site, EDITED)

    def request() -> object:
        with contextlib.suppress(Refused):  # an earlier request, whose answer was lost, is under way or has done it
            return site.client.post("migrate", {"workspace": "lab/a", "host": target, "measure": False})
        return None

    deadline = time.monotonic() + 60
    while True:
        answered(request)
        eventually(lambda: answered(lambda: ended(site)), 40.0, "the move has ended")
        if answered(lambda: site.host_of("lab", "a")) == target:
            return whole(site, "lab", "still")
        assert time.monotonic() < deadline


def speak(site: Site, text: str) -> None:
    """Policies are in force: one may, the other may not."""
    source, target = TALK[text]
    there, here = site.address("lab", target), site.address("lab", f"{source}.grid")
    eventually(lambda: pings(site, source, there), 10.0, f"{source} reaches {target}")
    assert not pings(site, target.partition(".")[0], here)


def pings(site: Site, source: str, address: str) -> bool:
    return ", 0% packet loss" in site.within("lab", source, "ping", "-c1", "-W1", address, check=False)


def ended(site: Site) -> bool:
    try:
        return bool(site.migration("lab/a")["finished"])
    except Refused:
        return True  # it has never been moved


def down(site: Site) -> None:
    def remove() -> object:
        with contextlib.suppress(Refused):
            site.client.delete("playgrounds/lab")
        return site.progress("lab")["removed"]

    eventually(lambda: answered(remove), 40.0, "lab removed")
    whole(site, "still")


PHASES: dict[str, Callable[[Site], None]] = {
    "up": lambda site: up(site, LAB),
    "edit": lambda site: up(site, EDITED),
    "move": move,
    "down": down,
}


# -- what must be so -------------------------------------------------------------------------------------------------


def check(site: Site) -> None:
    """Records against claims, kernels and guests."""
    rows = answered(lambda: site.client.get("ports"))
    assert_claimed_once(site, rows)
    bound = {(site.device(p["playground"], p["workspace"], p["network"]), p["host"]) for p in rows} | legs(site)
    eventually(lambda: open_ports(site) == bound, 15.0, f"open is what is bound: {bound}")
    guests = sorted({workspace_id(p["playground"], p["workspace"]) for p in rows})
    eventually(lambda: site.guests() == guests, 15.0, f"guests are {guests}")
    for workspace in {(row["playground"], row["workspace"]) for row in rows}:
        mine = [p["addresses"] for p in rows if (p["playground"], p["workspace"]) == workspace]
        wanted = {a for addresses in mine for a in addresses if ":" not in a}
        # A client that was answered by a responder that died is asked, or asks, again.
        eventually(lambda w=workspace, s=wanted: held(site, *w) == s, 15.0, f"{workspace} has {wanted}")
    if any(row["playground"] == "lab" for row in rows):
        eventually(lambda: unlike_compiled(site) == [], 15.0, "the kernels' rules are those that were compiled")
        speak(site, EDITED if any(row["workspace"] == "c" for row in rows) else LAB)
        eventually(lambda: pings(site, "a", WORLD), 15.0, "a reaches the world by its gateway")


def legs(site: Site) -> set[tuple[str, str]]:
    """(device, host) of every gateway's legs."""
    playgrounds = answered(lambda: site.client.get("status"))["playgrounds"]
    gateways = [(playground["name"], gateway) for playground in playgrounds for gateway in playground["gateways"]]
    return {(site.device(p, f"@{g['name']}", network), g["host"]) for p, g in gateways for network in g["networks"]}


def unlike_compiled(site: Site) -> Any:
    """What the hosts' kernels hold beside what was compiled for them, or why that is not known."""
    answer = answered(lambda: policy_live.verified(site.client, "lab"))
    return answer["differences"] + answer["unobserved"] if answer["hosts"] else ["no host"]


def held(site: Site, playground: str, workspace: str) -> set[str]:
    """The IPv4 addresses that a guest's devices have."""
    shown = json.loads(site.within(playground, workspace, "ip", "-json", "-4", "addr", "show", "scope", "global"))
    return {address["local"] for link in shown for address in link.get("addr_info", [])}


def assert_claimed_once(site: Site, rows: Sequence[Json]) -> None:
    """Each address of each port is claimed by that port, and no claim is left over."""
    recorded = [(p["network"], a) for p in rows for a in p["addresses"]]
    assert len(recorded) == len(set(recorded))
    eventually(lambda: loose_claims(site) == [], 15.0, "each claim has its record")


def kept(site: Site) -> dict[str, Json]:
    path = next(site.state.glob("*/store.db"))
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        return {key: json.loads(value) for key, value in store.execute("SELECT key, value FROM item ORDER BY key")}


def loose_claims(site: Site) -> list[str]:
    """Claims whose owner is not there, owners whose address is not claimed, and changes that nobody has finished."""
    items = kept(site)
    owners = {r["id"] for key, r in items.items() if key.startswith(("port/", "network/"))}
    claims = {key: r["owner"] for key, r in items.items() if key.startswith("claim/addr/")}
    ports = {r["id"]: r for key, r in items.items() if key.startswith("port/")}
    loose = [key for key, owner in claims.items() if owner not in owners]
    for id, port in ports.items():
        if sum(owner == id for owner in claims.values()) != len(port["addresses"]):
            loose.append(f"port {port['workspace']}: {port['addresses']}")
    return loose + [key for key in items if key.startswith("change/")]


def open_ports(site: Site) -> set[tuple[str, str]]:
    """(device, host) of every port that something is delivered to."""
    found = set()
    for host in HOSTS:
        links = json.loads(site.on(host, "bridge", "-json", "-d", "link", "show", dataplane=True))
        found |= {(x["ifname"], host) for x in links if x["ifname"].startswith("pg") and x["bcast_flood"]}
    return found


def check_gone(site: Site) -> None:
    """Nothing of `lab` anywhere."""
    still = {key for key, r in kept(site).items() if "still" in (r.get("playground"), r.get("name"))}
    passing = ("host/", "alive/", "observed/", "event/", "elect/", "site")
    eventually(lambda: [k for k in kept(site) if k not in still and not k.startswith(passing)] == [], 15.0, "no record")
    check(site)
    for host in HOSTS:
        spaces = {"playground", "playground-still"} if host != "n3" else {"playground"}
        eventually(lambda h=host, s=spaces: set(site.on(h, "ip", "netns").split()) - {"(id:", "0)", "1)"} <= s)
    devices = json.loads(site.on("n3", "ip", "-json", "link", "show", dataplane=True))
    assert [link["ifname"] for link in devices] == ["lo"]


# -- who dies --------------------------------------------------------------------------------------------------------

Death = tuple[str, ...]
"""Program, kind of effect, its number, before or after; perhaps a program that dies with it."""


def arm(site: Site, deaths: Sequence[Death]) -> None:
    for program, *words in deaths:
        draft = site.files / f"{program}.draft"
        draft.write_text(" ".join(words))
        draft.replace(site.files / f"{program}.armed")


def disarm(site: Site) -> list[str]:
    """Who was never reached."""
    found = sorted(site.files.glob("*.armed"))
    said = [f"{path.stem}: {path.read_text()}" for path in found]
    for path in found:
        path.unlink(missing_ok=True)
    return said


def struck(site: Site, phase: str, deaths: Sequence[Death]) -> list[str]:
    """One phase while these die; who was never reached."""
    arm(site, deaths)
    try:
        PHASES[phase](site)
    finally:
        missed = disarm(site)
    whole(site, *(("still",) if phase == "down" else ("lab", "still")))  # somebody may have died after the phase
    check_gone(site) if phase == "down" else check(site)
    return missed


def effects(site: Site) -> dict[str, list[str]]:
    """Kinds of all effects so far, by program."""
    return {name: (site.files / f"{name}.effects").read_text().split() for name in PROGRAMS}


SAMPLE: dict[str, tuple[Death, ...]] = {
    "up": (
        ("controller", "commit", "1", "after"),
        ("agent-n1", "rules", "1", "after", "responder-n1"),
        ("agent-n2", "gateway", "0", "after"),
    ),
    "edit": (
        ("controller", "show", "2", "before", "agent-n1"),
        ("agent-n2", "cache", "1", "after"),
        ("agent-n3", "switch", "0", "before"),
        ("responder-n3", "lease", "0", "before"),
    ),
    "move": (("responder-n2", "map", "0", "after"), ("agent-n2", "flows", "0", "before", "controller")),
    "down": (("controller", "commit", "2", "before"), ("agent-n3", "guest", "0", "before")),
}


def test_whoever_dies_at_an_effect_the_site_comes_out_as_asked_and_no_other_packet_is_lost(site: Site) -> None:
    missed = []
    with site.stream("still", "one", "two", "calm") as result:
        for phase, deaths in SAMPLE.items():
            missed += struck(site, phase, deaths)
    assert missed == []
    assert result["lost"] == 0 and result["duplicated"] == 0, result


PARTS = 4
ALL = range(PARTS) if os.environ.get("PLAYGROUND_EVERY_BOUNDARY") else range(1)
"""Of the turns, part N takes the Nth and every PARTSth after it: all take half an hour, and the doubled site has tried
each boundary by then."""


def every_death(before: dict[str, list[str]], now: dict[str, list[str]]) -> list[tuple[Death, ...]]:
    """Each boundary of what was counted in between, one of each program at a time. After an effect is before the next
    of its process, so only its first has a boundary before it."""
    turns: list[list[Death]] = []
    for program in PROGRAMS:
        fresh = now[program][len(before[program]) :]
        counted = [(kind, str(fresh[:at].count(kind))) for at, kind in enumerate(fresh)]
        boundaries = [(*counted[0], "before"), *((*effect, "after") for effect in counted)] if counted else []
        for turn, boundary in enumerate(boundaries):
            if turn == len(turns):
                turns.append([])
            turns[turn].append((program, *boundary))
    return [tuple(deaths) for deaths in turns]


def with_another(deaths: Sequence[Death], turn: int) -> tuple[Death, ...]:
    """The same, but one of them takes somebody with it: of those that talk with each other, another pair each turn."""
    pairs = [("controller", f"agent-{host}") for host in HOSTS]
    pairs += [(f"agent-{host}", "controller") for host in HOSTS]
    pairs += [(f"agent-{host}", f"responder-{host}") for host in HOSTS]
    pairs += [(f"responder-{host}", f"agent-{host}") for host in HOSTS]
    possible = [pair for pair in pairs if pair[0] in {death[0] for death in deaths}]
    who, other = possible[turn % len(possible)] if possible else ("", "")
    return tuple((*death, other) if death[0] == who else death for death in deaths if death[0] != other)


@pytest.mark.long
@pytest.mark.parametrize("part", ALL)
@pytest.mark.parametrize("by_twos", [False, True], ids=["one", "two"])
def test_any_boundary_may_be_somebodys_last(site: Site, by_twos: bool, part: int) -> None:
    turns: dict[str, list[tuple[Death, ...]]] = {}
    for phase, do in PHASES.items():
        before = effects(site)
        do(site)
        time.sleep(1.0)  # what is late counts, too
        turns[phase] = every_death(before, effects(site))
    wrong = []
    for turn in range(part, max(map(len, turns.values())), PARTS):
        dying = {phase: deaths[turn] if turn < len(deaths) else () for phase, deaths in turns.items()}
        if by_twos:
            dying = {phase: with_another(deaths, turn) for phase, deaths in dying.items()}
        with site.stream("still", "one", "two", "calm") as result:
            for phase in PHASES:
                try:
                    struck(site, phase, dying[phase])
                except AssertionError as error:
                    wrong.append(f"{phase}, {dying[phase]}: {error}")
                    down(site)
                    break
        if result["lost"] or result["duplicated"]:
            wrong.append(f"turn {turn}, {dying}: {result}")
    assert not wrong, "\n".join(wrong)
