"""Machines of ours in the hands of others: `virsh migrate` begun by anybody, refused, broken off; `virsh destroy`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from vm_lab import Machines

from playground.client import Refused, Unreachable
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.vm, pytest.mark.long]

ONLY_PEERS = {
    "name": "peers-only",
    "subject": "role=web",
    "ingress": [{"from": "role=peer", "ports": ["icmp/echo", "tcp/80"]}],
    "egress": [],
}


@pytest.fixture(scope="module")
def lab(machines: Machines) -> Iterator[Machines]:
    """A machine `web` on n1 that may be talked to by `peer` on n3 alone; n3 has no processor left for it."""
    machines.up(
        "lab",
        {
            "web": machines.machine("web", host="n1", labels={"role": "web"}, cpus=1),
            "ballast": {"networks": ["grid"], "host": "n3", "cpus": os.cpu_count()},
            "peer": {"networks": ["grid"], "host": "n3", "labels": {"role": "peer"}},
            "stranger": {"networks": ["grid"], "host": "n2"},
        },
        policies=[ONLY_PEERS],
    )
    machines.booted("lab", "web", "n1")
    yield machines
    machines.site.down("lab")
    assert machines.domains("lab", "web") == {} and machines.taps("lab", "web") == {}


def other(host: str) -> str:
    return "n2" if host == "n1" else "n1"


def pinged(lab: Machines, workspace: str) -> bool:
    address = lab.site.address("lab", "web.grid")
    said = lab.site.within("lab", workspace, *PING, address, check=False)
    return " 0% packet loss" in said


PING = ("ping", "-c1", "-W2")


@pytest.mark.parametrize("flags", [(), ("--p2p", "--persistent", "--undefinesource")])
def test_a_migration_that_nobody_asked_us_for_keeps_everything(lab: Machines, flags: tuple[str, ...]) -> None:
    address = lab.site.address("lab", "web.grid")
    source = lab.site.host_of("lab", "web")
    target = other(source)
    eventually(lambda: pinged(lab, "peer"), 60, "it answers")
    with lab.asked("lab", "peer", address, rate=1000) as told:
        done = lab.virsh_migrate(source, target, *flags)
        assert done.returncode == 0, done.stderr
        move = lab.last_move()
    assert (move["state"], move["from"], move["to"], move["led"]) == ("settled", source, target, "hypervisor")
    assert move["pause_ms"] is not None and move["gap_ms"] is not None
    assert told["gap_ms"] < move["pause_ms"] + 4000 and told["duplicated"] == 0, (told, move)
    assert lab.site.host_of("lab", "web") == target
    eventually(lambda: lab.domains("lab", "web") == {target: "running"}, 20, "one domain")
    eventually(lambda: lab.taps("lab", "web") == {target: "dataplane"}, 20, "one tap")
    assert pinged(lab, "peer") and not pinged(lab, "stranger")
    said = [event for event in lab.site.client.get("events") if event["kind"] == "move-settled"]
    assert "by another tool" in said[-1]["text"]
    assert lab.virsh(target, "dominfo", "web.lab").split("Persistent:")[1].split()[0] == "yes"


def test_what_the_records_refuse_libvirt_refuses_and_the_machine_goes_on(lab: Machines) -> None:
    """A host without room for it; and a domain that says of itself that it is a machine of ours."""
    source = lab.site.host_of("lab", "web")
    with lab.asked("lab", "peer", lab.site.address("lab", "web.grid")) as told:
        done = lab.virsh_migrate(source, "n3")
    assert done.returncode != 0 and "has no room for lab/web" in done.stderr, (done.returncode, done.stderr)
    assert told["gap_ms"] < 3000, told
    assert lab.domains("lab", "web") == {source: "running"} and lab.taps("lab", "web") == {source: "dataplane"}
    target = other(source)
    domain = lab.virsh(source, "dumpxml", "web.lab", "--migratable")
    forged = domain.replace("lab", "lob")
    order = ["sh", "-c", f"cat > {lab.site.files}/forged.xml"]
    subprocess.run(lab.site.inside(order, target), input=forged, text=True, check=True)
    said = lab.site.on(target, "sh", "-c", f"virsh create {lab.site.files}/forged.xml 2>&1", check=False)
    assert "Hook script execution failed" in said and "belongs to another host" in said, said


def test_a_migration_that_is_cancelled_leaves_it_where_it_was(lab: Machines) -> None:
    source = lab.site.host_of("lab", "web")
    target = other(source)
    address = lab.site.address("lab", "web.grid")
    with lab.asked("lab", "peer", address) as told:
        lab.virsh(source, "migrate-setspeed", "web.lab", "4")
        there = f"qemu+tcp://{lab.site.hosts()[target]['underlay']}/system"
        begun = subprocess.Popen(
            lab.site.inside(["virsh", "-q", "migrate", "--live", "--p2p", "web.lab", there], source),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        eventually(lambda: lab.site.migration("lab/web")["state"] == "copying", 40, "it is copied")
        lab.virsh(source, "domjobabort", "web.lab")
        begun.communicate(timeout=30)
        assert begun.returncode != 0
        move = lab.last_move()
        lab.virsh(source, "migrate-setspeed", "web.lab", "8796093022207")
    assert (move["state"], move["to"]) == ("aborted", target)
    assert told["gap_ms"] < 3000, told
    assert lab.site.host_of("lab", "web") == source
    eventually(lambda: lab.domains("lab", "web") == {source: "running"}, 20, "one domain")
    eventually(lambda: lab.taps("lab", "web") == {source: "dataplane"}, 20, "one tap")


def answers(lab: Machines) -> bool:
    try:
        return bool(lab.site.hosts())
    except Unreachable:
        return False


def copied_to(lab: Machines, host: str) -> bool:
    """Whether the records have it on its way there, or there."""
    try:
        move = lab.site.migration("lab/web")
    except Refused:  # it has never been moved
        return False
    return move["to"] == host and move["state"] in ("copying", "landing", "activated", "settled")


@pytest.mark.parametrize("dies", ["source", "target", "controller"])
def test_whoever_dies_while_others_move_it_the_records_end_where_it_runs(lab: Machines, dies: str) -> None:
    source = lab.site.host_of("lab", "web")
    target = other(source)
    lab.virsh(source, "migrate-setspeed", "web.lab", "8")
    there = f"qemu+tcp://{lab.site.hosts()[target]['underlay']}/system"
    words = ["virsh", "-q", "migrate", "--live", "--p2p", "web.lab", there]
    begun = subprocess.Popen(lab.site.inside(words, source), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    eventually(lambda: copied_to(lab, target), 40, "it is copied")
    lab.site.kill(dies if dies == "controller" else f"agent-{source if dies == 'source' else target}")
    said, _ = begun.communicate(timeout=60)
    assert begun.returncode == 0, said
    eventually(lambda: lab.domains("lab", "web") == {target: "running"}, 40, "one domain")
    eventually(lambda: lab.taps("lab", "web") == {target: "dataplane"}, 40, "one tap")
    eventually(lambda: answers(lab), 30, "the controller")
    lab.site.await_hosts()
    assert lab.last_move()["state"] == "settled" and lab.site.host_of("lab", "web") == target
    eventually(lambda: pinged(lab, "peer"), 40, "it answers")
    assert not pinged(lab, "stranger")


def test_a_machine_that_we_stopped_is_started_by_anybody_and_status_says_so(lab: Machines) -> None:
    host = lab.site.host_of("lab", "web")
    lab.site.client.post("stop", {"workspace": "lab/web"})
    eventually(lambda: lab.domains("lab", "web") == {host: "shut off"} and not lab.taps("lab", "web"), 60, "stopped")
    state = lab.site.client.get("status", {"playground": "lab"})["playgrounds"][0]["workspaces"]
    assert {w["name"]: w["state"] for w in state}["web"] == "stopped"
    lab.virsh(host, "start", "web.lab")
    lab.site.converged("lab", 60)
    state = lab.site.client.get("status", {"playground": "lab"})["playgrounds"][0]["workspaces"]
    assert {w["name"]: (w["desired"], w["state"]) for w in state}["web"] == ("running", "running")
    assert any(event["kind"] == "workspace-begun" for event in lab.site.client.get("events"))
    eventually(lambda: lab.taps("lab", "web") == {host: "dataplane"}, 20, "its tap")
    eventually(lambda: pinged(lab, "peer"), 60, "it answers")
    assert not pinged(lab, "stranger")


def test_a_machine_that_somebody_destroys_is_up_again_and_status_says_so(lab: Machines) -> None:
    host = lab.site.host_of("lab", "web")
    before = lab.virsh(host, "domid", "web.lab").strip()
    lab.virsh(host, "destroy", "web.lab")
    eventually(
        lambda: lab.virsh(host, "domid", "web.lab", check=False).strip() not in ("", "-", before), 60, "another domain"
    )
    lab.site.converged("lab", 90)
    eventually(lambda: pinged(lab, "peer"), 60, "it answers")
    assert not pinged(lab, "stranger")
