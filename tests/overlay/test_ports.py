"""Ports that come, go, wait, are adopted or gated; and what is not ours."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from overlay_lab import NET, OTHER_NET, Lab, a_port, a_remote, frame, mac, port_id

from overlay.kernel import namespaces
from overlay.kernel.apply import DataPlane, ForeignNamespaceError
from overlay.kernel.converge import PortState
from overlay.state import Gate, HostState, Leg, LocalPort, Network, NetworkId, port_device
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("permitted")]

BROADCAST = "ff:ff:ff:ff:ff:ff"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path / "netns")
    yield made
    made.close()


@pytest.fixture
def plane(lab: Lab) -> DataPlane:
    return lab.host(1)


def a_state(*ports: LocalPort, **changes: object) -> HostState:
    network = Network(NET, vni=7, mtu=1450, ports={port.id: port for port in ports})
    return HostState("192.0.2.1", {NET: replace(network, **changes)})  # type: ignore[arg-type]


def links(lab: Lab, namespace: str) -> str:
    return lab.run(namespace, "ip -details -oneline link").stdout


def test_a_port_waits_for_its_device_and_is_noticed_when_it_comes(lab: Lab, plane: DataPlane) -> None:
    state = a_state(a_port(10))
    outcome = plane.converge(state)
    assert outcome.ports[port_id(10)].state is PortState.WAITING
    assert outcome.is_clean
    plane.forget_events()
    lab.guest(1, 10)
    assert plane.wait_event(2)
    outcome = plane.converge_changes(state, {NET: None})
    assert outcome.ports[port_id(10)].state is PortState.FORWARDING
    assert outcome.repaired == {}, "an arrival is no drift"


def test_an_incremental_pass_leaves_other_networks_alone(lab: Lab, plane: DataPlane) -> None:
    plane.converge(a_state(a_port(10)))
    lab.run("dp1", f"ip link del vx{NET}")
    assert plane.converge_changes(a_state(a_port(10)), {}).applied == 0
    assert plane.converge_changes(a_state(a_port(10)), {NET: None}).repaired["vxlan"] == 1


@pytest.mark.parametrize(("old", "new"), [(NET, OTHER_NET), (OTHER_NET, NET)])
def test_a_vni_passes_from_a_network_that_goes_to_one_that_comes(
    plane: DataPlane, old: NetworkId, new: NetworkId
) -> None:
    def state(id: NetworkId) -> HostState:
        return HostState("192.0.2.1", {id: Network(id, vni=7, mtu=1450, ports={}, remotes={}, vteps=frozenset())})

    assert plane.converge(state(old)).is_clean
    outcome = plane.converge(state(new))
    assert outcome.is_clean, outcome.errors
    outcome = plane.converge_changes(state(old), {old: None, new: None})
    assert outcome.is_clean, outcome.errors


def test_what_a_converge_does_itself_is_no_event(lab: Lab, plane: DataPlane) -> None:
    plane.converge(a_state())
    assert eventually(lambda: not plane.wait_event(0.05)), "devices that come up tell so a little later"
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(plane.wait_event, 0.3)
        for number in range(2, 6):
            plane.converge(a_state(remotes={mac(number): a_remote(number, "192.0.2.2")}))
        assert heard.result() is False


def test_an_incremental_pass_does_not_forget_what_happened_elsewhere(lab: Lab, plane: DataPlane) -> None:
    state = a_state(a_port(10))
    both = HostState("192.0.2.1", {**state.networks, OTHER_NET: Network(OTHER_NET, vni=8, mtu=1450)})
    plane.converge(both)
    lab.run("dp1", f"ip link del vx{OTHER_NET}")
    plane.converge_changes(both, {NET: None})
    assert plane.wait_event(0)
    lab.run("dp1", f"ip link del vx{NET}")
    plane.converge_changes(both, {NET: None, OTHER_NET: None})
    assert eventually(lambda: not plane.wait_event(0.05)), "devices that come up tell so a little later"


def test_a_closed_gate_delivers_nothing_and_opens_without_a_new_device(lab: Lab, plane: DataPlane) -> None:
    lab.guest(1, 10)
    lab.guest(1, 11)
    gated = a_port(11, gate=Gate.CLOSED)
    outcome = plane.converge(a_state(a_port(10), gated))
    assert outcome.ports[port_id(11)].state is PortState.GATED
    heard = lab.capture("g11", "eth0")
    for destination in (BROADCAST, "33:33:00:00:00:fb", mac(11)):
        lab.send("g10", "eth0", frame(destination, mac(10), b"too early"))
    outcome = plane.converge(a_state(a_port(10), a_port(11)))
    assert outcome.ports[port_id(11)].state is PortState.FORWARDING
    lab.send("g10", "eth0", frame(BROADCAST, mac(10), b"now"))
    assert eventually(lambda: heard.holding(b"now"))
    assert heard.holding(b"too early") == []
    heard.close()
    plane.converge(a_state(a_port(10), gated))
    assert not lab.pings("g10", "10.0.0.11", "-W0.2")


def test_an_adopted_device_is_moved_in_and_given_back_as_it_was(lab: Lab, plane: DataPlane) -> None:
    device = port_device(port_id(10))
    lab.guest(1, 10, in_host=True)
    lab.guest(1, 11)
    lab.run("h1", f"ip link set {device} alias somebody's up")
    outcome = plane.converge(a_state(a_port(10, adopt=True), a_port(11)))
    assert outcome.ports[port_id(10)].state is PortState.FORWARDING
    assert device not in links(lab, "h1")
    assert eventually(lambda: lab.pings("g10", "10.0.0.11"))
    plane.converge(a_state(a_port(11)))
    back = links(lab, "h1")
    assert device in back and "somebody's" in back and "playground" not in back and "mtu 1500" in back


def test_an_unwanted_veth_port_is_deleted_and_another_kind_only_detached(lab: Lab, plane: DataPlane) -> None:
    lab.guest(1, 10)
    other = port_device(port_id(12))
    lab.run("dp1", f"ip link add {other} type bridge")
    plane.converge(a_state(a_port(10)))
    assert port_device(port_id(10)) in links(lab, "dp1")
    plane.converge(a_state())
    left = links(lab, "dp1")
    assert port_device(port_id(10)) not in left and other in left


def test_the_vxlan_device_never_shows_in_the_host(lab: Lab, plane: DataPlane) -> None:
    plane.converge(a_state())
    assert "vxlan" not in links(lab, "h1")
    assert "4789" in lab.run("h1", "ss -lun").stdout, "its socket is the host's"


def test_changing_what_a_vxlan_device_is_made_of_makes_a_new_one(lab: Lab, plane: DataPlane) -> None:
    state = a_state(remotes={mac(20): a_remote(20, "192.0.2.2")}, vteps=frozenset({"192.0.2.2"}))
    plane.converge(state)
    outcome = plane.converge(HostState("192.0.2.1", {NET: replace(state.networks[NET], vni=8)}))
    assert outcome.is_clean and outcome.repaired == {}
    assert "vxlan id 8 " in links(lab, "dp1")
    assert "192.0.2.2" in lab.run("dp1", f"bridge fdb show dev vx{NET}").stdout


def test_a_port_that_cannot_be_programmed_says_why(lab: Lab, plane: DataPlane) -> None:
    lab.guest(1, 10)
    outcome = plane.converge(a_state(a_port(10), leg=Leg("taken", ("10.0.0.1/24",)), vni=1 << 25))
    status = outcome.ports[port_id(10)]
    assert status.state is PortState.FAILED
    assert "create vxlan" in status.cause and "(ERANGE)" in status.cause
    assert not outcome.is_clean


def test_a_foreign_namespace_of_our_name_is_refused_and_left_alone(lab: Lab, tmp_path: Path) -> None:
    lab.namespace("playground")
    plane = DataPlane("playground", host=lab.namespace("h9"), directory=lab.folder)
    with pytest.raises(ForeignNamespaceError, match="not ours"):
        plane.converge(a_state())
    assert links(lab, "playground").count("\n") == 1
    plane.close()


def test_a_foreign_service_namespace_is_refused_and_left_alone(lab: Lab, plane: DataPlane) -> None:
    lab.namespace("service")
    outcome = plane.converge(a_state(leg=Leg("service", ("10.0.0.1/24",))))
    assert any("not ours" in error.cause for error in outcome.errors)
    plane.converge(a_state())
    assert (lab.folder / "service").exists()
    assert links(lab, "service").count("\n") == 1


def test_a_leg_follows_its_addresses_and_goes_with_its_network(lab: Lab, plane: DataPlane) -> None:
    plane.converge(a_state(leg=Leg("service", ("10.0.0.1/24",))))
    plane.converge(a_state(leg=Leg("service", ("10.0.0.254/24", "fd00::1/64"))))
    shown = lab.run("service", "ip -brief addr").stdout
    assert "10.0.0.254/24" in shown and "fd00::1/64" in shown and "fe80::1/64" in shown and "10.0.0.1/24" not in shown
    assert lab.run("service", "sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding").stdout.split() == ["0", "0"]
    plane.converge_changes(HostState("192.0.2.1"), {NET: None})
    assert not (lab.folder / "service").exists()


def test_a_deleted_service_namespace_comes_back(lab: Lab, plane: DataPlane) -> None:
    state = a_state(leg=Leg("service", ("10.0.0.1/24",)))
    plane.converge(state)
    namespaces.remove("service", lab.folder)
    outcome = plane.converge(state)
    assert outcome.is_clean and outcome.repaired["namespace"] == 1
    assert "10.0.0.1/24" in lab.run("service", "ip -brief addr").stdout


def test_another_process_without_memory_takes_over_and_changes_nothing(lab: Lab, plane: DataPlane) -> None:
    lab.guest(1, 10)
    state = a_state(a_port(10), leg=Leg("service", ("10.0.0.1/24",)), chase={mac(30): "192.0.2.3"})
    plane.converge(state)
    other = DataPlane("dp1", host=lab.folder / "h1", directory=lab.folder)
    outcome = other.converge(state)
    assert (outcome.applied, outcome.repaired) == (0, {})
    other.close()


def test_remove_leaves_the_host_as_it_was(lab: Lab) -> None:
    def picture() -> tuple[list[str], str, list[str]]:
        # A device that comes back has another index, so another place in the list.
        devices = sorted(line.partition(": ")[2] for line in lab.run("h1", "ip -oneline link").stdout.splitlines())
        routes = lab.run("h1", "ip route show table all").stdout
        return devices, routes, sorted(path.name for path in lab.folder.iterdir())

    plane = lab.host(1)
    plane.remove()
    device = port_device(port_id(10))
    lab.run("h1", f"ip link add {device} type veth peer name own0")
    lab.run("h1", f"ip link set {device} up")
    before = picture()
    plane.converge(a_state(a_port(10, adopt=True), leg=Leg("service", ("10.0.0.1/24",))))
    assert picture() != before
    plane.remove()
    assert eventually(lambda: picture() == before)
    plane.remove()
