"""What libvirt is told before a machine begins or comes here, and who may ask."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import pytest

from playground import wire
from playground.agent import hooked as hooked_module
from playground.agent.guests import Guests
from playground.agent.hooked import Hooked, Notices
from playground.derive import Role, Want
from playground.workspaces.drivers.api import Guest, GuestState, Observed
from playground.workspaces.drivers.libvirt.parts import Setting
from playground.workspaces.drivers.libvirt.xml import domain_xml
from playground.workspaces.drivers.memory_hypervisor import Fabric, MemoryHypervisor

GUEST = Guest("7a010e8d8fc8", "atlas", "w", "w", ())


def a_want(role: Role, move: int = 5) -> Want:
    return Want(GUEST.id, "atlas", "w", "libvirt", role, 1, GUEST, (), True, move=move)


class Host:
    """A host's wants and sights, and what the controller was told; a pass ends whenever somebody waits for one."""

    def __init__(self, path: Path = Path("/nonexistent")) -> None:
        async def nothing(*_: object) -> None:
            return None

        self.guests = Guests({}, lambda want: True, lambda want: False, lambda want: None, nothing, print, nothing)
        self.wants: dict[str, Want] = {}
        self.is_ready = True
        self.told: list[str] = []
        self.problem = ""
        self.passes: list[Callable[[], None]] = []
        self.hooked = Hooked(
            path,
            Path("/var/lib/n2"),
            self.guests,
            lambda: self.wants,
            lambda want: self.is_ready,
            self.passed,
            self.tell,
        )

    async def passed(self, seconds: float) -> None:
        if self.passes:
            self.passes.pop(0)()
        else:
            await asyncio.sleep(min(seconds, 0.01))

    async def tell(self, what: Literal["arrives", "starts"], guest: Guest) -> str:
        self.told.append(what)
        return self.problem

    def want(self, role: Role | None, state: GuestState | None = None, move: int = 5) -> None:
        self.wants = {GUEST.id: a_want(role)} if role is not None else {}
        self.guests.observed = {}
        if state is not None:
            self.guests.observed[GUEST.id] = ("libvirt", Observed(GUEST.id, state, "", "atlas", "w", move))

    def asked(self, operation: str) -> str:
        return asyncio.run(self.hooked.answer(operation, GUEST))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooked_module, "ANSWER_S", 0.2)


@pytest.mark.parametrize("operation", ["migrate", "prepare"])
@pytest.mark.parametrize("role", [Role.ARRIVE, Role.TAKE])
def test_a_machine_that_is_expected_comes_once_all_is_ready_and_nobody_is_told(role: Role, operation: str) -> None:
    host = Host()
    host.want(role, GuestState.ELSEWHERE)
    assert host.asked(operation) == ""
    host.is_ready = False
    assert "atlas/w is not ready on this host: its ports are not programmed" in host.asked(operation)
    host.is_ready = True
    host.want(role, GuestState.ELSEWHERE, move=4)  # what waits here is of an earlier move
    assert "is not ready" in host.asked(operation)
    assert host.told == []


@pytest.mark.parametrize("role", [None, Role.AWAY, Role.HOLD, Role.STOP])
def test_one_that_nobody_asked_us_for_is_told_once_and_then_waited_for(role: Role | None) -> None:
    host = Host()
    host.want(role)
    host.passes = [
        lambda: None,
        lambda: host.want(Role.ARRIVE),
        lambda: host.want(Role.ARRIVE, GuestState.ELSEWHERE),
    ]
    assert host.asked("migrate") == "" and host.told == ["arrives"]


def test_what_the_records_refuse_libvirt_refuses() -> None:
    host = Host()
    host.problem = "host n2 can't enforce the policies about atlas/w"
    assert host.asked("migrate") == host.problem
    host.problem = ""
    assert "not ready" in host.asked("migrate")  # it was taken down, and no view came
    host.passes = [lambda: host.want(Role.ARRIVE), lambda: host.want(None)]
    assert "is expected here no more" in host.asked("migrate")
    host.want(Role.RUN)
    assert "belongs here by the records" in host.asked("migrate")


def test_what_waits_for_somebody_says_what_hinders_it() -> None:
    host = Host()
    host.want(Role.ARRIVE)
    host.guests.causes[GUEST.id] = "its ends can't be made: no such device"
    assert host.asked("migrate").endswith("its ends can't be made: no such device")


@pytest.mark.parametrize("role", [None, Role.AWAY, Role.HOLD])
def test_a_machine_of_another_host_is_not_started_here(role: Role | None) -> None:
    host = Host()
    host.want(role)
    assert "belongs to another host" in host.asked("prepare")


def test_notices_are_answered_by_their_id_and_not_waited_for_without_a_controller() -> None:
    async def work() -> None:
        said: list[wire.Notice] = []
        is_connected = True

        async def say(notice: wire.Notice) -> bool:
            said.append(notice)
            return is_connected

        notices = Notices(say)
        asking = asyncio.create_task(notices.tell("arrives", GUEST))
        await asyncio.sleep(0)
        assert (said[0].what, said[0].playground, said[0].workspace) == ("arrives", "atlas", "w")
        notices.noted(wire.Noted("another", "no"))
        notices.noted(wire.Noted(said[0].id, "it is not sent"))
        assert await asking == "it is not sent"
        is_connected = False
        assert await notices.tell("arrives", GUEST) == "this host's agent has no controller to ask"

    asyncio.run(work())


def served(path: Path, claim: Callable[[Host], Awaitable[None]]) -> None:
    async def work() -> None:
        host = Host(path)
        serving = asyncio.create_task(host.hooked.run())
        async with asyncio.timeout(10):
            while not path.exists():
                await asyncio.sleep(0.01)
            await claim(host)
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving

    asyncio.run(work())


def test_over_its_socket_the_domain_comes_back_with_this_hosts_console(tmp_path: Path) -> None:
    async def claim(host: Host) -> None:
        host.want(Role.ARRIVE, GuestState.ELSEWHERE)
        for order in (b"", b"[]", b'{"operation": "migrate"}'):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
            writer.write(order)
            writer.write_eof()
            assert await reader.read() == b""
        xml = domain_xml(GUEST, Setting("qemu", log=f"/var/lib/n1/{GUEST.id}.log"))
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(json.dumps({"operation": "migrate", "xml": xml}).encode())
        writer.write_eof()
        answer = json.loads(await reader.read())
        assert answer["refused"] == "" and f"/var/lib/n2/{GUEST.id}.log" in answer["xml"]

    served(tmp_path / "s", claim)


def _dial(path: str, uid: int, told: Connection) -> None:
    os.setuid(uid)
    try:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(path)
            channel.sendall(b"{}")
            channel.shutdown(socket.SHUT_WR)
            told.send(channel.recv(100))
    except OSError as error:
        told.send(type(error).__name__)


HUNG_UP: set[object] = {b"", "ConnectionResetError", "BrokenPipeError"}


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every user may look into."""
    folder = Path(tempfile.mkdtemp(prefix="pgh-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(("mode", "told"), [(0o600, {"PermissionError"}), (0o666, HUNG_UP)])
def test_nobody_but_its_owner_is_heard_whatever_its_file_says(open_folder: Path, mode: int, told: set[object]) -> None:
    if os.geteuid() != 0 or "4294967295" not in Path("/proc/self/uid_map").read_text():
        pytest.skip("only root of the machine can be another user")
    path = open_folder / "s"

    async def claim(host: Host) -> None:
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(mode)
        here, there = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(target=_dial, args=(str(path), 65534, there))
        child.start()
        assert await asyncio.to_thread(here.recv) in told
        child.join()

    served(path, claim)


def started(host: Host, role: Role, fabric: Fabric) -> tuple[str, list[str]]:
    """What is answered to somebody who starts a machine, and what its hypervisor was told by then."""
    host.guests.drivers = {"libvirt": MemoryHypervisor("n2", fabric)}
    host.want(role)

    async def work() -> str:
        answer = await host.hooked.answer("prepare", GUEST)
        assert host.guests.is_busy(GUEST.id), "nothing else is done about it while libvirt starts it"
        await host.guests._busy[GUEST.id]
        return answer

    return asyncio.run(work()), [verb for _, verb, *_ in fabric.calls]


@pytest.mark.parametrize(("role", "told"), [(Role.RUN, []), (Role.STOP, ["starts"])])
def test_a_machine_that_somebody_starts_has_its_ends_first_and_is_to_run_from_then_on(
    role: Role, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooked_module, "STARTED_S", 0.1)
    host, fabric = Host(), Fabric()
    host.passes = [lambda: host.want(Role.RUN)]
    assert started(host, role, fabric) == ("", ["make_room"])
    assert host.told == told


def test_one_that_must_not_be_started_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooked_module, "STARTED_S", 0.1)
    host, fabric = Host(), Fabric()
    host.problem = "lab/w belongs to n1"
    assert started(host, Role.STOP, fabric) == ("lab/w belongs to n1", [])
    host.problem = ""
    assert started(host, Role.STOP, fabric) == ("the records do not have it run", [])
    host.passes, host.is_ready = [lambda: host.want(Role.RUN)], False
    assert started(host, Role.STOP, fabric) == ("its ports are not programmed", ["make_room"])
    fabric.refusals["make_room"] = "no /dev/net/tun"
    assert started(host, Role.RUN, fabric)[0] == "no /dev/net/tun"


def test_what_we_start_ourselves_is_let_through_at_once() -> None:
    host = Host()
    host.want(Role.RUN)

    async def work() -> str:
        host.guests.occupy(GUEST.id, asyncio.sleep(0.1))
        return await host.hooked.answer("prepare", GUEST)

    assert asyncio.run(work()) == "" and host.told == []
