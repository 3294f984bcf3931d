"""The overlay's data path beside the same bridge and VXLAN made by hand, taken by turns in one run; two emulated hosts.

`python benchmarks/bench_wire.py [--rounds 12] [--seconds 1] [--bursts 60]`. TCP: iperf3, one stream, Mb/s. Small
packets: UDP of 64 bytes as fast as one sender can, packets a second that arrive. Rounds are short and many, each has
its own ratio, and the middle one counts: what else the machine does changes within seconds. A packet's own cost is
taken besides (`bursts.py`), which hardly feels that: `packet_us`.

Ours: a workspace of each host, nothing policed, as `up` makes them. By hand: two namespaces joined like the emulated
hosts, in each a bridge, a VXLAN device without learning, static entries, and a guest's veth in the bridge; no redirect,
no guard, no service leg, and all else as the kernel has it. `no_detour`: the same, with bridged packets kept from
netfilter (bridge-nf-call-*), as ours are. `movable`: the same as that, with NICs as our guests have them, which can
change hosts.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator

import bursts
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
BY_HAND = "10.8.0.2"
MTU = 1450
"""Of guests, bytes: 1500 of the underlay less VXLAN's 50 (RFC 7348)."""

Ends = tuple[list[str], list[str]]
"""Command lines that enter two guests."""


def _do(*lines: str) -> None:
    for line in lines:
        subprocess.run(line.split(), check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def by_hand(has_detour: bool = True, is_movable: bool = False) -> Iterator[Ends]:
    """Two guests, 10.8.0.1 and 10.8.0.2, over a VXLAN between two hosts on a bridge of their own."""
    tag = f"{has_detour:d}{is_movable:d}"
    underlay, *rest = (measure.own(f"w{tag}{word}") for word in ("u", "h1", "h2", "g1", "g2", "n1", "n2"))
    hosts, guests, nics = rest[:2], rest[2:4], rest[4:]
    macs = [f"02:00:00:00:{tag}:0{number}" for number in (1, 2)]
    try:
        for name in (underlay, *rest):
            _do(f"ip netns add {name}", f"ip -n {name} link set lo up")
            if not has_detour:
                _do(*(f"ip netns exec {name} sysctl -qw net.bridge.bridge-nf-call-ip{v}tables=0" for v in ("", "6")))
        _do(f"ip -n {underlay} link add br0 type bridge mcast_snooping 0", f"ip -n {underlay} link set br0 up")
        for at, (host, guest, nic) in enumerate(zip(hosts, guests, nics, strict=True)):
            own, other = at + 1, 2 - at
            peer, behind = ("nicp", nic) if is_movable else ("port", host)
            _do(
                f"ip -n {underlay} link add u{own} type veth peer name eth0 netns {host}",
                f"ip -n {underlay} link set u{own} master br0 up",
                f"ip -n {host} address add 172.29.0.{own}/24 dev eth0",
                f"ip -n {host} link set eth0 up",
                f"ip -n {host} link add br0 type bridge",
                f"ip -n {host} link add vx0 type vxlan id 100 local 172.29.0.{own} dstport 4789 nolearning",
                f"ip -n {host} link set vx0 master br0 up",
                f"ip -n {host} link set br0 up",
                f"ip -n {guest} link add eth0 address {macs[at]} mtu {MTU} type veth peer name {peer} netns {behind}",
                f"ip -n {guest} address add 10.8.0.{own}/24 dev eth0",
                f"ip -n {guest} link set eth0 up",
            )
            if is_movable:
                _do(f"ip -n {nic} link add leg type veth peer name port netns {host}")
                for one, to in (("nicp", "leg"), ("leg", "nicp")):
                    action = f"u32 match u32 0 0 action mirred egress redirect dev {to}"
                    _do(
                        f"ip -n {nic} link set {one} up",
                        f"tc -n {nic} qdisc add dev {one} clsact",
                        f"tc -n {nic} filter add dev {one} ingress protocol all {action}",
                    )
            _do(
                f"ip -n {host} link set port master br0 up",
                f"bridge -n {host} link set dev port learning off flood off",
                f"bridge -n {host} link set dev vx0 learning off flood off",
                f"bridge -n {host} fdb replace {macs[at]} dev port master static",
                f"bridge -n {host} fdb replace {macs[1 - at]} dev vx0 master static",
                f"bridge -n {host} fdb replace {macs[1 - at]} dev vx0 dst 172.29.0.{other} self",
                f"ip -n {guest} neighbour replace 10.8.0.{other} lladdr {macs[1 - at]} dev eth0",
            )
        _do(f"ip netns exec {guests[0]} ping -q -c 1 -w 10 {BY_HAND}")
        client, server = (["ip", "netns", "exec", name] for name in guests)
        yield client, server
    finally:
        for name in (underlay, *rest):
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
    options.add_argument("--rounds", type=int, default=12)
    options.add_argument("--seconds", type=int, default=1, help="of one flow (default: %(default)s)")
    options.add_argument("--bursts", type=int, default=60, help="of 2000 packets each (default: %(default)s)")
    asked = options.parse_args()
    if shutil.which("iperf3") is None:
        raise SystemExit("bench_wire needs iperf3; `make bench-peers` gets it, and the others, from Debian")
    began = measure.machine()
    seen: dict[str, list[float]] = {}
    measure.note("flows and bursts, by turns")
    with emulated(2) as site, contextlib.ExitStack() as stack:
        load = round(os.getloadavg()[0], 2)
        site.client.put("playgrounds", {"file": "wire.yaml", "text": TEXT})
        site.await_(lambda: site.client.get(f"playgrounds/{PLAYGROUND}/progress")["converged"], 60, "converged")
        client, server = (guests.enter(site, PLAYGROUND, name) for name in ("one", "two"))
        ends: dict[str, tuple[list[str], list[str], str]] = {
            "ours": (client, server, guests.address(site, PLAYGROUND, "two"))
        }
        for name, made in (
            ("by_hand", by_hand()),
            ("no_detour", by_hand(has_detour=False)),
            ("movable", by_hand(has_detour=False, is_movable=True)),
        ):
            ends[name] = (*stack.enter_context(made), BY_HAND)
        for number in range(asked.rounds):
            for kind, small in (("tcp_mbps", False), ("small_packets_per_s", True)):
                turns = ["ours", "by_hand"]
                for who in turns if number % 2 else reversed(turns):
                    value = flow(*ends[who], asked.seconds, small)
                    seen.setdefault(f"{kind} {who}", []).append(value)
                    time.sleep(0.1)
        ways = {name: stack.enter_context(bursts.between(*found)) for name, found in ends.items()}
        costs = bursts.by_turns(ways, asked.bursts)
    figures: Json = {"load": load, "rounds": asked.rounds}
    for kind in ("tcp_mbps", "small_packets_per_s"):
        figures[kind] = {"ratio": measure.of(measure.ratios(seen[f"{kind} ours"], seen[f"{kind} by_hand"]))}
        figures[kind] |= {who: measure.of(seen[f"{kind} {who}"], 0) for who in ("ours", "by_hand")}
    figures["packet_us"] = {name: measure.of(found) for name, found in costs.items()}
    figures["packet_us"]["ratios"] = {
        name: measure.of(measure.ratios(found, costs["ours"])) for name, found in costs.items() if name != "ours"
    }
    measure.publish("wire", figures, began, asked.results)


if __name__ == "__main__":
    main()
