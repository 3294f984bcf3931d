"""`playground agent`: whom it lets be, and how `--remove` takes a host back, a crashed one too."""

from __future__ import annotations

import json

import pytest
from hosts_lab import Machine

from playground.records import port_id

SITE = 'name: lab\nhosts:\n  n1: {underlay: "2001:db8::11"}\n'

LAB = """
name: lab
networks: {grid: {subnets: [10.20.0.0/24]}}
workspaces:
  a: {networks: [grid]}
  theirs: {networks: [grid], driver: external}
"""

TAP = f"pg{port_id('lab', 'theirs', 'grid')}"

START = """
ip netns add n1; ip link add lab0 type veth peer name eth0 netns n1
ip address add 2001:db8::1/64 dev lab0 nodad; ip link set lab0 up
ip -n n1 address add 2001:db8::11/64 dev eth0 nodad; ip -n n1 link set eth0 up; ip -n n1 link set lo up
playground controller --site lab --site-file site.yaml --listen '[2001:db8::1]:7470' 2> controller.log & controller=$!
until playground --site lab hosts 2> /dev/null; do sleep 0.1; done
playground --site lab hosts token n1 > n1.token
"""

AGENT = """playground agent --site lab --name n1 --controller 'http://[2001:db8::1]:7470' --token-file n1.token \
--underlay 2001:db8::11"""

HOST = "nsenter --net=/run/netns/n1"

UP = 'until playground --site lab hosts --json | grep -q \'"state": "up"\'; do sleep 0.1; done'


@pytest.mark.system
def test_a_crashed_host_is_as_it_was_after_remove_and_keeps_its_workspaces_unless_forced(machine: Machine) -> None:
    (machine.work / "site.yaml").write_text(SITE)
    (machine.work / "lab.yaml").write_text(LAB)
    done = machine.run(
        START,
        "ip netns add playground-lab",  # somebody else's, of a name that might be ours
        f"ip -n n1 link add {TAP} type veth peer name theirs netns playground-lab",
        "touch n1.log",
        machine.look("before"),
        f"{HOST} {AGENT} 2> n1.log & agent=$!",
        UP,
        "playground --site lab up lab.yaml --no-wait > /dev/null",
        'until test $(playground --site lab ports --json | grep -c \'"state": "forwarding"\') = 2; do sleep 0.1; done',
        f"until ! ip -n n1 link show {TAP} 2> /dev/null; do sleep 0.1; done",
        machine.look("in use"),
        "kill -9 $agent $(cat /run/playground/lab/hosts/n1/responder.sock.lock)",
        "wait $agent || true",
        f"{HOST} playground agent --remove --site lab --name n1 && exit 9",
        machine.look("refused"),
        f"{HOST} playground agent --remove --site lab --name n1 --force",
        machine.look("after"),
        f"{HOST} playground agent --remove --site lab --name n1",
        "kill $controller",
    )
    said = f"{done.stdout}\n{done.stderr}{machine.logs()}"
    assert done.returncode == 0, said
    assert "playground agent: n1 still carries lab/a; empty it first (`playground host drain n1`" in done.stderr, said
    assert machine.shot("refused")["networks"] == machine.shot("in use")["networks"], said
    assert "n1: 1 workspace ended, data plane playground removed, files removed\n" in done.stdout, said
    assert done.stdout.endswith("n1: nothing was left here\n"), said
    assert "playground" in machine.shot("in use")["networks"], said
    after, before = machine.shot("after"), machine.shot("before")
    assert TAP in json.dumps(after["networks"]["n1"]["links"]), "what somebody brought is given back"
    assert after | {"files": []} == before | {"files": []}
    assert not [path for path in after["files"] if "/hosts" in path]


@pytest.mark.system
def test_an_agent_that_can_not_be_a_host_says_why(machine: Machine) -> None:
    (machine.work / "site.yaml").write_text(SITE)
    done = machine.run(
        START,
        f"ip netns exec n1 {AGENT} && exit 9",
        "echo wrong > wrong.token",
        f"{HOST} {AGENT} 2> n1.log & agent=$!",
        UP,
        f"{HOST} playground agent --site lab --name n1 --remove && exit 9",
        f"{HOST} {AGENT} --run-dir $PWD/r --state-dir $PWD/s --dataplane second 2> second.log & second=$!",
        f"{HOST} {AGENT.replace('n1.token', 'wrong.token').replace('name n1', 'name n9')} "
        "--dataplane third 2> third.log & third=$!",
        "until grep -q 'another agent of this host is connected' second.log; do sleep 0.1; done",
        "until grep -q 'refused: no host of this site has that name and that token' third.log; do sleep 0.1; done",
        "playground --site lab events | grep -q 'another agent of this host'",
        "playground --site lab hosts token n1 > new.token",
        "until grep -q 'refused: the host.s token was replaced' n1.log; do sleep 0.1; done",
        "kill $agent",  # it may still be ending when the next one starts
        f"{HOST} {AGENT.replace('n1.token', 'new.token')} 2>> n1.log & agent=$!",
        "until test $(grep -c 'controller connected' n1.log) = 2; do sleep 0.1; done",
        "kill $agent $second $third $controller",
    )
    said = f"{done.stdout}\n{done.stderr}{machine.logs()}"
    assert done.returncode == 0, said
    assert "would be seen by this process only" in done.stderr, said
    assert "another agent of host n1 runs already" in done.stderr, said
