"""Who may come in by which socket, and what is said to those who send nonsense: the real server, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from api_lab import TOKEN, Doors, within
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from playground.api import serving
from playground.controller.execution import EXIT
from playground.spec import PlaygroundSpec, load_playground

ROUTES = [
    *(("GET", f"/v1/{name}") for name in ("site", "status", "hosts", "ports", "leases", "events", "docs")),
    *(("GET", path) for path in ("/v1/openapi.json", "/docs", "/redoc", "/openapi.json", "/v1/migrations?workspace=a")),
    *(("POST", f"/v1/{name}") for name in ("plan", "start", "stop", "migrate", "abort", "probe", "hosts/h1/token")),
    *(("PUT", "/v1/playgrounds"), ("DELETE", "/v1/playgrounds/a"), ("GET", "/v1/playgrounds/a/progress")),
]


def test_nothing_is_told_over_tcp_without_the_token(tmp_path: Path) -> None:
    async def claim(made: Doors) -> None:
        made.open_tcp()
        for method, target in ROUTES:
            for sent in ("", "Bearer", "Bearer ", "Bearer wrong", "Basic sesame", "sesame", "Bearer ses\u00e4me"):
                headers = {"authorization": sent} if sent else {}
                status, answer = await made.ask(method, target, b"{}", **headers)
                assert status == 401 and b"token is needed" in answer, (target, sent)
        assert (await made.ask("GET", "/v1/site", authorization="Bearer sesame"))[0] == 200

    within(tmp_path, claim)


@pytest.mark.parametrize("token", [None, ""])
def test_without_a_secret_no_token_opens_tcp(tmp_path: Path, token: str | None) -> None:
    async def claim(made: Doors) -> None:
        made.open_tcp()
        for sent in ("", "Bearer", "Bearer ", "Bearer None"):
            assert (await made.ask("GET", "/v1/site", authorization=sent))[0] == 401

    within(tmp_path, claim, token)


def test_a_peer_that_says_who_it_is_is_not_believed(tmp_path: Path) -> None:
    async def claim(made: Doors) -> None:
        made.open_tcp()
        for name in ("x_forwarded_for", "forwarded", "x_real_ip"):
            for value in ("", " ", ",", "unix", "::1"):
                assert (await made.ask("GET", "/v1/site", **{name: value}))[0] == 401

    within(tmp_path, claim)


def test_a_request_whose_sender_has_reset_its_connection_is_not_taken_for_a_local_one(tmp_path: Path) -> None:
    """Such a peer has no address any more, as on a Unix socket, yet what it sent is read."""

    async def claim(made: Doors) -> None:
        with socket.create_connection(made.tcp.getsockname()) as rude:
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            rude.sendall(b"POST /v1/hosts/h1/token HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        made.open_tcp()  # it waited to be accepted
        for _ in range(5):
            assert (await made.ask("GET", "/v1/site"))[0] == 401
        assert made.controller.world.hosts["h1"].token_sha256 == TOKEN

    within(tmp_path, claim)


def test_a_token_that_was_given_from_outside_is_not_replaced_here(tmp_path: Path) -> None:
    async def claim(made: Doors) -> None:
        status, answer = await made.ask("POST", "/v1/hosts/h1/token", local=True)
        assert status == 409 and b"given to the controller with --tokens" in answer
        assert made.controller.world.hosts["h1"].token_sha256 == TOKEN

    within(tmp_path, claim, given=["h1"])


def test_no_websocket_opens_without_a_token(tmp_path: Path) -> None:
    async def claim(made: Doors) -> None:
        made.open_tcp()
        host, port = made.tcp.getsockname()
        for target in ("/v1/exec", "/v1/agent", "/v1/agent/exec/abc", "/v1/nothing", "/v1/site"):
            for headers in ({}, {"Authorization": "Bearer wrong", "X-Playground-Host": "h1"}):
                with pytest.raises((InvalidHandshake, OSError)):
                    async with connect(f"ws://{host}:{port}{target}", additional_headers=headers):
                        pass

    within(tmp_path, claim)


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/v1/plan", b""),
        ("POST", "/v1/plan", b"{"),
        ("POST", "/v1/plan", b"\xff\xfe"),
        ("POST", "/v1/plan", b"[" * 100_000),
        ("POST", "/v1/plan", b'{"file": 1e400, "text": "name: a"}'),
        ("POST", "/v1/plan", b'{"file": "\\ud800", "text": "name: \\ud800"}'),
        ("POST", "/v1/stop", b'{"workspace": "a", "more": 1e400}'),
        ("POST", "/v1/stop", b'{"\\ud800": "a"}'),
        ("POST", "/v1/migrate", b'{"workspace": "a", "host": "b", "measure": 1e400}'),
        ("GET", "/v1/events?after=1e400", b""),
        ("GET", "/v1/events?wait_s=nan", b""),
        ("GET", "/v1/events?wait_s=-1", b""),
        ("GET", "/v1/migrations?workspace=a&wait_s=inf", b""),
    ],
)
def test_a_malformed_request_is_refused_in_one_sentence(tmp_path: Path, method: str, target: str, body: bytes) -> None:
    async def claim(made: Doors) -> None:
        status, answer = await made.ask(method, target, body, local=True, content_type="application/json")
        assert status == 400
        assert list(json.loads(answer)) == ["error"]

    within(tmp_path, claim)


@pytest.mark.parametrize(
    "order",
    [
        b"\x00binary",
        "",
        "[" * 100_000,
        '{"host": "h1", "argv": []}',
        '{"host": "h1", "argv": ["a\\u0000b"]}',
        '{"host": "h1", "argv": ["a"], "env": {"A=B": "c"}}',
        '{"host": "h1", "argv": ["a"], "tty": true, "rows": 65536}',
        '{"host": "h1", "argv": ["a"], "cols": -1}',
        '{"argv": ["a"]}',
        '{"workspace": "nobody", "argv": ["a"]}',
    ],
)
def test_an_order_that_is_none_is_answered_with_its_cause(tmp_path: Path, order: str | bytes) -> None:
    async def claim(made: Doors) -> None:
        async with unix_connect(str(made.path), "ws://localhost/v1/exec") as asking:
            await asking.send(order)
            answer = await asking.recv()
            assert isinstance(answer, bytes) and answer[0] == EXIT
            assert json.loads(answer[1:])["error"]

    within(tmp_path, claim)


@pytest.mark.parametrize("said", [b"\x00", "", "{", "[" * 100_000, '{"say": "welcome"}', '{"say": "hello"}', "null"])
def test_an_agent_that_says_nonsense_is_hung_up_on(
    tmp_path: Path, said: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def claim(made: Doors) -> None:
        made.open_tcp()
        token = json.loads((await made.ask("POST", "/v1/hosts/h1/token", local=True))[1])["token"]
        host, port = made.tcp.getsockname()
        headers = {"Authorization": f"Bearer {token}", "X-Playground-Host": "h1"}
        async with connect(f"ws://{host}:{port}/v1/agent", additional_headers=headers) as agent:
            await agent.send(said)
            with pytest.raises(ConnectionClosed) as closed:
                await agent.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 4400
        assert "Traceback" not in caplog.text

    within(tmp_path, claim)


def test_a_file_that_takes_long_to_read_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def claim(made: Doors) -> None:
        answered = threading.Event()

        def read(*asked: Any) -> PlaygroundSpec:
            assert answered.wait(10), "nobody else was answered meanwhile"
            return load_playground(*asked)

        monkeypatch.setattr("playground.controller.controller.load_playground", read)
        body = json.dumps({"file": "x.yaml", "text": "name: x"}).encode()
        planning = asyncio.create_task(made.ask("POST", "/v1/plan", body, local=True, content_type="application/json"))
        assert (await made.ask("GET", "/v1/site", local=True))[0] == 200
        answered.set()
        assert (await planning)[0] in (200, 422)

    within(tmp_path, claim)


def test_who_says_nothing_over_tcp_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "HEAD_S", 0.3)
    monkeypatch.setattr(serving, "LOOK_S", 0.05)

    async def claim(made: Doors) -> None:
        made.open_tcp()
        headers = {"authorization": "Bearer sesame"}
        waiting = asyncio.create_task(made.ask("GET", "/v1/events?after=99&wait_s=1", **headers))
        token = json.loads((await made.ask("POST", "/v1/hosts/h1/token", local=True))[1])["token"]
        host, port = made.tcp.getsockname()
        headers = {"Authorization": f"Bearer {token}", "X-Playground-Host": "h1"}
        async with connect(f"ws://{host}:{port}/v1/agent", additional_headers=headers) as agent:
            for said in (b"", b"GET /v1/site HTTP/1.1\r\nx: "):
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(said)
                with contextlib.suppress(ConnectionError):
                    assert await asyncio.wait_for(reader.read(), 5) == b""
                writer.close()
            await agent.ping()
            assert agent.close_code is None
        assert (await waiting)[0] == 200

    within(tmp_path, claim)


def test_of_too_many_silent_ones_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "SILENT", 3)
    monkeypatch.setattr(serving, "LOOK_S", 0.05)

    async def claim(made: Doors) -> None:
        made.open_tcp()
        streams = [await asyncio.open_connection(*made.tcp.getsockname()) for _ in range(8)]
        done, left = await asyncio.wait([asyncio.create_task(r.read()) for r, _ in streams], timeout=1)
        assert (len(done), len(left)) == (5, 3)
        for task in left:
            task.cancel()
        await asyncio.gather(*done, *left, return_exceptions=True)
        for _, writer in streams:
            writer.close()
        assert (await made.ask("GET", "/v1/site", authorization="Bearer sesame"))[0] == 200

    within(tmp_path, claim)


def test_small_messages_do_not_wait_for_each_other() -> None:
    """A change of a view and its `Complete` are two: without TCP_NODELAY the second was heard 40 ms after the first."""
    with contextlib.closing(serving.tcp_socket("127.0.0.1:0")) as door:
        door.listen()
        with socket.create_connection(door.getsockname()), contextlib.closing(door.accept()[0]) as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
