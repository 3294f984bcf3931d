"""The overlay's data path beside the same bridge and VXLAN made by hand, taken by turns in one run; two emulated hosts.

`python benchmarks/bench_wire.py [--rounds 5] [--seconds 2]`. TCP: iperf3, one stream, Mb/s. Small packets: UDP of 64
bytes as fast as one sender can, packets a second that arrive. Ours: a workspace of each host, nothing policed, as `up`
makes them. By hand: two namespaces joined like the emulated hosts, in each a bridge, a VXLAN device without learning,
static entries, and a guest's veth in the bridge; no redirect, no guard, no service leg.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator

import guests
import measure
from lab import emulated
from measure import Json

PLAYGROUND = "wire"
TEXT = """\
name: wire
networks:
  grid: {subnets: [10.20.0.0/24]}
workspaces:
  one: {networks: [grid], host: n1}
  two: {networks: [grid], host: n2}
"""
MTU = 1450
"""Of guests, bytes: 1500 of the underlay less VXLAN's 50 (RFC 7348)."""

UNDERLAY = measure.own("wire")
HOSTS, GUESTS = (measure.own("w1"), measure.own("w2")), (measure.own("g1"), measure.own("g2"))


def _do(*lines: str) -> None:
    for line in lines:
        subprocess.run(line.split(), check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def by_hand() -> Iterator[None]:
    """Two guests, 10.8.0.1 and 10.8.0.2, over a VXLAN between two hosts on a bridge of their own."""
    names = (UNDERLAY, *HOSTS, *GUESTS)
    macs = [f"02:00:00:00:00:0{number}" for number in (1, 2)]
    try:
        for name in names:
            _do(f"ip netns add {name}", f"ip -n {name} link set lo up")
        _do(f"ip -n {UNDERLAY} link add br0 type bridge mcast_snooping 0", f"ip -n {UNDERLAY} link set br0 up")
        for at, (host, guest) in enumerate(zip(HOSTS, GUESTS, strict=True)):
            own, other = at + 1, 2 - at
            _do(
                f"ip -n {UNDERLAY} link add u{own} type veth peer name eth0 netns {host}",
                f"ip -n {UNDERLAY} link set u{own} master br0 up",
                f"ip -n {host} address add 172.29.0.{own}/24 dev eth0",
                f"ip -n {host} link set eth0 up",
                f"ip -n {host} link add br0 type bridge",
                f"ip -n {host} link add vx0 type vxlan id 100 local 172.29.0.{own} dstport 4789 nolearning",
                f"ip -n {host} link set vx0 master br0 up",
                f"ip -n {host} link set br0 up",
                f"ip -n {guest} link add eth0 address {macs[at]} mtu {MTU} type veth peer name port netns {host}",
                f"ip -n {guest} address add 10.8.0.{own}/24 dev eth0",
                f"ip -n {guest} link set eth0 up",
                f"ip -n {host} link set port master br0 up",
                f"bridge -n {host} link set dev port learning off flood off",
                f"bridge -n {host} link set dev vx0 learning off flood off",
                f"bridge -n {host} fdb replace {macs[at]} dev port master static",
                f"bridge -n {host} fdb replace {macs[1 - at]} dev vx0 master static",
                f"bridge -n {host} fdb replace {macs[1 - at]} dev vx0 dst 172.29.0.{other} self",
                f"ip -n {guest} neighbour replace 10.8.0.{other} lladdr {macs[1 - at]} dev eth0",
            )
        _do(f"ip netns exec {GUESTS[0]} ping -q -c 1 -w 10 10.8.0.2")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def flow(client: list[str], server: list[str], to: str, seconds: float, small: bool) -> float:
    """Mb/s of one TCP stream; or packets of 64 bytes a second that arrive."""
    listening = subprocess.Popen(
        [*server, "iperf3", "-s", "-1", "--forceflush"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert listening.stdout is not None
        while "listening" not in (line := listening.stdout.readline()):
            if not line:
                raise RuntimeError("iperf3 does not listen")
        words = ["iperf3", "-c", to, "-t", f"{seconds:g}", "-J"]
        words += ["-u", "-b", "0", "-l", "64"] if small else []
        done = subprocess.run([*client, *words], capture_output=True, text=True, timeout=seconds + 30)
        told = json.loads(done.stdout)
        if "error" in told:
            raise RuntimeError(f"iperf3: {told['error']}")
        end = told["end"]
        if small:
            return float((end["sum"]["packets"] - end["sum"]["lost_packets"]) / end["sum"]["seconds"])
        return float(end["sum_received"]["bits_per_second"] / 1e6)
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            listening.communicate(timeout=5)
        if listening.poll() is None:
            listening.kill()
            listening.communicate()


def main() -> None:
    options = measure.parser(__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=2.0, help="of one flow (default: %(default)s)")
    asked = options.parse_args()
    if shutil.which("iperf3") is None:
        raise SystemExit("bench_wire needs iperf3; `make bench-peers` gets it, and the others, from Debian")
    began = measure.machine()
    seen: dict[str, list[float]] = {}
    measure.note("flows, by turns")
    with emulated(2) as site, by_hand():
        load = round(os.getloadavg()[0], 2)
        site.client.put("playgrounds", {"file": "wire.yaml", "text": TEXT})
        site.await_(lambda: site.client.get(f"playgrounds/{PLAYGROUND}/progress")["converged"], 60, "converged")
        ends = [guests.enter(site, PLAYGROUND, name) for name in ("one", "two")]
        to = guests.address(site, PLAYGROUND, "two")
        hand = [["ip", "netns", "exec", name] for name in GUESTS]
        for number in range(asked.rounds):
            for kind, small in (("tcp_mbps", False), ("small_packets_per_s", True)):
                turns = [("ours", ends, to), ("by_hand", hand, "10.8.0.2")]
                for who, (client, server), address in turns if number % 2 else reversed(turns):
                    value = flow(client, server, address, asked.seconds, small)
                    seen.setdefault(f"{kind} {who}", []).append(value)
                    time.sleep(0.1)
    figures: Json = {"load": load, "rounds": asked.rounds}
    for kind in ("tcp_mbps", "small_packets_per_s"):
        ours, hands = seen[f"{kind} ours"], seen[f"{kind} by_hand"]
        # each round's own ratio: what else the machine does changes between rounds, hardly within one
        ratios = [mine / theirs for mine, theirs in zip(ours, hands, strict=True)]
        figures[kind] = {"ours": measure.of(ours, 0), "by_hand": measure.of(hands, 0), "ratio": measure.of(ratios)}
    measure.publish("wire", figures, began, asked.results)


if __name__ == "__main__":
    main()
