"""A site that people ask everything of while it is killed, drifts and carries traffic, for as long as one likes.

`make test` takes 40 s of it, with what begins and ends it; `make soak` two hours (HOURS=2): SOAK_S says how many
seconds, SOAK_SEED which dice.
"""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest
from site_lab import Site, emulated
from soak_lab import STEADY, STEADY_FILE, Footprint, drift, footprint, kill, misplaced
from test_site_chaos import HOSTS, NAMES, a_file, act, asked, assert_nothing_left, kept, settled

from playground.cli import policy_live
from playground.records import network_id, port_id
from tests.waiting import eventually

pytestmark = pytest.mark.system

SOAK_S = float(os.environ.get("SOAK_S", "30"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
BURST_S = min(20.0, SOAK_S / 8)
RATE = 200
"""UDP packets a second between those whom nobody touches."""


def test_nothing_is_lost_doubled_or_left_however_long_a_site_is_worked(capsys: pytest.CaptureFixture[str]) -> None:
    dice = random.Random(SEED)
    until_s = time.monotonic() + SOAK_S
    before: Footprint | None = None
    bursts = 0
    with emulated("soak", 3) as site:
        site.up(STEADY_FILE)
        while before is None or time.monotonic() < until_s:
            sent = burst(site, dice)
            rest(site)
            now = footprint(site)
            bursts += 1
            with capsys.disabled():
                if SOAK_S > 60:
                    print(f"burst {bursts}: {sent} packets, none lost; {asdict(now)}", flush=True)
            before = before or now  # the first burst has warmed everything up
        assert not now.grown(before), now.grown(before)
        settled(site)
        assert_claims_have_owners(site)
        site.down(STEADY)
        assert_nothing_left(site)


def burst(site: Site, dice: random.Random) -> int:
    """Everything at once; how many packets the untouched exchanged meanwhile, none of which may be lost or doubled."""
    end_s = time.monotonic() + BURST_S
    with site.stream(STEADY, "one", "two", "grid", rate=RATE) as result, ThreadPoolExecutor(4) as people:
        while time.monotonic() < end_s:
            doing = [
                people.submit(act, site, random.Random(dice.random())),
                people.submit(act, site, random.Random(dice.random())),
                people.submit(dice.choice([kill, kill, drift, act]), site, random.Random(dice.random())),
            ]
            for done in doing:
                done.result()
            time.sleep(dice.uniform(0, 0.3))
    assert result["lost"] == 0 and result["duplicated"] == 0, result
    assert result["sent"] >= RATE * BURST_S / 4, result
    return int(result["sent"])


def rest(site: Site) -> None:
    """What was asked for last is so, everywhere, and each thing once."""
    east = a_file("east", networks=["grid", "public"], is_policed=True, has_gateway=True)
    settled(site, east, a_file("west"))
    ports = list(site.client.get("ports"))
    for key in ("addresses", "mac"):
        held = [(p["playground"], p["network"], a) for p in ports for a in ([p[key]] if key == "mac" else p[key])]
        assert len(held) == len(set(held)), f"twice: {sorted(held)}"
    deadline = time.monotonic() + 30
    while wrong := misplaced(site):
        assert time.monotonic() < deadline, f"hosts hold other things than their ports call for: {wrong}"
        time.sleep(0.1)
    for name in (STEADY, *NAMES):  # a drift that no event told of is found a few seconds later
        deadline = time.monotonic() + 15
        while wrong := unlike_modelled(site, name):
            assert time.monotonic() < deadline, f"{name} does not forward as modelled: {wrong}"
    deadline = time.monotonic() + 15
    while wrong := unlike_compiled(site):
        assert time.monotonic() < deadline, f"the kernels hold other rules than were compiled: {wrong}"
        time.sleep(0.1)
    assert_claims_have_owners(site)


def unlike_compiled(site: Site) -> list[str]:
    """What hosts' kernels hold beside what was compiled for them, and hosts that were not read."""
    answer = policy_live.verified(site.client, None)
    return [
        f"{row['host']}: {row.get('difference') or row.get('cause')}"
        for key in ("differences", "unobserved")
        for row in answer[key]
    ]


def unlike_modelled(site: Site, name: str) -> list[str]:
    """The pairs that a probe finds otherwise than modelled, or why there was none."""
    answer = site.probe(name)
    pairs = [f"{m['from']} → {m['to']} {m['address']}: {m['observed']}" for m in answer["mismatches"]]
    return pairs + ([f"unobserved: {answer['unobserved']}"] if "unobserved" in answer else [])


def assert_claims_have_owners(site: Site) -> None:
    """Every claim in the store is of a port or network that there is."""
    owners = {port_id(p["playground"], p["workspace"], p["network"]) for p in site.client.get("ports")}
    for playground in site.client.get("status")["playgrounds"]:
        name = playground["name"]
        owners |= {network_id(name, network["name"]) for network in playground["networks"]}
        owners |= {
            port_id(name, f"@{one['name']}", network) for one in playground["gateways"] for network in one["networks"]
        }

    def strays() -> list[str]:
        claims = [line for line in kept(site) if line.startswith("claim/") and not line.startswith("claim/active/")]
        return [line for line in claims if not any(f'"owner":"{owner}"' in line for owner in owners)]

    eventually(lambda: not strays(), 45, f"no claim without its owner: {strays()}")
    assert asked(site.client.get, "site")["hosts"] == len(HOSTS)
