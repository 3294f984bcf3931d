"""What a DHCPv6 client hears of us and of Kea 6, for the same messages: the same, but for differences that are listed.

Kea has a reservation where we have a port's address. Each scenario is a client of its own: none knows of another.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from responder_lab import Namespace, until

from dhcp import v6
from dhcp.reason import Reason
from dhcp.scope import PortScope, Scope6
from dhcp.server6 import Bound, Reply
from dhcp.v6 import Association, Code, Kind, Message, Option
from playground.responder import netns

pytestmark = pytest.mark.system

MAC, SERVER_MAC = "02:00:00:00:00:05", "02:70:67:00:00:01"
US = v6.duid_ll(bytes.fromhex(SERVER_MAC.replace(":", "")))
OWN, OTHER = "fd00:20::{:x}", "fd00:20::{:x}:99"
SILENCE_S = 0.4
RAPID, WISH = (int(Code.RAPID_COMMIT), b""), (int(Code.OPTION_REQUEST), b"\0\x18\0\x17\0\xfa")
Step = tuple[Kind, tuple[Any, ...]]
"""A message, and what it has: options; `own`, `other` or `new` for an IA_NA that names such an address, or none."""

BOUND: tuple[Step, ...] = ((Kind.SOLICIT, ("new",)), (Kind.REQUEST, ("own",)))
SCENARIOS: Mapping[str, tuple[Step, ...]] = {
    "bound by four messages": BOUND,
    "bound by two messages": ((Kind.SOLICIT, ("new", RAPID)),),
    "told what it asks for in its order": ((Kind.SOLICIT, ("new", WISH)), (Kind.REQUEST, ("own", WISH))),
    "wishes for another address": ((Kind.SOLICIT, ("other",)), (Kind.REQUEST, ("other",))),
    "confirms its own": (*BOUND, (Kind.CONFIRM, ("own",))),
    "confirms one of another link": ((Kind.CONFIRM, ("elsewhere",)),),
    "confirms nothing": ((Kind.CONFIRM, ("new",)),),
    "confirms another of its prefix": ((Kind.CONFIRM, ("other",)),),
    "renews": (*BOUND, (Kind.RENEW, ("own",)), (Kind.RENEW, ("own",))),
    "rebinds": (*BOUND, (Kind.REBIND, ("own",))),
    "renews one that is not its own": (*BOUND, (Kind.RENEW, ("other",))),
    "renews what is not known": ((Kind.RENEW, ("own",)),),
    "releases and begins anew": (*BOUND, (Kind.RELEASE, ("own",)), *BOUND),
    "releases what it never had": ((Kind.RELEASE, ("other",)),),
    "declines": (*BOUND, (Kind.DECLINE, ("own",))),
    "asks for information": ((Kind.INFORMATION_REQUEST, (WISH,)),),
    "asks for information with an association": ((Kind.INFORMATION_REQUEST, (WISH, "new")),),
    "asks for a prefix": ((Kind.SOLICIT, ((int(Code.IA_PD), b"\0\0\0\1" + bytes(8)),)),),
    "asks for a temporary address": ((Kind.SOLICIT, ((int(Code.IA_TA), b"\0\0\0\1"),)),),
    "has no identifier": ((Kind.SOLICIT, ("new", "nameless")),),
    "asks another server": ((Kind.REQUEST, ("own", "elsewhere server")),),
    "solicits one server": ((Kind.SOLICIT, ("new", (int(Code.SERVER_ID), US))),),
    "names no server": ((Kind.REQUEST, ("own", "no server")),),
    "asks the server alone": (*BOUND, (Kind.RENEW, ("own", "alone"))),
    "solicits the server alone": ((Kind.SOLICIT, ("new", "alone")),),
    "says what nobody knows": ((Kind.SOLICIT, ("new", (4660, b"what"), (16, b"\0\0\0\1\0\1x"))),),
}

DIFFERENCES: Mapping[str, str] = {
    "asks for a temporary address": "Kea leaves temporary addresses out, which it does not know; we refuse them",
    "confirms another of its prefix": "a port is a link of one host: what is not that host's is not of its link",
    "releases and begins anew": "Kea repeats the association, empty; RFC 8415 §18.3.7 has nothing but the success",
    "releases what it never had": "Kea says outside too that there is none, where RFC 8415 §18.3.7 has a success",
    "declines": "Kea repeats the association, empty; RFC 8415 §18.3.8 has nothing but the success",
    "asks for information with an association": "RFC 8415 §16.12 has that discarded; Kea answers",
    "asks the server alone": "nobody was invited to (RFC 8415 §18.4); Kea answers",
}
"""By scenario: why we say something else."""


class Kea:
    """A server at one end of a cable, and a client's socket at the other."""

    def __init__(self, folder: Path) -> None:
        self.server, self.client = Namespace(), Namespace()
        self.server.ip(
            f"link add v0 address {SERVER_MAC} type veth peer name v1 address {MAC} netns {self.client.path}"
        )
        self.server.ip("link set lo up", "link set v0 up")
        self.client.ip("link set lo up", "link set v1 up")
        for space in (self.server, self.client):
            space.run("sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad")
            until(lambda space=space: "fe80" in space.run("ip", "-6", "address", "show", "-tentative"))
        config = folder / "kea.json"
        config.write_text(json.dumps({"Dhcp6": self._configuration(folder)}))
        environment = dict(os.environ) | {"KEA_PIDFILE_DIR": str(folder), "KEA_LOCKFILE_DIR": str(folder)}
        self.log = folder / "said"
        with self.log.open("wb") as out:
            argv = self.server.argv("kea-dhcp6", "-c", str(config))
            self.process = subprocess.Popen(argv, env=environment, stdout=out, stderr=out)
        until(lambda: ":0223 " in self.server.run("cat", "/proc/net/udp6"), 20, "Kea does not serve")
        self.socket = netns.inside(self.client.path, self._open)[1]

    def _open(self) -> socket.socket:
        opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        opened.bind(("::", v6.CLIENT_PORT))
        opened.settimeout(SILENCE_S)
        self.index = socket.if_nametoindex("v1")
        return opened

    @staticmethod
    def _configuration(folder: Path) -> dict[str, Any]:
        reserved = [
            {"duid": duid(at).hex(":"), "ip-addresses": [OWN.format(at)]} for at in range(1, len(SCENARIOS) + 1)
        ]
        return {
            "interfaces-config": {"interfaces": ["v0"]},
            "lease-database": {"type": "memfile", "persist": False},
            "server-id": {"type": "LL", "htype": 1, "identifier": SERVER_MAC.replace(":", ""), "persist": False},
            "preferred-lifetime": 3600,
            "valid-lifetime": 3600,
            "renew-timer": 1800,
            "rebind-timer": 2880,
            "subnet6": [
                {
                    "subnet": "fd00:20::/64",
                    "interface": "v0",
                    "rapid-commit": True,
                    "reservations": reserved,
                    "option-data": [
                        {"name": "dns-servers", "data": "fd00:20::1"},
                        {"name": "domain-search", "data": "grid.lab.internal"},
                        {"name": "preference", "data": "255", "always-send": False},
                    ],
                }
            ],
            "loggers": [{"name": "kea-dhcp6", "severity": "WARN", "output_options": [{"output": "stderr"}]}],
        }

    def answer(self, request: Message, is_alone: bool) -> bytes | None:
        """What it says within `SILENCE_S`."""
        to = "fe80::70:67ff:fe00:1" if is_alone else "ff02::1:2"
        self.socket.sendto(v6.encode(request), (to, v6.SERVER_PORT, 0, self.index))
        try:
            return self.socket.recv(4096)
        except TimeoutError:
            return None

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        self.socket.close()
        for space in (self.server, self.client):
            os.close(space.descriptor)


def duid(number: int) -> bytes:
    return b"\0\4" + number.to_bytes(16, "big")


def message(number: int, at: int, step: Step) -> tuple[Message, bool]:
    """The message, and whether it goes to the server alone."""
    kind, words = step
    named = {"own": [OWN.format(number)], "other": [OTHER.format(number)], "elsewhere": ["fd00:99::1"], "new": []}
    options: list[Option] = [] if "nameless" in words else [(int(Code.CLIENT_ID), duid(number))]
    if "elsewhere server" in words:
        options.append((int(Code.SERVER_ID), US[:-1] + b"\xff"))
    elif kind in (Kind.REQUEST, Kind.RENEW, Kind.RELEASE, Kind.DECLINE) and "no server" not in words:
        options.append((int(Code.SERVER_ID), US))
    for word in words:
        if isinstance(word, tuple):
            options.append(word)
        elif word in named:
            leased = [v6.leased(packed, 0, 0) for packed in map(_packed, named[word])]
            options.append(v6.association(Association(Code.IA_NA, b"\0\0\0\7"), 0, 0, leased))
    return Message(kind, bytes((number, at, 1)), tuple(options)), "alone" in words


def _packed(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, text)


def told(payload: bytes | None) -> Any:
    """What counts of an answer: its kind, status, what is leased for how long, and options, in whatever order."""
    if payload is None:
        return "silence"
    read = v6.parse(payload)
    assert isinstance(read, Message)
    found: list[Any] = [Kind(read.kind).name]
    for code, value in read.options:
        match code:
            case Code.CLIENT_ID | Code.SERVER_ID | Code.PREFERENCE:
                continue
            case Code.STATUS:
                found.append(("status", int.from_bytes(value[:2], "big")))
            case Code.IA_NA | Code.IA_TA | Code.IA_PD:
                found.append((code, value[:4].hex(), *_inside(code, value)))
            case _:
                found.append((code, value.hex()))
    return [found[0], *sorted(found[1:], key=str)]


def _inside(code: int, value: bytes) -> tuple[Any, ...]:
    at = 4 if code == Code.IA_TA else 12
    inner = v6.decode(value[at:])
    assert not isinstance(inner, Reason)
    leased = sorted((text[:16].hex(), text[16:24].hex()) for number, text in inner if number == Code.ADDRESS)
    status = [int.from_bytes(text[:2], "big") for number, text in inner if number == Code.STATUS]
    times = value[4:at].hex() if leased else ""
    return times, leased, [one for one in status if one]


@pytest.fixture(scope="module")
def kea(permitted: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kea]:
    if shutil.which("kea-dhcp6") is None:
        pytest.skip("kea-dhcp6 is not installed")
    made = Kea(tmp_path_factory.mktemp("kea"))
    yield made
    made.close()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_we_say_what_kea_says_or_why_not(kea: Kea, scenario: str) -> None:
    number = list(SCENARIOS).index(scenario) + 1
    scope = Scope6((OWN.format(number),), "fe80::1", dns=("fd00:20::1",), search=("grid.lab.internal",))
    bound = Bound(PortScope(MAC, SERVER_MAC, v6=scope))
    ours, theirs = [], []
    for at, step in enumerate(SCENARIOS[scenario]):
        request, is_alone = message(number, at, step)
        answer = bound.answer(request, is_unicast=is_alone)
        ours.append(told(answer.payload if isinstance(answer, Reply) else None))
        theirs.append(told(kea.answer(request, is_alone)))
    assert (ours == theirs) == (scenario not in DIFFERENCES), f"ours: {ours}\nKea:  {theirs}"
