"""The steps from what a kernel shows to what a host should have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from overlay_lab import NET, OTHER_NET, a_port, a_remote, mac, port_id
from overlay_states import ADOPTED, NUMBERS, host_states

from overlay import ops as do
from overlay.diff import diff, diff_network
from overlay.kernel.memory import MemoryDataPlane
from overlay.ops import Op
from overlay.state import LEG_MAC, Gate, HostState, LocalPort, Network, port_device
from overlay.topology import Link, ObservedState, PortFlags, Tables

few = settings(max_examples=30, deadline=None)


def plug_all(kernel: MemoryDataPlane) -> None:
    """Every port's device exists, as after its maker has done its work."""
    for number in (number for numbers in NUMBERS.values() for number in numbers):
        name = port_device(port_id(number))
        if name not in kernel.links and name not in kernel.host:
            kernel.plug(name, in_host=number == ADOPTED)


def take(kernel: MemoryDataPlane, desired: HostState) -> Sequence[Op]:
    ops = diff(desired, kernel.observe())
    assert kernel.apply(ops) == []
    return ops


def reach(states: Sequence[HostState]) -> ObservedState:
    """What a kernel shows after these states, one after the other, all devices present at the last."""
    kernel = MemoryDataPlane()
    for state in states[:-1]:
        plug_all(kernel)
        take(kernel, state)
    # Devices that an earlier state deleted come back only by their maker.
    take(kernel, HostState("192.0.2.1"))
    kernel = _fresh_devices(kernel)
    take(kernel, states[-1])
    return kernel.observe()


def _fresh_devices(kernel: MemoryDataPlane) -> MemoryDataPlane:
    plug_all(kernel)
    return kernel


def worn(kernel: MemoryDataPlane, damages: Sequence[tuple[str, int]]) -> None:
    """Somebody meddles with the kernel."""
    for damage, pick in damages:
        names = sorted(kernel.links)
        if not names:
            return
        name = names[pick % len(names)]
        link = kernel.links[name]
        match damage:
            case "delete":
                kernel.unplug(name)
            case "detach":
                kernel.apply([do.Detach(name)])
            case "down":
                kernel.links[name] = replace(link, up=False)
            case "loud":
                kernel.links[name] = replace(link, quiet=False)
            case "mtu":
                kernel.links[name] = replace(link, mtu=1000)
            case "flags" if link.flags:
                kernel.links[name] = replace(link, flags=PortFlags(learning=True, unicast_flood=True, hairpin=True))
            case "snooping" if link.kind == "bridge":
                kernel.links[name] = replace(link, snooping=True)
            case "fdb":
                kernel.apply(
                    [do.PutForwarding(name, mac(99)), do.PutForwarding(name, mac(1)), do.DropForwarding(name, mac(2))]
                )
            case "tunnel" if link.kind == "vxlan":
                extra = (
                    do.PutTunnelEntry(name, mac(98), "192.0.2.9"),
                    do.PutFlood(name, "192.0.2.9"),
                    do.PutChase(name, mac(97)),
                )
                kernel.apply(extra)
            case "neighbour" if link.kind == "bridge":
                kernel.apply([do.PutNeighbour(name, "10.0.0.77", mac(77)), do.DropNeighbour(name, "10.0.0.1")])


damages = st.lists(
    st.tuples(
        st.sampled_from(["delete", "detach", "down", "loud", "mtu", "flags", "snooping", "fdb", "tunnel", "neighbour"]),
        st.integers(0, 20),
    ),
    max_size=6,
)


@few
@given(host_states(), damages, host_states())
def test_applying_a_diff_reaches_the_desired_state_from_any_other(
    earlier: HostState, wear: list[tuple[str, int]], desired: HostState
) -> None:
    kernel = MemoryDataPlane()
    plug_all(kernel)
    take(kernel, earlier)
    worn(kernel, wear)
    take(kernel, desired)
    assert diff(desired, kernel.observe()) == []


@few
@given(st.lists(host_states(), min_size=1, max_size=3), host_states())
def test_the_end_does_not_depend_on_the_path(path: list[HostState], end: HostState) -> None:
    direct = reach([end])
    squashed = [path[-1], end]
    doubled = [state for state in path for _ in range(2)] + [end, end]
    for states in ([*path, end], [*reversed(path), end], squashed, doubled):
        assert reach(states) == direct


@few
@given(host_states(), host_states())
def test_networks_one_by_one_are_the_same_as_all_at_once(earlier: HostState, desired: HostState) -> None:
    kernels = [MemoryDataPlane(), MemoryDataPlane()]
    for kernel in kernels:
        plug_all(kernel)
        take(kernel, earlier)
        plug_all(kernel)
    take(kernels[0], desired)
    for network in (OTHER_NET, NET):
        kernels[1].apply(diff_network(desired, network, kernels[1].observe()))
    take(kernels[1], desired)
    assert kernels[0].observe() == kernels[1].observe()


@few
@given(host_states(), host_states(), st.randoms(use_true_random=False))
def test_the_order_of_mappings_never_matters(earlier: HostState, desired: HostState, random: object) -> None:
    kernel = MemoryDataPlane()
    plug_all(kernel)
    take(kernel, earlier)
    observed = kernel.observe()
    assert diff(backwards(desired), replace(observed, links=dict(reversed(observed.links.items())))) == diff(
        desired, observed
    )


def backwards(state: HostState) -> HostState:
    def turned(network: Network) -> Network:
        return replace(
            network,
            ports=dict(reversed(network.ports.items())),
            remotes=dict(reversed(network.remotes.items())),
            chase=dict(reversed(network.chase.items())),
        )

    return replace(state, networks={id: turned(n) for id, n in reversed(state.networks.items())})


@few
@given(host_states(), damages, host_states())
def test_at_no_moment_does_a_frame_go_astray(
    earlier: HostState, wear: list[tuple[str, int]], desired: HostState
) -> None:
    kernel = MemoryDataPlane()
    plug_all(kernel)
    take(kernel, earlier)
    worn(kernel, wear)
    plug_all(kernel)
    for op in diff(desired, kernel.observe()):
        bridge = kernel.links[op.name].master if isinstance(op, do.DropForwarding) else ""
        kernel.apply([op])
        check_moment(desired, bridge, op, kernel.observe())


def check_moment(desired: HostState, bridge: str, op: Op, after: ObservedState) -> None:
    match op:
        case do.PutForwarding() if op.name.startswith("vx"):
            tables = after.tables[NET if op.name.endswith(NET) else OTHER_NET]
            assert op.mac in tables.tunnel, "without a tunnel entry the VXLAN device floods the frame to every VTEP"
        case do.PutChase():
            assert op.mac in after.tables[NET if op.name.endswith(NET) else OTHER_NET].tunnel
        case do.DropForwarding():
            network = desired.networks.get(NET if bridge.endswith(NET) else OTHER_NET)
            wanted = {port.mac for port in network.ports.values() if port.gate is Gate.OPEN} if network else set()
            assert op.mac not in wanted, "a MAC that moves is replaced, never dropped"
        case do.SetUp(namespace="") if op.name.startswith("pg"):
            flags = after.links[op.name].flags
            is_held = not after.links[op.name].master
            assert is_held or (flags is not None and not flags.unicast_flood and not flags.learning)
        case do.PutNeighbour() if op.mac == LEG_MAC:
            assert LEG_MAC in after.tables[NET if op.name.endswith(NET) else OTHER_NET].forwarding
        case _:
            pass


@few
@given(host_states())
def test_foreign_devices_are_never_touched(desired: HostState) -> None:
    kernel = MemoryDataPlane()
    strangers = {"eth7": Link("veth", up=False, mtu=9000), "br-lan": Link("bridge", snooping=True), "pgx": Link("veth")}
    kernel.links.update(strangers)
    kernel.host["pg" + "f" * 12] = Link("tun")
    take(kernel, desired)
    take(kernel, HostState("192.0.2.1"))
    assert kernel.links == strangers
    assert set(kernel.host) == {"pg" + "f" * 12}


def a_network(*ports: LocalPort, **changes: object) -> HostState:
    network = Network(NET, vni=7, mtu=1450, ports={port.id: port for port in ports})
    return HostState("192.0.2.1", {NET: replace(network, **changes)})  # type: ignore[arg-type]


def settled(state: HostState, *numbers: int) -> MemoryDataPlane:
    kernel = MemoryDataPlane()
    for number in numbers:
        kernel.plug(port_device(port_id(number)))
    take(kernel, state)
    return kernel


def test_a_guest_that_leaves_is_one_replacement_in_the_bridge() -> None:
    away = {mac(1): a_remote(1, "192.0.2.2")}
    kernel = settled(a_network(a_port(1)), 1)
    ops = diff(a_network(a_port(1, gate=Gate.CLOSED), remotes=away), kernel.observe())
    tunnel = f"vx{NET}"
    assert [op for op in ops if isinstance(op, do.PutForwarding | do.DropForwarding | do.PutTunnelEntry)] == [
        do.PutTunnelEntry(tunnel, mac(1), "192.0.2.2"),
        do.PutForwarding(tunnel, mac(1)),
    ]


def test_a_guest_that_arrives_is_opened_before_the_chase_ends() -> None:
    away = {mac(1): a_remote(1, "192.0.2.2")}
    gated = a_network(a_port(1, gate=Gate.CLOSED), remotes=away, chase={mac(1): "192.0.2.2"})
    kernel = settled(gated, 1)
    device, tunnel = port_device(port_id(1)), f"vx{NET}"
    assert diff(a_network(a_port(1), chase={mac(1): "192.0.2.2"}), kernel.observe()) == [
        do.PutForwarding(device, mac(1)),
        do.SetFlags(device, PortFlags()),
        do.DropChase(tunnel, mac(1)),
        do.DropTunnelEntry(tunnel, mac(1)),
    ]


def test_a_device_that_is_up_is_taken_down_to_be_attached_behind_a_closed_gate() -> None:
    kernel = settled(a_network())
    kernel.plug(port_device(port_id(1)))
    for gate, down in ((Gate.CLOSED, True), (Gate.OPEN, False)):
        ops = diff(a_network(a_port(1, gate=gate)), kernel.observe())
        assert (do.SetDown(port_device(port_id(1))) in ops) is down


def test_this_host_is_no_vtep_of_its_own() -> None:
    state = a_network(vteps=frozenset({"192.0.2.1", "192.0.2.2"}), remotes={mac(1): a_remote(1, "192.0.2.1")})
    tables = settled(state).observe().tables[NET]
    assert tables == Tables(floods=frozenset({"192.0.2.2"}), neighbours=tables.neighbours)
