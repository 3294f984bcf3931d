"""The API's doors: every call of the OpenAPI, and the websockets, with bodies that are almost right. In process.

Claims: no call raises, every answer is one that docs/api.md declares, what is refused has changed nothing, and
afterwards whoever asks properly is answered.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, unquote

from fastapi import FastAPI
from fuzz_files import TEXTS
from fuzz_lab import WORDS, Json, Target, as_json, bounded, edited, garbled, steps_from_file, steps_to_file
from hypothesis import strategies as st

from playground.api.app import LOCAL, make_app
from playground.controller.controller import Controller
from playground.controller.execution import EXIT
from playground.controller.hosts import admit_hosts
from playground.records import Driver
from playground.spec import load_site
from playground.store.memory import MemoryStore
from playground.wire import PROTOCOL, Hello, encode

SITE = load_site("name: lab\nhosts: {h1: {underlay: 192.0.2.1}, h2: {underlay: 192.0.2.2}}\n", "site.yaml")
ATLAS = """name: atlas
networks: {grid: {subnets: [10.0.0.0/24, "fd00::/64"]}}
workspaces: {w: {scale: 2, networks: [grid]}}
"""
HOST_TOKEN, HOST_TOKEN_SHA256 = "h", "aaa9402664f1a41f40ebbc52c9993eb66aeb366602958fdfaa283b71e64db123"
DECLARED = {400, 401, 404, 405, 409, 422, 503}
WAIT_S = 0.05
"""What a call may wait for is waited for no longer than this; then its peer hangs up."""

Asked = tuple[str, str, bytes]
"""Method, target, body. The method WS is a websocket's, and the body all its messages, as `steps_to_file` writes."""


@dataclass
class Lab:
    """A controller with `atlas` accepted and no loops but the one that reads, so that only calls write."""

    app: FastAPI
    controller: Controller
    store: MemoryStore

    async def http(self, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
        """(status, answer), as a server would hand it in."""
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(b"host", b"x"), (b"content-type", b"application/json")],
            "client": None,
            "server": None,
            LOCAL: True,
        }
        sent: list[dict[str, Any]] = []
        asked = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if asked:
                return asked.pop()
            await asyncio.sleep(WAIT_S)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        return sent[0]["status"], b"".join(m.get("body", b"") for m in sent[1:])

    async def websocket(
        self, target: str, said: Sequence[str | bytes], headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> list[dict[str, Any]]:
        """What was answered to these messages, and then to hanging up."""
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": unquote(target),
            "raw_path": target.encode(),
            "query_string": b"",
            "headers": [(b"host", b"x"), *headers],
            "client": None,
            "server": None,
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
            LOCAL: True,
        }
        asked: list[dict[str, Any]] = [{"type": "websocket.connect"}]
        for text in said:
            kind = "text" if isinstance(text, str) else "bytes"
            asked.append({"type": "websocket.receive", kind: text})
        asked.append({"type": "websocket.disconnect", "code": 1006})
        asked.reverse()
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            for _ in range(8):  # so that whoever else has something to do may do it in between
                await asyncio.sleep(0)
            return asked.pop() if len(asked) > 1 else asked[0]

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        return sent

    async def assert_told(self) -> None:
        """Whoever asks for what there is gets it."""
        for name in ("site", "status", "hosts", "ports", "leases", "events", "openapi.json"):
            status, answer = await self.http("GET", f"/v1/{name}")
            assert status == 200, (name, answer)
            json.loads(answer)

    def held(self) -> dict[str, bytes]:
        """Every key of the store and its value, but for what happened: events are written a little later."""
        return {key: item.value for key, item in self.store._items.items() if not key.startswith("event/")}


@asynccontextmanager
async def a_lab() -> AsyncIterator[Lab]:
    """A controller as above; the two hosts have said hello once, and are gone."""
    store = MemoryStore()
    controller = Controller(store, SITE)
    await controller.world.load()
    await admit_hosts(store, controller.world, SITE, dict.fromkeys(("h1", "h2"), HOST_TOKEN_SHA256))
    await controller.world.load()
    following = asyncio.create_task(controller.world.follow())
    lab = Lab(make_app(controller, None), controller, store)
    try:
        status, answer = await lab.http("PUT", "/v1/playgrounds", as_json({"file": "atlas.yaml", "text": ATLAS}))
        assert status == 200, answer
        yield lab
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await store.close()


HELLO = encode(
    Hello(
        host="h1",
        protocol=PROTOCOL,
        version="1",
        underlay="192.0.2.1",
        underlay_mtu=1500,
        drivers=[Driver(name="netns", move="same-kernel", domain="d")],
        cpus=2.0,
        memory_mib=1024,
    )
)


# what is asked


def _openapi() -> dict[str, Any]:
    return make_app(Controller(MemoryStore(), SITE), None).openapi()


def _example(schema: dict[str, Any], schemas: dict[str, Any]) -> Json:
    """A body that would be let in."""
    if "$ref" in schema:
        return _example(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    known = {"text": ATLAS, "file": "x.yaml", "workspace": "atlas/w-0", "host": "h2", "playground": "atlas"}
    return {
        name: known.get(name, True if field.get("type") == "boolean" else "atlas")
        for name, field in schema["properties"].items()
    }


WORD = st.sampled_from(["atlas", "h1", "w-0", *WORDS]).map(
    lambda word: word if isinstance(word, str) else json.dumps(word)
)


@st.composite
def _call(draw: st.DrawFn) -> Asked:
    """One operation of the OpenAPI document, most of it as declared."""
    described = OPENAPI
    path, methods = draw(st.sampled_from(sorted(described["paths"].items())))
    method, operation = draw(st.sampled_from(sorted(methods.items())))
    query = []
    for parameter in operation.get("parameters", ()):
        word = draw(WORD)
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", quote(word, safe=""))
        elif draw(st.booleans()):
            query.append(f"{parameter['name']}={quote(word)}")
    body = b""
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        seed = _example(schema, described["components"]["schemas"])
        seeds = [seed]
        if "text" in seed:
            seeds += [
                {**seed, "text": text.decode()} for text in (*TEXTS, ATLAS.replace("scale: 2", "scale: 3").encode())
            ]
        body = draw(garbled(edited(seeds).map(as_json)))
    if draw(st.integers(0, 9)) == 0:
        method = draw(st.sampled_from(("get", "put", "post", "delete", "patch", "options", "head")))
    return method.upper(), path + ("?" + "&".join(query) if query else ""), body


ORDERS: list[Json] = [
    {"argv": ["true"], "workspace": "atlas/w-0"},
    {"argv": ["true"], "host": "h1", "tty": True, "rows": 1, "cols": 1, "env": {"A": "b"}},
]


@st.composite
def _order(draw: st.DrawFn) -> Asked:
    """What is said on /v1/exec: an order, and frames after it."""
    said: list[Any] = []
    if draw(st.integers(0, 5)):
        raw = draw(garbled(edited(ORDERS).map(as_json)))
        said.append(raw.decode("utf-8", "replace") if draw(st.integers(0, 5)) else raw)
    said += draw(st.lists(st.one_of(st.binary(max_size=20), st.text(max_size=5)), max_size=3))
    target = draw(st.sampled_from(("/v1/exec", "/v1/exec", "/v1/exec", "/v1/agent/exec/abc", "/v1/agent", "/v1/site")))
    return "WS", target, steps_to_file([_tagged(message) for message in said])


def _tagged(message: str | bytes) -> list[Any]:
    return ["text", message.encode("utf-8", "replace")] if isinstance(message, str) else ["bytes", message]


OPENAPI = _openapi()
CALLS: st.SearchStrategy[list[Asked]] = st.lists(st.one_of(_call(), _call(), _call(), _order()), min_size=1, max_size=6)


# what must hold


def check_calls(calls: Sequence[Asked]) -> None:
    """All of these, one after the other, at one controller."""
    asyncio.run(_check_calls(calls))


async def _check_calls(calls: Sequence[Asked]) -> None:
    with bounded():
        async with a_lab() as lab:
            for method, target, body in calls:
                before = lab.held()
                if method == "WS":
                    said = [m.decode("utf-8", "replace") if kind == "text" else m for kind, m in steps_from_file(body)]
                    for message in await lab.websocket(target, said):
                        if message["type"] == "websocket.send" and "bytes" in message:
                            assert message["bytes"][0] == EXIT and json.loads(message["bytes"][1:])["error"]
                    assert lab.held() == before, "nothing was run, nothing is written"
                    continue
                asking = asyncio.create_task(lab.http(method, target, body))
                done, _ = await asyncio.wait([asking], timeout=20 * WAIT_S if "wait_s=" in target else None)
                if not done:
                    asking.cancel()
                    await asyncio.gather(asking, return_exceptions=True)
                    continue
                _assert_answered(method, target, *asking.result(), before, lab)
            for target in (
                "/v1/site",
                "/v1/status",
                "/v1/hosts",
                "/v1/ports",
                "/v1/leases",
                "/v1/events",
                "/v1/openapi.json",
            ):
                status, answer = await lab.http("GET", target)
                assert status == 200, (target, answer)
                json.loads(answer)


def _assert_answered(method: str, target: str, status: int, answer: bytes, before: dict[str, bytes], lab: Lab) -> None:
    if status < 400:
        assert status in (200, 202, 307), status
        if method == "GET" and "docs" not in target and status == 200:
            json.loads(answer)
        return
    assert status in DECLARED, (method, target, status, answer)
    if method != "HEAD":
        refusal = cast(dict[str, Any], json.loads(answer))
        assert list(refusal) in (["error"], ["problems"]), refusal
        assert all(problem["message"] for problem in refusal.get("problems", ())) and refusal.get("error", "x")
    assert lab.held() == before, "what is refused changes nothing"


API = Target("api", CALLS, check_calls, steps_to_file, steps_from_file)
