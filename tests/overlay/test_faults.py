"""Whatever goes wrong in a pass is told truly, touches nothing foreign, opens no closed gate, and is over one clean
pass later."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from overlay_lab import NET, mac, port_id
from overlay_states import ADOPTED, NAMED, PRESENT

from overlay.diff import diff
from overlay.kernel.converge import Outcome, PortState
from overlay.kernel.faults import FailAfter, Fault, Interrupt, Meddle, Refuse
from overlay.kernel.memory import NEW_PORT, MemoryDataPlane
from overlay.kernel.netlink import DUMPS
from overlay.parts import between
from overlay.state import Gate, HostState, LocalPort, bridge_device, port_device, vxlan_device
from overlay.topology import CLOSED, OPEN, Link, Neighbour, ObservedState

BRIDGE, TUNNEL = bridge_device(NET), vxlan_device(NET)
STRANGERS = {"eth7": Link("veth", up=False, mtu=9000), "br-lan": Link("bridge", snooping=True), "pgx": Link("veth")}
Pass = Callable[[MemoryDataPlane], Outcome]


def world() -> MemoryDataPlane:
    """A host on which others live too, and on which the ports' makers have done their work."""
    kernel = MemoryDataPlane()
    kernel.links.update(STRANGERS)
    kernel.links["eth8"] = Link("veth", master="br-lan", flags=NEW_PORT)
    kernel._of("br-lan").forwarding[mac(70)] = "eth8"
    kernel._of("br-lan").neighbours["10.9.9.9"] = Neighbour(mac(71))
    kernel.host["eth0"] = Link("veth")
    kernel.foreign.add("theirs")
    make_ends(kernel)
    return kernel


def make_ends(kernel: MemoryDataPlane) -> None:
    for number in PRESENT:
        name = port_device(port_id(number))
        if name not in kernel.links and name not in kernel.host:
            kernel.plug(name, in_host=number == ADOPTED)


def strangers(kernel: MemoryDataPlane) -> object:
    """All that is somebody else's."""
    links = {name: kernel.links.get(name) for name in (*STRANGERS, "eth8")}
    entries = kernel._of("br-lan")
    return links, dict(entries.forwarding), dict(entries.neighbours), kernel.host.get("eth0"), set(kernel.foreign)


def ours(seen: ObservedState) -> ObservedState:
    """Without somebody else's devices."""
    links = {name: link for name, link in seen.links.items() if name not in STRANGERS and name not in ("eth8", "eth9")}
    return replace(seen, links=links)


def ports_of(state: HostState) -> dict[str, LocalPort]:
    return {port_device(id): port for network in state.networks.values() for id, port in network.ports.items()}


def is_let_in(kernel: MemoryDataPlane, name: str, port: LocalPort) -> bool:
    """Whether frames are delivered to a port's device."""
    link = kernel.links.get(name)
    if link is None or not link.master or not link.up:
        return False
    flags = link.flags or NEW_PORT
    floods = flags.unicast_flood or flags.broadcast_flood or flags.multicast_flood
    return floods or kernel._of(link.master).forwarding.get(port.mac) == name


def opens(edit: Meddle) -> bool:
    return edit.name.startswith(("flags", "set bridge fdb"))


def watch(kernel: MemoryDataPlane, earlier: HostState, desired: HostState, faults: Sequence[Fault]) -> None:
    """Looks on at every call: a gate that was closed and is to stay so never opens, but by a stranger's hand."""
    if any(isinstance(fault.what, Meddle) and opens(fault.what) for fault in faults):
        return
    before = ports_of(earlier)
    closed = {
        name: port
        for name, port in ports_of(desired).items()
        if port.gate is Gate.CLOSED and (name not in before or before[name].gate is Gate.CLOSED)
    }

    def look() -> None:
        for name, port in closed.items():
            assert not is_let_in(kernel, name, port), f"{name} is open after {kernel.calls[-1]}"

    kernel.after_call = look


def check_truth(kernel: MemoryDataPlane, desired: HostState, outcome: Outcome) -> None:
    """What the outcome says of the ports that it speaks of is what is there."""
    seen = kernel.observe()
    for name, port in ports_of(desired).items():
        if port.id not in outcome.ports:
            continue
        status = outcome.ports[port.id].state
        network = next(n for n in desired.networks.values() if port.id in n.ports)
        bridge, tunnel, link = (seen.links.get(n) for n in (f"br{network.id}", f"vx{network.id}", name))
        if status in (PortState.FORWARDING, PortState.GATED):
            assert bridge and bridge.up and tunnel and tunnel.up and tunnel.master == f"br{network.id}", status
            assert link and link.up and link.master == f"br{network.id}", (name, link)
            assert link.flags == (OPEN if port.gate is Gate.OPEN else CLOSED), (name, link)
            leads = seen.tables[network.id].forwarding.get(port.mac) == name
            assert leads is (status is PortState.FORWARDING), (name, status)
        if status is PortState.WAITING:
            assert link is None


def edits(kernel: MemoryDataPlane) -> list[Meddle]:
    """What a stranger can do to all that is there when the pass is done, and things of its own that it brings."""
    found = [Meddle(f"delete {name}", lambda k, n=name: k.unplug(n)) for name in names_of(kernel)]
    for name, link in kernel.links.items():
        if name in STRANGERS or name == "eth8":
            continue
        changes: dict[str, dict[str, object]] = {"down": {"up": False}, "mtu": {"mtu": 1280}, "loud": {"quiet": False}}
        if link.flags:
            changes["flags"] = {"flags": NEW_PORT}
        found += [Meddle(f"{word} {name}", change(name, **fields)) for word, fields in changes.items()]
        if link.master:
            found.append(Meddle(f"detach {name}", lambda k, n=name: n in k.links and k._detach(n)))
    for words, table, value in (
        ("bridge fdb", "forwarding", "eth8"),
        ("tunnel fdb", "tunnel", "192.0.2.99"),
        ("neighbour", "neighbours", Neighbour(mac(66))),
    ):
        device = TUNNEL if table == "tunnel" else BRIDGE
        keys = sorted(getattr(kernel._of(device), table))[:2]
        for key in [*keys, "10.0.0.66" if table == "neighbours" else mac(66)]:
            found.append(Meddle(f"set {words} {key}", put(device, table, key, value)))
        found += [Meddle(f"delete {words} {key}", drop(device, table, key)) for key in keys]
    found += [
        Meddle("add flood", lambda k: k._of(TUNNEL).floods.add("192.0.2.99")),
        Meddle("clear floods", lambda k: k._of(TUNNEL).floods.clear()),
        Meddle("add chase", lambda k: k._of(TUNNEL).chases.add(mac(67))),
        Meddle("clear chases", lambda k: k._of(TUNNEL).chases.clear()),
        Meddle("delete services", lambda k: [k._remove_service(name) for name in list(k.services)]),
        Meddle("bring eth9", bring_member),
    ]
    return found


def names_of(kernel: MemoryDataPlane) -> list[str]:
    known = [*kernel.links, *(name for name in kernel.host if name != "eth0")]
    return sorted(name for name in known if name not in STRANGERS and name != "eth8")


def change(name: str, **fields: object) -> Callable[[MemoryDataPlane], object]:
    def edit(kernel: MemoryDataPlane) -> None:
        if name in kernel.links and ("flags" not in fields or kernel.links[name].master):
            kernel.links[name] = replace(kernel.links[name], **fields)  # type: ignore[arg-type]

    return edit


def put(device: str, table: str, key: str, value: object) -> Callable[[MemoryDataPlane], object]:
    def edit(kernel: MemoryDataPlane) -> None:
        members = [name for name, link in kernel.links.items() if link.master == device]
        if table != "forwarding":
            getattr(kernel._of(device), table)[key] = value
        elif members:
            kernel._of(device).forwarding[key] = members[-1]

    return edit


def drop(device: str, table: str, key: str) -> Callable[[MemoryDataPlane], object]:
    return lambda kernel: getattr(kernel._of(device), table).pop(key, None)


def bring_member(kernel: MemoryDataPlane) -> None:
    """A foreign device in our bridge: to be taken out, and left alone otherwise."""
    if BRIDGE in kernel.links:
        kernel.links["eth9"] = Link("veth", mtu=9000, master=BRIDGE, flags=NEW_PORT, quiet=False)


def whole(desired: HostState) -> Pass:
    return lambda kernel: kernel.converge(desired)


def changed(earlier: HostState, desired: HostState) -> Pass:
    return lambda kernel: kernel.converge_changes(desired, between(earlier, desired))


def prepared(earlier: HostState) -> MemoryDataPlane:
    """A host that has converged to `earlier`, made once and then copied: it is asked for a hundred thousand times."""
    if (kept := _prepared.get(id(earlier))) is None:
        made = world()
        assert made.converge(earlier).is_clean
        make_ends(made)
        made.restart()
        kept = pickle.dumps({name: value for name, value in vars(made).items() if name not in _NOT_COPIED})
        _prepared[id(earlier)] = kept
    kernel = MemoryDataPlane()
    vars(kernel).update(pickle.loads(kept))
    return kernel


_NOT_COPIED = ("_lock", "_events", "after_call")
_prepared: dict[int, bytes] = {}


def single_faults(earlier: HostState, desired: HostState, run: Pass, *, every: bool = True) -> Iterator[Fault]:
    """What can go wrong once in a pass, at each call that it makes when nothing does.

    every: all errors and a stranger at every call; else one error, and a stranger before and after each look.
    """
    kernel = prepared(earlier)
    found = edits(kernel)
    run(kernel)
    found = list({edit.name: edit for edit in (*found, *edits(kernel))}.values())
    numbers = [errno.ENOMEM, errno.EBUSY, errno.ENODEV, errno.EEXIST] if every else [errno.ENOMEM]
    last_is_list = False
    for at, call in enumerate(kernel.calls):
        yield from (Fault(at, Refuse(number)) for number in numbers)
        if call.is_list:
            yield from (Fault(at, Interrupt(times)) for times in (1, DUMPS))
        else:
            yield Fault(at, FailAfter(errno.ENOBUFS))
        if every or call.is_list is not last_is_list:
            yield from (Fault(at, edit) for edit in found)
        last_is_list = call.is_list


def check(
    earlier: HostState, desired: HostState, run: Pass, faults: Sequence[Fault], *, by_change: bool = False
) -> None:
    kernel = prepared(earlier)
    theirs = strangers(kernel)
    watch(kernel, earlier, desired, faults)
    kernel.faults = faults
    try:
        outcome: Outcome | None = run(kernel)
    except OSError:
        outcome = None
    kernel.faults = ()
    if outcome is not None and kernel.struck_at < kernel.looked_at:
        check_truth(kernel, desired, outcome)
        if outcome.is_clean and not by_change:
            assert diff(desired, kernel.observe()) == []
    kernel.after_call = lambda: None
    assert strangers(kernel) == theirs
    again = kernel.converge(desired)
    assert again.is_clean, again
    seen = kernel.observe()
    assert diff(desired, seen) == []
    check_truth(kernel, desired, again)
    assert strangers(kernel) == theirs
    assert ours(seen) == reached(kernel, desired)
    if "eth9" in kernel.links:
        assert kernel.links["eth9"] == Link("veth", mtu=9000, quiet=False)


def reached(kernel: MemoryDataPlane, desired: HostState) -> ObservedState:
    """What a host without a past comes to, with the devices that are there."""
    present = [n for n in PRESENT if (name := port_device(port_id(n))) in kernel.links or name in kernel.host]
    known = _reached.setdefault(id(desired), {})
    if (seen := known.get(tuple(present))) is None:
        fresh = MemoryDataPlane()
        for number in present:
            fresh.plug(port_device(port_id(number)), in_host=number == ADOPTED)
        fresh.converge(desired)
        seen = known[tuple(present)] = fresh.observe()
    # An MTU or a state that a stranger gave an adopted or a loose device is its maker's business.
    links = {name: kernel.links.get(name, link) if name.startswith("pg") else link for name, link in seen.links.items()}
    return replace(seen, links=links)


_reached: dict[int, dict[tuple[int, ...], ObservedState]] = {}

WALKS = [("empty", name) for name in NAMED if name != "empty"] + [(name, "empty") for name in NAMED if name != "empty"]
MOVES = [("ports", "leaving"), ("leaving", "settled"), ("settled", "leaving"), ("leaving", "ports"), ("peers", "two")]


def check_all(earlier: str, desired: str, *, by_change: bool = False, every: bool = False) -> None:
    before, after = NAMED[earlier], NAMED[desired]
    run = changed(before, after) if by_change else whole(after)
    for fault in single_faults(before, after, run, every=every):
        try:
            check(before, after, run, [fault], by_change=by_change)
        except AssertionError as error:
            raise AssertionError(f"{fault}: {error}") from error


@pytest.mark.parametrize(("earlier", "desired"), WALKS + MOVES)
def test_a_single_fault_is_over_one_clean_pass_later(earlier: str, desired: str) -> None:
    check_all(earlier, desired)


@pytest.mark.parametrize(("earlier", "desired"), MOVES)
def test_a_single_fault_in_a_change_is_over_one_clean_pass_later(earlier: str, desired: str) -> None:
    check_all(earlier, desired, by_change=True)


@pytest.mark.long
@pytest.mark.parametrize("earlier", NAMED)
@pytest.mark.parametrize("desired", NAMED)
def test_every_single_fault_between_any_two_states_is_over_one_clean_pass_later(earlier: str, desired: str) -> None:
    check_all(earlier, desired, every=True)
    check_all(earlier, desired, by_change=True, every=True)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(NAMED)), st.sampled_from(sorted(NAMED)), st.booleans(), st.data())
def test_several_faults_are_over_one_clean_pass_later(
    earlier: str, desired: str, by_change: bool, data: st.DataObject
) -> None:
    before, after = NAMED[earlier], NAMED[desired]
    run = changed(before, after) if by_change else whole(after)
    singles = list(single_faults(before, after, run))
    if singles:
        faults = data.draw(st.lists(st.sampled_from(singles), min_size=2, max_size=6))
        check(before, after, run, faults, by_change=by_change)
