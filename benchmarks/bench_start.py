"""How long people wait: `examples/atlas.yaml` up from cold, phase by phase, and `playground --help` beside bare Python.

`python benchmarks/bench_start.py [--times 3]`. Cold: no site, no files; three emulated hosts. The phases: the sandbox
with its controller; all hosts heard; the file accepted; all workspaces running with their addresses taken; every host
converged. Then what `up --emulate 3` takes as a whole, on a site of its own, as a person waits for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measure
from measure import Json

from playground import sandbox
from playground.client import Client, UnixAddress

ATLAS = Path(__file__).parents[1] / "examples" / "atlas.yaml"
HOSTS = 3
LOOK_S = 0.01
UP_S = 60.0


def phases() -> dict[str, float]:
    """Seconds each phase took, by its name, and all of them as `up`; the site is gone afterwards."""
    top = Path(tempfile.mkdtemp(prefix="pgb-", dir="/tmp"))
    os.environ |= {"PLAYGROUND_RUN": str(top / "r"), "PLAYGROUND_STATE": str(top / "s"), "PLAYGROUND_SITE": "cold"}
    try:
        marks = [time.perf_counter()]
        info = sandbox.ensure("cold", HOSTS, leash=True)
        marks.append(time.perf_counter())
        client = Client(UnixAddress(info.run_dir / "controller.sock"))
        _await(lambda: client.get("site").get("up", 0) >= HOSTS)
        marks.append(time.perf_counter())
        client.put("playgrounds", {"file": ATLAS.name, "text": ATLAS.read_text()})
        marks.append(time.perf_counter())
        _await(lambda: _is_served(client))
        marks.append(time.perf_counter())
        _await(lambda: bool(client.get("playgrounds/atlas/progress")["converged"]))
        marks.append(time.perf_counter())
        sandbox.stop("cold")
        names = ("sandbox_s", "hosts_s", "accepted_s", "served_s", "converged_s")
        found = {name: after - before for name, before, after in zip(names, marks, marks[1:], strict=False)}
        return found | {"up_s": marks[-1] - marks[0]}
    finally:
        sandbox.stop("cold")
        shutil.rmtree(top, ignore_errors=True)


def command() -> float:
    """Seconds of the whole command `up --emulate 3`, cold."""
    top = Path(tempfile.mkdtemp(prefix="pgb-", dir="/tmp"))
    environment = dict(os.environ) | {"PLAYGROUND_RUN": str(top / "r"), "PLAYGROUND_STATE": str(top / "s")}
    words = [sys.executable, "-m", "playground", "--site", "cold"]
    try:
        start = time.perf_counter()
        up = [*words, "up", str(ATLAS), "--emulate", str(HOSTS)]
        subprocess.run(up, env=environment, check=True, capture_output=True)
        return time.perf_counter() - start
    finally:
        subprocess.run([*words, "down", "--all"], env=environment, capture_output=True)
        shutil.rmtree(top, ignore_errors=True)


def _is_served(client: Client) -> bool:
    seen = client.get("playgrounds/atlas/progress")
    workspaces, ports = seen["workspaces"], seen["ports"]
    return 0 < workspaces["total"] == workspaces["running"] and ports["total"] == ports["forwarding"] == ports["leased"]


def _await(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + UP_S
    while not look():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not up in {UP_S:g} s")
        time.sleep(LOOK_S)


def help_ms(times: int) -> Json:
    """Wall time of `playground --help` and of Python doing nothing, by turns, milliseconds."""
    tried = {"help": [sys.executable, "-m", "playground", "--help"], "bare": [sys.executable, "-c", ""]}
    took: dict[str, list[float]] = {name: [] for name in tried}
    for _ in range(times):
        for name, words in tried.items():
            start = time.perf_counter()
            subprocess.run(words, check=True, capture_output=True)
            took[name].append((time.perf_counter() - start) * 1000)
    beyond = [one - other for one, other in zip(took["help"], took["bare"], strict=True)]
    return {
        **{f"{name}_ms": measure.of(values, 1) for name, values in took.items()},
        "beyond_ms": measure.of(beyond, 1),
    }


def main() -> None:
    options = measure.parser(__doc__)
    options.add_argument("--times", type=int, default=3, help="cold starts (default: %(default)s)")
    asked = options.parse_args()
    began = measure.machine()
    measure.note("cold starts")
    runs = [phases() for _ in range(asked.times)]
    atlas = {phase: measure.of((run[phase] for run in runs), 2) for phase in runs[0]}
    atlas["command_s"] = measure.of((command() for _ in range(asked.times)), 2)
    measure.publish("start", {"atlas": atlas, "help": help_ms(15)}, began, asked.results)


if __name__ == "__main__":
    main()
