"""What needs no rights: the messages, the agent's client, the file, the lock, and what the process imports."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from dhcp.scope import PortScope, Scope4, ScopeRa
from playground.responder import main as process
from playground.responder import memory
from playground.responder.client import Client
from playground.responder.main import Responder, take_lock
from playground.responder.protocol import (
    DATA_PLANE_KEY,
    Leased,
    LeaseKind,
    Name,
    Problem,
    Report,
    Update,
    Value,
    View,
    decode_report,
    decode_update,
    decode_value,
    encode_line,
    encode_value,
    name_key,
    port_key,
    view_key,
)

NAME = Name(workspace="head", network="grid", addresses=("10.20.0.2",))
SCOPE = PortScope(
    mac="02:00:00:00:00:05",
    server_mac="02:70:67:00:00:01",
    v4=Scope4("10.20.0.5", 24, "10.20.0.1", routes=(("169.254.169.254/32", "10.20.0.1"),)),
    ra=ScopeRa("fe80::1", prefixes=(("fd00:20::/64", True),)),
)
VIEW = View(netns="no-such-namespace", listen=("10.20.0.1",), origin="atlas.internal", reverse=("10.20.0.0/24",))


@pytest.mark.parametrize(
    ("key", "value"),
    [(port_key("0" * 12), SCOPE), (view_key("atlas"), VIEW), (name_key("atlas", "0" * 12), NAME)],
)
def test_a_value_is_read_back_by_its_key(key: str, value: Value) -> None:
    update = decode_update(encode_line(Update(seq=3, set={key: encode_value(value)}, delete=("x",), whole=True)))
    assert (update.seq, update.delete, update.whole) == (3, ("x",), True)
    assert decode_value(key, update.set[key]) == value


@pytest.mark.parametrize(
    "report",
    [
        Report(ack=0),
        Report(problem=Problem(key="view/atlas", cause="")),
        Report(
            leased=Leased(
                port="0" * 12, address="10.0.0.1", mac="02:00:00:00:00:05", at_utc_s=1.5, kind=LeaseKind.BOUND
            )
        ),
    ],
)
def test_a_report_is_read_back(report: Report) -> None:
    assert decode_report(encode_line(report)) == report


@pytest.mark.parametrize("key", ["", "port", "port/a/b", "name/atlas", "lease/a"])
def test_a_key_of_no_kind_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="is none of"):
        decode_value(key, b"{}")


def test_a_value_of_another_kind_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_value("port/0", encode_value(NAME))


def test_the_file_is_read_back_and_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "r.json"
    assert memory.load(file) == memory.Memory()
    leased = Leased(port="a", address="10.0.0.1", mac="m", at_utc_s=1.0, kind=LeaseKind.BOUND)
    memory.save(file, memory.Memory(document={"name/a/b": encode_value(NAME)}, leases={"a": leased}))
    read = memory.load(file)
    assert (decode_value("name/a/b", read.document["name/a/b"]), read.leases) == (NAME, {"a": leased})
    assert [path.name for path in file.parent.iterdir()] == ["r.json"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_a_client_was_told_is_known_before_the_file_is_written_again(tmp_path: Path) -> None:
    """Killed in between, and the agent after it, nobody else would know for half the lease."""
    file = tmp_path / "r.json"
    first, second = (Leased(port=p, address="10.0.0.1", mac="m", at_utc_s=1.0, kind=LeaseKind.BOUND) for p in "ab")
    notes = memory.Notes(file)
    notes.add("a/v4", first)
    assert memory.load(file).leases == {"a/v4": first}
    notes.save(memory.Memory(leases={"a/v4": first}))
    notes.add("b/v4", second)
    with (tmp_path / "r.json.journal").open("ab") as journal:
        journal.write(b'{"key": "c/v4", "leas')
    assert memory.load(file).leases == {"a/v4": first, "b/v4": second}
    memory.save(file, memory.Memory())
    assert memory.load(file) == memory.Memory()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": 2}', b'{"document": 3}'])
def test_a_file_of_something_else_is_unreadable(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "r.json"
    file.write_bytes(content)
    with pytest.raises(memory.Unreadable, match=r"r\.json"):
        memory.load(file)


def test_one_process_has_the_lock_and_the_next_one_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = take_lock(path, time.monotonic())
    assert first is not None
    assert path.read_text() == f"{os.getpid()}\n"
    assert take_lock(path, time.monotonic() + 0.05) is None
    path.unlink()
    os.close(first)
    second = take_lock(path, time.monotonic())
    assert second is not None
    os.close(second)


def test_a_second_responder_refuses_and_names_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process, "TAKEOVER_S", 0.0)
    socket = tmp_path / "r.sock"
    held = take_lock(tmp_path / "r.sock.lock", time.monotonic())
    assert held is not None
    arguments = ["--socket", str(socket), "--state", str(tmp_path / "r.json"), "--log", str(tmp_path / "r.log")]
    assert process.main(arguments) == 1
    assert f"pid {os.getpid()}" in capsys.readouterr().err
    os.close(held)


def test_the_process_stays_small() -> None:
    code = (
        "import runpy, sys\nsys.argv = ['', '--help']\ntry: runpy.run_module('playground.responder', {}, '__main__')\n"
    )
    code += "except SystemExit: print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"fastapi", "pydantic", "pyroute2", "scapy", "websockets", "uvicorn", "netaddr", "ruamel"}
    heavy |= {"_ssl", "_hashlib"}  # OpenSSL, 4 MiB
    assert not heavy & {name.partition(".")[0] for name in loaded}


class Heard:
    """What a client was told."""

    def __init__(self, socket: Path) -> None:
        self.leased: list[Leased] = []
        self.problems: list[tuple[str, str]] = []
        self.effects = 0
        self.client = Client(socket, self.leased.append, self._problem, self._effect)

    def _problem(self, problem: Problem) -> None:
        self.problems.append((problem.key, problem.cause))

    def _effect(self) -> None:
        self.effects += 1


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Responder]:
    """The responder in this process, with a data plane namespace that is not there."""
    responder = Responder("no-such-namespace", folder / "r.json")
    responder.start()
    (folder / "r.sock").unlink(missing_ok=True)
    server = await asyncio.start_unix_server(responder.serve, folder / "r.sock")
    try:
        yield responder
    finally:
        server.close()
        await responder.stop()


@asynccontextmanager
async def talking(folder: Path) -> AsyncIterator[Heard]:
    heard = Heard(folder / "r.sock")
    task = asyncio.create_task(heard.client.run())
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.wait({task})


def run(work: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work, 10)

    asyncio.run(bounded())


KEYS: dict[str, Value] = {"name/atlas/1": NAME, "name/atlas/2": NAME}


def test_the_responder_holds_what_the_client_wants(short: Path) -> None:
    async def work() -> None:
        async with serving(short) as responder, talking(short) as heard:
            heard.client.replace(KEYS)
            assert not heard.client.answers("name/atlas/1")
            await heard.client.settled()
            assert set(responder.document) == set(KEYS)
            assert heard.client.answers("name/atlas/1") and heard.effects == 1
            heard.client.set({"name/atlas/3": NAME})
            heard.client.delete(["name/atlas/1", "name/atlas/2"])
            await heard.client.settled()
            assert set(responder.document) == {"name/atlas/3"}
            assert not heard.client.answers("name/atlas/1")

    run(work())


def test_the_same_again_is_not_sent(short: Path) -> None:
    async def work() -> None:
        async with serving(short), talking(short) as heard:
            heard.client.replace(KEYS)
            await heard.client.settled()
            heard.client.replace(dict(KEYS))
            await heard.client.settled()
            assert heard.effects == 1

    run(work())


def test_what_a_port_s_last_guest_did_is_forgotten_before_it_counts_as_answered_again(short: Path) -> None:
    key = port_key("0" * 12)
    formed = Leased(port="0" * 12, address="fd00:20::5", mac=SCOPE.mac, at_utc_s=1.0, kind=LeaseKind.FORMED)

    async def work() -> None:
        async with serving(short) as responder, talking(short) as heard:
            heard.client.replace({key: SCOPE})
            await heard.client.settled()
            leases = responder._service.leases
            responder._service.remember([formed])
            heard.client.forget([key])
            assert not heard.client.answers(key)
            await heard.client.settled()
            assert not leases and set(responder.document) == {key}
            assert key not in heard.client.problems

    run(work())


def test_a_client_may_come_first_and_tells_all_again_after_a_restart(short: Path) -> None:
    async def work() -> None:
        async with talking(short) as heard:
            heard.client.replace(KEYS)
            async with serving(short) as responder:
                await heard.client.settled()
                assert set(responder.document) == set(KEYS)
            heard.client.delete(["name/atlas/2"])
            async with serving(short) as responder:
                assert set(responder.document) == set(KEYS)  # what the file holds
                await heard.client.settled()
                assert set(responder.document) == {"name/atlas/1"}

    run(work())


def test_a_missing_namespace_is_a_problem_until_the_key_goes(short: Path) -> None:
    async def work() -> None:
        async with serving(short), talking(short) as heard:
            heard.client.replace({"view/atlas": VIEW, "port/000000000001": SCOPE})
            await heard.client.settled()
            assert "no-such-namespace" in heard.client.problems["view/atlas"]
            assert "no-such-namespace" in heard.client.problems[DATA_PLANE_KEY]
            assert not heard.client.answers("port/000000000001")
            heard.client.replace({})
            await heard.client.settled()
            assert heard.client.problems == {}
            assert heard.problems[-2:] in (
                [("view/atlas", ""), (DATA_PLANE_KEY, "")],
                [(DATA_PLANE_KEY, ""), ("view/atlas", "")],
            )

    run(work())


def test_an_agent_that_speaks_something_else_is_hung_up_on_and_the_next_one_served(short: Path) -> None:
    async def work() -> None:
        async with serving(short):
            reader, writer = await asyncio.open_unix_connection(short / "r.sock")
            writer.write(b"hello\n")
            assert set(json.loads(await reader.readline())) == {"version"}
            assert await reader.read() == b""
            writer.close()
            async with talking(short) as heard:
                heard.client.replace(KEYS)
                await heard.client.settled()

    run(work())
