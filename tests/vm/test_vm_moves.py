"""Virtual machines on hosts with libvirt: they boot into their addresses, and move live with them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from site_lab import CLIENT_PYTHON
from vm_lab import Machines

from playground.client import Unreachable
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.vm]

PORTS = ["tcp/80", "icmp/echo"]
ONLY_WEB = {"name": "web-only", "subject": "role=web", "ingress": [{"from": "role=peer", "ports": PORTS}]}


def workspaces(machines: Machines) -> dict[str, object]:
    return {
        "web": machines.machine("web", host="n1", labels={"role": "web"}),
        "peer": {"networks": ["grid"], "host": "n3", "labels": {"role": "peer"}},
        "stranger": {"networks": ["grid"], "host": "n2"},
    }


@pytest.fixture(scope="module")
def lab(machines: Machines) -> Iterator[Machines]:
    """A machine `web` on n1 under restrictive policies, and namespaces beside it."""
    machines.up("lab", workspaces(machines), policies=[ONLY_WEB])
    yield machines
    machines.site.down("lab")
    assert machines.domains("lab", "web") == {} and machines.taps("lab", "web") == {}


GET = """
import sys, urllib.request
try:
    print(urllib.request.urlopen(f"http://{sys.argv[1]}/", timeout=2).read().decode().strip())
except OSError:
    pass
"""


TALK = """
import socket, sys
with socket.create_connection((sys.argv[1], 7), 10) as talk:
    talk.settimeout(20)
    for line in sys.stdin:
        talk.sendall(line.encode())
        print(talk.makefile().readline(), end="", flush=True)
"""


def get(machines: Machines, workspace: str, address: str) -> str:
    """What its web server says to a workspace; empty where it says nothing within 2 s."""
    return machines.site.within("lab", workspace, *CLIENT_PYTHON, "-c", GET, address, check=False).strip()


def test_a_machine_boots_into_the_address_that_its_port_has(lab: Machines) -> None:
    address = lab.booted("lab", "web", "n1")
    assert address == lab.site.address("lab", "web.grid")
    assert lab.domains("lab", "web") == {"n1": "running"}
    assert lab.taps("lab", "web") == {"n1": "dataplane"}
    assert eventually(lambda: get(lab, "peer", address), 20, "its web server") == "here"
    assert get(lab, "stranger", address) == ""


def may_move(machines: Machines, target: str) -> bool:
    return bool(machines.site.client.post("migrate", {"workspace": "web", "host": target, "dry_run": True})["may_move"])


def answers(machines: Machines) -> bool:
    try:
        return bool(machines.site.hosts())
    except Unreachable:
        return False


def address_of(machines: Machines) -> str:
    """Once it can be talked to."""
    address = machines.site.address("lab", "web.grid")
    assert eventually(lambda: get(machines, "peer", address), 60, "its web server") == "here"
    return address


FLOWS = {
    "name": "flows",
    "subject": "role=web",
    "ingress": [{"from": "role=peer", "ports": ["tcp/7", *PORTS]}],
    "egress": [{"to": "role=peer", "ports": ["tcp/9000", "udp/9001"]}],
}
"""All that goes on while it moves, and nothing else."""


@pytest.mark.parametrize("moves", [4, pytest.param(20, marks=pytest.mark.long)])
def test_whatever_flows_either_way_goes_on_over_moves_in_a_row_under_policies(lab: Machines, moves: int) -> None:
    lab.up("lab", workspaces(lab), policies=[FLOWS])
    address = address_of(lab)
    at = lab.site.host_of("lab", "web")
    with lab.asked("lab", "peer", address) as told, lab.flows("lab", "peer", "web") as flows:
        for _ in range(moves):
            at = "n2" if at == "n1" else "n1"
            result = lab.site.move("web", at)
            assert result["state"] == "settled" and result["pause_ms"] is not None, result
            assert lab.domains("lab", "web") == {at: "running"}
            assert lab.taps("lab", "web") == {at: "dataplane"}
            assert lab.site.host_of("lab", "web") == at
    assert told["gap_ms"] < 5000 and told["duplicated"] == 0, told
    assert flows["broken"] == "", flows
    for name in ("tcp_out", "tcp_in", "udp_in"):
        assert flows[name]["quiet_s"] < 5 and flows[name]["gap_ms"] < 10000, flows
    assert get(lab, "peer", address) == "here" and get(lab, "stranger", address) == ""


def test_a_connection_goes_on_where_nobody_may_begin_one(lab: Machines) -> None:
    address = address_of(lab)
    lab.up(
        "lab",
        workspaces(lab),
        policies=[{**ONLY_WEB, "ingress": [{"from": "role=peer", "ports": ["tcp/7", *PORTS]}]}],
    )
    talker = subprocess.Popen(
        lab.site.enter("lab", "peer", *CLIENT_PYTHON, "-c", TALK, address),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert talker.stdin is not None and talker.stdout is not None
    try:
        for number, host in enumerate(("n2", "n1")):
            talker.stdin.write(f"line {number}\n")
            talker.stdin.flush()
            assert talker.stdout.readline() == f"line {number}\n"
            assert lab.site.move("web", host)["state"] == "settled"
        talker.stdin.write("over\n")
        talker.stdin.flush()
        assert talker.stdout.readline() == "over\n"
    finally:
        talker.communicate(timeout=20)


def test_virsh_migrate_of_anybody_keeps_address_rules_and_records(lab: Machines) -> None:
    address = address_of(lab)
    for flags in ((), ("--p2p", "--undefinesource")):
        source = lab.site.host_of("lab", "web")
        target = "n2" if source == "n1" else "n1"
        with lab.asked("lab", "peer", address) as told:
            done = lab.virsh_migrate(source, target, *flags)
            assert done.returncode == 0, done.stderr
            move = lab.last_move()
        assert (move["state"], move["from"], move["to"], move["led"]) == ("settled", source, target, "hypervisor")
        assert told["gap_ms"] < move["pause_ms"] + 4000 and told["duplicated"] == 0, (told, move)
        eventually(lambda target=target: lab.domains("lab", "web") == {target: "running"}, 20, "one domain")
        eventually(lambda target=target: lab.taps("lab", "web") == {target: "dataplane"}, 20, "one tap")
        assert lab.site.host_of("lab", "web") == target
    assert get(lab, "peer", address) == "here" and get(lab, "stranger", address) == ""


@pytest.mark.parametrize("dies", ["agent-n1", "agent-n2", "controller"])
def test_whoever_dies_while_it_is_copied_the_machine_goes_on_somewhere(lab: Machines, dies: str) -> None:
    address = address_of(lab)
    start = lab.site.host_of("lab", "web")
    target = "n2" if start == "n1" else "n1"
    with lab.asked("lab", "peer", address) as told:
        begun = lab.site.begin("web", target)
        eventually(lambda: lab.site.migration("lab/web")["state"] in ("copying", "landing", "settled"), 30, "copying")
        lab.site.kill(dies)
        eventually(lambda: answers(lab), 30, "the controller")
        lab.site.await_hosts()
        result = lab.site.finish(begun, 90)
    eventually(lambda: len(lab.domains("lab", "web")) == 1, 30, "one domain")
    where, state = next(iter(lab.domains("lab", "web").items()))
    assert state == "running" and lab.site.host_of("lab", "web") == where
    assert where == (target if result["state"] == "settled" else start)
    assert told["gap_ms"] < 10000
    eventually(lambda: get(lab, "peer", address) == "here", 20, "its web server")


def fault(lab: Machines, kind: str, source: str, target: str) -> None:
    qemu = "kill -9 $(cat /run/libvirt/qemu/web.lab.pid)"
    match kind:
        case "it is called off":
            lab.site.client.post("abort", {"workspace": "lab/web"})
        case "the target's QEMU dies":
            lab.site.on(target, "sh", "-c", qemu)
        case "all of the target dies":
            pids = [str(lab.site.program(f"{name}-{target}")["pid"]) for name in ("libvirtd", "agent")]
            lab.site.on(target, "sh", "-c", f"kill -9 {' '.join(pids)}; {qemu}")
        case "the source's libvirtd dies":
            lab.site.kill(f"libvirtd-{source}")
        case _:
            lab.site.kill(f"libvirtd-{target}")


FAULTS = {
    "it is called off": "aborted on request",
    "the target's QEMU dies": "",
    "all of the target dies": "",
    "the source's libvirtd dies": "",
    "the target's libvirtd dies": "",
}
"""What becomes of a copy half way, and what the move then says."""


@pytest.mark.parametrize("kind", FAULTS)
def test_whatever_ends_a_copy_half_way_the_machine_goes_on_where_it_is_and_nothing_is_lost(
    lab: Machines, kind: str
) -> None:
    address = address_of(lab)
    source = lab.site.host_of("lab", "web")
    target = "n2" if source == "n1" else "n1"
    eventually(lambda: may_move(lab, target), 30, "a host to move to")
    before = lab.virsh(source, "domid", "web.lab").strip()
    with lab.asked("lab", "peer", address) as told:
        begun = lab.site.client.post("migrate", {"workspace": "web", "host": target, "bandwidth_mib_s": 4})
        eventually(lambda: lab.domains("lab", "web").get(target) == "paused", 30, "it is copied")
        fault(lab, kind, source, target)
        result = lab.site.finish(begun, 60)
    assert (result["state"], result["to"]) == ("aborted", target) and FAULTS[kind] in result["cause"], result
    assert result["cause"]
    assert told["lost"] == 0 and told["duplicated"] == 0, told
    eventually(lambda: answers(lab) and lab.domains("lab", "web") == {source: "running"}, 30, "one domain")
    assert lab.virsh(source, "domid", "web.lab").strip() == before
    eventually(lambda: lab.taps("lab", "web") == {source: "dataplane"}, 30, "one tap")
    assert lab.site.host_of("lab", "web") == source
    assert get(lab, "peer", address) == "here" and get(lab, "stranger", address) == ""


@pytest.mark.parametrize(
    "manner", [{"post_copy": True, "bandwidth_mib_s": 32}, {"max_gap_ms": 20000, "auto_converge": True}], ids=str
)
def test_a_machine_moves_in_the_manner_that_was_asked_for(lab: Machines, manner: dict[str, object]) -> None:
    address = address_of(lab)
    source = lab.site.host_of("lab", "web")
    target = "n2" if source == "n1" else "n1"
    eventually(lambda: may_move(lab, target), 30, "a host to move to")
    begun = lab.site.client.post("migrate", {"workspace": "web", "host": target, **manner})
    result = lab.site.finish(begun, 60)
    assert result["state"] == "settled", result
    assert result["promise"] == ("kept" if "max_gap_ms" in manner else "")
    states = [phase["state"] for phase in result["phases"]]
    assert states[:3] == ["requested", "prepared", "copying"] and states[-2:] == ["activated", "settled"]
    assert lab.domains("lab", "web") == {target: "running"} and lab.taps("lab", "web") == {target: "dataplane"}
    eventually(lambda: get(lab, "peer", address) == "here", 20, "its web server")


def test_a_tap_that_is_missing_refuses_the_copy_and_the_machine_goes_on(lab: Machines) -> None:
    address = address_of(lab)
    source = lab.site.host_of("lab", "web")
    target = "n2" if source == "n1" else "n1"
    eventually(lambda: may_move(lab, target), 30, "a host to move to")
    with lab.asked("lab", "peer", address) as told:
        begun = lab.site.begin("web", target, measure=True)
        eventually(lambda: lab.taps("lab", "web").get(target) == "host", 30, "it is expected")
        lab.site.on(target, "ip", "link", "delete", lab.site.device("lab", "web", "grid"))
        result = lab.site.finish(begun, 60)
    assert result["state"] == "aborted" and result["cause"], result
    assert told["lost"] == 0, told
    assert lab.domains("lab", "web") == {source: "running"} and lab.site.host_of("lab", "web") == source


def test_a_libvirtd_that_dies_takes_no_machine_along(lab: Machines) -> None:
    host = lab.site.host_of("lab", "web")
    before = lab.virsh(host, "domid", "web.lab").strip()
    lab.site.kill(f"libvirtd-{host}")
    eventually(lambda: lab.domains("lab", "web") == {host: "running"}, 30, "libvirtd again")
    assert lab.virsh(host, "domid", "web.lab").strip() == before
    target = "n2" if host == "n1" else "n1"
    eventually(lambda: may_move(lab, target), 20, "its host offers machines again")
    assert lab.site.move("web", target)["state"] == "settled"


def test_a_machine_whose_hypervisor_is_killed_is_made_anew(lab: Machines) -> None:
    host = lab.site.host_of("lab", "web")
    before = lab.virsh(host, "domid", "web.lab").strip()
    lab.site.on(host, "pkill", "-KILL", "-f", "guest=web.lab")
    eventually(
        lambda: lab.virsh(host, "domid", "web.lab", check=False).strip() not in ("", "-", before), 60, "another domain"
    )
    lab.site.converged("lab", 90)
    address = lab.site.address("lab", "web.grid")
    eventually(lambda: get(lab, "peer", address) == "here", 60, "its web server")


def test_stopped_it_is_shut_down_and_started_it_has_its_address_again(lab: Machines) -> None:
    address = lab.site.address("lab", "web.grid")
    lab.site.client.post("stop", {"workspace": "lab/web"})
    eventually(lambda: set(lab.domains("lab", "web").values()) == {"shut off"}, 60, "shut down")
    eventually(lambda: lab.taps("lab", "web") == {}, 60, "its tap is gone")
    lab.site.client.post("start", {"workspace": "lab/web"})
    lab.site.converged("lab", 90)
    assert lab.site.address("lab", "web.grid") == address
    eventually(lambda: get(lab, "peer", address) == "here", 60, "its web server")


def test_a_host_with_two_machines_is_emptied_by_live_moves(lab: Machines) -> None:
    peer = {"networks": ["grid"], "host": "n3", "labels": {"role": "peer"}}
    for pin in ({"host": "n1"}, {}):  # then nothing keeps them there
        machines = {
            "web": lab.machine("web", labels={"role": "web"}, **pin),
            "db": lab.machine("db", labels={"role": "web"}, disks=[{"size": "8MiB"}], **pin),  # of n1's own: copied
        }
        lab.up("lab", {**machines, "peer": peer}, policies=[ONLY_WEB])
    addresses = {name: lab.site.address("lab", f"{name}.grid") for name in machines}
    for address in addresses.values():
        eventually(lambda a=address: get(lab, "peer", a) == "here", 60, f"the web server at {address}")
    before = {name: lab.virsh("n1", "domid", f"{name}.lab").strip() for name in machines}
    assert all(before.values())
    with lab.asked("lab", "peer", addresses["db"]) as told:
        lab.site.client.put("hosts/n1/drain", {"parallel": 1})
        eventually(lambda: lab.site.hosts()["n1"]["drain"] == "drained", 60, "n1 is empty")
    assert told["gap_ms"] < 5000 and told["duplicated"] == 0, told
    for name, address in addresses.items():
        assert lab.site.migration(f"lab/{name}")["state"] == "settled"
        assert list(lab.domains("lab", name).values()) == ["running"] and "n1" not in lab.taps("lab", name)
        assert get(lab, "peer", address) == "here"
    assert lab.virsh("n1", "list", "--all", "--name").split() == []
    lab.site.client.delete("hosts/n1/drain")


def test_status_and_plan_speak_of_machines(lab: Machines) -> None:
    shown = json.loads(lab.site.cli("status", "lab", "--json").stdout)
    assert any(w["name"] == "web" and w["state"] == "running" for w in shown["playgrounds"][0]["workspaces"])
