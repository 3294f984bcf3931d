"""What policies cost: packets through two policed ports beside the same bridge unfiltered, and the rules themselves.

`python benchmarks/bench_policed.py [--policies 10,10000] [--rounds 12] [--seconds 1] [--bursts 60]`. Two guests, each
with a port in a bare bridge and one in a policed bridge of the same namespace; flows are taken by turns, in rounds that
are short and many, each with its own ratio, and the middle one counts. Every policy is one of 1000 workspaces' (10 000
policies: ten each), all of them here; the two guests are among them. Small packets: UDP of 64 bytes as fast as one
sender can, packets a second that arrive; TCP: one stream, Mb/s. `packet_us`: what the way of one small packet takes of
a processor (`bursts.py`): `bare`, `policed`; `logged`, where the policies of both guests say `mode: log` and somebody
listens; `refused` and `refused_logged`, of packets that they stop.
`loaded_s`: all rules put in force from nothing, beside `nft -f` of the same text. `changed_ms`: one policy changed,
from the policy to the kernel's answer, of which `compiled_ms` is without the kernel.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import bursts
import measure
from bench_wire import flow
from measure import Json

from policies.compile.places import PolicedEnd, PolicedNetwork
from policies.compile.playground import Compiled, PlaygroundCompiler, policy_table, policy_table_after
from policies.compile.tables import Ruleset, whole
from policies.compile.ways import TABLE
from policies.guard import parts as guard
from policies.guard.station import GuardedPort, Station
from policies.kernel.enforcement import Enforcement
from policies.kernel.nflog import LogSocket
from policies.model import Endpoint, EndpointPeer, Mode, Origin, Policy, Rule, Scene
from policies.ports import Ports, Protocol
from policies.resolve import Resolver
from policies.selector import parse_selector

WORKSPACES = 1000
PLAYGROUND, ID, NETWORK, BRIDGE = "lab", "0123456789ab", "grid", "br0123456789ab"
ZONE = 7
HOST, GUESTS = measure.own("policed"), (measure.own("pa"), measure.own("pb"))
IPERF = Ports.of(Protocol.TCP, 5201) | Ports.of(Protocol.UDP, 5201)


def address(number: int) -> str:
    """Of a workspace's port."""
    return str(IPv4Address("10.64.0.2") + number)


def mac(number: int) -> str:
    return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"


def device(number: int) -> str:
    return f"pg{number:012x}"


def a_policy(number: int, ports: Ports = IPERF) -> Policy:
    """Workspace N reaches the next one. number: policies beyond 1000 are further ones of the same workspaces."""
    subject, peer = number % WORKSPACES, (number + 1) % WORKSPACES

    def one(name: int) -> EndpointPeer:
        return EndpointPeer(parse_selector(f"workspace=w-{name}"), frozenset({PLAYGROUND}))

    if number >= WORKSPACES:
        ports = Ports.of(Protocol.TCP, 1 + number // WORKSPACES)
    rule = Rule((one(peer),), ports, Origin("bench", number + 1))
    return Policy(f"p-{number}", (one(subject),), None, (rule,), Origin("bench", number + 1), playground=PLAYGROUND)


class Rules:
    """The policies, and what becomes of them."""

    def __init__(self, count: int) -> None:
        self.policies = [a_policy(number) for number in range(count)]
        self._endpoints = tuple(
            Endpoint(
                PLAYGROUND,
                f"w-{number}",
                NETWORK,
                {"workspace": f"w-{number}", "network": NETWORK, "playground": PLAYGROUND},
                (address(number),),
            )
            for number in range(WORKSPACES)
        )
        self._ends = tuple(
            PolicedEnd(f"w-{number}", NETWORK, (address(number),), is_local=True) for number in range(WORKSPACES)
        )
        self._resolver, self._compiler = Resolver(), PlaygroundCompiler(PLAYGROUND, ID)
        self._compiled: dict[str, Compiled] = {}
        self._table = policy_table([])
        ports = [GuardedPort(device(number), Station(mac(number), (address(number),))) for number in (0, 1)]
        self._guard = {key: guard.judged(part, zone=ZONE) for key, part in guard.parts(ports, []).items()}

    def compiled(self) -> Ruleset:
        """All tables; what has not changed is the same object."""
        ir = self._resolver.resolve(Scene(self._endpoints, tuple(self.policies)))
        made = self._compiler.compile(ir, (PolicedNetwork(NETWORK, BRIDGE, ZONE),), self._ends)
        if made is None:
            raise RuntimeError("nothing is policed")
        after = {ID: made}
        self._table = policy_table_after(self._table, self._compiled, after)
        self._compiled = after
        return {guard.TABLE: self._guard, TABLE: self._table}


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Two guests in two bridges: bare (10.9.0.N), policed (10.64.0.N)."""

    def do(*lines: str) -> None:
        for line in lines:
            subprocess.run(line.split(), check=True, stdout=subprocess.DEVNULL)

    names = (HOST, *GUESTS)
    try:
        for name in names:
            do(f"ip netns add {name}", f"ip -n {name} link set lo up")
        for bridge in ("bare", BRIDGE):
            do(f"ip -n {HOST} link add {bridge} type bridge mcast_snooping 0", f"ip -n {HOST} link set {bridge} up")
        for number, guest in enumerate(GUESTS):
            for bridge, port, own in (
                ("bare", f"b{number}", f"10.9.0.{2 + number}"),
                (BRIDGE, device(number), address(number)),
            ):
                nic = "eth0" if bridge == "bare" else "eth1"
                do(
                    f"ip -n {guest} link add {nic} address {mac(number)} type veth peer name {port} netns {HOST}",
                    f"ip -n {guest} address add {own}/16 dev {nic}",
                    f"ip -n {guest} link set {nic} up",
                    f"ip -n {HOST} link set {port} master {bridge} up",
                )
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def load_by_hand(ruleset: Ruleset) -> float:
    """Seconds that `nft -f` takes for the same text in a namespace that has nothing else."""
    name = measure.own("nft")
    text = whole(ruleset)
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for number in (0, 1):
            subprocess.run(["ip", "-n", name, "link", "add", device(number), "type", "veth"], check=True)
        start = time.perf_counter()
        subprocess.run(["ip", "netns", "exec", name, "nft", "-f", "-"], input=text, text=True, check=True)
        return time.perf_counter() - start
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def flows(rounds: int, seconds: int) -> Json:
    """Both bridges by turns."""
    seen: dict[str, list[float]] = {}
    ends = [["ip", "netns", "exec", name] for name in GUESTS]
    for number in range(rounds):
        for kind, small in (("tcp_mbps", False), ("small_packets_per_s", True)):
            turns = [("policed", address(1)), ("bare", "10.9.0.3")]
            for who, to in turns if number % 2 else reversed(turns):
                seen.setdefault(f"{kind} {who}", []).append(flow(ends[0], ends[1], to, seconds, small))
                time.sleep(0.1)
    found: Json = {}
    for kind in ("tcp_mbps", "small_packets_per_s"):
        ours, bare = seen[f"{kind} policed"], seen[f"{kind} bare"]
        ratio = measure.of(measure.ratios(ours, bare))
        found[kind] = {"policed": measure.of(ours, 0), "bare": measure.of(bare, 0), "ratio": ratio}
    return found


def packets(rules: Rules, enforcement: Enforcement, turns: int) -> Json:
    """What one small packet takes of a processor, by way; and ratios within each round."""
    ends = [["ip", "netns", "exec", name] for name in GUESTS]
    plain = list(rules.policies)
    rulesets = {False: rules.compiled()}
    for place, policy in enumerate(plain):
        if place % WORKSPACES < 2:  # the guests'
            rules.policies[place] = replace(policy, mode=Mode.LOG)
    rulesets[True] = rules.compiled()
    rules.policies[:] = plain
    seen: dict[str, list[float]] = {}
    with (
        bursts.between(ends[0], ends[1], "10.9.0.3") as bare,
        bursts.between(ends[0], ends[1], address(1)) as allowed,
        bursts.between(ends[1], ends[0], address(0)) as refused,
        contextlib.closing(LogSocket(Path("/run/netns") / HOST)) as heard,
    ):
        for number in range(turns):
            for is_logged in (False, True) if number % 2 else (True, False):
                enforcement.converge(rulesets[is_logged], frozenset({BRIDGE}))
                ways = {"logged" if is_logged else "policed": allowed}
                ways |= {"refused_logged" if is_logged else "refused": refused}
                for name, way in ways.items() if is_logged else {"bare": bare, **ways}.items():
                    way.take(50)  # the first is judged anew
                    seen.setdefault(name, []).append(way.take(2000))
                while heard.read(0.0):
                    pass
        enforcement.converge(rulesets[False], frozenset({BRIDGE}))
    beside = {"policed": "bare", "logged": "policed", "refused_logged": "refused"}
    ratios = {name: measure.of(measure.ratios(seen[peer], seen[name])) for name, peer in beside.items()}
    return {name: measure.of(found) for name, found in seen.items()} | {"ratios": ratios}


def measure_size(count: int, rounds: int, seconds: int, turns: int) -> Json:
    """At so many policies."""
    measure.note(f"{count} policies of {WORKSPACES} workspaces")
    rules = Rules(count)
    start = time.perf_counter()
    ruleset = rules.compiled()
    compiled_s = time.perf_counter() - start
    by_hand_s = min(load_by_hand(ruleset) for _ in range(3))
    with joined():
        enforcement = Enforcement(Path("/run/netns") / HOST)
        try:
            enforcement.converge({}, frozenset())
            start = time.perf_counter()
            outcome = enforcement.converge(ruleset, frozenset({BRIDGE}))
            loaded_s = time.perf_counter() - start
            if outcome.cause or outcome.refused or outcome.unpoliced:
                raise RuntimeError(f"not in force: {outcome}")
            changed, compiled = [], []
            for turn in range(11):
                ports = IPERF | Ports.of(Protocol.TCP, 6000 + turn)
                start = time.perf_counter()
                rules.policies[1] = replace(a_policy(1, ports))
                after = rules.compiled()
                compiled.append((time.perf_counter() - start) * 1000)
                enforcement.converge(after, frozenset({BRIDGE}))
                changed.append((time.perf_counter() - start) * 1000)
            through = flows(rounds, seconds) | {"packet_us": packets(rules, enforcement, turns)}
        finally:
            enforcement.close()
    return {
        "policies": count,
        "compiled_s": round(compiled_s, 3),
        "loaded_s": round(loaded_s, 3),
        "nft_by_hand_s": round(by_hand_s, 3),
        "loaded_ratio": measure.ratio(loaded_s, by_hand_s),
        "changed_ms": measure.of(changed[1:], 2),
        "compiled_ms": measure.of(compiled[1:], 2),
        **through,
    }


def main() -> None:
    options = measure.parser(__doc__)
    options.add_argument("--policies", default="10,10000", help="(default: %(default)s)")
    options.add_argument("--rounds", type=int, default=12)
    options.add_argument("--seconds", type=int, default=1, help="of one flow (default: %(default)s)")
    options.add_argument("--bursts", type=int, default=60, help="of 2000 packets each (default: %(default)s)")
    asked = options.parse_args()
    if shutil.which("iperf3") is None:
        raise SystemExit("bench_policed needs iperf3; `make bench-peers` gets it, and the others, from Debian")
    began = measure.machine()
    sizes = [measure_size(int(count), asked.rounds, asked.seconds, asked.bursts) for count in asked.policies.split(",")]
    first, last = sizes[0], sizes[-1]
    growth = {
        kind: round(last[kind]["ratio"]["median"] / first[kind]["ratio"]["median"], 3)
        for kind in ("tcp_mbps", "small_packets_per_s")
    }
    measure.publish("policed", {"rounds": asked.rounds, "sizes": sizes, "growth": growth}, began, asked.results)


if __name__ == "__main__":
    main()
