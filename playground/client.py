"""The HTTP API as a Python object, over a Unix socket or TCP with a token. Standard library only; no terminals.

Answers are the decoded JSON of `docs/api.md`, as they are. A controller that can't be reached raises `Unreachable`, one
that says no raises `Refused`; both read as one sentence for a person.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from playground.uri import host_text

DEFAULT_PORT = 7470
"""The controller's TCP port where a server's URL names none."""


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A controller on this machine: whoever may open the socket may do everything."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A controller elsewhere, asked with a token. ca: PEM file of the authorities that may have signed its certificate;
    None is the system's."""

    host: str
    port: int
    tls: bool = False
    ca: str | None = None

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{host_text(self.host)}:{self.port}"


Address = UnixAddress | TcpAddress


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a file; line and column count from 1, 0 where there is no place. path: `networks.grid.mtu`."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        return ": ".join(part for part in (place, self.path, self.message) if part)


class Unreachable(Exception):
    """No controller answers at an address, or it went away in the middle of an answer."""

    def __init__(self, address: Address, cause: str) -> None:
        super().__init__(f"no controller answers at {address} ({cause})")
        self.address = address
        self.cause = cause

    def is_absent(self) -> bool:
        """Whether nothing is there at all: no socket on this machine, rather than one that nobody answers."""
        return isinstance(self.address, UnixAddress) and not self.address.path.exists()


class Refused(Exception):
    """The controller said no. status: HTTP's; problems: those of a bad file, else empty."""

    def __init__(self, status: int, text: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.problems = problems


def parse_address(url: str, ca: str | None = None) -> Address:
    """`http://HOST[:PORT]`, `https://HOST[:PORT]` or `unix:PATH`. Raises ValueError, saying what is allowed."""
    parts = urlsplit(url)
    if parts.scheme == "unix" and parts.path:
        return UnixAddress(Path(parts.path))
    if parts.scheme in ("http", "https") and parts.hostname and parts.path in ("", "/"):
        return TcpAddress(parts.hostname, parts.port or DEFAULT_PORT, parts.scheme == "https", ca)
    raise ValueError(f"{url!r} is no controller's address; write http://HOST:PORT, https://HOST:PORT or unix:PATH")


class _Connection(http.client.HTTPConnection):
    """HTTP over whatever socket `dial` opens."""

    def __init__(self, address: Address, timeout: float) -> None:
        super().__init__("localhost" if isinstance(address, UnixAddress) else address.host)
        self._address = address
        self._dial_timeout = timeout

    def connect(self) -> None:
        self.sock = dial(self._address, self._dial_timeout)


def dial(address: Address, timeout: float) -> socket.socket:
    """A connected socket, with `timeout` (seconds) on each of its operations. Raises OSError."""
    if isinstance(address, UnixAddress):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(str(address.path))
        except OSError:
            sock.close()
            raise
        return sock
    sock = socket.create_connection((address.host, address.port), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not address.tls:
        return sock
    import ssl

    try:
        return ssl.create_default_context(cafile=address.ca).wrap_socket(sock, server_hostname=address.host)
    except BaseException:
        sock.close()
        raise


class Client:
    """One controller. A request opens its own connection, so a client may be kept for as long as one likes."""

    def __init__(self, address: Address, token: str | None = None, timeout: float = 30.0) -> None:
        self.address = address
        self.token = token
        self.timeout = timeout

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries: the token, where there is one."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def get(self, path: str, query: Mapping[str, str | int | None] | None = None) -> Any:
        """`GET /v1/PATH`; query entries that are None are left out."""
        present = {key: value for key, value in (query or {}).items() if value is not None}
        return self.request("GET", f"{path}?{urlencode(present)}" if present else path)

    def post(self, path: str, body: Mapping[str, Any] | None = None, *, timeout: float | None = None) -> Any:
        """`POST /v1/PATH`."""
        return self.request("POST", path, body or {}, timeout=timeout)

    def put(self, path: str, body: Mapping[str, Any], *, timeout: float | None = None) -> Any:
        """`PUT /v1/PATH`."""
        return self.request("PUT", path, body, timeout=timeout)

    def delete(self, path: str) -> Any:
        """`DELETE /v1/PATH`."""
        return self.request("DELETE", path)

    def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, timeout: float | None = None
    ) -> Any:
        """One exchange; the answer's JSON. Raises Unreachable and Refused."""
        headers = self.headers
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection = _Connection(self.address, timeout or self.timeout)
        try:
            connection.request(method, f"/v1/{path}", payload, headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(self.address, cause_of(error)) from error
        finally:
            connection.close()
        if response.status >= 400:
            raise _refusal(response.status, text)
        try:
            return json.loads(text)
        except ValueError as error:
            raise Unreachable(self.address, "what answers there speaks no JSON") from error


def segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def cause_of(error: Exception) -> str:
    """Why a connection failed, in a few words for a person."""
    if unverified := getattr(error, "verify_message", ""):  # ssl's error, without importing ssl for it
        remedy = "dial a name that it has" if "mismatch" in unverified else "--ca FILE names who signed it"
        return f"its certificate does not pass: {unverified.rstrip('.')}; {remedy}"
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _refusal(status: int, text: bytes) -> Refused:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        answer = {}
    problems = tuple(
        Problem(
            entry.get("file") or "",
            entry.get("line") or 0,
            entry.get("column") or 0,
            entry.get("path") or "",
            entry.get("message") or "",
        )
        for entry in answer.get("problems", ())
    )
    if problems:
        return Refused(status, "\n".join(str(problem) for problem in problems), problems)
    error = answer.get("error") or answer.get("detail")
    said = (
        error if isinstance(error, str) else text.decode(errors="replace").strip() or http.client.responses.get(status)
    )
    return Refused(status, said or f"HTTP status {status}")
