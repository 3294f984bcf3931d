"""`demo`: what the software does, shown on a site of its own. Prints what it measured, and leaves nothing."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from playground import paths
from playground.cli import change, lifecycle, progress, remote, render, show, site, sources
from playground.cli.failure import DONE, REFUSED, Failure
from playground.cli.traffic import RATE, Move, Streams, choose
from playground.client import Client, UnixAddress

HOSTS = 3
KEPT_SITE = "demo"
EXAMPLE = "atlas.yaml"

UP_S = 60.0
GAP_MS = 1000.0
"""A longer silence is no move under traffic: the check fails."""

Row = dict[str, Any]

_NAMES = """\
import json, socket, sys
print(json.dumps({name: sorted({found[4][0] for found in socket.getaddrinfo(name, None)}) for name in sys.argv[1:]}))
"""


def demo(args: argparse.Namespace) -> int:
    """1 when any check failed."""
    if site.is_remote(args):
        raise Failure("the demo makes hosts on this machine; leave --server and PLAYGROUND_SERVER out")
    name = args.site or (KEPT_SITE if args.keep else f"demo-{os.getpid()}")
    if site.is_emulated(name) or paths.controller_socket(name).exists():
        raise Failure(f"site {name} is there already; end it first: playground --site {name} down --all")
    started = time.monotonic()
    with _ended_by_signals(), _emulated(name, args.keep) as client:
        run = Demo(client, render.Ink.of(sys.stdout), started)
        move = run.show_all(name, example())
        if args.keep:
            print(f"\n{_next_steps(name, move)}")
        else:
            run.take_down()
            site.end(name)
            left = [str(path) for path in (paths.run_dir(name), paths.state_dir(name)) if path.exists()]
            is_gone = not left and not site.is_emulated(name)
            run.check(is_gone, f"site {name} is gone; files left: {render.spelled(left)}")
    return REFUSED if run.failures else DONE


def example() -> Path:
    """The example's file: the repository's, or the installed one."""
    for folder in (Path(__file__).resolve().parents[2], Path(sysconfig.get_path("data")) / "share/playground"):
        if (path := folder / "examples" / EXAMPLE).exists():
            return path
    raise Failure(f"examples/{EXAMPLE} is missing from this installation; install it again, or run from a checkout")


class Demo:
    """One run: what was checked so far, and what failed."""

    def __init__(self, client: Client, ink: render.Ink, started: float) -> None:
        """started: when the command began, by time.monotonic()."""
        self._client = client
        self._ink = ink
        self._started = started
        self._playground = ""
        self.failures = 0

    def check(self, holds: bool, text: str) -> None:
        """One line: when, whether it holds, what was seen."""
        mark = self._ink.good("ok    ") if holds else self._ink.bad("FAILED")
        self.failures += not holds
        print(f"{time.monotonic() - self._started:5.1f} s  {mark}  {text}", flush=True)

    def show_all(self, site_name: str, path: Path) -> Move:
        """Up, hosts and ports, all pairs, names, and a move under traffic; the move that was made."""
        file, text = sources.read(str(path))
        hosts = self._await_hosts()
        self.check(len(hosts) == HOSTS, f"site {site_name}: {render.count(len(hosts), 'host')} up, and a controller")
        self._bring_up(file, text)
        ports = self._ports()
        self._show_places(ports)
        self._probe()
        move = choose(ports, [host["name"] for host in hosts])
        peers = [port["workspace"] for port in ports if port["workspace"] != move.moving]
        self._check_names(ports, move.sender, [move.moving])
        self._move(move)
        after = self._ports()
        kept = _places(after, "addresses") == _places(ports, "addresses")
        self.check(kept, f"{move.moving} is on {_host(after, move.moving)} with the addresses it had")
        self._check_names(after, move.sender, [move.moving])
        self._check_names(after, move.moving, [name for name in peers if _shared(after, move.moving, name)][:1])
        return move

    def take_down(self) -> None:
        """Removes the playground, and sees that no host holds anything of it."""
        change.remove(self._client, self._playground)
        change.await_removed(self._client, [self._playground], UP_S)
        self.check(not self._client.get("ports"), f"{self._playground} is down: no host holds anything of it")

    def _await_hosts(self) -> list[Row]:
        """The hosts that are up, as soon as all are."""
        line = progress.Line()
        deadline = time.monotonic() + UP_S
        try:
            while True:
                up = [host for host in self._client.get("hosts") if host["state"] == "up"]
                if len(up) >= HOSTS or time.monotonic() > deadline:
                    return up
                line.show(f"waiting for hosts, {len(up)} of {HOSTS} are up")
                time.sleep(progress.QUICK_S)
        finally:
            line.clear()

    def _bring_up(self, file: str, text: str) -> None:
        asked = time.monotonic()
        answer = self._client.put("playgrounds", {"file": file, "text": text})
        self._playground = answer["name"]
        state = change.await_converged(self._client, self._playground, UP_S, answer["change"])
        took = time.monotonic() - asked
        self.check(True, f"{self._playground} is up: {change.counts(state)}, {took:.1f} s after the file was read")
        leases = self._client.get("leases")
        bound = sum(lease["state"] == "bound" for lease in leases)
        self.check(bound == len(leases) > 0, f"{bound} of {len(leases)} addresses taken by the clients inside")

    def _show_places(self, ports: list[Row]) -> None:
        hosts = self._client.get("hosts")
        print(f"\n{show.hosts_table(hosts, self._ink)}\n\n{show.ports_table(ports, self._ink)}\n", flush=True)

    def _probe(self) -> None:
        with _line(f"{self._playground}: trying all pairs"):
            answer = self._client.post("probe", {"playground": self._playground}, timeout=lifecycle.PROBE_S)
        as_modelled = answer["pairs"] > 0 and not answer["mismatches"] and not answer.get("unobserved")
        self.check(as_modelled, lifecycle.probe_text(self._playground, answer))

    def _check_names(self, ports: list[Row], asking: str, names: list[str]) -> None:
        """Asks from inside, by the workspace's own resolver, for names of workspaces on a network they share."""
        order = remote.Order(["python3", "-c", _NAMES, *names], f"{self._playground}/{asking}")
        finished = remote.run(self._client, order)
        if finished.code:
            said = finished.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            self.check(False, f"{asking} resolves {render.spelled(names)}: {said}")
            return
        for name, found in json.loads(finished.stdout).items():
            expected = sorted(_shared(ports, name, asking))
            self.check(found == expected, f"{asking} finds {name} by name: {render.spelled(found)}")

    def _move(self, move: Move) -> None:
        streams = Streams(self._client, self._playground, move)
        print(
            f"\n{move.moving} goes from {move.source} to {move.target} while {move.sender} on {move.sender_host} sends "
            f"it {RATE} datagrams a second and a TCP stream\n",
            flush=True,
        )
        with contextlib.closing(streams), _line(f"{move.moving}: {move.source} → {move.target}"):
            streams.start()
            result = streams.move()
            measured = streams.finish()
        settled = result["state"] == "settled"
        pause = f", paused {result['pause_ms']:.1f} ms" if result.get("pause_ms") is not None else ""
        cause = f": {result['cause']}" if result.get("cause") else ""
        self.check(
            settled, f"{move.moving} moved from {move.source} to {move.target}{pause} ({result['state']}{cause})"
        )
        udp = measured.udp
        counted = f"{udp['sent']} sent, {udp['lost']} lost, {udp['duplicated']} duplicated"
        late = f"its sender itself was up to {render.milliseconds(measured.late_ms)} late"
        followed = udp["received"] > 0 and udp["gap_ms"] < GAP_MS
        self.check(followed, f"UDP: {counted}, longest silence {render.milliseconds(udp['gap_ms'])} ({late})")
        tcp = measured.tcp
        size = f"{tcp['bytes'] / 1e6:.1f} MB at {tcp['mbps']:.0f} Mb/s"
        whole = "every byte right" if tcp["intact"] else "not whole"
        stall = render.milliseconds(tcp["stall_ms"])
        self.check(bool(tcp["intact"]), f"TCP: {size}, {whole}, longest stall {stall}")

    def _ports(self) -> list[Row]:
        rows: list[Row] = self._client.get("ports")
        return rows


def _places(ports: list[Row], key: str) -> dict[tuple[str, str], Any]:
    return {(port["workspace"], port["network"]): port[key] for port in ports}


def _host(ports: list[Row], workspace: str) -> str:
    return render.spelled(sorted({str(port["host"]) for port in ports if port["workspace"] == workspace}))


def _shared(ports: list[Row], workspace: str, other: str) -> list[str]:
    """The addresses of `workspace` on the networks that it shares with `other`."""
    networks = {port["network"] for port in ports if port["workspace"] == other}
    found = [port for port in ports if port["workspace"] == workspace and port["network"] in networks]
    return [address for port in found for address in port["addresses"]]


def _next_steps(name: str, move: Move) -> str:
    lines = (
        ("status", "what should be, what is, why where they differ"),
        ("exec head -- ip -br addr", "run something inside"),
        (f"migrate {move.moving} {move.source}", "move it back, and measure"),
        ("down --all", "away again"),
    )
    commands = [f"  playground --site {name} {words}" for words, _ in lines]
    width = max(map(len, commands))
    said = (f"{command:<{width}}  {says}" for command, (_, says) in zip(commands, lines, strict=True))
    return "\n".join([f"It stays up, as site {name}. Go on with:", *said])


@contextlib.contextmanager
def _emulated(name: str, keep: bool) -> Iterator[Client]:
    """A site of our own with emulated hosts. Ended on any failure; unless kept, it dies with us too."""
    with _line(f"site {name}: starting {HOSTS} emulated hosts"):
        site.emulate(name, HOSTS, in_memory_state=not keep, leash=not keep)
    try:
        yield Client(UnixAddress(paths.controller_socket(name)))
    except BaseException:
        print(f"playground: ending site {name}", file=sys.stderr)
        site.end(name)
        raise


@contextlib.contextmanager
def _line(text: str) -> Iterator[None]:
    """A progress line for as long as something takes."""
    line = progress.Line()
    line.show(text)
    try:
        yield
    finally:
        line.clear()


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A termination or a lost terminal ends us as Ctrl-C does: by way of every clean-up."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    handlers = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
