"""Workspaces as namespaces on this kernel. Makes, moves and ends them; must not know of bridges, addresses or DHCP.

A guest is a small init (`playground/workspaces/guest/init.py`) that is PID 1 of its own PID namespace, with its own
mount, UTS and network namespace, and a hidden NIC namespace. No namespace has a name or a mount: when init ends, the
kernel takes all of it back. Agents of one kernel share a folder of entries (`ledger`), so each can move a guest to
itself.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from select import POLLIN, poll
from typing import TypeVar

import msgspec

from overlay.kernel.netlink import NetlinkError
from playground.records import Move
from playground.workspaces.drivers import nic
from playground.workspaces.drivers.api import DriverError, Guest, GuestState, Observed, Process
from playground.workspaces.drivers.ledger import Entry, Ledger, new_entry
from playground.workspaces.drivers.processes import sharing_domain

T = TypeVar("T")


class _Ended(DriverError):
    """The guest's init is no more, maybe since a moment ago."""


_SCRIPTS = Path(__file__).parent.parent / "guest"
_NETNS_DIR = Path("/run/netns")
_NIC_NAMESPACE = 100
_LAUNCH_S, _KILL_S = 20.0, 5.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TIOCSPTLCK, _TIOCGPTPEER = 0x40045431, 0x5441
"""Unlocks a terminal; opens its slave by its master, wherever the devpts is mounted (asm-generic/ioctls.h, Linux 4.13).
"""
_INHERITED = ("LANG", "LC_ALL", "TERM", "TZ")


class NetnsDriver:
    """The driver of one host. Blocking kernel work runs in threads of its own, so a slow stop delays nobody else.

    dataplane: the data plane namespace's name in /run/netns, or the path of a namespace. folder: shared by all hosts
    that may exchange guests.
    """

    name = "netns"
    move: Move = "same-kernel"

    def __init__(self, host: str, dataplane: str = "playground", *, folder: Path, hidden: Sequence[Path] = ()) -> None:
        self._host = host
        self._dataplane = _NETNS_DIR / dataplane
        self._ledger = Ledger(folder.absolute())
        self._hidden = [str(path.absolute()) for path in (folder, *hidden)]
        self._threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="netns")
        self.domain = sharing_domain(folder)

    async def observe(self, guests: Collection[str] | None = None) -> dict[str, Observed]:
        """Every guest with anything on this host, or these of them, by id, as found now.

        A RUNNING guest with a cause has lost an end in the data plane namespace; `prepare` makes it again.
        """
        return await self._run(self._observe, guests)

    async def prepare(self, guest: Guest) -> None:
        """The guest's namespaces and all ends exist, its NICs are down. Of a guest that runs here: mends its ends.

        Raises DriverError, also when another host carries the guest, or when it runs with other NICs.
        """
        await self._run(self._prepare, guest)

    async def prepare_arrival(self, guest: Guest) -> None:
        """A second leg to this host, which delivers unicast only; the guest notices nothing."""
        await self._run(self._prepare_arrival, guest)

    async def start(self, guest: Guest) -> None:
        """The NICs go up and their DHCP clients run. Raises DriverError when the guest is not prepared here."""
        await self._run(self._start, guest)

    async def renew(self, guest_id: str) -> None:
        """Asks the guest's init, which asks its DHCP clients. Raises DriverError when it does not run."""
        await self._run(self._renew, guest_id)

    async def activate(self, guest: Guest, move: int = 0) -> float:
        """Flips all NICs to this host. The guest never pauses: the answer is the time of the flip itself, in ms."""
        return await self._run(self._activate, guest, move)

    async def reclaim(self, guest: Guest, move: int) -> float:
        """The same flip, in the ledger as the end of that move: whoever still means to arrive by it finds so there."""
        return await self._run(self._reclaim, guest, move)

    async def depart(self, guest_id: str) -> None:
        """Removes this host's legs; a flip that was begun and not finished is taken back first. Raises DriverError
        while the guest's traffic still goes by this host."""
        await self._run(self._leave, guest_id)

    async def stop(self, guest_id: str, grace_s: float) -> None:
        """Ends the guest and removes its ends. Where another host carries it, only this host's ends go."""
        await self._run(self._stop, guest_id, grace_s)

    async def terminal(self, guest_id: str) -> tuple[int, int]:
        """From the guest's devpts: with one of the host's, `tty` and whatever else asks for its name would find none.
        Raises DriverError when the guest does not run."""
        return await self._run(self._terminal, guest_id)

    async def exec(
        self, guest_id: str, argv: Sequence[str], stdin: int, stdout: int, stderr: int, tty: bool
    ) -> Process:
        """Runs argv as root in all namespaces of the guest, with a plain environment and / as folder.

        The process is this process's child: wait for it; it ends with the command's exit code, 128 + N after signal N,
        126 or 127 when there was nothing to run. It passes TERM, INT, HUP, QUIT and WINCH on. When this process dies
        the command gets SIGHUP, and a second later SIGKILL.
        """
        return await self._run(self._exec, guest_id, tuple(argv), (stdin, stdout, stderr), tty)

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        except subprocess.TimeoutExpired as error:
            raise DriverError(f"its init did not come up within {error.timeout:.0f} s") from error
        except NetlinkError as error:
            raise DriverError(str(error.args[-1])) from error
        except OSError as error:
            raise DriverError(str(error)) from error

    # Everything below blocks and runs in a thread.

    def _observe(self, guests: Collection[str] | None) -> dict[str, Observed]:
        entries = self._ledger.read_all(guests)
        ends = None if guests is None else {wanted.device for entry in entries for wanted in entry.nics}
        try:
            with _opened(self._dataplane) as dataplane:
                devices = nic.device_names(dataplane, ends)
        except FileNotFoundError:
            devices = frozenset()
        found = (self._observe_one(entry, devices) for entry in entries)
        return {seen.guest: seen for seen in found if seen is not None}

    def _observe_one(self, entry: Entry, devices: frozenset[str]) -> Observed | None:
        lost = [wanted.device for wanted in entry.nics if wanted.device not in devices]
        alive = entry.is_alive()
        if entry.host != self._host:
            is_here = alive and len(lost) < len(entry.nics)
            return _seen(entry, GuestState.ELSEWHERE) if is_here else None
        if entry.pid == 0:
            return _seen(entry, GuestState.ABSENT, "it is being made, or its making was interrupted")
        if not alive:
            return _seen(entry, GuestState.FAILED, f"its init (pid {entry.pid}) has ended unasked")
        cause = f"the end {lost[0]} is gone from the data plane namespace" if lost else ""
        if not entry.wired:
            cause = "its ends are being made, or their making was interrupted"
        if entry.running:
            return _seen(entry, GuestState.RUNNING, cause)
        return _seen(entry, GuestState.ABSENT if cause else GuestState.PREPARED, cause)

    def _prepare(self, guest: Guest) -> None:
        with self._ledger.locked(guest.id) as lock, _opened(self._dataplane) as dataplane:
            entry = self._ledger.read(guest.id)
            if entry is not None and not self._is_usable(entry, guest):
                self._end(entry, 0.0)
                entry = None
            if entry is None:
                nic.remove_devices(dataplane, guest.nics)
                self._ledger.write(new_entry(guest, self._host))
                self._launch(guest, lock)
                entry = self._alive(guest.id)
            else:
                self._ledger.write(msgspec.structs.replace(entry, wired=False))
            with _wiring(entry) as wiring:
                with _opened(Path(f"/proc/{entry.pid}/ns/net")) as inside:
                    wiring.make_nics(inside, entry.nics)
                wiring.make_legs(self._host, dataplane, entry.nics)
                wiring.flip(self._host, entry.nics)
            self._ledger.write(msgspec.structs.replace(entry, wired=True))

    def _is_usable(self, entry: Entry, guest: Guest) -> bool:
        """Whether `prepare` goes on with the guest as it is, or makes it anew. Raises DriverError for neither."""
        if not entry.is_alive():
            return False
        if entry.host != self._host:
            with _wiring(entry) as wiring:
                if wiring.has_legs(entry.host, entry.nics):
                    raise DriverError(f"it runs on host {entry.host}: move it from there, or stop it there first")
            return False  # its host is gone, and with that host's namespace the legs: nobody else can end it
        if entry.nics == guest.nics and entry.hostname == guest.hostname:
            return True
        if entry.running:
            raise DriverError("its NICs differ from those it runs with: stop it first")
        return False

    def _launch(self, guest: Guest, lock: int) -> None:
        client = _dhcp_client()
        folder = self._ledger.room(guest.id)
        hidden = msgspec.json.encode(self._hidden).decode()
        argv = [sys.executable, "-I", "-S", str(_SCRIPTS / "init.py"), str(folder), guest.hostname, hidden, *client]
        ended = subprocess.run(
            argv,
            timeout=_LAUNCH_S,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(lock,),  # should this process die, the half-made guest stays locked until its launcher is done
            start_new_session=True,
            env={"PATH": _PATH},
            text=True,
        )
        if ended.returncode != 0:
            raise DriverError(ended.stderr.strip().rpartition("\n")[2] or "the workspace's init could not be started")

    def _prepare_arrival(self, guest: Guest) -> None:
        with self._ledger.locked(guest.id), _opened(self._dataplane) as dataplane:
            entry = self._alive(guest.id)
            with _wiring(entry) as wiring:
                wiring.make_legs(self._host, dataplane, entry.nics)

    def _start(self, guest: Guest) -> None:
        with self._ledger.locked(guest.id):
            entry = self._alive(guest.id)
            if entry.host != self._host:
                raise DriverError(f"it runs on host {entry.host}")
            with _opened(Path(f"/proc/{entry.pid}/ns/net")) as inside:
                nic.raise_nics(inside, entry.nics)
            with _process(entry) as init:
                signal.pidfd_send_signal(init, signal.SIGUSR1)
            self._ledger.write(msgspec.structs.replace(entry, running=True))

    def _renew(self, guest_id: str) -> None:
        with self._ledger.locked(guest_id), _process(self._alive(guest_id)) as init:
            signal.pidfd_send_signal(init, signal.SIGUSR2)

    def _activate(self, guest: Guest, move: int) -> float:
        with self._ledger.locked(guest.id):
            entry = self._alive(guest.id)
            if move and entry.move >= move and entry.host != self._host:
                raise DriverError(f"it was called off: host {entry.host} has it")
            return self._flip(entry, move)

    def _reclaim(self, guest: Guest, move: int) -> float:
        with self._ledger.locked(guest.id):
            entry = self._alive(guest.id)
            if entry.move > move:
                raise DriverError(f"a later move has brought it to host {entry.host}")
            return self._flip(entry, move)

    def _flip(self, entry: Entry, move: int) -> float:
        with _wiring(entry) as wiring:
            if not wiring.has_legs(self._host, entry.nics):
                raise DriverError("its arrival on this host is not prepared")
            pause_ms = wiring.flip(self._host, entry.nics)
        self._ledger.write(msgspec.structs.replace(entry, host=self._host, move=move))
        return pause_ms

    def _leave(self, guest_id: str) -> None:
        with self._ledger.locked(guest_id):
            entry = self._ledger.read(guest_id)
            if entry is None:
                return
            if not entry.is_alive():
                self._remove_devices(entry)
            elif entry.host == self._host:
                raise DriverError("its traffic goes by this host: move it away first")
            else:
                self._withdraw(entry)

    def _withdraw(self, entry: Entry) -> None:
        """Removes this host's legs of a guest that another host carries."""
        with _wiring(entry) as wiring:
            if wiring.has_legs(entry.host, entry.nics):
                wiring.flip(entry.host, entry.nics)
            wiring.remove_legs(self._host, entry.nics)

    def _stop(self, guest_id: str, grace_s: float) -> None:
        with self._ledger.locked(guest_id):
            entry = self._ledger.read(guest_id)
            if entry is None:
                self._ledger.remove(guest_id)
            elif entry.host != self._host and entry.is_alive():
                self._withdraw(entry)
            else:
                self._end(entry, grace_s)

    def _end(self, entry: Entry, grace_s: float) -> None:
        """Ends the guest, asked first; then no end of it is left, on any host. Called with its lock held."""
        init = entry.open()
        if init is not None:
            try:
                with _wiring(entry) as wiring:
                    signal.pidfd_send_signal(init, signal.SIGTERM)
                    if not _ends_within(init, grace_s):
                        signal.pidfd_send_signal(init, signal.SIGKILL)
                        if not _ends_within(init, _KILL_S):
                            raise DriverError(f"its init (pid {entry.pid}) does not end even when killed")
                    wiring.remove_legs(None, entry.nics)
            except (_Ended, ProcessLookupError):
                _ends_within(init, _KILL_S)  # it ended of itself while we looked
            finally:
                os.close(init)
        self._remove_devices(entry)
        self._ledger.remove(entry.id)

    def _remove_devices(self, entry: Entry) -> None:
        """Removes what a dead guest left here, without waiting for the kernel to take its namespaces back."""
        try:
            with _opened(self._dataplane) as dataplane:
                nic.remove_devices(dataplane, entry.nics)
        except FileNotFoundError:
            return  # no data plane, so no ends in it

    def _alive(self, guest_id: str) -> Entry:
        entry = self._ledger.read(guest_id)
        if entry is None or not entry.is_alive():
            raise _Ended("it does not run on this kernel" if entry is None else "its init has ended")
        return entry

    def _terminal(self, guest_id: str) -> tuple[int, int]:
        entry = self._alive(guest_id)
        flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
        with _process(entry):
            master = os.open(f"/proc/{entry.pid}/root/dev/pts/ptmx", flags)
        try:
            fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("=i", 0))
            return master, fcntl.ioctl(master, _TIOCGPTPEER, flags)
        except OSError:
            os.close(master)
            raise

    def _exec(self, guest_id: str, argv: tuple[str, ...], standard: tuple[int, int, int], tty: bool) -> Process:
        entry = self._alive(guest_id)
        script = [sys.executable, "-I", "-S", str(_SCRIPTS / "enter.py")]
        who = [str(os.getpid()), str(entry.pid), str(entry.started), "tty" if tty else "plain"]
        environment = {"PATH": _PATH, "HOME": "/root", "HOSTNAME": entry.hostname}
        environment |= {key: os.environ[key] for key in _INHERITED if key in os.environ}
        # posix_spawn and not Popen: a forgotten Popen object would reap the child that the caller is to wait for.
        copies: list[int] = []
        try:
            copies += [os.dup(fd) for fd in standard]
            actions = [(os.POSIX_SPAWN_DUP2, copy, target) for target, copy in enumerate(copies)]
            command = [*script, *who, *argv]
            return Process(os.posix_spawn(command[0], command, environment, file_actions=actions, setsigmask=[]))
        finally:
            for copy in copies:
                os.close(copy)


def _seen(entry: Entry, state: GuestState, cause: str = "") -> Observed:
    nics, reboots = tuple(entry.nics), entry.reboots
    return Observed(entry.id, state, cause, entry.playground, entry.name, entry.move, nics, reboots=reboots)


@contextmanager
def _opened(namespace: Path) -> Iterator[int]:
    """A descriptor of a namespace."""
    try:
        descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, f"there is no namespace {namespace}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _process(entry: Entry) -> Iterator[int]:
    """A pidfd of the guest's init."""
    descriptor = entry.open()
    if descriptor is None:
        raise _Ended("its init has ended")
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _wiring(entry: Entry) -> Iterator[nic.Wiring]:
    """The guest's NIC namespace. It stays reachable for as long as this is open, also when init ends meanwhile."""
    try:
        with _process(entry), _opened(Path(f"/proc/{entry.pid}/fd/{_NIC_NAMESPACE}")) as namespace:
            wiring = nic.Wiring(namespace)
    except FileNotFoundError as error:
        raise _Ended("its init has ended") from error
    try:
        yield wiring
    finally:
        wiring.close()


def _ends_within(process: int, seconds: float) -> bool:
    watch = poll()
    watch.register(process, POLLIN)
    return bool(watch.poll(seconds * 1000))


def _dhcp_client() -> list[str]:
    """The command of a busybox-style DHCP client. Raises DriverError naming the package."""
    if client := shutil.which("udhcpc"):
        return [client]
    if box := shutil.which("busybox"):
        applets = subprocess.run([box, "--list"], stdout=subprocess.PIPE, text=True).stdout.split()
        if "udhcpc" in applets:
            return [box, "udhcpc"]
    raise DriverError("no udhcpc on this machine: install the package busybox (Debian) or udhcpc (Ubuntu)")
