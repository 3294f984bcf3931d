"""An agent's restart under traffic: kill -9 at a thousand ports; frames lost, seconds until all is converged again.

`python benchmarks/bench_restart.py [--ports 1000] [--times 3]`. Two emulated hosts; 1000 frames a second go from a
port of one host into the killed agent's host, and 1000 back. While no agent is there, a tunnel entry of another port
is taken away: `repaired` is when the new agent has put it back, `converged` when the controller has vouched for its
view, too. The sandbox starts it anew, as systemd would, and Python's start is in the time.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field

import measure
from bench_ports import GROUPS, HOSTS, bulk, hear_neighbours, hears
from lab import Lab, Port, emulated, frame, frames_of, number_of
from measure import Json

from playground import sandbox

RATE = 1000
QUIET_S = 0.5
"""The traffic goes on so long after the host has converged."""


@dataclass
class Traffic:
    """Numbered frames both ways between two ports, from `start` to `end`."""

    one: Port
    two: Port
    sent: int = 0
    _seen: dict[str, set[int]] = field(default_factory=lambda: {"one": set(), "two": set()})
    _ends: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> dict[str, int]:
        """Frames sent each way and lost each way."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join()
        time.sleep(0.1)
        self._take()
        return {
            "sent": self.sent,
            "lost_to_the_host": self.sent - len(self._seen["two"]),
            "lost_from_the_host": self.sent - len(self._seen["one"]),
        }

    def _run(self) -> None:
        began = time.perf_counter()
        while not self._ends.is_set():
            while self.sent < (time.perf_counter() - began) * RATE:
                os.write(self.one.tap, frame(self.two, self.one, self.sent))
                os.write(self.two.tap, frame(self.one, self.two, self.sent))
                self.sent += 1
                if self.sent % 100 == 0:  # a tap keeps 500 frames; after a pause of ours more are due at once
                    self._take()
            self._take()
            time.sleep(1 / RATE)

    def _take(self) -> None:
        for name, port, other in (("one", self.one, self.two), ("two", self.two, self.one)):
            numbers = (number_of(received, port, other) for received in frames_of(port))
            self._seen[name].update(number for number in numbers if number is not None)


def killed(site: Lab, traffic: Traffic, victim: Port) -> Json:
    """One kill -9: seconds from it, and what the traffic lost. victim: the port whose tunnel entry is taken away."""
    host = HOSTS[1]
    before = site.program(f"agent-{host}")
    mac = bytes.fromhex(victim.mac.replace(":", ""))
    entry = json.loads(_bridge(site, host, "-json", "fdb", "show"))
    device, vtep = next((e["ifname"], e["dst"]) for e in entry if e["mac"] == victim.mac and "dst" in e)
    with contextlib.closing(hear_neighbours(site, host)) as heard:
        traffic.start()
        try:
            time.sleep(QUIET_S)
            subprocess.run(sandbox.command_in(site.info, ["kill", "-9", str(before)]), check=True)
            start, killed_ns = time.perf_counter(), time.time_ns()
            _bridge(site, host, "fdb", "del", victim.mac, "dev", device, "dst", vtep, "self")
            site.await_(lambda: _is_another(site, host, before), 30, "another agent", 0.005)
            started = time.perf_counter()
            site.await_(lambda: hears(heard, mac), 60, "the entry is back", 0.005)
            repaired = time.perf_counter()
            cache = site.info.state_dir / "hosts" / host / "view.json"
            site.await_(lambda: cache.stat().st_mtime_ns > killed_ns, 60, "the controller has vouched for it", 0.005)
            vouched = time.perf_counter()
            time.sleep(QUIET_S)
        finally:
            told = traffic.end()
    times = {"started_s": started, "repaired_s": repaired, "converged_s": max(repaired, vouched)}
    return {**{what: round(at - start, 3) for what, at in times.items()}, **told}


def _bridge(site: Lab, host: str, *words: str) -> str:
    """bridge(8) in a host's data plane."""
    argv = sandbox.command_in(site.info, ["ip", "netns", "exec", "playground", "bridge", *words], host)
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def _is_another(site: Lab, host: str, before: int) -> bool:
    found = next(p for p in sandbox.ask(site.info, "status")["programs"] if p["name"] == f"agent-{host}")
    return found["pid"] not in (None, before)


def main() -> None:
    options = measure.parser(__doc__)
    options.add_argument("--ports", type=int, default=1000)
    options.add_argument("--times", type=int, default=3)
    asked = options.parse_args()
    began = measure.machine()
    measure.note(f"restart of an agent at {asked.ports} ports")
    with emulated(len(HOSTS)) as site:
        bulk(site, asked.ports)
        ends = [site.ports[f"{group}-0"] for group in GROUPS]
        load = round(os.getloadavg()[0], 2)
        runs = [killed(site, Traffic(*ends), site.ports["a-1"]) for _ in range(asked.times)]
    figures = {
        "ports": asked.ports,
        "load": load,
        "rate": RATE,
        "lost": measure.of([run["lost_to_the_host"] + run["lost_from_the_host"] for run in runs], 0),
        "started_s": measure.of(run["started_s"] for run in runs),
        "repaired_s": measure.of(run["repaired_s"] for run in runs),
        "converged_s": measure.of(run["converged_s"] for run in runs),
        "runs": runs,
        "peer": measure.NO_PEER,
    }
    measure.publish("restart", figures, began, asked.results)


if __name__ == "__main__":
    main()
