"""MACs that announce themselves where they do not belong: which are told of, and how many."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlay.state import port_device, vxlan_device
from playground.agent import strangers as strangers_module
from playground.agent.strangers import Strangers, stranger
from playground.derive import Derived, Setting, derive_whole
from playground.records import BindingRecord, HostRecord, NetworkRecord, PortRecord, Stranger, WorkspaceRecord, port_id
from playground.view import SITE, View, host_scope, playground_scope
from playground.wire import Complete, Enter
from policies.compile.tables import whole
from policies.guard.parts import TABLE, parts
from policies.guard.station import GuardedPort, Station

MACS = {"a": "02:00:00:00:00:0a", "b": "02:00:00:00:00:0b", "far": "02:00:00:00:00:0f"}
NETWORK = "1" * 12
IDS = {name: port_id("atlas", name, "grid") for name in MACS}


def a_host(target: str | None = None) -> tuple[View, Derived]:
    """n1, with the ports of `a` and `b`; `far` is on n2. target: where `a` is being moved."""
    view = View()
    hosts = [HostRecord(name=name, site="lab", underlay=f"192.0.2.{n}") for n, name in enumerate(("n1", "n2"), 1)]
    network = NetworkRecord(
        playground="atlas", name="grid", id=NETWORK, vni=7, mtu=1450, subnets=("10.0.0.0/24",), gateways=("10.0.0.1",)
    )
    ports = [
        PortRecord(
            playground="atlas",
            workspace=name,
            network="grid",
            network_id=NETWORK,
            id=IDS[name],
            mac=mac,
            addresses=(f"10.0.0.{number}",),
            allowed_macs=("02:00:00:00:00:ff",) if name == "b" else (),
        )
        for number, (name, mac) in enumerate(MACS.items(), 2)
    ]
    bindings = [
        BindingRecord(
            port=IDS[name],
            playground="atlas",
            workspace=name,
            active="n2" if name == "far" else "n1",
            source="n2" if name == "far" else "n1",
            target=target if name == "a" else None,
            phase="prepared" if name == "a" and target else "bound",
        )
        for name in MACS
    ]
    workspaces = [
        WorkspaceRecord(playground="atlas", name=name, id=IDS[name], driver="netns", ports=(IDS[name],), host="n1")
        for name in ("a", "b")
    ]
    view.take(Enter(SITE, 1, list(hosts)))
    view.take(Enter(playground_scope("atlas"), 1, [network, *ports, *bindings]))
    view.take(Enter(host_scope("n1"), 1, list(workspaces)))
    view.take(Complete(1))
    return view, derive_whole(view, Setting("n1", "192.0.2.1", "internal"))


TUNNEL = vxlan_device(NETWORK)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device", "mac", "found"),
    [
        ("a", MACS["a"], None),
        ("a", MACS["b"], ("b", "a")),
        ("a", MACS["far"], ("far", "a")),
        ("a", "02:00:00:00:00:99", None),
        ("b", "02:00:00:00:00:ff", None),
        (TUNNEL, MACS["a"], ("a", "")),
        (TUNNEL, MACS["far"], None),
        ("br" + NETWORK, MACS["a"], None),
    ],
)
def test_whose_mac_is_where_it_does_not_belong(device: str, mac: str, found: tuple[str, str] | None) -> None:
    view, derived = a_host()
    name = port_device(IDS[device]) if device in IDS else device  # type: ignore[arg-type]
    wanted = None if found is None else (IDS[found[0]], IDS.get(found[1], ""))
    assert stranger(view, derived, name, mac) == wanted


def test_what_is_being_moved_may_announce_itself_from_its_other_end() -> None:
    assert stranger(*a_host("n2"), TUNNEL, MACS["a"]) is None


def test_it_is_told_of_once_and_forgotten_after_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    news: list[None] = []
    heard = Strangers(Path("/nonexistent"), lambda device, mac: ("p", device), lambda: news.append(None))
    heard.listen()  # there is no data plane yet
    for _ in range(100):
        heard.take("pg1", MACS["a"])
    (one,) = heard.told()
    assert (one.port, one.mac, one.at) == ("p", MACS["a"], "pg1") and len(news) == 1
    for number in range(100):
        heard.take(f"pg{number}", MACS["b"])
    assert len(heard.told()) == strangers_module.MOST == len(news)
    monkeypatch.setattr(strangers_module, "FORGOTTEN_S", -1.0)
    assert heard.told() == ()


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[str]:
    name = f"pgx{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    bridge = ("link add br1 type bridge", "link add pg1 type veth peer name out", "link set pg1 master br1")
    for words in (*bridge, "link set br1 up", "link set pg1 up", "link set out up"):
        subprocess.run(["ip", "-n", name, *words.split()], check=True)
    own = GuardedPort("pg1", Station("02:00:00:00:00:01", ("10.0.0.9",)), ("10.0.0.0/24",))
    rules = whole({TABLE: parts([own], [])})
    subprocess.run(["ip", "netns", "exec", name, "nft", "-f", "-"], input=rules, text=True, check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


SEND = """
import socket, sys
opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
opened.bind(("out", 0))
for frame in sys.argv[1:]:
    opened.send(bytes.fromhex(frame))
"""


def a_frame(mac: str, kind: int, sender: str, target: str) -> str:
    own = mac.replace(":", "")
    return f"ffffffffffff{own}{kind:04x}0001080006040001{own}{sender}000000000000{target}".ljust(120, "0")


@pytest.mark.system
def test_of_all_that_comes_in_announcements_alone_are_heard_and_not_without_end(namespace: str) -> None:
    found: list[tuple[str, str]] = []

    def whose(device: str, mac: str) -> tuple[str, str] | None:
        found.append((device, mac))
        return ("p", device) if device == "pg1" else None

    one, other = "0a000002", "0a000003"
    frames = [
        a_frame(MACS["b"], 0x0806, one, other),  # a request of the ordinary kind
        a_frame(MACS["b"], 0x0800, one, one),
        a_frame(MACS["a"], 0x0806, one, one),
        a_frame(MACS["far"], 0x8035, "00000000", "00000000"),
    ]

    async def work() -> tuple[Stranger, ...]:
        heard = Strangers(Path("/run/netns") / namespace, whose, lambda: None)
        heard.listen()
        heard.listen()
        sending = ["ip", "netns", "exec", namespace, "python3", "-IS", "-c", SEND, *frames, *frames[2:] * 200]
        await asyncio.to_thread(subprocess.run, sending, check=True)
        async with asyncio.timeout(5):
            while len(heard.told()) < 2:
                await asyncio.sleep(0.01)
        heard.close()
        return heard.told()

    told = asyncio.run(work())
    assert {one.mac for one in told} == {MACS["a"], MACS["far"]}
    assert {("pg1", MACS["a"]), ("pg1", MACS["far"])} <= set(found) and {mac for _, mac in found} == {
        one.mac for one in told
    }
