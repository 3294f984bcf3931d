"""Flows between a namespace workspace and a virtual machine, all of them at once: a plain script for inside the
workspace, standard library only.

`python -I -S flows.py ADDRESS` talks to the machine's echoing TCP server on port 7, and takes what the machine sends by
TCP to port 9000, numbered lines as those, and by UDP to 9001. It writes `flowing` to stderr once each of the three has
carried something, and on SIGTERM prints what each carried and its longest silence, in ms.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import sys
import time

EACH_S = 0.02
CONNECT_S = 30.0


def connected(machine: str) -> socket.socket:
    until = time.monotonic() + CONNECT_S
    while True:
        try:
            return socket.create_connection((machine, 7), 5)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def main() -> None:
    machine = sys.argv[1]
    over: list[int] = []
    for signo in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signo, lambda number, _: over.append(number))
    tcp_door = socket.create_server(("", 9000))
    udp_in = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp_in.bind(("", 9001))
    tcp_out = connected(machine)
    named = {"tcp_out": tcp_out, "udp_in": udp_in}
    for opened in (tcp_out, udp_in, tcp_door):
        opened.setblocking(False)
    names = ("tcp_out", "tcp_in", "udp_in")
    heard = dict.fromkeys(names, b"")
    count = dict.fromkeys(names, 0)
    last: dict[str, float] = {}
    gap = dict.fromkeys(names, 0.0)
    number, due, said, broken = 0, time.monotonic(), False, ""
    while not over:
        now = time.monotonic()
        if now >= due:
            due = max(due + EACH_S, now)
            number += 1
            try:
                tcp_out.send(b"%d\n" % number)
            except BlockingIOError:
                number -= 1
            except OSError as error:
                broken = broken or f"tcp_out: {error}"
        waits = {opened: name for name, opened in named.items()} | {tcp_door: "door"}
        for ready in select.select(list(waits), [], [], max(0.0, due - time.monotonic()))[0]:
            name = waits[ready]
            if name == "door":
                named["tcp_in"] = tcp_door.accept()[0]
                named["tcp_in"].setblocking(False)
                continue
            try:
                data = ready.recv(65536)
            except OSError as error:
                broken = broken or f"{name}: {error}"
                data = b""
            if name != "udp_in" and not data:
                broken = broken or f"{name} ended"
                del named[name]
            if not data:
                continue
            now = time.monotonic()
            gap[name] = max(gap[name], now - last.get(name, now))
            last[name] = now
            if name == "udp_in":
                count[name] += 1
                continue
            lines = (heard[name] + data).split(b"\n")
            heard[name] = lines.pop()
            for line in lines:
                count[name] += 1
                if int(line) != count[name]:
                    broken = broken or f"{name} says {line!r} where {count[name]} is due"
        if not said and all(count.values()):
            said = True
            print("flowing", file=sys.stderr, flush=True)
    ended = time.monotonic()
    shown = {
        name: {"lines": count[name], "gap_ms": round(gap[name] * 1000, 1), "quiet_s": round(ended - last[name], 2)}
        for name in names
        if name in last
    }
    print(json.dumps({"broken": broken, "sent": number, **shown}), flush=True)


if __name__ == "__main__":
    main()
