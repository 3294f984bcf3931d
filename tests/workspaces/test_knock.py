from __future__ import annotations

import json
import signal
import socket
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from namespace_lab import SCRIPTS, Host
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from playground.workspaces.knock import MAGIC, parse_arrival, read_knock

KNOCK = (sys.executable, "-I", "-S", str(SCRIPTS / "knock.py"))
FOUR, SIX = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")
RULES = """
table inet t {
  chain forwarded {
    type filter hook input priority 0
    tcp dport 23 drop
    udp dport 54 drop
    tcp dport 24 reject with tcp reset
  }
}
"""


@pytest.mark.system
def test_what_arrives_is_seen_also_where_nobody_listens_and_what_is_stopped_is_not(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    a.join(b)
    for host, number in ((a, 1), (b, 2)):
        host.run("ip", "address", "add", f"10.0.0.{number}/24", "dev", "br0")
        host.run("ip", "address", "add", f"fd00::{number}/64", "dev", "br0", "nodad")
    a.spawn("nft", "-f", "-").communicate(RULES.replace("input", "output"))
    listener = b.within(lambda: socket.create_server(("10.0.0.2", 80)))
    watcher = b.spawn(*KNOCK, "watch")
    assert watcher.stderr is not None and watcher.stderr.readline() == "watching\n"
    ports = ["tcp/22", "tcp/23", "tcp/24", "tcp/80", "udp/53", "udp/54"]
    entries = [
        {"id": f"{address} {port}", "address": address, "port": port}
        for address in ("10.0.0.2", "fd00::2", "10.0.0.99", "nonsense")
        for port in ports
    ]
    out, _ = a.spawn(*KNOCK, "knock", "--seconds", "0.5").communicate(json.dumps(entries))
    watcher.send_signal(signal.SIGTERM)
    seen, _ = watcher.communicate()
    listener.close()
    said: list[dict[str, Any]] = json.loads(out)
    arrived = [tuple(one) for one in json.loads(seen)]
    assert [one["id"] for one in said] == [entry["id"] for entry in entries]

    def has_arrived(one: dict[str, Any]) -> bool:
        address, port = one["id"].split()
        word, number = port.split("/")
        source, source_port = one["sent"] or ("", 0)
        return (6 if word == "tcp" else 17, source, source_port, address, int(number)) in arrived

    found = {one["id"] for one in said if has_arrived(one)}
    assert found == {
        f"{address} {port}" for address in ("10.0.0.2", "fd00::2") for port in ("tcp/22", "tcp/80", "udp/53")
    }
    answered = {one["id"] for one in said if one["answered"]}
    assert answered >= {f"{address} tcp/{port}" for address in ("10.0.0.2", "fd00::2") for port in (22, 80)}
    assert not {f"10.0.0.2 tcp/{port}" for port in (23,)} & answered
    assert all(one["sent"] is None and not one["answered"] for one in said if one["id"].startswith("nonsense"))
    assert len(arrived) == len(found)


@pytest.mark.parametrize(
    ("packet", "arrival"),
    [
        (FOUR / TCP(sport=1, dport=2, flags="S"), (6, "10.0.0.1", 1, "10.0.0.2", 2)),
        (SIX / TCP(sport=1, dport=2, flags="S"), (6, "fd00::1", 1, "fd00::2", 2)),
        (FOUR / UDP(sport=1, dport=2) / Raw(MAGIC), (17, "10.0.0.1", 1, "10.0.0.2", 2)),
        (SIX / UDP(sport=1, dport=2) / Raw(MAGIC), (17, "fd00::1", 1, "fd00::2", 2)),
        (FOUR / TCP(sport=1, dport=2, flags="SA"), None),
        (SIX / UDP(sport=1, dport=2) / Raw(b"a question"), None),
    ],
)
def test_only_knocks_are_arrivals(packet: Packet, arrival: tuple[object, ...] | None) -> None:
    assert parse_arrival(bytes(packet)) == arrival


@settings(max_examples=100)
@given(st.binary(max_size=80), st.sampled_from([b"", b"\x45", b"\x60"]))
def test_no_packet_breaks_the_parser(packet: bytes, head: bytes) -> None:
    parse_arrival(head + packet)


def test_what_names_no_port_is_refused() -> None:
    with pytest.raises((KeyError, ValueError)):
        read_knock({"id": 1, "address": "10.0.0.1", "port": "sctp/1"})
