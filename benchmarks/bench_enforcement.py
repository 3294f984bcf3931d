"""One policy changed, at a thousand ports on two hosts, until packets meet it: opened, and cut.

`python benchmarks/bench_enforcement.py [--ports 1000] [--policies 10,1000,10000] [--times 10]`.
Half of the ports (taps) are on each host. Each policy is one workspace's: it reaches its partner on the other host, on
one port. `all_s`: all of them at once, on ports that run. Then one is edited again and again: a port more, one less.
`opened`: from the request that carries the file until the first datagram that only the edit allows comes out of the
partner's tap; `from_commit`: from the first write of the store after the request, which is the commit of the root
pointer: the reading of the file is in the first figure, and not in the second. `cut`: the same, until the last datagram
that the edit forbids has come out. A datagram is sent each millisecond. Where OVN is installed (`make bench-peers`) it
does the same after us, with three rules to begin with: one more for all ports, and an address of a rule's set, until
every chassis has them.
"""

from __future__ import annotations

import os
import threading
import time

import measure
import ovn
from bench_ports import BULK_S, HOSTS, bulk, timed_ms
from lab import Lab, emulated, frame, frames_of, number_of
from measure import Json

EVERY_S = 0.001
QUIET_S = 0.5
"""Without a datagram for so long it is cut."""
LONGEST_S = 120.0


class Policed(Lab):
    """The playground with policies: workspace a-N reaches b-N. port: what the first of them is allowed to. pairs: of
    workspaces; policies beyond them are further ones of the same."""

    count = 0
    pairs = 1
    port = 1

    def text(self) -> str:
        lines = ["policies:"] if self.count else []
        for number in range(self.count):
            pair, more = number % self.pairs, number // self.pairs
            ports = f"udp/{self.port}" if number == 0 else f"udp/{53 + more}"
            lines.append(
                f"  - {{name: p-{number}, subject: workspace=a-{pair}, "
                f"egress: [{{to: workspace=b-{pair}, ports: {ports}}}]}}"
            )
        return super().text() + "\n".join(lines) + "\n"


def changed(site: Policed, port: int, is_opened: bool) -> dict[str, float]:
    """Puts the file with another port; ms until packets show it, from the request and from the commit."""
    source, to = site.ports["a-0"], site.ports["b-0"]
    frames_of(to)
    site.port = port
    store = site.info.state_dir / "store.db-wal"
    written_ns = store.stat().st_mtime_ns
    asking = threading.Thread(target=site.put)
    number, last, committed = 0, 0.0, 0.0
    start = time.perf_counter()
    asking.start()
    while True:
        number += 1
        os.write(source.tap, frame(to, source, number))
        time.sleep(EVERY_S)
        if not committed and store.stat().st_mtime_ns != written_ns:
            committed = time.perf_counter()
        if any(number_of(received, to, source) is not None for received in frames_of(to)):
            last = time.perf_counter()
            if is_opened:
                break
        now = time.perf_counter()
        if not is_opened and committed and now - max(last, committed) > QUIET_S:
            break
        if now - start > LONGEST_S:
            raise TimeoutError(f"the policy is not in force after {LONGEST_S:g} s")
    asking.join()
    site.converged()
    return {"request_ms": (last - start) * 1000, "from_commit_ms": (last - committed) * 1000}


def measure_size(ports: int, policies: int, times: int) -> Json:
    """At so many ports and policies, on a site of its own."""
    measure.note(f"{policies} policies at {ports} ports on two hosts")
    with emulated(len(HOSTS), kind=Policed) as site:
        assert isinstance(site, Policed)
        load = round(os.getloadavg()[0], 2)
        bulk(site, ports)
        site.count, site.pairs = policies, ports // len(HOSTS)
        start = time.perf_counter()
        site.put()
        site.converged()
        first_s = round(time.perf_counter() - start, 3)
        opened, cut = [], []
        for _ in range(times):
            opened.append(changed(site, 9, is_opened=True))
            cut.append(changed(site, 1, is_opened=False))
    told = {"opened": opened, "cut": cut}
    figures = {
        name: {what: measure.of((run[what] for run in runs), 1) for what in runs[0]} for name, runs in told.items()
    }
    return {"ports": ports, "policies": policies, "load": load, "all_s": first_s, **figures}


def measure_ovn(ports: int, times: int) -> Json:
    """OVN's own: from the command that adds a rule, or an address to a rule's set, until every chassis has it."""
    measure.note(f"{ports} ports on two chassis of OVN")
    with ovn.running(len(HOSTS)) as peer:
        peer.add(range(ports))
        peer.group_all()
        peer.await_up(range(ports), BULK_S)
        peer.sync()
        rules = [timed_ms(lambda n=n: peer.add_rule(ports + n)) for n in range(times)]
        addresses = [timed_ms(lambda n=n: peer.add_address(f"198.18.0.{n}")) for n in range(times)]
    return {"rule_ms": measure.of(rules, 1), "address_ms": measure.of(addresses, 1)}


def main() -> None:
    options = measure.parser(__doc__)
    options.add_argument("--ports", type=int, default=1000)
    options.add_argument("--policies", default="10,1000,10000", help="policies (default: %(default)s)")
    options.add_argument("--times", type=int, default=10, help="edits at each size")
    asked = options.parse_args()
    began = measure.machine()
    sizes = [measure_size(asked.ports, int(count), asked.times) for count in asked.policies.split(",")]
    took = [size["opened"]["from_commit_ms"]["median"] for size in sizes]
    peer = measure_ovn(asked.ports, asked.times) if ovn.is_installed() else None
    figures = {
        "sizes": sizes,
        "growth": measure.ratio(took[-1], took[0]),
        "ovn": peer or measure.NO_PEER,
        "ratios_to_ovn": [measure.ratio(ms, peer["rule_ms"]["median"] if peer else None) for ms in took],
    }
    measure.publish("enforcement", figures, began, asked.results)


if __name__ == "__main__":
    main()
