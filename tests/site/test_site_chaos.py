"""Everything at once, and whoever does it killed at any moment: what is left in the end is what was asked for last."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from site_lab import Json, Site

from playground.client import Refused, Unreachable
from playground.records import workspace_id
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.long]
HOSTS = ("n1", "n2", "n3")
NAMES = ("east", "west")


def a_file(
    name: str,
    members: Sequence[str] = ("head",),
    scale: int = 2,
    networks: Sequence[str] = ("grid",),
    *,
    is_policed: bool = False,
    has_gateway: bool = False,
) -> str:
    """A playground; all have the same subnets. is_policed: members are reached by nodes alone, and nodes by nobody.
    has_gateway: on its last network, where its nodes are."""
    lines = [f"name: {name}", "networks:"]
    lines += [f'  {network}: {{subnets: [10.9.{n}.0/24, "fd09:{n}::/64"]}}' for n, network in enumerate(networks)]
    if has_gateway:
        lines.append(f"gateways: {{wan: {{kind: nat, networks: [{networks[-1]}]}}}}")
    lines.append("workspaces:")
    lines += [f"  {member}: {{networks: [{', '.join(networks)}]}}" for member in members]
    lines.append(f"  node: {{scale: {scale}, networks: [{networks[-1]}]}}")
    if is_policed:
        lines.append("policies:")
        lines += [f"  - {{name: of-{m}, subject: {m}, ingress: [{{from: node, ports: [icmp]}}]}}" for m in members]
        lines.append("  - {name: of-nodes, subject: node, ingress: []}")
    return "\n".join(lines) + "\n"


def a_variant(dice: random.Random) -> str:
    members = dice.sample(["head", "mirror", "store"], dice.randint(1, 2))
    networks = ["grid", "public"][: dice.randint(1, 2)]
    policed, gateway = dice.random() < 0.5, dice.random() < 0.3
    scale = dice.randint(1, 3)
    return a_file(dice.choice(NAMES), members, scale, networks, is_policed=policed, has_gateway=gateway)


def asked(call: Callable[..., Any], *words: Any) -> Any:
    """A request that may be refused, or lost with the controller that took it."""
    with contextlib.suppress(Refused, Unreachable, OSError):
        return call(*words)


def act(site: Site, dice: random.Random) -> None:
    """One thing that somebody asks for, whether it makes sense or not."""
    name = dice.choice(NAMES)
    workspace = f"{name}/{dice.choice(['head', 'node-0', 'node-1', 'mirror'])}"
    post, host = site.client.post, dice.choice(HOSTS)
    match dice.choice(["up", "up", "migrate", "migrate", "migrate", "abort", "stop", "start", "start", "down"]):
        case "up":
            asked(site.client.put, "playgrounds", {"file": "x.yaml", "text": a_variant(dice)})
        case "down":
            asked(site.client.delete, f"playgrounds/{name}")
        case "migrate":
            asked(post, "migrate", {"workspace": workspace, "host": host, "measure": dice.random() < 0.2})
        case verb:
            asked(post, verb, {"workspace": workspace})


def strike(site: Site, dice: random.Random) -> None:
    """kill -9 of one that is there just now."""
    victim = dice.choice(["controller", "agent", "agent", "responder"])
    host = dice.choice(HOSTS)
    pattern = {
        "controller": "playground[.]controller",
        "agent": f"playground[.]agent .*--name {host} ",
        "responder": f"playground[.]responder.*/hosts/{host}/",
    }[victim]
    subprocess.run(site.inside(["pkill", "-KILL", "-f", pattern]), check=False, capture_output=True)


@contextlib.contextmanager
def struck(site: Site, seed: int, pause_s: float) -> Iterator[None]:
    """While the body runs, somebody is killed every now and then."""
    over = threading.Event()

    def go_on() -> None:
        dice = random.Random(seed)
        while not over.wait(dice.uniform(0.1, 2 * pause_s)):
            strike(site, dice)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def settled(site: Site, *texts: str) -> None:
    """Exactly these playgrounds, all running, as if nothing had ever happened."""
    eventually(lambda: asked(site.client.get, "site"), 30, "a controller answers")
    site.await_hosts(*HOSTS)
    wanted = {text.split()[1] for text in texts}
    for name in set(NAMES) - wanted:
        asked(site.client.delete, f"playgrounds/{name}")
        eventually(lambda name=name: site.progress(name)["removed"], 60, f"{name} removed")
    for text in texts:
        answer = eventually(lambda text=text: site.client.put("playgrounds", {"file": "x.yaml", "text": text}), 30)
        for row in site.client.get("ports", {"playground": answer["name"]}):
            site.client.post("start", {"workspace": f"{answer['name']}/{row['workspace']}"})
    for name in wanted:
        site.converged(name, 60)


def assert_whole(site: Site) -> None:
    """Nothing is at two places, and each place has what the records say."""
    ports = list(site.client.get("ports"))
    for key in ("addresses", "mac"):
        held = [(p["playground"], p["network"], a) for p in ports for a in ([p[key]] if key == "mac" else p[key])]
        assert len(held) == len(set(held)), f"twice: {sorted(held)}"
    status: Json = site.client.get("status")
    vnis = [n["vni"] for playground in status["playgrounds"] for n in playground["networks"]]
    assert len(vnis) == len(set(vnis))
    guests = sorted({workspace_id(p["playground"], p["workspace"]) for p in ports})
    eventually(lambda: site.guests() == guests, 30, f"guests are {guests}")
    eventually(lambda: carried(site) == recorded(site), 30, "each port is on the one host of its records")
    for playground in status["playgrounds"]:
        site.assert_reachable(playground["name"])


def recorded(site: Site) -> set[tuple[str, str]]:
    """(device, host) of every port in the records."""
    rows = site.client.get("ports")
    return {(site.device(row["playground"], row["workspace"], row["network"]), row["host"]) for row in rows}


def carried(site: Site) -> set[tuple[str, str]]:
    """(device, host) of every port in a data plane."""
    found = set()
    for host in HOSTS:
        lines = site.on(host, "ip", "-o", "link", dataplane=True).splitlines()
        devices = {line.split(": ")[1].partition("@")[0] for line in lines}
        found |= {(device, host) for device in devices if device.startswith("pg")}
    return found


def assert_nothing_left(site: Site) -> None:
    assert site.guests() == [] and carried(site) == set()
    for host in HOSTS:
        devices = site.on(host, "ip", "-o", "link", dataplane=True).splitlines()
        assert len(devices) == 1, devices  # lo
        eventually(
            lambda host=host: site.on(host, "ip", "netns").split() == ["playground"], what="no service namespace"
        )
    assert site.client.get("status")["playgrounds"] == []
    eventually(lambda: not kept(site), 15, f"no claim and no record is kept: {kept(site)}")


def kept(site: Site) -> list[str]:
    """Keys in the store that are neither of hosts nor of what happened, with what stands there."""
    path = next(site.state.glob("*/store.db"))
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        rows = store.execute("SELECT key, value FROM item ORDER BY key").fetchall()
    passing = ("host/", "alive/", "observed/host/", "event/", "elect/", "site")
    return [f"{key} {value.decode()}" for key, value in rows if not key.startswith(passing)]


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_is_killed_while_whatever_is_asked_nothing_is_twice_and_nothing_stays(site: Site, seed: int) -> None:
    dice = random.Random(seed)
    with struck(site, seed, 1.0), ThreadPoolExecutor(3) as people:
        end = time.monotonic() + 45
        while time.monotonic() < end:
            list(people.map(lambda number: act(site, random.Random(number)), [dice.random() for _ in range(2)]))
            time.sleep(dice.uniform(0, 0.4))
    settled(site, a_file("east", networks=["grid", "public"]), a_file("west"))
    assert_whole(site)
    with struck(site, seed, 0.5):
        for name in NAMES:
            eventually(lambda name=name: site_lacks(site, name), 30, f"{name} removed from the records")
    settled(site)
    assert_nothing_left(site)


def site_lacks(site: Site, name: str) -> bool:
    asked(site.client.delete, f"playgrounds/{name}")
    found = asked(site.client.get, "site")
    return found is not None and name not in found["playgrounds"]


def test_playgrounds_that_come_up_at_once_get_networks_of_their_own(site: Site) -> None:
    names = [f"rival-{number}" for number in range(6)]

    def up(name: str) -> Json:
        return dict(site.client.put("playgrounds", {"file": "x.yaml", "text": a_file(name, (), 1, ["a", "b"])}))

    with ThreadPoolExecutor(6) as people:
        list(people.map(up, names))
    vnis = [n["vni"] for p in site.client.get("status")["playgrounds"] for n in p["networks"]]
    assert len(vnis) == len(set(vnis)) == 12
    for name in names:
        site.client.delete(f"playgrounds/{name}")
    for name in names:
        eventually(lambda name=name: site.progress(name)["removed"], 60, f"{name} removed")
    assert_nothing_left(site)


def test_files_that_race_for_one_playground_end_as_one_of_them(site: Site) -> None:
    texts = [a_file("east", members, scale) for members, scale in ((["head"], 1), (["mirror"], 3), (["store"], 2))]
    with ThreadPoolExecutor(6) as people:
        list(
            people.map(lambda text: asked(site.client.put, "playgrounds", {"file": "x.yaml", "text": text}), texts * 2)
        )
    site.converged("east")
    unchanged = [site.client.post("plan", {"file": "x.yaml", "text": text})["changes"] == [] for text in texts]
    assert unchanged.count(True) == 1
    assert_whole(site)
    site.down("east")
    assert_nothing_left(site)


def test_one_workspace_started_stopped_and_moved_at_once_ends_whole(site: Site) -> None:
    site.up(a_file("east"))
    calls: list[tuple[str, Json]] = [("stop", {}), ("start", {}), *(("migrate", {"host": host}) for host in HOSTS)]

    def call(number: int) -> Any:
        verb, words = calls[number % len(calls)]
        return asked(site.client.post, verb, {"workspace": "east/head", **words})

    with ThreadPoolExecutor(5) as people:
        list(people.map(call, range(30)))
    settled(site, a_file("east"))
    assert_whole(site)
    site.down("east")
    assert_nothing_left(site)
