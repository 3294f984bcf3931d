"""Names where workspaces ask for them: how soon a changed one is answered on every host, and what one's flood of
questions costs the others of its host. An emulated site of three hosts.

`python benchmarks/bench_names.py`.
- changed: a workspace gets another alias. From the request with the file, which is read, admitted and committed within
  the time, until a workspace on each host, which asks every two milliseconds, is answered by it; the slowest host's.
- flood: one workspace asks 50,000 times a second, another on its host every five milliseconds: how long it waits for
  its answers, beside how long it did before, and how many never came.
"""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import measure
from guests import PYTHON, enter
from lab import Lab, emulated

CHANGES = 10
PER_S = 50_000
ASKED = 400
FILE = """\
name: names
networks: {{grid: {{subnets: [10.20.0.0/24]}}}}
workspaces:
  one: {{networks: [grid], host: n1, aliases: [{aliases}]}}
  two: {{networks: [grid], host: n2}}
  three: {{networks: [grid], host: n3}}
  loud: {{networks: [grid], host: n1}}
"""
QUESTION = """
import json, select, socket, struct, sys, time
name = sys.argv[1]
question = b"".join(bytes((len(l),)) + l.encode() for l in name.split(".")) + b"\\0\\0\\1\\0\\1"
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.connect(("10.20.0.1", 53))
def ask(ident): asking.send(struct.pack("!6H", ident, 0x100, 1, 0, 0, 0) + question)
"""
WATCH = (
    QUESTION
    + """
asking.settimeout(0.02)
print("ready", flush=True)
for ident in range(65536):
    ask(ident)
    try:
        while (got := asking.recv(4096))[:2] != struct.pack("!H", ident): pass
    except OSError:
        continue
    if got[7]: break
    time.sleep(0.002)
print(time.clock_gettime(time.CLOCK_MONOTONIC))
"""
)
"""When (CLOCK_MONOTONIC) a name is answered first."""
WAIT = (
    QUESTION
    + """
asking.settimeout(1)
waited, lost = [], 0
for ident in range(int(sys.argv[2])):
    began = time.perf_counter()
    ask(ident)
    try:
        while asking.recv(4096)[:2] != struct.pack("!H", ident): pass
        waited.append((time.perf_counter() - began) * 1e6)
    except OSError:
        lost += 1
    time.sleep(0.005)
print(json.dumps([waited, lost]))
"""
)
"""How long each answer took, in µs, and how many did not come within a second."""
SHOUT = (
    QUESTION
    + """
print("ready", flush=True)
asking.setblocking(False)
began, sent = time.perf_counter(), 0
while not select.select([sys.stdin], [], [], 0.001)[0]:
    for sent in range(sent, int((time.perf_counter() - began) * int(sys.argv[2]))):
        try: ask(sent % 65536)
        except OSError: pass
print(sent / (time.perf_counter() - began))
"""
)
"""Asks at a rate, until its input ends; what the rate was."""
Json = dict[str, Any]


def change(site: Lab, number: int) -> float:
    """Milliseconds."""
    name = f"fresh-{number}"
    watches = [
        subprocess.Popen(
            enter(site, "names", asker, *PYTHON, "-c", WATCH, f"{name}.names.internal"),
            stdout=subprocess.PIPE,
            text=True,
        )
        for asker in ("one", "two", "three")
    ]
    for watch in watches:
        assert watch.stdout is not None and watch.stdout.readline() == "ready\n"
    asked = time.clock_gettime(time.CLOCK_MONOTONIC)
    site.client.put("playgrounds", {"file": "names.yaml", "text": FILE.format(aliases=name)})
    return max(float(watch.communicate(timeout=60)[0]) - asked for watch in watches) * 1000


def wait(site: Lab) -> Json:
    """How long the one on the first host waits."""
    words = enter(site, "names", "one", *PYTHON, "-c", WAIT, "two.names.internal", str(ASKED))
    said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=600).stdout
    waited, lost = json.loads(said)
    waited.sort()
    return {
        "median_us": round(waited[len(waited) // 2], 1),
        "p99_us": round(waited[len(waited) * 99 // 100], 1),
        "lost": lost,
    }


def flood(site: Lab) -> Json:
    quiet = wait(site)
    words = enter(site, "names", "loud", *PYTHON, "-c", SHOUT, "two.names.internal", str(PER_S))
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shouting:
        assert shouting.stdout is not None and shouting.stdout.readline() == "ready\n"
        time.sleep(1.5)  # what may come at once has come
        loud = wait(site)
        said, _ = shouting.communicate(timeout=60)
    return {"asked_per_s": round(float(said)), "quiet": quiet, "loud": loud}


def main() -> None:
    asked = measure.parser(__doc__).parse_args()
    began = measure.machine()
    measure.note("names on three hosts")
    with emulated(3) as site:
        site.client.put("playgrounds", {"file": "names.yaml", "text": FILE.format(aliases="www")})
        converged = "playgrounds/names/progress"
        site.await_(lambda: site.client.get(converged)["converged"], 60, "converged")
        changed = []
        for number in range(CHANGES):
            changed.append(change(site, number))
            site.await_(lambda: site.client.get(converged)["converged"], 60, "converged")
        figures = {"changed_ms": measure.of(changed), "flood": flood(site)}
    measure.publish("names", figures, began, asked.results)


if __name__ == "__main__":
    main()
