"""Moves: how soon another host sends a moved MAC to its new place, and what a stream loses. Three emulated hosts.

`python benchmarks/bench_moves.py [--times 20]`. `repointed`: a namespace workspace moves to and fro between two hosts;
from the FDB entry of its port at the new host, which is before its traffic comes there, until the third host's tunnel
entry names the new host, both heard of by netlink. FRR's EVPN, where it is installed, does the like: from the command
that puts the MAC at the new host until the old one has it behind its tunnel. `stream`: a third host sends 1000
datagrams a second meanwhile; `bare` is the same redirect replaced by hand between namespaces without any of us.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import frr
import guests
import measure
from bench_ports import hear_neighbours
from lab import Lab, emulated
from measure import Json

from overlay.kernel import messages as m
from overlay.kernel import namespaces
from overlay.kernel.netlink import Netlink, parse, split

PLAYGROUND, ROVER = "lab", "rover"
SENDER = "sender"
UNDERLAY = {"n1": "192.0.2.11", "n2": "192.0.2.12", "n3": "192.0.2.13"}
TEXT = """\
name: lab
networks:
  grid: {subnets: [10.20.0.0/24]}
workspaces:
  rover: {networks: [grid]}
  sender: {networks: [grid], host: n3}
"""
_INDEX = struct.Struct("=i")
MOVE_S = 30.0
SETTLE_S = 1.0
"""The stream runs so long before and after a move."""


def entries(heard: Netlink, mac: bytes) -> list[tuple[int, str]]:
    """What is told of a MAC since the last look: the device's index, and the VTEP of a tunnel's entry or ""."""
    found = []
    while True:
        try:
            data = heard.socket.recv(1 << 17)
        except BlockingIOError:
            return found
        for kind, _, _, body in split(data):
            told = parse(body, 12)
            if kind == m.RTM_NEWNEIGH and bytes(told.get(m.NDA_LLADDR, b"")) == mac:
                to = bytes(told[m.NDA_DST]) if m.NDA_DST in told else b""
                found.append((_INDEX.unpack_from(body, 4)[0], ".".join(map(str, to))))


def _is_ports(namespace: int, index: int) -> bool:
    """Whether a device is a port's. Before a move's flip the new host has the MAC behind its tunnel's device."""
    with contextlib.suppress(OSError):
        return namespaces.inside(namespace, lambda: socket.if_indextoname(index)).startswith("pg")
    return False


def move(site: Lab, mac: bytes, target: str, measured: bool = False) -> tuple[Json, float]:
    """One move: its result, and ms from the new host's own entry, at the port, to the third host's."""
    with contextlib.ExitStack() as stack:
        new = stack.enter_context(contextlib.closing(hear_neighbours(site, target)))
        third = stack.enter_context(contextlib.closing(hear_neighbours(site, "n3")))
        namespace = site.dataplane(target)
        stack.callback(os.close, namespace)
        asked = site.client.post("migrate", {"workspace": ROVER, "host": target, "measure": measured})
        local = remote = 0.0
        deadline = time.monotonic() + MOVE_S
        while not (local and remote):
            ready, _, _ = select.select([new.socket, third.socket], [], [], 1.0)
            now = time.perf_counter()
            if new.socket in ready and not local:
                plain = [index for index, vtep in entries(new, mac) if not vtep]
                local = now if any(_is_ports(namespace, index) for index in plain) else 0.0
            if third.socket in ready and UNDERLAY[target] in (vtep for _, vtep in entries(third, mac)):
                remote = now
            if time.monotonic() > deadline:
                raise TimeoutError(f"the third host was not re-pointed to {target} in {MOVE_S:g} s")
    query = {"workspace": f"{PLAYGROUND}/{ROVER}", "generation": asked["generation"], "wait_s": MOVE_S}
    result: Json = site.client.get("migrations", query)
    return result, (remote - local) * 1000


def ours(times: int, streams: int) -> Json:
    """Both rows by us."""
    with emulated(3) as site:
        load = round(os.getloadavg()[0], 2)
        site.client.put("playgrounds", {"file": "lab.yaml", "text": TEXT})
        site.await_(lambda: site.client.get(f"playgrounds/{PLAYGROUND}/progress")["converged"], 60, "converged")
        rows = site.client.get("ports", {"playground": PLAYGROUND})
        port = next(row for row in rows if row["workspace"] == ROVER)
        mac, at = bytes.fromhex(port["mac"].replace(":", "")), str(port["host"])
        to = guests.address(site, PLAYGROUND, ROVER)
        took, lost, gaps, own = [], [], [], []
        for number in range(times):
            at = "n2" if at == "n1" else "n1"
            if number < streams:
                end = guests.enter(site, PLAYGROUND, SENDER, "pkill", "-TERM", "-f", "stream.py send")
                receive = guests.enter(site, PLAYGROUND, ROVER)
                with guests.stream(receive, guests.enter(site, PLAYGROUND, SENDER), to, end) as seen:
                    time.sleep(SETTLE_S)
                    result, ms = move(site, mac, at)
                    time.sleep(SETTLE_S)
                lost.append(seen["lost"])
                gaps.append(seen["gap_ms"])
                own.append(result["pause_ms"] or 0.0)
            else:
                result, ms = move(site, mac, at)
            if result["state"] != "settled":
                raise RuntimeError(f"a move ended {result['state']}: {result['cause']}")
            took.append(ms)
    stream = {"lost": measure.of(lost, 0), "gap_ms": measure.of(gaps, 2), "flip_ms": measure.of(own, 2)}
    return {"load": load, "repointed_ms": measure.of(took, 2), "stream": stream}


# by hand

BARE = tuple(map(measure.own, ("guest", "nic", "one", "two", "third")))
GUEST_MAC = "02:00:00:00:00:02"


def _ip(*lines: str) -> None:
    for line in lines:
        subprocess.run(line.split(), check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def bare_wires() -> Iterator[None]:
    """A guest behind a redirect, bridges at two places, and a third with a static entry for the guest's MAC."""
    guest, nic, one, two, third = BARE
    try:
        for name in BARE:
            _ip(f"ip netns add {name}", f"ip -n {name} link set lo up")
        _ip(
            f"ip -n {nic} link add nicp0 type veth peer name eth0 address {GUEST_MAC} netns {guest}",
            f"ip -n {guest} address add 10.9.0.2/24 dev eth0",
            f"ip -n {guest} link set eth0 up",
            f"ip -n {nic} link set nicp0 up",
            f"tc -n {nic} qdisc add dev nicp0 clsact",
            f"ip -n {third} link add br0 type bridge",
            f"ip -n {third} address add 10.9.0.1/24 dev br0",
            f"ip -n {third} link set br0 up",
        )
        for number, place in enumerate((one, two), 1):
            _ip(
                f"ip -n {place} link add br0 type bridge",
                f"ip -n {place} link set br0 up",
                f"ip -n {nic} link add leg{number} type veth peer name port netns {place}",
                f"ip -n {nic} link set leg{number} up",
                f"tc -n {nic} qdisc add dev leg{number} clsact",
                f"tc -n {nic} filter add dev leg{number} ingress prio 1 handle 800::800 protocol all u32 "
                "match u32 0 0 action mirred egress redirect dev nicp0",
                f"ip -n {third} link add to{number} type veth peer name trunk netns {place}",
                f"ip -n {third} link set to{number} master br0 up",
                f"ip -n {place} link set trunk master br0 up",
                f"ip -n {place} link set port master br0 up",
                f"bridge -n {place} link set dev port learning off",
                f"bridge -n {place} link set dev trunk learning off",
                f"bridge -n {place} fdb replace {GUEST_MAC} dev port master static",
                f"bridge -n {third} link set dev to{number} learning off flood off",
            )
        third_mac = json.loads(
            subprocess.run(["ip", "-n", third, "-j", "link", "show", "br0"], capture_output=True, check=True).stdout
        )[0]["address"]
        for place in (one, two):
            _ip(f"bridge -n {place} fdb replace {third_mac} dev trunk master static")
        _ip(
            f"ip -n {guest} neighbour replace 10.9.0.1 lladdr {third_mac} dev eth0",
            f"ip -n {third} neighbour replace 10.9.0.2 lladdr {GUEST_MAC} dev br0",
        )
        flip(1, "add")
        yield
    finally:
        for name in BARE:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def flip(to: int, verb: str = "replace") -> None:
    """The guest goes by the other leg; then the third place sends there."""
    _, nic, _, _, third = BARE
    _ip(
        f"tc -n {nic} filter {verb} dev nicp0 ingress prio 1 handle 800::800 protocol all u32 match u32 0 0 "
        f"action mirred egress redirect dev leg{to}",
        f"bridge -n {third} fdb replace {GUEST_MAC} dev to{to} master static",
    )


def bare(times: int) -> Json:
    """What the flip by hand loses of the same stream."""
    lost, gaps = [], []
    guest, third = BARE[0], BARE[4]
    with bare_wires():
        # the kernel notices a new link's carrier up to a second late
        _ip(f"ip netns exec {third} ping -q -c 1 -w 10 10.9.0.2")
        for number in range(times):
            inside = [["ip", "netns", "exec", name] for name in (guest, third)]
            end = [sys.executable, "-c", _END, third]
            with guests.stream(inside[0], inside[1], "10.9.0.2", end) as seen:
                time.sleep(SETTLE_S)
                flip(2 - number % 2)
                time.sleep(SETTLE_S)
            lost.append(seen["lost"])
            gaps.append(seen["gap_ms"])
    return {"lost": measure.of(lost, 0), "gap_ms": measure.of(gaps, 2)}


_END = """
import os, signal, subprocess, sys
for pid in subprocess.run(["ip", "netns", "pids", sys.argv[1]], capture_output=True, text=True).stdout.split():
    os.kill(int(pid), signal.SIGTERM)
"""


# FRR


def by_frr(times: int) -> Json | None:
    """Milliseconds until the old host has a moved MAC behind its tunnel, by FRR's EVPN."""
    if not frr.is_installed():
        return None
    measure.note("FRR")
    mac = "02:00:00:00:00:09"
    with frr.running() as hosts, contextlib.ExitStack() as stack:
        heard = [stack.enter_context(_monitor(name)) for name in hosts]
        for at in (0, 1):
            os.set_blocking(heard[at], False)
        took = []
        at, verb = 0, "add"
        for number in range(times + 1):
            other = 1 - at
            _drain(heard[other])
            start = time.perf_counter()
            _ip(f"bridge -n {hosts[at]} fdb {verb} {mac} dev {frr.PORT} master dynamic")
            _await_line(heard[other], mac, frr.TUNNEL)
            if number:  # the first is no move
                took.append((time.perf_counter() - start) * 1000)
            at, verb = other, "replace"
    return {"repointed_ms": measure.of(took, 2)}


@contextlib.contextmanager
def _monitor(namespace: str) -> Iterator[int]:
    """The descriptor of `bridge monitor fdb` in a namespace."""
    process = subprocess.Popen(
        ["ip", "netns", "exec", namespace, "stdbuf", "-oL", "bridge", "monitor", "fdb"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process.stdout.fileno()
    finally:
        process.kill()
        process.communicate()


def _drain(descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(descriptor, 1 << 16):
            pass


def _await_line(descriptor: int, mac: str, device: str) -> None:
    """Returns when a line tells of a MAC on a device. Raises TimeoutError."""
    text = ""
    deadline = time.monotonic() + MOVE_S
    while not any(mac in line and device in line and "Deleted" not in line for line in text.splitlines()):
        if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError(f"{mac} did not come to {device} in {MOVE_S:g} s")
        text += os.read(descriptor, 1 << 16).decode()


def main() -> None:
    options = measure.parser(__doc__)
    options.add_argument("--times", type=int, default=20, help="moves (default: %(default)s)")
    options.add_argument("--streams", type=int, default=5, help="of them under a stream (default: %(default)s)")
    asked = options.parse_args()
    began = measure.machine()
    measure.note("moves")
    mine = ours(asked.times, asked.streams)
    mine["bare"] = bare(asked.streams)
    mine["lost_beyond_bare"] = mine["stream"]["lost"]["max"] - mine["bare"]["lost"]["max"]
    peer = by_frr(asked.times)
    figures = {**mine, "frr": peer or measure.NO_PEER}
    figures["repointed_ratio_to_frr"] = measure.ratio(
        mine["repointed_ms"]["median"], peer["repointed_ms"]["median"] if peer else None
    )
    measure.publish("moves", figures, began, asked.results)


if __name__ == "__main__":
    main()
