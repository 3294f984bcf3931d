"""What a file may say of machines that no one declared, and what they keep from ports that it declares."""

from __future__ import annotations

import pytest

from playground.admit import Admission, Known, admit
from playground.admit.known import Leased
from playground.records import NetworkRecord, PortRecord, network_id
from playground.spec import SpecErrors, load_playground

FILE = """\
name: lab
networks:
  grid: {subnets: [10.0.0.0/24], dhcp: {dynamic: 10.0.0.2-10.0.0.9}}
workspaces:
  nest: {networks: [{network: grid, allow: {dynamic: 4}}]}
  head: {networks: [{network: grid, mac: "02:00:00:00:00:07"}]}
"""
NOTHING = Leased()


def admitted(text: str, leased: Leased = NOTHING) -> Admission:
    known = Known(leased={network_id("lab", "grid"): leased})
    return admit(load_playground(text, "lab.yaml"), known, "c1")


def ports(admission: Admission) -> dict[str, PortRecord]:
    return {record.workspace: record for record in admission.puts if isinstance(record, PortRecord)}


def test_ports_get_no_address_of_a_dynamic_range() -> None:
    admission = admitted(FILE)
    assert [port.addresses for port in ports(admission).values()] == [("10.0.0.10",), ("10.0.0.11",)]
    assert [port.dynamic for port in ports(admission).values()] == [4, 0]
    (network,) = (record for record in admission.puts if isinstance(record, NetworkRecord))
    assert network.dynamic == ("10.0.0.2-10.0.0.9",)


def test_ports_get_no_address_that_a_machine_has_though_the_range_is_another_now() -> None:
    moved = FILE.replace("10.0.0.2-10.0.0.9", "10.0.0.20")
    found = ports(admitted(moved, Leased(frozenset({0x0A000002}))))
    assert [port.addresses for port in found.values()] == [("10.0.0.3",), ("10.0.0.4",)]


@pytest.mark.parametrize(
    ("leased", "what"),
    [
        (Leased(macs=frozenset({"02:00:00:00:00:07"})), "02:00:00:00:00:07"),
        (Leased(frozenset({0x0A0000C8})), "10.0.0.200"),
    ],
)
def test_what_a_machine_has_is_fixed_to_no_port(leased: Leased, what: str) -> None:
    fixed = FILE.replace('mac: "02:00:00:00:00:07"', 'mac: "02:00:00:00:00:07", address: 10.0.0.200')
    with pytest.raises(SpecErrors) as caught:
        admitted(fixed, leased)
    (problem,) = caught.value.problems
    assert f"{what} may still be used by a machine that no one declared" in str(problem)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (", dhcp: {dynamic: 10.0.0.2-10.0.0.9}", "", "grid has no addresses for them; give its dhcp a range"),
        ('mac: "02:00:00:00:00:07"', "address: 10.0.0.5", "10.0.0.5 lies in dhcp.dynamic of grid"),
        (
            'mac: "02:00:00:00:00:07"',
            "allow: {addresses: 10.0.0.8/29}",
            "10.0.0.8/29 reaches into dhcp.dynamic of grid",
        ),
        ("{dynamic: 4}", "{dynamic: 257}", "257"),
    ],
)
def test_a_file_is_refused(old: str, new: str, said: str) -> None:
    with pytest.raises(SpecErrors) as caught:
        load_playground(FILE.replace(old, new), "lab.yaml")
    assert said in str(caught.value.problems[0])
