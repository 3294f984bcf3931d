"""A command line in small, for tests that kill it or run it as somebody else: `drive.py VERB SITE [N] [WORD...]`.

Standard library only: it has to run under the system's own Python. Words: leash, memory, mute (a controller that never
answers).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from playground import sandbox
from playground.sandbox.plan import Program, SandboxPlan

LISTENER = "import socket,sys,time; s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); time.sleep(1e6)"
SLEEP = ("sleep", "1000000")


def stand_ins(plan: SandboxPlan) -> tuple[Program, ...]:
    """A controller that only listens, and agents that only live."""
    socket = f"{plan.run_dir}/controller.sock"
    listen = f"import os; os.path.exists({socket!r}) and os.unlink({socket!r}); {LISTENER}"
    controller = Program("controller", (sys.executable, "-S", "-c", listen, socket))
    return (controller, *(Program(f"agent-{host.name}", SLEEP, host.name) for host in plan.hosts))


def mute(plan: SandboxPlan) -> tuple[Program, ...]:
    """A controller that never answers."""
    return (Program("controller", SLEEP),)


def main(verb: str, site: str, *words: str) -> None:
    if verb == "stop":
        print(json.dumps({"stopped": sandbox.stop(site)}), flush=True)
        return
    try:
        made = sandbox.ensure(
            site,
            int(words[0]),
            leash="leash" in words,
            in_memory_state="memory" in words,
            commands=mute if "mute" in words else stand_ins,
        )
    except sandbox.SandboxError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    ping = subprocess.run(sandbox.command_in(made, ["ping", "-c1", "-W2", "192.0.2.11"], made_host(made.emulate)))
    print(json.dumps({"pid": made.pid, "user": made.has_user_namespace, "ping": ping.returncode}), flush=True)
    if "leash" in words:
        time.sleep(1e6)


def made_host(emulate: int) -> str:
    """The last host."""
    return f"n{emulate}"


if __name__ == "__main__":
    main(*sys.argv[1:])
