"""What admission answers to one file and one known state."""

from __future__ import annotations

import base64
import json
import zlib

import pytest
from msgspec.structs import replace

from overlay.mac import derived_mac, slaac_address
from playground.admit import Admission, Known, admit, remove
from playground.plan import Step
from playground.records import (
    ClaimRecord,
    Desired,
    NetworkRecord,
    PlaygroundRecord,
    PortRecord,
    WorkspaceRecord,
    address_claim,
    decode,
    mac_claim,
    network_id,
    port_id,
    vni_claim,
)
from playground.spec import SpecErrors, load_playground
from tests.admit.grids import Site, a_file, a_host


def admitted(text: str, known: Known | None = None) -> Admission:
    return admit(load_playground(text, "lab.yaml"), known or Known.empty(), "c1")


def refused(text: str, known: Known | None = None) -> list[str]:
    with pytest.raises(SpecErrors) as caught:
        admitted(text, known)
    return [str(problem).removeprefix("lab.yaml:") for problem in caught.value.problems]


def test_everything_that_is_unique_is_claimed_once() -> None:
    admission = admitted(a_file(1))
    net, port = network_id("lab", "grid"), port_id("lab", "worker-0", "grid")
    mac = derived_mac(port)
    found = {key: claim.owner for key, claim in admission.claims}
    [record] = [record for record in admission.puts if isinstance(record, PortRecord)]
    v6 = "".join(f"{int(part, 16):04x}" for part in record.addresses[1].replace("::", ":0:0:0:").split(":"))
    assert found == {
        vni_claim(4096): net,
        address_claim(net, "0a000001"): net,
        address_claim(net, "fd000000000000000000000000000001"): net,
        address_claim(net, "0a000002"): port,
        address_claim(net, v6): port,
        mac_claim(net, mac): port,
    }
    assert record.addresses[0] == "10.0.0.2" and record.mac == mac
    assert {(claim.playground, claim.change) for _, claim in admission.claims} == {("lab", "c1")}


def test_a_root_that_an_earlier_version_wrote_still_says_its_files() -> None:
    old = {"kind": "playground", "schema": 2, "name": "lab", "text": "name: lab\n", "file": "lab.yaml", "change": "c"}
    packed = base64.b64encode(zlib.compress(json.dumps({"*.yaml": [["a.yaml", "tests: []\n"]]}).encode())).decode()
    for more, included in (("", {}), (packed, {"*.yaml": [("a.yaml", "tests: []\n")]})):
        root = decode(json.dumps(old | {"more": more}).encode())
        assert isinstance(root, PlaygroundRecord)
        assert root.accepted() == ("name: lab\n", included)


_BUILT_IN = {"workspace:": "head", "workspace": "head", "playground": "lab", "network": "grid"}


def test_records_say_what_the_file_says() -> None:
    site = Site()
    nic = "{network: grid, labels: {side: in}, address: 10.0.0.9}"
    site.up(a_file(1, more=f"  head: {{networks: [{nic}], host: n1, cpus: 2, memory: 1GiB}}\n"))
    network = site.records["network/lab/grid"]
    assert isinstance(network, NetworkRecord)
    assert (network.vni, network.mtu, network.lease_s) == (4096, 1450, 3600)
    assert network.subnets == ("10.0.0.0/24", "fd00::/64")
    assert network.gateways == ("10.0.0.1", "fd00::1")
    head = site.records["workspace/lab/head"]
    assert isinstance(head, WorkspaceRecord)
    assert (head.pin, head.cpus, head.memory_mib, head.generation, head.host) == ("n1", 2.0, 1024, 1, None)
    port = site.records["port/lab/head/grid"]
    assert isinstance(port, PortRecord)
    assert (port.addresses[0], port.index) == ("10.0.0.9", 0)
    assert port.labels == {"side": "in", **_BUILT_IN}
    assert head.ports == (port.id,)


def test_the_same_file_again_changes_nothing() -> None:
    site = Site()
    assert site.up(a_file(3)).steps
    again = site.up(a_file(3))
    assert again == Admission()
    assert again.is_empty


def test_a_comment_moves_the_text_and_nothing_else() -> None:
    site = Site()
    site.up(a_file(1))
    admission = site.up("# why\n" + a_file(1))
    assert isinstance(admission.root, PlaygroundRecord)
    assert admission.root.accepted()[0].startswith("# why")
    assert admission == Admission(root=admission.root)
    assert (admission.root.generation, admission.root.change) == (1, "c1")


def test_lowest_free_addresses_in_the_files_order_over_pools() -> None:
    site = Site()
    site.up(a_file(5, pools="[10.0.0.30-10.0.0.31, 10.0.0.20-10.0.0.29]", exclude="[10.0.0.20-10.0.0.21]"))
    assert list(site.addresses("grid").values()) == ["10.0.0.30", "10.0.0.31", "10.0.0.22", "10.0.0.23", "10.0.0.24"]


def test_addresses_are_sticky_while_the_file_allows_them() -> None:
    site = Site()
    site.up(a_file(3))
    site.up(a_file(3, pools="[10.0.0.3-10.0.0.200]"))
    assert site.addresses("grid") == {"worker-0": "10.0.0.5", "worker-1": "10.0.0.3", "worker-2": "10.0.0.4"}
    site.up(a_file(3, exclude="[10.0.0.3]"))
    assert site.addresses("grid") == {"worker-0": "10.0.0.5", "worker-1": "10.0.0.2", "worker-2": "10.0.0.4"}


def test_a_fixed_address_wins_over_whoever_has_it() -> None:
    site = Site()
    site.up(a_file(2))
    admission = site.up(a_file(2, more="  head: {networks: [{network: grid, address: 10.0.0.2}]}\n"))
    assert site.addresses("grid") == {"worker-0": "10.0.0.4", "worker-1": "10.0.0.3", "head": "10.0.0.2"}
    net = network_id("lab", "grid")
    [(key, claim)] = admission.transfers
    assert (key, claim.owner) == (address_claim(net, "0a000002"), port_id("lab", "head", "grid"))


def test_a_renamed_workspace_may_keep_the_fixed_address() -> None:
    site = Site()
    site.up(a_file(0, more="  head: {networks: [{network: grid, address: 10.0.0.2}]}\n"))
    site.up(a_file(0, more="  master: {networks: [{network: grid, address: 10.0.0.2}]}\n"))
    assert site.addresses("grid") == {"master": "10.0.0.2"}


def test_what_another_port_still_claims_is_given_last() -> None:
    """A removed workspace may run on its host a moment longer; its address must not be at two places."""
    site = Site()
    site.up(a_file(2, pools="[10.0.0.10-10.0.0.13]"))
    text = a_file(0, pools="[10.0.0.10-10.0.0.13]", more="  new: {scale: 3, networks: grid}\n")
    site.up(text)
    assert site.addresses("grid") == {"new-0": "10.0.0.12", "new-1": "10.0.0.13", "new-2": "10.0.0.10"}


def test_a_fixed_mac_makes_the_ipv6_address() -> None:
    site = Site()
    site.up(a_file(0, more="  head: {networks: [{network: grid, mac: '52:54:00:12:34:56'}]}\n"))
    port = site.records["port/lab/head/grid"]
    assert isinstance(port, PortRecord)
    assert (port.mac, port.addresses) == ("52:54:00:12:34:56", ("10.0.0.2", "fd00::5054:ff:fe12:3456"))


@pytest.mark.parametrize(
    ("ipv6", "first", "second"),
    [
        ("dhcp", ("fd00::2", "fd01::{}"), ("fd00::9", "fd01::5")),
        ("both", ("fd00::2", "fd00::{}", "fd01::{}"), ("fd00::9", "fd00::{}", "fd01::5", "fd01::{}")),
    ],
)
def test_each_ipv6_subnet_gives_what_is_fixed_or_in_its_pools_and_what_is_made_of_the_mac(
    ipv6: str, first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    text = (
        "name: lab\n"
        f"networks: {{grid: {{subnets: ['fd00::/64', 'fd01::/64'], ipv6: {ipv6}, pools: 'fd00::2-fd00::4'}}}}\n"
        "workspaces:\n"
        "  a: {driver: external, networks: [{network: grid, mac: '52:54:00:00:00:0a'}]}\n"
        "  b: {driver: external, networks: [{network: grid, mac: '52:54:00:00:00:0b', "
        "addresses: ['fd00::9', 'fd01::5']}]}\n"
    )
    site = Site()
    site.up(text)
    for name, expected in (("a", first), ("b", second)):
        port = site.records[f"port/lab/{name}/grid"]
        assert isinstance(port, PortRecord)
        assert port.addresses == tuple(one.format(f"5054:ff:fe00:{name}") for one in expected)


def test_an_ipv6_pool_that_is_too_small_is_said_to_be() -> None:
    text = (
        "name: lab\n"
        "networks: {grid: {subnets: 'fd00::/64', ipv6: both, pools: 'fd00::2-fd00::4', exclude: 'fd00::3'}}\n"
        "workspaces: {w: {scale: 3, networks: [grid]}}\n"
    )
    assert refused(text) == [
        "3:39: workspaces.w.networks[0]: the pools of networks.grid (line 2) are exhausted: 2 addresses without "
        "exclusions, 3 ports; w-2 gets none; add or widen a pool"
    ]


@pytest.mark.parametrize("said", ["lease_time: 5m", "options: {log-servers: 10.0.0.9}", "options6: {41: {text: CET}}"])
def test_what_a_nic_says_of_delivery_reaches_a_port_that_stands(said: str) -> None:
    site, text = Site(), a_file(2, nic="{network: grid}")
    site.up(text)
    assert site.up(a_file(2, nic=f"{{network: grid, dhcp: {{{said}}}}}")).puts
    assert not site.up(a_file(2, nic=f"{{network: grid, dhcp: {{{said}}}}}")).puts


def test_a_derived_mac_that_is_taken_gives_way_to_the_next() -> None:
    mac = derived_mac(port_id("lab", "worker-0", "grid"))
    site = Site()
    site.up(a_file(1, more=f"  head: {{networks: [{{network: grid, mac: '{mac}'}}]}}\n"))
    port = site.records["port/lab/worker-0/grid"]
    assert isinstance(port, PortRecord)
    assert port.mac == derived_mac(port.id, 1)


def test_a_mac_whose_address_is_the_gateways_is_refused() -> None:
    text = (
        "name: lab\nnetworks: {grid: {subnets: 'fd00::/64', gateway: 'fd00::5054:ff:fe12:3456'}}\n"
        "workspaces: {a: {networks: [{network: grid, mac: '52:54:00:12:34:56'}]}}\n"
    )
    assert refused(text) == [
        "3:29: workspaces.a.networks[0]: 52:54:00:12:34:56 makes the address fd00::5054:ff:fe12:3456, "
        "which is the gateway's; choose another MAC or gateway"
    ]


def test_exhausted_pools_are_refused_at_the_first_workspace_without_an_address() -> None:
    more = "  head: {networks: [{network: grid, address: 10.0.0.11}]}\n"
    text = a_file(4, pools="[10.0.0.10-10.0.0.13]", exclude="[10.0.0.12]", more=more)
    assert refused(text) == [
        "5:33: workspaces.worker.networks[0]: the pools of networks.grid (line 3) are exhausted: "
        "3 addresses without exclusions, 5 ports; worker-2, worker-3 get none; add or widen a pool"
    ]


def test_vnis_are_the_lowest_that_nobody_has() -> None:
    site = Site()
    two = "name: {}\nnetworks: {{a: {{subnets: 10.0.0.0/24}}, b: {{subnets: 10.1.0.0/24}}}}\n"
    one = "name: {}\nnetworks: {{b: {{subnets: 10.1.0.0/24}}}}\n"
    vnis = lambda: {key: r.vni for key, r in site.records.items() if isinstance(r, NetworkRecord)}  # noqa: E731
    site.up(two.format("x"))
    site.up(two.format("y"))
    site.up(one.format("x"))
    site.up(two.format("z"))
    assert vnis() == {
        "network/x/b": 4097,
        "network/y/a": 4098,
        "network/y/b": 4099,
        "network/z/a": 4096,
        "network/z/b": 4100,
    }


def test_equal_subnets_in_two_playgrounds_are_nobodys_business() -> None:
    site = Site()
    site.up(a_file(2, name="red"))
    site.up(a_file(2, name="blue"))
    assert len({key for key in site.claims if key.startswith("claim/addr/")}) == 12


def test_the_mtu_is_that_of_the_smallest_underlay() -> None:
    def mtu(*hosts: object) -> int:
        site = Site(hosts=list(hosts))  # type: ignore[arg-type]
        site.up(a_file(0))
        record = site.records["network/lab/grid"]
        assert isinstance(record, NetworkRecord)
        return record.mtu

    assert mtu(a_host(mtu=9000)) == 8950
    assert mtu(a_host(mtu=9000), a_host("n2", mtu=1500)) == 1450
    assert mtu(a_host(underlay="2001:db8::1")) == 1430
    site = Site(hosts=[a_host(mtu=1300)])
    assert refused(a_file(0), site.known()) == [
        "3:33: networks.grid.subnets[1]: the smallest underlay MTU of the hosts, 1300, leaves 1250 bytes for a guest; "
        "IPv6 needs 1280: raise the underlay's MTU by 30 or take the IPv6 subnet out"
    ]
    assert not refused_or_none(a_file(0, subnets="10.0.0.0/24"), site.known())


def refused_or_none(text: str, known: Known) -> list[str]:
    try:
        admitted(text, known)
    except SpecErrors as error:
        return [str(problem) for problem in error.problems]
    return []


def test_a_pin_to_no_known_host_is_refused_with_the_list() -> None:
    known = Site(hosts=[a_host("n1"), a_host("n2")]).known()
    file = a_file(2, more="  a: {networks: grid, host: node}\n  b: {networks: grid, host: n11}\n")
    assert refused(file, known) == [
        "6:29: workspaces.a.host: 'node' is no host of this site; hosts are n1, n2",
        "7:29: workspaces.b.host: 'n11' is no host of this site; did you mean n1?",
    ]
    assert not refused_or_none(file, Known.empty())
    assert not refused_or_none(a_file(1, more="  a: {networks: grid, host: room=z}\n"), known)


def test_a_guest_is_made_anew_only_when_its_nics_or_driver_change() -> None:
    site = Site()
    head = "  head: {{networks: [{}]{}}}\n"

    def generation(nic: str, rest: str = "") -> int:
        site.up(a_file(0, more=head.format(nic, rest)))
        record = site.records["workspace/lab/head"]
        assert isinstance(record, WorkspaceRecord)
        assert (record.host, record.desired) in [(None, "running"), ("n1", "stopped")]
        if record.host is None:
            site.records["workspace/lab/head"] = replace(record, host="n1", desired="stopped")
        return record.generation

    assert generation("grid") == 1
    assert generation("grid", ", labels: {a: b}, cpus: 2, host: n1") == 1
    assert generation("grid", ", driver: external") == 2
    assert generation("{network: grid, mac: '52:54:00:00:00:01'}", ", driver: external") == 3
    assert generation("{network: grid, mac: '52:54:00:00:00:01', labels: {a: b}}", ", driver: external") == 3


MACHINE = "  head: {{networks: [grid], driver: libvirt, image: /a.qcow2, memory: {}{}}}\n"


def a_resting_machine(desired: Desired, memory: str = "1GiB") -> tuple[Site, WorkspaceRecord]:
    site = Site()
    site.up(a_file(0, more=MACHINE.format("1GiB", "")))
    record = site.records["workspace/lab/head"]
    assert isinstance(record, WorkspaceRecord)
    record = replace(record, desired=desired, reboots=3, hurry_s=1.0)
    site.records["workspace/lab/head"] = record
    return site, record


@pytest.mark.parametrize("desired", ["suspended", "saved"])
def test_an_edit_that_loses_kept_memory_is_refused_and_any_other_is_not(desired: Desired) -> None:
    site, before = a_resting_machine(desired)
    (said,) = refused(a_file(0, more=MACHINE.format("2GiB", "")), site.known())
    assert f"workspaces.head: it is {desired}, and this makes it anew" in said
    assert said.endswith("`playground stop lab/head` first")
    (after,) = admitted(a_file(0, more=MACHINE.format("1GiB", ", grace: 9s")), site.known()).puts
    assert after == replace(before, grace_s=9.0)


def test_a_file_that_was_accepted_is_carried_on_with_whatever_was_saved_meanwhile() -> None:
    site, before = a_resting_machine("saved")
    site.records["workspace/lab/head"] = replace(before, memory_mib=512)
    (after,) = admitted(a_file(0, more=MACHINE.format("1GiB", "")), site.known()).puts
    assert after == replace(before, generation=before.generation + 1)


def test_steps_tell_what_differs() -> None:
    site = Site()
    created = site.up(a_file(1)).steps
    assert [(step.action, step.object) for step in created] == [
        ("create", "playground lab"),
        ("create", "network grid"),
        ("create", "workspace worker-0"),
    ]
    assert created[1].detail == (
        "VNI 4096, MTU 1450, subnets 10.0.0.0/24 fd00::/64, gateways 10.0.0.1 fd00::1, lease 3600 s"
    )
    mac = derived_mac(port_id("lab", "worker-0", "grid"))
    assert created[2].detail == f"driver netns, networks grid, grid: 10.0.0.2 {slaac_address('fd00::/64', mac)} {mac}"
    more = "  head: {networks: [grid], labels: {role: head}}\n"
    changed = site.up(
        a_file(0, more=more).replace("networks:\n", "networks:\n  dmz: {subnets: 10.1.0.0/24}\n", 1)
    ).steps
    assert [(step.action, step.object) for step in changed] == [
        ("create", "network dmz"),
        ("create", "workspace head"),
        ("remove", "workspace worker-0"),
    ]
    relabelled = site.up(a_file(0, more=more.replace("role: head", "role: chief"))).steps
    assert relabelled == (
        Step("change", "workspace head", "labels role=head → role=chief"),
        Step("remove", "network dmz", "VNI 4097"),
    )


def test_down_deletes_everything_and_says_so() -> None:
    site = Site()
    site.up(a_file(2))
    admission = remove(site.known())
    assert admission.root is not None and admission.root.state == "removing"
    assert [step.object for step in admission.steps] == [
        "workspace worker-0",
        "workspace worker-1",
        "network grid",
        "playground lab",
    ]
    site.write([(key, None) for key in admission.deletes])
    assert set(site.records) == {"playground/lab"}
    assert not site.claims
    assert remove(Known.empty()) == Admission()


def test_up_after_down_makes_the_root_present_again() -> None:
    site = Site()
    first = site.up(a_file(1)).root
    assert first is not None
    site.records["playground/lab"] = replace(first, state="removing")
    admission = site.up(a_file(1))
    assert admission.root is not None and admission.root.state == "present"
    assert admission.steps == (Step("create", "playground lab", ""),)


def test_a_claim_that_nothing_needs_is_released() -> None:
    site = Site()
    site.up(a_file(1))
    stray = address_claim(network_id("lab", "grid"), "0a0000c8")
    site.claims[stray] = ClaimRecord(owner="gone", playground="lab", change="c0")
    assert site.up(a_file(1)) == Admission(deletes=(stray,))


ALLOWED = "{{network: grid, allow: {{addresses: [{}], macs: [{}]}}}}"


def allowing(addresses: str, macs: str = "") -> str:
    return a_file(2, more=f"  pair: {{networks: [{ALLOWED.format(addresses, macs)}]}}\n")


def test_what_a_nic_allows_is_no_ports_own() -> None:
    site = Site()
    site.up(a_file(2))
    workers = [port for port in site.records.values() if isinstance(port, PortRecord)]
    taken = [workers[0].addresses[0], workers[1].addresses[1], workers[0].mac]
    admission = site.up(allowing(f"{taken[0]}, '{taken[1]}'", f"'{taken[2]}'"))
    ports = {port.workspace: port for port in admission.puts if isinstance(port, PortRecord)}
    assert ports.keys() == {"worker-0", "worker-1", "pair"}
    assert (ports["pair"].allowed_addresses, ports["pair"].allowed_macs) == (tuple(taken[:2]), (taken[2],))
    assert not {text for port in ports.values() for text in (*port.addresses, port.mac)} & set(taken)
    assert site.up(allowing(f"{taken[0]}, '{taken[1]}'", f"'{taken[2]}'")) == Admission()


def test_an_edit_of_what_is_allowed_changes_that_port_alone_and_says_so() -> None:
    site = Site()
    site.up(allowing("10.0.0.200"))
    admission = site.up(allowing("10.0.0.201, 10.9.0.0/24"))
    assert [port.workspace for port in admission.puts if isinstance(port, PortRecord)] == ["pair"]
    [step] = admission.steps
    assert step == Step("change", "workspace pair", "grid allows 10.0.0.200 → 10.0.0.201 10.9.0.0/24")


def test_a_fixed_mac_whose_address_is_allowed_elsewhere_is_refused() -> None:
    address = slaac_address("fd00::/64", "52:54:00:00:00:01")
    text = allowing(f"'{address}'") + "  own: {networks: [{network: grid, mac: '52:54:00:00:00:01'}]}\n"
    assert refused(text) == [
        f"7:20: workspaces.own.networks[0]: 52:54:00:00:00:01 makes the address {address}, which a NIC of grid allows; "
        "choose another"
    ]
