"""A certificate that signs itself: who is told to trust it is served, everybody else hears why not."""

from __future__ import annotations

import http.server
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from playground.client import Client, TcpAddress, Unreachable


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    made = (folder / "tls.pem", folder / "tls.key")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=lab"
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run(
            ["openssl", *words.split(), *names, "-out", made[0], "-keyout", made[1]], check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return made


@pytest.fixture
def port(certificate: tuple[Path, Path]) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_authority_of_ones_own_is_trusted(port: int, certificate: tuple[Path, Path]) -> None:
    assert Client(TcpAddress("127.0.0.1", port, True, str(certificate[0])), "token").get("hosts") == []


def test_a_certificate_that_nobody_vouches_for_names_the_option(port: int) -> None:
    with pytest.raises(Unreachable, match="self-signed certificate; --ca FILE"):
        Client(TcpAddress("127.0.0.1", port, True), "token").get("hosts")


def test_a_certificate_for_another_address_says_so(port: int, certificate: tuple[Path, Path]) -> None:
    with pytest.raises(Unreachable, match="not valid for 'localhost'; dial a name that it has"):
        Client(TcpAddress("localhost", port, True, str(certificate[0])), "token").get("hosts")
