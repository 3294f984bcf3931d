"""Kea and dnsmasq, each in a namespace of its own, and what they answer to client messages: one list of cases, of which
each has a client of its own with a reserved address."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dhcp import frame, message
from dhcp.message import BOOTREQUEST, BROADCAST, ZERO, Message
from dhcp.options import Code, MessageType, address, decode_search
from overlay.kernel import namespaces

SERVER, RELAY = address("10.20.0.1"), address("10.20.0.2")
SERVER_MAC = frame.mac("02:70:67:00:00:01")
EVERYBODY, ANY_MAC = b"\xff" * 4, b"\xff" * 6
LEASE_S = 3600
SILENCE_S = 0.6
"""How long an answer may take; who has said nothing by then is silent."""
WISHED = bytes((1, 28, 15, 6, 3, 51, 119))


class Said(NamedTuple):
    """A client's message. is_unicast: it goes to the server alone, from the client's address."""

    request: Message
    is_unicast: bool = False


class Client(NamedTuple):
    """Of one case."""

    mac: bytes
    address: bytes


def said(client: Client, kind: MessageType, options: Mapping[int, bytes] | None = None, **fields: object) -> Message:
    """A message that asks for `WISHED`."""
    found = {Code.MESSAGE_TYPE: bytes((kind,)), Code.PARAMETER_LIST: WISHED} | dict(options or {})
    xid = client.mac[2:5] + bytes((kind,))
    return Message(BOOTREQUEST, xid, client.mac, found)._replace(**fields)  # type: ignore[arg-type]


def discover(client: Client, options: Mapping[int, bytes] | None = None, **fields: object) -> Said:
    return Said(said(client, MessageType.DISCOVER, options, **fields))


def select(client: Client, wanted: bytes = b"", server: bytes = SERVER, **fields: object) -> Said:
    options = {Code.SERVER_ID: server, Code.REQUESTED_ADDRESS: wanted or client.address}
    return Said(said(client, MessageType.REQUEST, options, **fields))


def again(client: Client, is_unicast: bool = False, **fields: object) -> Said:
    """A REQUEST of who has an address."""
    return Said(said(client, MessageType.REQUEST, **({"ciaddr": client.address} | fields)), is_unicast)


def reboot(client: Client, wanted: bytes = b"") -> Said:
    return Said(said(client, MessageType.REQUEST, {Code.REQUESTED_ADDRESS: wanted or client.address}))


FOREIGN = address("10.20.0.99")
ELSEWHERE = address("192.0.2.7")
Steps = Callable[[Client], Sequence[Said]]
CASES: dict[str, Steps] = {
    "discover": lambda c: [discover(c)],
    "discover, wishing another address": lambda c: [discover(c, {Code.REQUESTED_ADDRESS: FOREIGN})],
    "discover, to be broadcast": lambda c: [discover(c, flags=BROADCAST)],
    "discover, with a client id": lambda c: [discover(c, {Code.CLIENT_ID: b"\xff" + bytes(range(8))})],
    "discover, by a relay": lambda c: [discover(c, {82: b"\x01\x02ab"}, giaddr=RELAY, hops=1)],
    "discover, wishing in another order": lambda c: [discover(c, {Code.PARAMETER_LIST: WISHED[::-1]})],
    "discover, with little room": lambda c: [discover(c, {Code.MAX_MESSAGE_SIZE: b"\x02\x40"})],
    "discover, without wishes": lambda c: [discover(c, {Code.PARAMETER_LIST: b"\x01"})],
    "select": lambda c: [discover(c), select(c)],
    "select another address": lambda c: [discover(c), select(c, FOREIGN)],
    "select another server": lambda c: [discover(c), select(c, server=address("10.20.0.7"))],
    "select, by a relay": lambda c: [discover(c, giaddr=RELAY, hops=1), select(c, giaddr=RELAY, hops=1)],
    "reboot": lambda c: [discover(c), select(c), reboot(c)],
    "reboot with another address": lambda c: [discover(c), select(c), reboot(c, FOREIGN)],
    "reboot from another network": lambda c: [reboot(c, ELSEWHERE)],
    "reboot, by a relay, with another address": lambda c: [
        Said(said(c, MessageType.REQUEST, {Code.REQUESTED_ADDRESS: FOREIGN}, giaddr=RELAY, hops=1))
    ],
    "renew": lambda c: [discover(c), select(c), again(c, is_unicast=True)],
    "rebind": lambda c: [discover(c), select(c), again(c)],
    "rebind another address": lambda c: [discover(c), select(c), again(c, ciaddr=FOREIGN)],
    "inform": lambda c: [Said(said(c, MessageType.INFORM, ciaddr=c.address))],
    "decline, then discover": lambda c: [
        discover(c),
        select(c),
        Said(said(c, MessageType.DECLINE, {Code.SERVER_ID: SERVER, Code.REQUESTED_ADDRESS: c.address})),
        discover(c),
    ],
    "release": lambda c: [
        discover(c),
        select(c),
        Said(said(c, MessageType.RELEASE, {Code.SERVER_ID: SERVER}, ciaddr=c.address), is_unicast=True),
    ],
    "release, then discover": lambda c: [
        discover(c),
        select(c),
        Said(said(c, MessageType.RELEASE, {Code.SERVER_ID: SERVER}, ciaddr=c.address), is_unicast=True),
        discover(c),
    ],
}


def client_of(case: str) -> Client:
    number = 30 + list(CASES).index(case)
    return Client(bytes((2, 0, 0, 0, 0, number)), address(f"10.20.0.{number}"))


Answer = dict[str, object]
"""What is compared of a reply, by name; empty for silence."""


def summary(reply: Message, destination: bytes, port: int, client: Client) -> Answer:
    """Addresses of the case's own client are said as such."""

    def told(value: bytes) -> str:
        return "the client's" if value == client.address else socket.inet_ntoa(value)

    options = {code: value.hex() for code, value in reply.options.items()}
    if search := reply.options.get(Code.DOMAIN_SEARCH):
        options[Code.DOMAIN_SEARCH] = str(decode_search(search))  # with pointers or without
    return {
        "type": MessageType(reply.options[Code.MESSAGE_TYPE][0]).name,
        "yiaddr": told(reply.yiaddr),
        "ciaddr": told(reply.ciaddr),
        "siaddr": told(reply.siaddr),
        "giaddr": told(reply.giaddr),
        "flags": reply.flags,
        "to": f"{told(destination)}:{port}",
        "order": [code for code in options if code in WISHED],
    } | {f"option {code}": value for code, value in options.items() if code != Code.MESSAGE_TYPE}


class Wire:
    """Two namespaces: a server's `v0`, and a client's `v1`, which has all clients' addresses and is the relay."""

    def __init__(self) -> None:
        with contextlib.ExitStack() as stack:
            self.server, self.client = (stack.enter_context(_namespace()) for _ in range(2))
            self._stack = stack.pop_all()
        server, client = (self.path(fd) for fd in (self.server, self.client))
        _run(client, f"ip link add v1 type veth peer name v0 address {SERVER_MAC.hex(':')} netns {server}")
        _run(server, "ip link set lo up", "ip link set v0 up", "ip address add 10.20.0.1/24 dev v0")
        own = [f"ip address add {socket.inet_ntoa(client_of(case).address)}/24 dev v1" for case in CASES]
        _run(client, "ip link set lo up", "ip link set v1 up", "ip address add 10.20.0.2/24 dev v1", *own)

    @staticmethod
    def path(fd: int) -> str:
        return f"/proc/{os.getpid()}/fd/{fd}"

    def hear(self) -> socket.socket:
        def opened() -> socket.socket:
            found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(0x0800))
            found.bind(("v1", 0x0800))
            return found

        return namespaces.inside(self.client, opened)

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def _namespace() -> Iterator[int]:
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) as holder:
        found = Path(f"/proc/{holder.pid}/ns/net")
        while found.stat().st_ino == Path("/proc/self/ns/net").stat().st_ino:
            time.sleep(0.002)
        fd = os.open(found, os.O_RDONLY)
        holder.kill()
    try:
        yield fd
    finally:
        os.close(fd)


def _run(path: str, *commands: str) -> None:
    for command in commands:
        subprocess.run(["nsenter", f"--net={path}", "--", *command.split()], check=True, capture_output=True, text=True)


def asked_of(wire: Wire) -> dict[str, Answer]:
    """What a server that runs answers to the last message of each case; all cases go side by side."""
    found: dict[str, Answer] = {}
    with wire.hear() as sock:
        steps = {case: CASES[case](client_of(case)) for case in CASES}
        for number in range(max(map(len, steps.values()))):
            going = {client_of(case).mac: case for case, each in steps.items() if number < len(each)}
            for case in going.values():
                sock.send(_framed(steps[case][number], client_of(case)))
            end = time.monotonic() + SILENCE_S
            answers: dict[str, Answer] = {case: {} for case in going.values()}
            while not all(answers.values()) and time.monotonic() < end:
                for reply, destination, port in _replies(sock):
                    if case := going.get(reply.chaddr):
                        answers[case] = summary(reply, destination, port, client_of(case))
                time.sleep(0.005)
            found.update(answers)
    return found


def _framed(one: Said, client: Client) -> bytes:
    payload = message.encode(one.request)
    if one.request.giaddr != ZERO:
        return frame.udp4(SERVER_MAC, client.mac, RELAY, SERVER, (67, 67), payload)
    if one.is_unicast:
        return frame.udp4(SERVER_MAC, client.mac, client.address, SERVER, (68, 67), payload)
    return frame.udp4(ANY_MAC, client.mac, ZERO, EVERYBODY, (68, 67), payload)


def _replies(sock: socket.socket) -> Iterator[tuple[Message, bytes, int]]:
    while True:
        try:
            raw = sock.recv(4096)
        except BlockingIOError:
            return
        datagram = frame.parse_udp4(raw)
        if datagram is None or datagram.source_port != 67 or datagram.source != SERVER:
            continue
        reply = message.parse(datagram.payload)
        assert isinstance(reply, Message), reply
        yield reply, datagram.destination, datagram.destination_port


def kea(folder: Path) -> list[str]:
    """Reservations as our ports are bound; nothing is written."""
    reserved = [
        {"hw-address": client_of(case).mac.hex(":"), "ip-address": socket.inet_ntoa(client_of(case).address)}
        for case in CASES
    ]
    subnet = {"subnet": "10.20.0.0/24", "reservations": reserved}
    told = {
        "domain-name-servers": "10.20.0.1",
        "domain-name": "grid.atlas.internal",
        "domain-search": "grid.atlas.internal, atlas.internal",
        "broadcast-address": "10.20.0.255",
    }
    config = {
        "Dhcp4": {
            "interfaces-config": {"interfaces": ["v0"], "dhcp-socket-type": "raw"},
            "lease-database": {"type": "memfile", "persist": False},
            "valid-lifetime": LEASE_S,
            "authoritative": True,
            "subnet4": [subnet],
            "option-data": [{"name": name, "data": data} for name, data in told.items()],
            "loggers": [{"name": "kea-dhcp4", "severity": "WARN", "output_options": [{"output": str(folder / "log")}]}],
        }
    }
    (folder / "kea.json").write_text(json.dumps(config))
    env = [f"KEA_PIDFILE_DIR={folder}", f"KEA_LOCKFILE_DIR={folder}"]
    return ["env", *env, shutil.which("kea-dhcp4") or "kea-dhcp4", "-c", str(folder / "kea.json")]


def dnsmasq(folder: Path) -> list[str]:
    """The same; hosts have no names."""
    argv = ["dnsmasq", "-k", "-C", "/dev/null", "--port=0", "--interface=v0", "--bind-interfaces", "--no-ping"]
    argv += ["--dhcp-range=10.20.0.0,static,255.255.255.0,1h", "--dhcp-authoritative", "--user=root", "--quiet-dhcp"]
    argv += [f"--dhcp-leasefile={folder / 'leases'}", f"--pid-file={folder / 'pid'}"]
    argv += ["--dhcp-option=6,10.20.0.1", "--dhcp-option=15,grid.atlas.internal", "--dhcp-option=3"]
    argv += ["--dhcp-option=119,grid.atlas.internal,atlas.internal"]
    for case in CASES:
        client = client_of(case)
        argv.append(f"--dhcp-host={client.mac.hex(':')},{socket.inet_ntoa(client.address)}")
    return argv


PEERS: dict[str, Callable[[Path], list[str]]] = {"kea-dhcp4": kea, "dnsmasq": dnsmasq}


def answers_of(peer: str, folder: Path) -> dict[str, Answer]:
    """Starts it, asks it everything, ends it."""
    wire = Wire()
    with (folder / "out").open("wb") as out:
        argv = ["nsenter", f"--net={wire.path(wire.server)}", "--", *PEERS[peer](folder)]
        server = subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        _await(wire, server)
        return asked_of(wire)
    finally:
        server.kill()
        server.wait()
        wire.close()


def _await(wire: Wire, server: subprocess.Popen[bytes]) -> None:
    """Until it answers anybody."""
    probe = Client(bytes.fromhex("0200000000fe"), address("10.20.0.254"))
    knock = _framed(Said(said(probe, MessageType.INFORM, ciaddr=client_of("inform").address), is_unicast=False), probe)
    with wire.hear() as sock:
        end = time.monotonic() + 20
        while server.poll() is None and time.monotonic() < end:
            sock.send(knock)
            time.sleep(0.05)
            if any(True for _ in _replies(sock)):
                return
    raise AssertionError("the server does not answer")
