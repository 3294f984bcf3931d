from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playground.sandbox import commands, plan
from playground.sandbox.plan import SandboxPlan


def a_plan(emulate: int = 2, family: plan.Family = "ipv4") -> SandboxPlan:
    made = SandboxPlan(
        site="east",
        family=family,
        run_dir="/run/playground/east",
        state_dir="/var/lib/playground/east",
        in_memory_state=False,
        discard_state=False,
        controller_address=plan.controller_address(family),
        hosts=plan.hosts_of(emulate, family),
    )
    return replace(made, programs=commands.programs(made))


@given(emulate=st.integers(1, plan.MAX_HOSTS), family=st.sampled_from(["ipv4", "ipv6"]))
def test_every_host_has_a_name_a_leg_and_an_address_of_its_own(emulate: int, family: plan.Family) -> None:
    hosts = plan.hosts_of(emulate, family)
    addresses = {ip_address(host.address) for host in hosts} | {ip_address(plan.controller_address(family))}
    assert len(addresses) == emulate + 1
    assert len({host.name for host in hosts}) == len({host.leg for host in hosts}) == emulate
    assert all(len(host.leg) <= 15 for host in hosts)
    ends = [ip_interface(end) for host in hosts for end in host.uplinks]
    assert len(set(ends)) == 2 * emulate == 2 * len({host.uplink for host in hosts} - {host.leg for host in hosts})


def test_the_first_hosts_have_the_documented_addresses() -> None:
    assert [host.address for host in plan.hosts_of(3, "ipv4")] == ["192.0.2.11", "192.0.2.12", "192.0.2.13"]
    assert [host.address for host in plan.hosts_of(2, "ipv6")] == ["2001:db8::11", "2001:db8::12"]


@pytest.mark.parametrize("emulate", [0, -1, plan.MAX_HOSTS + 1])
def test_a_number_of_hosts_that_can_not_be_is_refused(emulate: int) -> None:
    with pytest.raises(ValueError, match="choose 1 to"):
        plan.hosts_of(emulate, "ipv4")


def test_a_plan_survives_its_encoding() -> None:
    made = a_plan()
    assert SandboxPlan.decode(made.encode()) == made


def test_the_controller_gets_hashes_and_never_a_token() -> None:
    said = plan.tokens_file({"n1": "secret"})
    assert json.loads(said) == {"n1": hashlib.sha256(b"secret").hexdigest()}


def test_an_ipv6_underlay_is_written_in_brackets_where_a_port_follows() -> None:
    controller, agent, *_ = a_plan(family="ipv6").programs
    assert "[2001:db8::1]:7470" in controller.argv
    assert "http://[2001:db8::1]:7470" in agent.argv


def test_each_agent_runs_on_its_host_with_its_own_token() -> None:
    _, *agents, world = a_plan(3).programs
    assert world.host == plan.WORLD
    assert [agent.host for agent in agents] == ["n1", "n2", "n3"]
    assert len({agent.argv[agent.argv.index("--token-file") + 1] for agent in agents}) == 3


def test_the_flags_are_those_that_controller_and_agent_know() -> None:
    from playground.agent.__main__ import parser as agent_parser
    from playground.controller.__main__ import parser as controller_parser

    controller, agent, *_ = a_plan().programs
    assert controller_parser().parse_args(controller.argv[3:]).site == "east"
    assert agent_parser().parse_args(agent.argv[3:]).name == "n1"


def test_the_site_file_is_one_that_a_controller_reads() -> None:
    from playground.spec import load_site

    site = load_site(plan.site_file(a_plan()), "site.yaml")
    assert {name: str(host.underlay) for name, host in site.hosts.items()} == {"n1": "192.0.2.11", "n2": "192.0.2.12"}
