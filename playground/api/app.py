"""The HTTP API: turns requests into the controller's verbs and its answers into JSON; decides nothing itself."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Query, Request, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from playground import __version__, wire
from playground.controller import status
from playground.controller.bindings import NoBinding
from playground.controller.changes import Raced
from playground.controller.controller import Controller, Unknown
from playground.controller.evidence import MARKS
from playground.controller.execution import EXIT, Channel, NotPossible
from playground.controller.moves import Refused
from playground.controller.sessions import SessionRefused
from playground.lifecycle import WANTED, Verb
from playground.machine import MOST_GRACE_S
from playground.manner import Manner
from playground.records import HostRecord
from playground.spec import SpecErrors
from playground.store.api import StoreError

log = logging.getLogger("api")

Json = dict[str, Any]

LOCAL = "playground.local"
"""Key of a request's ASGI scope: it came by a socket that only its owner may open. Never told by the peer's address: a
peer that has reset its connection has none any more, and its request is still read."""


def _storable(text: str) -> str:
    """JSON can escape half a character, which nothing can store or say again."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half a character (a lone surrogate) at offset {error.start}") from None
    return text


Text = Annotated[str, AfterValidator(_storable)]
Marks = Annotated[str, Query(pattern=MARKS, description="`last` of the answer before")]
Wait = Annotated[float, Query(ge=0, allow_inf_nan=False, description="seconds; more than 60 are 60")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SiteBody(_Body):
    """A site file. file: its name, for places in errors."""

    file: Text
    text: Text


class FileBody(SiteBody):
    """A playground file. included: pattern → the files that it matches, as [name, text]; the controller reads none
    itself."""

    included: dict[Text, list[tuple[Text, Text]]] | None = None


class WorkspaceBody(_Body):
    """NAME, or PLAYGROUND/NAME where NAME alone is ambiguous."""

    workspace: Text


class StopBody(WorkspaceBody):
    """grace_s: how long it has to end by itself before it is made to; None: as its file says."""

    grace_s: Annotated[float, Field(ge=0, le=MOST_GRACE_S)] | None = None


class MigrateBody(WorkspaceBody):
    """measure: run a 1 kHz stream to the workspace while it moves. dry_run: say what speaks for and against the move
    instead. The rest as in `playground.manner.Manner`, where 0 is for "not asked for"."""

    host: Text
    measure: bool = True
    dry_run: bool = False
    post_copy: bool = False
    auto_converge: bool = False
    copy_storage: bool = False
    bandwidth_mib_s: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    timeout_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 0.0
    max_gap_ms: Annotated[float, Field(ge=0, le=86_400_000, allow_inf_nan=False)] = 0.0

    def manner(self) -> Manner:
        """How the move is to be made."""
        return Manner(**{field: getattr(self, field) for field in Manner.__struct_fields__})


class DrainBody(_Body):
    """parallel: moves at a time; None for as many as before."""

    parallel: int | None = Field(default=None, ge=1, le=64)


class BindingBody(_Body):
    """host: where the port's other end is to be made."""

    host: Text


class ActivateBody(_Body):
    """generation: of the binding, as the answer to its preparation said."""

    generation: int


class PlaygroundBody(_Body):
    """A playground's name."""

    playground: Text


def make_app(controller: Controller, admin_token: str | None) -> FastAPI:
    """The application. Requests over TCP need `admin_token` (agents: their own); the Unix socket needs none."""
    app = FastAPI(title="playground", version=__version__, docs_url="/v1/docs", openapi_url="/v1/openapi.json")

    @app.middleware("http")
    async def authorise(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if not _is_local(request.scope) and not _has_token(request.headers.get("authorization"), admin_token):
            return JSONResponse({"error": "a token is needed: Authorization: Bearer TOKEN"}, 401)
        return await call_next(request)

    @app.exception_handler(SpecErrors)
    async def on_problems(request: Request, error: SpecErrors) -> JSONResponse:
        return JSONResponse({"problems": [dataclasses.asdict(p) for p in error.problems]}, 422)

    @app.exception_handler(RequestValidationError)
    async def on_malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        """Says where and what, but not what was read: that may be anything, also what JSON can't carry back."""
        said = (f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()[:5])
        return JSONResponse({"error": "; ".join(said).encode("utf-8", "replace").decode()}, 400)

    @app.exception_handler(HTTPException)
    async def on_no_such_call(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(Unknown)
    async def on_unknown(request: Request, error: Unknown) -> JSONResponse:
        return JSONResponse({"error": str(error)}, error.code)

    @app.exception_handler(NoBinding)
    async def on_no_binding(request: Request, error: NoBinding) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 404)

    @app.exception_handler(Raced)
    @app.exception_handler(Refused)
    @app.exception_handler(NotPossible)
    async def on_refused(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 409)

    @app.exception_handler(StoreError)
    async def on_sick_store(request: Request, error: StoreError) -> JSONResponse:
        """What was asked for may be asked again, once the cause is gone."""
        return JSONResponse({"error": str(error)}, 503)

    @app.get("/v1/site")
    async def site() -> Json:
        world = controller.world
        return {
            "site": controller.site,
            "version": __version__,
            "revision": world.revision,
            "hosts": len(world.hosts),
            "up": len(world.alive),
            "playgrounds": sorted(name for name, grid in world.grids.items() if grid.root is not None),
        }

    @app.post("/v1/plan")
    async def plan(body: FileBody) -> Json:
        return await controller.plan(body.file, body.text, body.included)

    @app.put("/v1/playgrounds")
    async def up(body: FileBody) -> Json:
        return await controller.up(body.file, body.text, body.included)

    @app.delete("/v1/playgrounds/{name}")
    async def down(name: str) -> Json:
        return await controller.down(name)

    @app.get("/v1/playgrounds/{name}/progress")
    async def progress(name: str) -> Json:
        return controller.progress.of(name) | _accepted(controller, name)

    @app.get("/v1/status")
    async def show_status(playground: str | None = None) -> Json:
        if playground is not None:
            controller.known(playground)
        return status.status(controller.world, controller.site, time.time(), controller.progress.of, playground)

    @app.get("/v1/hosts")
    async def hosts() -> list[Json]:
        return status.hosts(controller.world)

    @app.get("/v1/ports")
    async def ports(playground: str | None = None) -> list[Json]:
        if playground is not None:
            controller.known(playground)
        return status.ports(controller.world, playground)

    @app.get("/v1/ports/{port}/bindings")
    async def bindings(port: str) -> list[Json]:
        return controller.bindings.list(port)

    @app.post("/v1/ports/{port}/bindings")
    async def prepare_binding(port: str, body: BindingBody, wait_s: Wait = 10.0) -> Json:
        return await controller.bindings.prepare(port, body.host, min(wait_s, 60.0))

    @app.get("/v1/ports/{port}/bindings/{host}")
    async def binding(port: str, host: str, wait_s: Wait = 0.0) -> Json:
        return await controller.bindings.show(port, host, min(wait_s, 60.0))

    @app.post("/v1/ports/{port}/bindings/{host}/activate")
    async def activate_binding(port: str, host: str, body: ActivateBody, wait_s: Wait = 10.0) -> Json:
        return await controller.bindings.activate(port, host, body.generation, min(wait_s, 60.0))

    @app.delete("/v1/ports/{port}/bindings/{host}")
    async def abort_binding(port: str, host: str, generation: int) -> Json:
        return await controller.bindings.abort(port, host, generation)

    @app.get("/v1/leases")
    async def leases(playground: str | None = None) -> list[Json]:
        if playground is not None:
            controller.known(playground)
        return await controller.clients.leases(playground)

    @app.get("/v1/why")
    async def why(of: str) -> list[Json]:
        return await controller.why(of)

    @app.get("/v1/events")
    async def events(after: int = 0, wait_s: Wait = 0.0) -> list[Json]:
        if wait_s:
            await controller.events.wait(after, min(wait_s, 60.0))
        return controller.events.after(after)

    @app.post("/v1/stop")
    async def stop(body: StopBody) -> Json:
        return await controller.ask(body.workspace, "stop", body.grace_s)

    def asks(verb: Verb) -> Callable[[WorkspaceBody], Awaitable[Json]]:
        async def ask(body: WorkspaceBody) -> Json:
            return await controller.ask(body.workspace, verb)

        return ask

    for verb in WANTED:
        if verb != "stop":
            app.post(f"/v1/{verb}", name=verb)(asks(verb))

    @app.post("/v1/migrate", status_code=202)
    async def migrate(body: MigrateBody, response: Response) -> Json:
        if body.dry_run:
            response.status_code = 200
            return await controller.look_at_move(body.workspace, body.host, body.measure, body.manner())
        workspace = controller.workspace(body.workspace)
        move = await controller.moves.request(workspace, body.host, body.measure, manner=body.manner())
        return {
            "playground": move.playground,
            "workspace": move.workspace,
            "from": move.source,
            "to": move.target,
            "generation": move.generation,
            "timeout_s": round(move.deadline_utc_s - move.started_utc_s, 3),
        }

    @app.post("/v1/abort")
    async def abort(body: WorkspaceBody) -> Json:
        move = await controller.moves.abort(controller.workspace(body.workspace))
        return {"workspace": move.workspace, "state": move.state}

    @app.get("/v1/migrations")
    async def migrations(workspace: str, generation: int = 0, wait_s: Wait = 0.0) -> Json:
        return await controller.migration(workspace, generation, min(wait_s, 60.0))

    @app.post("/v1/probe")
    async def probe(body: PlaygroundBody) -> Json:
        controller.known(body.playground)
        return await controller.probing.probe(body.playground)

    @app.get("/v1/policy/log")
    async def policy_log(playground: str | None = None, after: Marks = "", wait_s: Wait = 0.0) -> Json:
        if playground is not None:
            controller.known(playground)
        return await controller.evidence.verdicts(playground, after, min(wait_s, 60.0))

    @app.get("/v1/policy/counters")
    async def policy_counters(playground: str) -> Json:
        controller.known(playground)
        return await controller.evidence.counters(playground)

    @app.post("/v1/policy/verify")
    async def policy_verify(playground: str | None = None) -> Json:
        if playground is not None:
            controller.known(playground)
        return await controller.evidence.verify(playground)

    @app.get("/v1/site/policies")
    async def site_policies() -> Json:
        return controller.tiers.show()

    @app.post("/v1/site/policies/plan")
    async def plan_site_policies(body: SiteBody) -> Json:
        return await controller.tiers.plan(body.file, body.text)

    @app.put("/v1/site/policies")
    async def apply_site_policies(body: SiteBody) -> Json:
        return await controller.tiers.apply(body.file, body.text)

    @app.put("/v1/hosts/{name}/drain")
    async def drain(name: str, body: DrainBody) -> Json:
        return await controller.drain(name, body.parallel)

    @app.delete("/v1/hosts/{name}/drain")
    async def resume(name: str) -> Json:
        return await controller.resume(name)

    @app.get("/v1/hosts/{name}/drain")
    async def drained(name: str, wait_s: Wait = 0.0) -> Json:
        return await controller.drained(name, min(wait_s, 60.0))

    @app.post("/v1/hosts/{name}/token")
    async def token(name: str) -> Json:
        return {"host": name, "token": await controller.issue_token(name)}

    def agent_of(websocket: WebSocket) -> HostRecord | None:
        """The host whose agent dials, if it has that host's token."""
        host = websocket.headers.get("x-playground-host", "")
        known = controller.world.hosts.get(host)
        if known is None or not _matches(_bearer(websocket.headers.get("authorization")), known.token_sha256):
            log.warning("agent refused host=%r known=%s", host, known is not None)
            return None
        return known

    @app.websocket("/v1/agent")
    async def agent(websocket: WebSocket) -> None:
        known = agent_of(websocket)
        if known is None:
            answer = {"error": "no host of this site has that name and that token; `playground hosts token NAME`"}
            await websocket.send_denial_response(JSONResponse(answer, 401))
            return
        host = known.name
        await websocket.accept()

        async def receive() -> wire.FromAgent:
            return wire.decode_from_agent(await _text(websocket))

        try:
            hello = await receive()
            if not isinstance(hello, wire.Hello) or hello.host != host or hello.protocol != wire.PROTOCOL:
                await websocket.close(4400, f"expected hello of {host} with protocol {wire.PROTOCOL}")
                return
            await controller.sessions.serve(hello, known.token_sha256, websocket.send_text, receive)
        except SessionRefused as refusal:
            log.warning("agent refused host=%s cause=%s", host, refusal)
            await websocket.close(refusal.code, str(refusal))
        except WebSocketDisconnect:
            log.info("agent disconnected host=%s", host)
        except (msgspec.DecodeError, StoreError, RuntimeError) as error:
            log.warning("agent's session ended host=%s error=%s", host, error)
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await websocket.close(4400, "what was said is not of this protocol")

    @app.websocket("/v1/agent/exec/{id}")
    async def agent_exec(websocket: WebSocket, id: str) -> None:
        channel = controller.execution.waiting(id) if agent_of(websocket) is not None else None
        if channel is None:
            await websocket.close(4404, "no such command")
            return
        await websocket.accept()
        channel.dialled.set()
        await _pump(websocket, channel.to_agent, channel.from_agent, channel)

    @app.websocket("/v1/exec")
    async def exec_(websocket: WebSocket) -> None:
        if not _is_local(websocket.scope) and not _has_token(websocket.headers.get("authorization"), admin_token):
            await websocket.close(4401, "a token is needed")
            return
        await websocket.accept()
        try:
            order = msgspec.json.decode(await _text(websocket), type=_Order)
            workspace = controller.workspace(order.workspace) if order.workspace is not None else None
            channel = await controller.execution.start(
                order.argv,
                workspace=(workspace.playground, workspace.name) if workspace else None,
                host=order.host,
                tty=order.tty,
                rows=order.rows,
                cols=order.cols,
                env=order.env,
            )
        except (NotPossible, Unknown, msgspec.DecodeError, RecursionError) as error:
            await websocket.send_bytes(bytes([EXIT]) + msgspec.json.encode({"error": str(error)}))
            await websocket.close()
            return
        except WebSocketDisconnect:
            return
        try:
            await _pump(websocket, channel.from_agent, channel.to_agent, channel)
        finally:
            await controller.execution.close(channel)

    return app


Word = Annotated[str, msgspec.Meta(pattern="^[^\\x00]*$")]
Cells = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class _Order(msgspec.Struct):
    """The first message on /v1/exec."""

    argv: Annotated[list[Word], msgspec.Meta(min_length=1)]
    workspace: str | None = None
    host: str | None = None
    tty: bool = False
    rows: Cells = 24
    cols: Cells = 80
    env: dict[Annotated[str, msgspec.Meta(pattern="^[^=\\x00]+$")], Word] = {}


async def _pump(
    websocket: WebSocket, outgoing: asyncio.Queue[bytes | None], incoming: asyncio.Queue[bytes | None], channel: Channel
) -> None:
    """Carries frames both ways until either side ends."""

    async def send() -> None:
        with contextlib.suppress(WebSocketDisconnect):
            while (frame := await outgoing.get()) is not None:
                await websocket.send_bytes(frame)
                if frame and frame[0] == EXIT:
                    return

    async def receive() -> None:
        try:
            while True:
                await incoming.put(await websocket.receive_bytes())
        except (WebSocketDisconnect, KeyError):
            await incoming.put(None)

    tasks = [asyncio.create_task(send()), asyncio.create_task(receive())]
    closed = asyncio.create_task(channel.closed.wait())
    try:
        await asyncio.wait([*tasks, closed], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (*tasks, closed):
            task.cancel()
        await asyncio.gather(*tasks, closed, return_exceptions=True)
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # the peer may have closed first
            await websocket.close()


def _accepted(controller: Controller, name: str) -> Json:
    """The change that made a playground what it is to be, and its file: who waits for another waits in vain."""
    grid = controller.world.grids.get(name)
    if grid is None or grid.root is None or grid.root.state == "removing":
        return {"change": None, "file": None}
    return {"change": grid.root.change, "file": grid.root.file}


async def _text(websocket: WebSocket) -> str:
    """The next message. Raises msgspec.DecodeError for a binary one, WebSocketDisconnect."""
    try:
        return await websocket.receive_text()
    except KeyError:
        raise msgspec.DecodeError("a text message was expected, a binary one came") from None


def _is_local(scope: Any) -> bool:
    """Whether a request came over the Unix socket."""
    return scope.get(LOCAL) is True


def _bearer(header: str | None) -> str:
    kind, _, token = (header or "").partition(" ")
    return token if kind.lower() == "bearer" else ""


def _has_token(header: str | None, token: str | None) -> bool:
    return bool(token) and hmac.compare_digest(_bearer(header).encode(), (token or "").encode())


def _matches(token: str, sha256: str) -> bool:
    return bool(token and sha256) and hmac.compare_digest(hashlib.sha256(token.encode()).hexdigest(), sha256)
