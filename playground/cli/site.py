"""Says which site a command means, and gives the client to its controller. Starts and stops nothing."""

from __future__ import annotations

import argparse
import os
import re
import time
from pathlib import Path
from typing import Any

from playground import paths
from playground.cli.failure import Failure, UsageFailure
from playground.client import Client, UnixAddress, Unreachable, parse_address

DEFAULT = "local"

HOSTS_UP_S = 15.0
LOOK_S = 0.02

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


def name_of(args: argparse.Namespace) -> str:
    """`--site`, else PLAYGROUND_SITE, else `local`. Raises UsageFailure: it names folders and sockets."""
    site = args.site or os.environ.get("PLAYGROUND_SITE") or DEFAULT
    if not _NAME.fullmatch(site):
        raise UsageFailure(f"{site!r} is no site name; use up to 32 lower-case letters, digits and inner hyphens")
    return str(site)


def is_remote(args: argparse.Namespace) -> bool:
    """Whether the controller is named by address: then nothing is started, stopped or looked for on this machine."""
    return bool(args.server or os.environ.get("PLAYGROUND_SERVER"))


def client_of(args: argparse.Namespace, timeout: float = 30.0) -> Client:
    """The client of the site's controller; whether it answers shows with the first request."""
    server = args.server or os.environ.get("PLAYGROUND_SERVER")
    if not server:
        return Client(UnixAddress(paths.controller_socket(name_of(args))), timeout=timeout)
    try:
        address = parse_address(server, _ca(args.ca))
    except ValueError as error:
        raise UsageFailure(str(error)) from error
    return Client(address, _token(args.token_file), timeout)


def _ca(file: str | None) -> str | None:
    file = file or os.environ.get("PLAYGROUND_CA")
    if file is not None and not os.access(file, os.R_OK):
        raise Failure(f"{file}: the authority's certificate can't be read; --ca names a PEM file")
    return file


def _token(file: str | None) -> str | None:
    if file is None:
        return os.environ.get("PLAYGROUND_TOKEN")
    try:
        token = Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{file}: the token can't be read: {getattr(error, 'strerror', None) or error}") from error
    if not token:
        raise Failure(f"{file}: the token file is empty; the site's admin gives tokens")
    return token


def emulate(
    name: str, hosts: int, *, in_memory_state: bool = False, leash: bool = False, hypervisors: bool = False
) -> None:
    """Makes the emulated site, or joins it: its controller answers, and its hosts are up, or had `HOSTS_UP_S` to be.

    Raises Failure with nothing new left behind. leash: it ends with this process. hypervisors: its hosts have a
    libvirtd each.
    """
    from playground.doctor.hypervisors import why_no_hypervisors
    from playground.doctor.packages import install_line, missing
    from playground.sandbox import SandboxError, ensure, provide_hypervisors

    if absent := missing(for_tests=False):
        lacking = ", ".join(f"{tool.applet or tool.program} ({tool.purpose})" for tool in absent)
        raise Failure(f"this machine lacks {lacking}; {install_line(absent)}")
    if hypervisors and (reason := why_no_hypervisors()):
        raise Failure(reason)
    try:
        made = ensure(name, hosts, in_memory_state=in_memory_state, leash=leash)
        if hypervisors:
            provide_hypervisors(made)
    except SandboxError as error:
        raise Failure(str(error)) from error
    # Workspaces go to hosts that are up: all on the first one, if nobody waited for the others.
    client = Client(UnixAddress(paths.controller_socket(name)))
    deadline = time.monotonic() + HOSTS_UP_S
    while time.monotonic() < deadline:
        found = answering(client)
        if found is not None and found.get("up", 0) >= hosts:
            return
        time.sleep(LOOK_S)


def is_emulated(name: str) -> bool:
    """Whether the site is a sandbox of this machine, or the remains of one."""
    from playground.sandbox import find

    return find(name) is not None or (paths.state_dir(name) / "emulated.json").exists()


def end(name: str) -> None:
    """Ends an emulated site whole: no part of it needs to be alive. Raises Failure."""
    from playground.sandbox import SandboxError, stop

    try:
        stop(name)
    except SandboxError as error:
        raise Failure(str(error)) from error


def answering(client: Client) -> dict[str, Any] | None:
    """What the controller says of its site; None where none answers."""
    try:
        site: dict[str, Any] = client.get("site")
    except Unreachable:
        return None
    return site
