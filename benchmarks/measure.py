"""What all benchmarks share: statistics, the machine they ran on, and one JSON file each. Measures nothing itself."""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("overlay", "dhcp", "policies", "playground")
NO_PEER = "no peer in this run"

Json = dict[str, Any]


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark takes."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files (default: %(default)s)")
    return made


def machine() -> Json:
    """Whose figures these are. load: the load average of the last minute, before the benchmark added its own.

    Our packages are compiled to bytecode first, as an installer leaves them: where the environment forbids Python to
    write it, each process would compile them anew, and that would be in every start and in every process's memory.
    """
    for name in PACKAGES:
        compileall.compile_dir(Path(__file__).parents[1] / name, quiet=2)
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cores": os.cpu_count(),
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "memory_gib": round(int(memory.split()[1]) / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def commit() -> str:
    """The commit measured, with a + when the tree differs from it; empty outside a checkout."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    return told.stdout.strip()


def of(values: Iterable[float], digits: int = 3) -> Json:
    """Median, extremes and number of some samples."""
    samples = sorted(values)
    return {
        "median": round(statistics.median(samples), digits),
        "min": round(samples[0], digits),
        "max": round(samples[-1], digits),
        "n": len(samples),
    }


def ratio(ours: float, peer: float | None) -> float | str:
    """ours / peer, three significant digits; says so where no peer ran beside us."""
    return NO_PEER if not peer else float(f"{ours / peer:.3g}")


def ratios(ours: Sequence[float], peers: Sequence[float]) -> list[float]:
    """ours / peer, round by round: what else the machine does changes between rounds, hardly within one."""
    return [mine / theirs for mine, theirs in zip(ours, peers, strict=True)]


def cpu_s(stat: str) -> float:
    """User and system time out of the text of a /proc/PID/stat, seconds."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_mib(smaps: str) -> float:
    """Proportional set size out of the text of a /proc/PID/smaps_rollup, MiB: what is shared counts in parts."""
    return round(int(next(line.split()[1] for line in smaps.splitlines() if line.startswith("Pss:"))) / 1024, 1)


def rss_mib(smaps: str) -> float:
    """Resident set size out of the text of a /proc/PID/smaps_rollup, MiB."""
    return round(int(next(line.split()[1] for line in smaps.splitlines() if line.startswith("Rss:"))) / 1024, 1)


def publish(name: str, figures: Mapping[str, Any], began: Json, folder: Path = RESULTS) -> None:
    """Writes FOLDER/NAME.json, and prints it. began: `machine()` from before the work."""
    whole = {
        "benchmark": name,
        "at": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit(),
        "machine": {**began, "load_after": round(os.getloadavg()[0], 2)},
        **figures,
    }
    text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(text)
    print(text, end="")
    sys.stdout.flush()


def own(word: str) -> str:
    """A name for a network namespace that no other benchmark has, nor this one in another process."""
    return f"bench-{word}-{os.getpid()}"


def note(text: str) -> None:
    """Tells whoever waits what is being done."""
    print(f"# {text}", file=sys.stderr, flush=True)
