from __future__ import annotations

import json
import socket
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from namespace_lab import SCRIPTS, Host

from playground.workspaces.prober import checksum, encode_request, parse_reply, read_target

V4, V6 = socket.AF_INET, socket.AF_INET6
NUMBERS = st.integers(0, 0xFFFF)


def answer(family: int, request: bytes) -> bytes:
    """The reply that a host gives, as a raw socket shows it (the IPv4 header with it)."""
    if family == V4:
        return bytes([0x45, *bytes(19)]) + b"\0" + request[1:]
    return bytes([129]) + request[1:]


@settings(max_examples=50)
@given(st.sampled_from([V4, V6]), NUMBERS, NUMBERS, st.integers(0, 2**63))
def test_the_answer_to_our_request_is_ours(family: int, identifier: int, number: int, now_ns: int) -> None:
    reply = answer(family, encode_request(family, identifier, number, now_ns))
    assert parse_reply(family, reply, identifier) == (number, now_ns)
    assert parse_reply(family, reply, identifier ^ 1) is None


@settings(max_examples=100)
@given(st.sampled_from([V4, V6]), st.binary(max_size=80))
def test_no_packet_breaks_the_parser(family: int, packet: bytes) -> None:
    parse_reply(family, packet, 1)


def test_a_request_is_no_reply() -> None:
    request = encode_request(V6, 1, 2, 3)
    assert parse_reply(V6, request, 1) is None
    assert parse_reply(V4, bytes([0x45, *bytes(19)]) + encode_request(V4, 1, 2, 3), 1) is None


def test_the_checksum_of_a_request_holds() -> None:
    assert checksum(encode_request(V4, 0x1234, 7, 99)) == 0


def test_the_checksum_is_that_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D  # §3, the complement of ddf2
    assert checksum(b"\x01") == 0xFEFF


def test_what_is_no_address_is_no_target_but_stays_in_the_list() -> None:
    assert read_target({"id": "x", "address": "head.grid.atlas.internal"}).sockaddr is None


@pytest.mark.system
def test_all_targets_are_asked_at_once_and_answered_in_order(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    a.join(b)
    a.run("ip", "address", "add", "10.0.0.1/24", "dev", "br0")
    a.run("ip", "address", "add", "fd00::1/64", "dev", "br0", "nodad")
    for number in range(2, 12):
        b.run("ip", "address", "add", f"10.0.0.{number}/24", "dev", "br0")
        b.run("ip", "address", "add", f"fd00::{number:x}/64", "dev", "br0", "nodad")
    addresses = [f"10.0.0.{n}" for n in range(2, 14)] + [f"fd00::{n:x}" for n in range(2, 14)] + ["nonsense"]
    prober = a.spawn(sys.executable, "-I", "-S", str(SCRIPTS / "prober.py"), "--seconds", "0.6")
    out, _ = prober.communicate(json.dumps([{"id": i, "address": each} for i, each in enumerate(addresses)]))
    found = json.loads(out)
    assert [each["id"] for each in found] == list(range(len(addresses)))
    silent = {addresses[each["id"]] for each in found if not each["reachable"]}
    assert silent == {"10.0.0.12", "10.0.0.13", "fd00::c", "fd00::d", "nonsense"}
    assert all((each["rtt_ms"] is None) != each["reachable"] for each in found)


def test_the_request_has_the_layout_of_rfc_792() -> None:
    kind, code, _, identifier, number = struct.unpack_from("!BBHHH", encode_request(V4, 0xABCD, 0x0102, 0))
    assert (kind, code, identifier, number) == (8, 0, 0xABCD, 0x0102)
