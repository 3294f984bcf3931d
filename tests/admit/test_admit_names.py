"""What a change of names writes: the records of the ports and networks that it is about, and no restart."""

from __future__ import annotations

from playground.admit import Admission
from playground.records import Named, NetworkRecord, PortRecord
from tests.admit.grids import Site

FILE = """\
name: lab
networks: {grid: {subnets: [10.0.0.0/24]}}
workspaces:
  head: {networks: [grid], labels: {role: head}}
  worker: {scale: 3, networks: [grid]}
groups: {all: network=grid}
"""


def ports(admission: Admission) -> dict[str, tuple[str, ...]]:
    return {record.workspace: record.aliases for record in admission.puts if isinstance(record, PortRecord)}


def test_a_group_is_written_to_the_ports_that_it_means_and_to_no_others() -> None:
    site = Site()
    assert set(ports(site.up(FILE)).values()) == {("all", "all.grid")}
    changed = site.up(FILE.replace("network=grid}", 'network=grid, first: "workspace in (head, worker-0)"}'))
    assert ports(changed) == dict.fromkeys(("head", "worker-0"), ("all", "first", "all.grid", "first.grid"))
    assert [(step.object, step.detail) for step in changed.steps] == [
        ("workspace head", "also all all.grid → all first all.grid first.grid"),
        ("workspace worker-0", "also all all.grid → all first all.grid first.grid"),
    ]


def test_what_a_network_declares_is_written_to_its_record_alone() -> None:
    site = Site()
    site.up(FILE)
    dns = "dns: {forward: false, transfer: [10.0.0.0/28], records: {www: {cname: head}}}"
    changed = site.up(FILE.replace("[10.0.0.0/24]", f"[10.0.0.0/24], {dns}"))
    [network] = changed.puts
    assert isinstance(network, NetworkRecord)
    assert (network.forward, network.transfer) == (False, ("10.0.0.0/28",))
    assert network.names == (Named("www.grid", "CNAME", "head.grid"),)
    assert [step.detail for step in changed.steps] == [
        "forward none → no, transfer none → 10.0.0.0/28, records none → www.grid CNAME head.grid"
    ]
