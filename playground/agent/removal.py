"""Takes away what an agent left on its host: guests, responder, data plane, files. Touches only what carries our mark.

Every step may be repeated; what is gone already is fine. The caller holds the agent's lock, so no agent makes anew what
goes here.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path

from overlay.kernel.apply import DataPlane
from overlay.kernel.gateways import GatewayPlane
from playground import paths
from playground.workspaces.drivers.api import Driver, DriverError, GuestState, Hypervisor
from playground.workspaces.drivers.libvirt import hooks
from playground.workspaces.drivers.netns import NetnsDriver

GRACE_S = 5.0
"""How long guests and the responder have to end when asked, each."""

_KILL_S = 5.0

_STATE_FILES = ("view.json", "view.part", "responder.log", "responder.leases", "libvirt/accelerator")
_RUN_FILES = (
    *("responder.sock", "responder.json", "responder.json.journal", "responder.sock.lock"),
    *("agent.json", "agent.draft", hooks.SOCKET),
)


class StillCarries(OSError):
    """Workspaces run on the host, or have their disks there; the text names them, and what to do."""


async def remove(
    host: str,
    dataplane: str,
    state: Path,
    run: Path,
    workspaces: Path,
    hypervisor: Hypervisor | None = None,
    *,
    force: bool = False,
) -> list[str]:
    """Makes this machine what it was before it was `host`; what was done, in words. Raises OSError, and StillCarries
    before anything is changed unless `force` ends workspaces too.

    Guests that other hosts of this kernel carry go on; devices that somebody else brought are given back.
    """
    done = []
    drivers: list[Driver] = [NetnsDriver(host, dataplane, folder=workspaces)]
    if hypervisor is not None:
        drivers.append(hypervisor)
    images = state / "libvirt" / "images"
    if not force and (carried := await carries(drivers, images)):
        raise StillCarries(
            f"{host} still carries {', '.join(carried)}; empty it first (`playground host drain {host}`, while its "
            "agent runs), or give --force, which ends them, with all that they have written here"
        )
    if ended := sum([await _end_guests(driver) for driver in drivers]):
        done.append(f"{_count(ended, 'workspace')} ended")
    if kept := await asyncio.to_thread(_remove_images, images):
        done.append(f"disks of {_count(kept, 'stopped machine')} removed")
    if await asyncio.to_thread(_end_responder, run / "responder.sock.lock"):
        done.append("responder ended")
    if await asyncio.to_thread(_remove_data_plane, dataplane):
        done.append(f"data plane {dataplane} removed")
    files = [*map(state.joinpath, _STATE_FILES), *map(run.joinpath, _RUN_FILES)]
    if left := [path for path in files if path.exists()]:
        done.append("files removed")
    for path in (*left, run / "agent.lock"):
        path.unlink(missing_ok=True)
    if hypervisor is not None:
        for folder in (*(state / "libvirt").glob("*"), state / "libvirt"):
            _remove_empty(folder)
    for folder in (state, run):
        _remove_empty(folder)
    return done


async def carries(drivers: Iterable[Driver], images: Path) -> list[str]:
    """What would be lost with this host, in words: workspaces that it has, and disks of machines that are stopped.
    images: folder of machines' own disks, one each. Raises OSError."""
    found, observed = [], set[str]()
    for driver in drivers:
        try:
            guests = await driver.observe()
        except DriverError as error:
            raise OSError(f"it can't be told which workspaces of driver {driver.name} are here: {error}") from error
        observed |= guests.keys()
        present = (seen for seen in guests.values() if seen.state not in (GuestState.ELSEWHERE, GuestState.ABSENT))
        found += sorted(f"{seen.playground}/{seen.name}" if seen.name else seen.guest for seen in present)
    stopped = [folder for folder in _folders(images) if folder.name not in observed]
    return [*found, f"disks of {_count(len(stopped), 'stopped machine')} in {images}"] if stopped else found


def _folders(images: Path) -> list[Path]:
    return sorted(images.iterdir()) if images.exists() else []


def _remove_images(images: Path) -> int:
    found = _folders(images)
    for folder in found:
        shutil.rmtree(folder)
    return len(found)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def tidy(site: str) -> None:
    """Removes the folders of a site that has nothing on this machine any more."""
    run, state = paths.run_dir(site), paths.state_dir(site)
    _remove_empty(run / "hosts")
    _remove_empty(state / "hosts")
    workspaces = paths.workspaces_dir(site)
    if not (run / "hosts").exists() and workspaces.exists() and {p.name for p in workspaces.iterdir()} <= {"lock"}:
        (workspaces / "lock").unlink(missing_ok=True)
        _remove_empty(workspaces)
    for folder, chosen in ((run, "PLAYGROUND_RUN"), (state, "PLAYGROUND_STATE")):
        _remove_empty(folder)
        if chosen not in os.environ:
            _remove_empty(folder.parent)


async def _end_guests(driver: Driver) -> int:
    end = driver.remove if isinstance(driver, Hypervisor) else driver.stop
    try:
        found = await driver.observe()
        await asyncio.gather(
            *(
                driver.depart(guest) if seen.state is GuestState.ELSEWHERE else end(guest, GRACE_S)
                for guest, seen in found.items()
            )
        )
    except DriverError as error:
        raise OSError(f"a workspace does not end: {error}") from error
    return sum(seen.state is not GuestState.ELSEWHERE for seen in found.values())


def _end_responder(lock: Path) -> bool:
    """Ends who holds the responder's lock. Raises TimeoutError when it does not end even when killed."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        if _is_free(descriptor):
            return False
        process = os.pidfd_open(int(os.pread(descriptor, 32, 0)))
        try:
            if _is_free(descriptor):  # it ended meanwhile, so that its number may be another's
                return True
            for number, seconds in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, _KILL_S)):
                signal.pidfd_send_signal(process, number)
                if select.select([process], [], [], seconds)[0]:
                    return True
        finally:
            os.close(process)
        raise TimeoutError(f"the responder that holds {lock} does not end even when killed")
    finally:
        os.close(descriptor)


def _is_free(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(lock, fcntl.LOCK_UN)
    return True


def _remove_data_plane(name: str) -> bool:
    plane, gateways = DataPlane(name), GatewayPlane(name)
    try:
        was_there = plane.path.exists()
        gateways.converge({})
        plane.remove()
        return was_there
    finally:
        gateways.close()
        plane.close()


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY):  # busy: somebody mounted it
            raise
