"""Live migration of a virtual machine: what the network adds to its hypervisor's pause, what we add to its work.

`python benchmarks/bench_migration.py [--moves 6] [--starts 3]`. Three emulated hosts with libvirt and emulated
processors. Ours and the same machine behind a hand-made learning bridge and VXLAN take turns. `network_ms`: the longest
silence that a third host sees of 1000 echo requests a second, each way through the tunnel, less the pause that the
hypervisor tells. `wall_s`: from the request until the move is settled, beside `virsh migrate`. `repointed`: from the
hypervisor's RARP at the target's tap to the third host's tunnel entry; FRR's EVPN does the like (`bench_moves`).
`start_s`: from `up` to the machine's own word that it has its address, beside `virsh create` on a tap that is there.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import byhand
import guests
import measure
from bench_moves import by_frr, entries
from bench_ports import hear_neighbours
from byhand import UNDERLAY
from lab import Lab, emulated
from measure import Json

from overlay.kernel import namespaces
from playground import sandbox, workspaces
from playground.agent.announcements import listening
from playground.client import Refused
from playground.records import workspace_id

TESTS = Path(__file__).parents[1] / "tests" / "vm"
ECHOES = str(Path(workspaces.__file__).parent / "echoes.py")
RATE = 1000
AROUND_S = 0.5
WAIT_S = 60.0


def _guest_image() -> tuple[Path, Path, str]:
    """Kernel, initial RAM disk and command line of the tests' machine."""
    spec = importlib.util.spec_from_file_location("guest_image", TESTS / "guest_image.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    kernel, initrd = made.build(made.FOLDER)
    return kernel, initrd, made.CMDLINE


def _text(name: str, kernel: Path, initrd: Path, cmdline: str) -> str:
    machine = {"type": "qemu", "model": "pc", "cpu": "qemu64", "kernel": str(kernel), "initrd": str(initrd)}
    web = {"driver": "libvirt", "networks": ["grid"], "memory": "96MiB", "host": "n1"}
    web["machine"] = {**machine, "cmdline": f"{cmdline} hostname=web"}
    peer = {"networks": ["grid"], "host": "n3"}
    return json.dumps(
        {"name": name, "networks": {"grid": {"subnets": ["10.88.0.0/24"]}}, "workspaces": {"web": web, "peer": peer}}
    )


@contextlib.contextmanager
def asked(command: Callable[..., list[str]], address: str) -> Iterator[Json]:
    """Echo requests while the body runs; the result is in what was yielded afterwards. command: a command line turned
    into one that runs at the third host."""
    result: Json = {}
    words = [*guests.PYTHON, ECHOES, address, "--rate", str(RATE), "--seconds", "120"]
    process = subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        if "asking" not in process.stderr.readline():
            raise RuntimeError(f"{address} answers no echo")
        time.sleep(AROUND_S)
        yield result
        time.sleep(AROUND_S)
        subprocess.run(command("pkill", "-TERM", "-f", f"echoes.py {address}"), check=True)
        result.update(json.loads(process.communicate(timeout=20)[0]))
    finally:
        if process.poll() is None:
            subprocess.run(command("pkill", "-KILL", "-f", f"echoes.py {address}"), check=False)
            process.kill()
            process.communicate()


def await_word(log: Path, word: str, began: float) -> float:
    """Seconds since `began` until a serial line has said a word."""
    while time.perf_counter() - began < WAIT_S:
        if log.exists() and word in log.read_text(errors="replace"):
            return time.perf_counter() - began
        time.sleep(0.005)
    raise TimeoutError(f"{log} never said {word}")


class Ours:
    """A machine of a playground."""

    def __init__(self, site: Lab, image: tuple[Path, Path, str]) -> None:
        self._site, self._image = site, image
        self.at = "n1"

    def start(self, name: str) -> float:
        """Seconds from `up` until it has its address."""
        began = time.perf_counter()
        self._site.client.put("playgrounds", {"file": f"{name}.yaml", "text": _text(name, *self._image)})
        folder = self._site.info.state_dir / "hosts" / "n1" / "libvirt" / "consoles"
        return await_word(folder / f"{workspace_id(name, 'web')}.log", "BOUND", began)

    def stop(self, name: str) -> None:
        self._site.client.delete(f"playgrounds/{name}")
        self._site.await_(lambda: self._is_gone(name), WAIT_S, f"{name} gone")

    def _is_gone(self, name: str) -> bool:
        try:
            return not self._site.client.get("ports", {"playground": name})
        except Refused as refusal:
            return refusal.status == 404

    def move(self, name: str) -> Json:
        """One move: wall_s, pause_ms, and where the RARP was heard repointed_ms."""
        target = "n2" if self.at == "n1" else "n1"
        rows = self._site.client.get("ports", {"playground": name})
        port = next(row for row in rows if row["workspace"] == "web")
        mac, device = bytes.fromhex(port["mac"].replace(":", "")), port["device"]
        began = time.perf_counter()
        order = {"workspace": f"{name}/web", "host": target, "measure": False}
        generation = self._site.client.post("migrate", order)["generation"]
        repointed = self._repointed(target, device, mac)
        query = {"workspace": f"{name}/web", "generation": generation, "wait_s": WAIT_S}
        result: Json = self._site.client.get("migrations", query)
        if result["state"] != "settled":
            raise RuntimeError(f"a move ended {result['state']}: {result['cause']}")
        self.at = target
        return {
            "wall_s": time.perf_counter() - began,
            "pause_ms": result["pause_ms"],
            "repointed_ms": repointed,
        }

    def _repointed(self, target: str, device: str, mac: bytes) -> float | None:
        """ms from the RARP at the target's device to the third host's entry; None where the device came too late."""
        namespace = self._site.dataplane(target)
        opened: socket.socket | None = None
        heard_at = told_at = 0.0
        with contextlib.closing(hear_neighbours(self._site, "n3")) as third:
            try:
                until = time.monotonic() + WAIT_S
                while not told_at and time.monotonic() < until:
                    if opened is None:
                        with contextlib.suppress(OSError):
                            opened = namespaces.inside(namespace, lambda: listening(device))
                    waits = [third.socket, *([opened] if opened is not None else [])]
                    ready, _, _ = select.select(waits, [], [], 0.002 if opened is None else 1.0)
                    now = time.perf_counter()
                    if opened in ready and opened is not None and not heard_at:
                        try:
                            frame = opened.recv(128)
                        except OSError:  # what an earlier stay had left there is gone now
                            opened.close()
                            opened = None
                            continue
                        heard_at = now if frame[6:12] == mac and frame[12:14] == b"\x80\x35" else 0.0
                    if third.socket in ready and UNDERLAY[target] in (vtep for _, vtep in entries(third, mac)):
                        told_at = now
            finally:
                os.close(namespace)
                if opened is not None:
                    opened.close()
        return (told_at - heard_at) * 1000 if heard_at and told_at else None


def starts(site: Lab, ours: Ours, image: tuple[Path, Path, str], times: int) -> tuple[list[float], list[float]]:
    """Seconds to the first address, of ours and by hand, in turn; the last of each stays up, as `lab` and by hand."""
    mine, theirs = [], []
    for number in range(times):
        measure.note(f"start {number + 1}")
        name = "lab" if number == times - 1 else f"lab-{number}"
        mine.append(ours.start(name))
        log = Path(site.info.run_dir) / f"hand-{number}.log"
        file = byhand.define(site, *image, log)
        began = time.perf_counter()
        byhand.create(site, "n1", file)
        theirs.append(await_word(log, "BOUND", began))
        if name != "lab":
            ours.stop(name)
            byhand.destroy(site)
    return mine, theirs


def moves(site: Lab, ours: Ours, times: int) -> Json:
    """Moves of both in turn, under echo requests; the first of each, which finds every cache cold, is not counted."""
    address = guests.address(site, "lab", "web")
    found: dict[str, list[float]] = {key: [] for key in ("network", "hand_network", "wall", "hand_wall", "repointed")}
    lost, at = {"ours": 0, "by_hand": 0}, "n1"
    for number in range(times + 1):
        measure.note(f"move {number}")
        with asked(lambda *words: guests.enter(site, "lab", "peer", *words), address) as seen:
            mine = ours.move("lab")
        other = "n2" if at == "n1" else "n1"
        with asked(lambda *words: sandbox.command_in(site.info, words, "n3"), byhand.ADDRESS) as hand:
            wall_s, pause_ms = byhand.migrate(site, at, other)
        at = other
        if number == 0:
            continue
        found["network"].append(seen["gap_ms"] - mine["pause_ms"])
        found["hand_network"].append(hand["gap_ms"] - pause_ms)
        found["wall"].append(mine["wall_s"])
        found["hand_wall"].append(wall_s)
        if mine["repointed_ms"] is not None:
            found["repointed"].append(mine["repointed_ms"])
        lost["ours"] += max(0, seen["lost"] - int(mine["pause_ms"] * RATE / 1000))
        lost["by_hand"] += max(0, hand["lost"] - int(pause_ms * RATE / 1000))
    return {
        "network_ms": {"ours": measure.of(found["network"], 2), "by_hand": measure.of(found["hand_network"], 2)},
        "lost_beyond_pause": lost,
        "wall_s": _beside(found["wall"], found["hand_wall"]),
        "repointed_ms": measure.of(found["repointed"], 2) if found["repointed"] else measure.NO_PEER,
    }


def _beside(mine: Sequence[float], theirs: Sequence[float]) -> Json:
    return {
        "ours": measure.of(mine, 2),
        "by_hand": measure.of(theirs, 2),
        "ratio": measure.of(measure.ratios(mine, theirs), 3),
    }


def main() -> None:
    options = measure.parser(__doc__)
    options.add_argument("--moves", type=int, default=6, help="of each (default: %(default)s)")
    options.add_argument("--starts", type=int, default=3, help="of each (default: %(default)s)")
    options.add_argument("--times", type=int, default=10, help="moves of FRR's (default: %(default)s)")
    wanted = options.parse_args()
    if importlib.util.find_spec("libvirt") is None:
        measure.note("no virtual machines here: libvirt-python is not installed; the figures of before stay")
        return
    began = measure.machine()
    image = _guest_image()
    with emulated(3) as site:
        try:
            sandbox.provide_hypervisors(site.info)
        except sandbox.SandboxError as error:
            measure.note(f"no virtual machines here: {error}; the figures of before stay")
            return
        ours = Ours(site, image)
        with byhand.network(site):
            mine, theirs = starts(site, ours, image, wanted.starts)
            figures = {"start_s": _beside(mine, theirs), **moves(site, ours, wanted.moves)}
            byhand.destroy(site)
    peer = by_frr(wanted.times)
    figures["frr"] = peer or measure.NO_PEER
    own = figures["repointed_ms"]
    figures["repointed_ratio_to_frr"] = measure.ratio(
        own["median"] if own != measure.NO_PEER else 0.0, peer["repointed_ms"]["median"] if peer else None
    )
    measure.publish("migration", figures, began, wanted.results)


if __name__ == "__main__":
    main()
