"""An etcd of three members on loopback, as a peer, and the two calls that are timed. Measures nothing.

By gRPC, as its own clients do it; the few messages needed are written out here (etcd's api/etcdserverpb/rpc.proto).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

MEMBERS = 3
START_S = 20.0


def is_installed() -> bool:
    """The server, and gRPC for Python."""
    return shutil.which("etcd") is not None and importlib.util.find_spec("grpc") is not None


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited protobuf field."""
    length, digits = len(value), bytearray()
    while length > 127:
        digits.append(length & 127 | 128)
        length >>= 7
    return bytes((number << 3 | 2,)) + bytes(digits) + bytes((length,)) + value


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


class Member:
    """One member's door."""

    def __init__(self, port: int) -> None:
        import grpc.aio

        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self._put = self._channel.unary_unary("/etcdserverpb.KV/Put")
        self._watch = self._channel.stream_stream("/etcdserverpb.Watch/Watch")

    async def put(self, key: str, value: bytes) -> None:
        """PutRequest {key = 1, value = 2}."""
        await self._put(_field(1, key.encode()) + _field(2, value), timeout=5)

    async def watch(self, prefix: str) -> AsyncIterator[bytes]:
        """WatchRequest {create_request = 1 {key = 1, range_end = 2}}: its confirmation, then what happens, encoded."""
        first = prefix.encode()
        request = _field(1, _field(1, first) + _field(2, first[:-1] + bytes((first[-1] + 1,))))
        call = self._watch()
        await call.write(request)
        try:
            while True:
                yield await call.read()
        finally:
            call.cancel()

    async def close(self) -> None:
        await self._channel.close()


@contextlib.contextmanager
def running(folder: Path | None = None) -> Iterator[list[int]]:
    """Client ports of three members that have a leader; nothing of them is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="pgbe-", dir=folder) as home, contextlib.ExitStack() as stack:
        ports = _free_ports(2 * MEMBERS)
        clients, peers = ports[:MEMBERS], ports[MEMBERS:]
        cluster = ",".join(f"m{number}=http://127.0.0.1:{port}" for number, port in enumerate(peers))
        for number in range(MEMBERS):
            client, peer = f"http://127.0.0.1:{clients[number]}", f"http://127.0.0.1:{peers[number]}"
            words = ["--name", f"m{number}", "--data-dir", f"{home}/m{number}", "--log-level", "error"]
            words += ["--listen-client-urls", client, "--advertise-client-urls", client]
            words += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
            words += ["--initial-cluster", cluster, "--initial-cluster-token", home]
            process = subprocess.Popen(
                ["etcd", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment()
            )
            stack.callback(_end, process)
        deadline = time.monotonic() + START_S
        while not all(_answers(port) for port in clients):
            if time.monotonic() > deadline:
                raise TimeoutError(f"etcd has no leader after {START_S:g} s")
            time.sleep(0.1)
        yield clients


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}


def _answers(port: int) -> bool:
    """Whether the member knows a leader: it serves /health then."""
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as response:
            return b'"true"' in response.read()
    except OSError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
