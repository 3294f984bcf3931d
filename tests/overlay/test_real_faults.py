"""The faults of the kernel in memory are real ones: it makes the calls that the kernel's door makes, and what strangers
do between a look and its steps, or refuse by being there, ends the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from overlay_lab import NET, Lab, mac, port_id
from overlay_states import ADOPTED, NAMED
from test_faults import check_truth

from overlay import ops as do
from overlay.diff import diff
from overlay.kernel import messages
from overlay.kernel.apply import DataPlane
from overlay.kernel.converge import OpError, PortState
from overlay.kernel.faults import Call
from overlay.kernel.memory import MemoryDataPlane
from overlay.ops import Op
from overlay.parts import between
from overlay.state import HostState, port_device
from tests.waiting import eventually

pytestmark = pytest.mark.system

ONE, TWO, THREE = (port_device(port_id(number)) for number in (1, 2, ADOPTED))


class Interrupted(DataPlane):
    """Lets a stranger in once, between the next look and its steps."""

    stranger: Callable[[], object] | None = None

    def apply(self, ops: Sequence[Op]) -> list[OpError]:
        if (stranger := self.stranger) is not None:
            self.stranger = None
            stranger()
        return super().apply(ops)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, permitted: None) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("netns"))
    try:
        made.host(1)
        yield made
    finally:
        made.close()


@pytest.fixture
def plane(lab: Lab) -> Iterator[Interrupted]:
    found = Interrupted("dp1", host=lab.folder / "h1", directory=lab.folder)
    found.converge(NAMED["empty"])
    make_ends(lab)
    yield found
    found.close()


def make_ends(lab: Lab) -> None:
    for name, where in ((ONE, "dp1"), (TWO, "dp1"), (THREE, "h1")):
        found = [lab.run(place, f"ip link show {name}", check=False).returncode for place in ("dp1", "h1")]
        if 0 not in found:
            lab.run(where, f"ip link add {name} up type veth peer name x{name[3:]}")


STRANGERS = [
    ("dp1", f"ip link del {ONE}"),
    ("dp1", f"ip link del {TWO}"),
    ("dp1", f"ip link del br{NET}"),
    ("dp1", f"ip link del vx{NET}"),
    ("dp1", f"ip link del lg{NET}"),
    ("dp1", f"ip link set {ONE} nomaster"),
    ("dp1", f"ip link set vx{NET} nomaster"),
    ("dp1", f"ip link set br{NET} down"),
    ("dp1", f"bridge link set dev {TWO} flood on learning on mcast_flood on bcast_flood on"),
    ("dp1", f"bridge fdb replace {mac(2)} dev {TWO} master static"),
    ("dp1", f"bridge fdb replace {mac(20)} dev vx{NET} dst 192.0.2.77 self static"),
    ("dp1", f"bridge fdb append 00:00:00:00:00:00 dev vx{NET} dst 192.0.2.77 self"),
    ("dp1", f"ip neigh replace 10.0.0.20 lladdr 52:54:00:99:99:99 dev br{NET} nud permanent"),
    ("dp1", f"tc qdisc del dev vx{NET} clsact"),
    ("h1", f"ip link del {THREE}"),
]


@pytest.mark.parametrize("by_change", [False, True], ids=["whole", "change"])
@pytest.mark.parametrize(("where", "command"), STRANGERS, ids=[command for _, command in STRANGERS])
def test_what_a_stranger_does_between_look_and_step_is_over_one_clean_pass_later(
    lab: Lab, plane: Interrupted, where: str, command: str, by_change: bool
) -> None:
    before, after = NAMED["ports"], NAMED["leaving"]
    plane.converge(before)
    plane.stranger = lambda: lab.run(where, command, check=False)
    outcome = plane.converge_changes(after, between(before, after)) if by_change else plane.converge(after)
    assert plane.stranger is None
    if not by_change:
        assert outcome.is_clean, "a second look sees what the stranger did"
        assert diff(after, plane.observe()) == []
    check_truth(plane, after, outcome)
    again = plane.converge(after)
    assert again.is_clean and diff(after, plane.observe()) == []
    check_truth(plane, after, again)


def test_a_vni_that_somebody_else_has_is_said_in_the_kernels_words(lab: Lab, plane: Interrupted) -> None:
    lab.run("h1", "ip link add theirs type vxlan id 7 dstport 4789 local 192.0.2.1")
    outcome = plane.converge(NAMED["ports"])
    status = outcome.ports[port_id(1)]
    assert status.state is PortState.FAILED
    assert "create vxlan" in status.cause and "(EEXIST)" in status.cause and "VNI" in status.cause
    assert "theirs" in lab.run("h1", "ip link").stdout
    lab.run("h1", "ip link del theirs")
    assert plane.converge(NAMED["ports"]).is_clean


def test_a_device_that_is_busy_is_an_error_of_its_port_alone(lab: Lab, plane: Interrupted) -> None:
    if lab.run("dp1", f"ip link add link {ONE} name theirs type macvtap", check=False).returncode:
        pytest.skip("no macvtap, which takes a device for itself, in this kernel")
    outcome = plane.converge(NAMED["adopted"])
    assert "(EBUSY)" in outcome.ports[port_id(1)].cause
    assert outcome.ports[port_id(1)].state is PortState.FAILED
    assert outcome.ports[port_id(ADOPTED)].state is PortState.FORWARDING
    lab.run("dp1", "ip link del theirs")
    assert plane.converge(NAMED["adopted"]).is_clean


def test_a_closed_port_that_cannot_be_attached_does_not_come_up(lab: Lab, plane: Interrupted) -> None:
    if lab.run("dp1", f"ip link add link {TWO} name theirs type macvtap", check=False).returncode:
        pytest.skip("no macvtap, which takes a device for itself, in this kernel")
    outcome = plane.converge(NAMED["leaving"])
    assert outcome.ports[port_id(2)].state is PortState.FAILED
    assert {error.errno for error in outcome.errors if getattr(error.op, "name", "") == TWO} >= {0}
    assert not plane.observe().links[TWO].up
    lab.run("dp1", "ip link del theirs")
    assert plane.converge(NAMED["leaving"]).is_clean


def test_devices_whose_deletion_did_not_happen_do_not_go_with_a_later_one(
    lab: Lab, plane: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.converge(NAMED["ports"])
    with monkeypatch.context() as patch:
        nothing = messages.set_up(1, True)
        patch.setattr(messages, "delete_doomed", lambda group: nothing)
        assert plane.apply([do.DeleteLink(TWO)]) == []
    assert plane.apply([do.DeleteLink(ONE)]) == []
    links = plane.observe().links
    assert TWO in links and ONE not in links


def test_both_make_the_same_calls_for_a_step(lab: Lab, plane: Interrupted, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    words = [
        name
        for name in vars(messages)
        if name.startswith(
            ("create_", "set_", "put_", "drop_", "move_", "delete_", "doom_", "quieten", "ensure_", "dis")
        )
        and name not in ("put_redirect", "put_program", "drop_filter")
    ]
    for name in words:
        real = getattr(messages, name)
        monkeypatch.setattr(messages, name, lambda *a, _n=name, _r=real, **k: (made.append(_n), _r(*a, **k))[1])
    memory = MemoryDataPlane()
    for number in (1, 2, ADOPTED):
        memory.plug(port_device(port_id(number)), in_host=number == ADOPTED)
    for state in ("ports", "leaving", "settled", "adopted", "empty"):
        desired: HostState = NAMED[state]
        if state != "empty":
            make_ends(lab)
            for name, in_host in ((ONE, False), (TWO, False), (THREE, True)):
                if name not in memory.links and name not in memory.host:
                    memory.plug(name, in_host=in_host)
        while ops := diff(desired, memory.observe()):
            for op in ops:
                made.clear()
                memory.restart()
                assert plane.apply([op]) == memory.apply([op]) == []
                if not isinstance(op, do.CreateNamespace | do.RemoveNamespace):  # marks and sysctls: not told apart
                    assert made == [call.kind for call in memory.calls if is_message(call)], op
        assert eventually(lambda d=desired: diff(d, plane.observe()) == [])


def is_message(call: Call) -> bool:
    return not call.is_list and not call.kind.endswith("_namespace")
