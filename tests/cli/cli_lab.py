"""What the command line's tests share: a controller's double, answers in the shapes of `docs/api.md`."""

from __future__ import annotations

import json
import socketserver
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Answer = tuple[int, Any]


@dataclass
class FakeController:
    """answers: `METHOD PATH` (below /v1, no query) → an answer, (status, answer), or a function (query, body) to one.
    A list is used up in turn, its last element for ever; an answer that is a list stands in a list of one."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)

    def answer(self, key: str, query: dict[str, str], body: Any) -> Answer:
        self.asked.append((key, query, body))
        found = self.answers.get(key, (404, {"error": f"no {key}"}))
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if callable(found):
            found = found(query, body)
        return found if isinstance(found, tuple) else (200, found)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    fake: FakeController


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        key = f"{self.command} {parts.path.removeprefix('/v1/')}"
        self.server.fake.tokens.append(self.headers.get("Authorization"))
        status, answer = self.server.fake.answer(key, dict(parse_qsl(parts.query)), json.loads(body) if body else None)
        payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        """Tests read what was asked from `FakeController.asked`."""


@dataclass(frozen=True)
class Ran:
    """How a command line ended."""

    code: int
    out: str
    err: str


Play = Callable[..., Ran]


Row = dict[str, Any]


def a_host(name: str = "n1", **changes: Any) -> Row:
    number = int(name[1:])
    host = {"name": name, "site": "local", "state": "up", "underlay": f"192.0.2.{10 + number}", "ports": 1}
    return host | {"labels": {}, "problems": [], "repaired": {}} | changes


def a_port(workspace: str = "head", host: str = "n1", last: int = 100, **changes: Any) -> Row:
    port = {
        "playground": "atlas",
        "workspace": workspace,
        "network": "grid",
        "mac": f"02:00:00:00:00:{last - 100:02x}",
        "addresses": [f"10.20.0.{last}", f"fd00:20::{last:x}"],
        "host": host,
        "state": "forwarding",
        "device": "pg0123456789ab",
        "cause": "",
    }
    return port | changes


def a_workspace(name: str = "head", **changes: Any) -> Row:
    workspace = {"name": name, "desired": "running", "state": "running", "host": "n1", "cause": ""}
    return workspace | {"addresses": ["10.20.0.100", "fd00:20::64"]} | changes


def a_status(**changes: Any) -> Row:
    playground = {
        "name": "atlas",
        "desired": "present",
        "programmed": "converged",
        "probed": {"state": "as modelled", "age_s": 12.4, "pairs": 30, "mismatches": 0},
        "cause": "",
        "networks": [{"name": "grid", "vni": 4097, "mtu": 1450, "subnets": ["10.20.0.0/24", "fd00:20::/64"]}],
        "workspaces": [a_workspace()],
    }
    return {"site": "local", "hosts": [a_host("n1"), a_host("n2", ports=0)], "playgrounds": [playground | changes]}


def a_progress(converged: bool = True, **changes: Any) -> Row:
    progress = {
        "name": "atlas",
        "change": "c1",
        "file": "atlas.yaml",
        "converged": converged,
        "removed": False,
        "workspaces": {"total": 2, "running": 2 if converged else 1},
        "ports": {"total": 3, "forwarding": 3 if converged else 1, "leased": 3 if converged else 0},
        "waiting": [] if converged else [{"object": "workspace worker-1", "cause": "waits for a host"}],
        "failed": [],
    }
    return progress | changes


def a_move(state: str = "settled", **changes: Any) -> Row:
    move = {"playground": "atlas", "workspace": "worker-1", "from": "n1", "to": "n3", "state": state, "cause": ""}
    return move | {"generation": 1, "gap_ms": 2.13, "lost": 0, "duplicated": 0, "pause_ms": 0.4} | changes
