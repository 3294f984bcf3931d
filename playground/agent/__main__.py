"""`playground agent`: composes one host's data plane, drivers, responder and connection, and runs until SIGTERM.

Ending it, however, touches no packet: workspaces, the data plane and the responder go on without it. `--remove` ends
those too, and the host is as it was.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import fcntl
import gc
import logging
import os
import secrets
import signal
import sys
import time
from pathlib import Path

from playground import __version__, paths
from playground.hypervisors import moves

EXAMPLES = """\
examples (docs/hosts.md goes through all of it):
  playground --site lab hosts token n1 > n1.token      on the controller's machine, once; then bring it here
  playground agent --site lab --name n1 --underlay 198.51.100.11 \\
    --controller https://198.51.100.1:7470 --ca tls.pem --token-file n1.token
  playground agent --site lab --name n1 --remove       take away all that an agent left here

exit codes:
  0   ended as asked, by SIGTERM or SIGINT
  1   it can't start, or --remove could not end it all; stderr says why
  2   usage"""


LIBVIRT = "qemu:///system"


def parser() -> argparse.ArgumentParser:
    """The agent's own flags."""
    made = argparse.ArgumentParser(
        prog="playground agent",
        description="Makes this machine a host of a site: converges it to what the controller says. Needs root, or a "
        "user namespace of its own.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--site", default=os.environ.get("PLAYGROUND_SITE", "local"), help="the site's name")
    made.add_argument("--name", required=True, help="this host's name in the site file")
    made.add_argument("--controller", action="append", metavar="URL", help="http(s)://HOST:PORT; may be repeated")
    made.add_argument("--token-file", type=Path, help="this host's secret (playground hosts token NAME)")
    made.add_argument("--ca", type=Path, help="who signed the controller's certificate, PEM (default: the system's)")
    made.add_argument("--underlay", metavar="ADDRESS", help="this host's own address for tunnels, IPv4 or IPv6")
    made.add_argument("--state-dir", type=Path, help="where the cached view is kept")
    made.add_argument("--run-dir", type=Path, help="where the responder's socket and state lie")
    made.add_argument(
        "--workspaces-dir", type=Path, help="folder of namespace workspaces, shared by the hosts of one kernel"
    )
    made.add_argument(
        "--dataplane", default="playground", metavar="NAME", help="name of the data plane's network namespace"
    )
    made.add_argument(
        "--libvirt", default=LIBVIRT, metavar="URI", help=f"this host's libvirtd, for virtual machines ({LIBVIRT})"
    )
    made.add_argument(
        "--libvirt-peer", metavar="URI", help="how other hosts' libvirtd reach it (qemu+tls://UNDERLAY/system)"
    )
    made.add_argument(
        "--offer",
        metavar="WORD",
        action="append",
        default=[],
        type=_offer,
        help="what this host has that workspaces may require: WORD, or KEY=VALUE; may be repeated",
    )
    made.add_argument(
        "--remove",
        action="store_true",
        help="end what an agent left here (responder, data plane, files) instead of being one; refused while "
        "workspaces are here",
    )
    made.add_argument("--force", action="store_true", help="with --remove: end workspaces that are here, too")
    made.add_argument(
        "--status", action="store_true", help="say how this host stands with its controllers instead of being one"
    )
    made.add_argument("--log-level", default="INFO")
    return made


def _offer(text: str) -> tuple[str, str]:
    from playground.agent.inventory import fact

    try:
        return fact(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


OFFER_S = 2.0
"""How long a libvirtd that has come, or gone, is not known to a controller."""

TAKEOVER_S = 2.0
"""How long an agent of this host that was told to end has for it."""

_M_ARENA_MAX = -8  # malloc.h of glibc

NEEDED = ("controller", "token_file", "underlay")
"""Options that an agent can't do without; a removal and a question can."""


def main(argv: list[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT; 1 when it can't start."""
    options = parser().parse_args(argv)
    missing = [f"--{name.replace('_', '-')}" for name in NEEDED if not getattr(options, name)]
    if options.status:
        return _say_status(options)
    if missing and not options.remove:
        parser().error(f"the following arguments are required: {', '.join(missing)}")
    logging.basicConfig(
        stream=sys.stderr, level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    try:
        return asyncio.run(_run(options))
    except OSError as error:
        print(f"playground agent: {_said(error)}", file=sys.stderr)
        return 1


def _said(error: OSError) -> str:
    """Why it can't start: what the system refused, of which file, and the remedy where rights are missing."""
    said = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        return f"{said}; an agent needs root, or a user namespace of its own"
    return said


def _say_status(options: argparse.Namespace) -> int:
    """0 while a controller is in charge."""
    from playground.agent.standing import told

    run = options.run_dir or paths.host_run_dir(options.site, options.name)
    sentence, is_connected = told(options.name, run, time.time())
    print(sentence)
    return 0 if is_connected else 1


async def _run(options: argparse.Namespace) -> int:
    gc.set_threshold(20_000, 20, 100)  # by default all that lives long is looked at again and again
    with contextlib.suppress(AttributeError):  # another libc, which has no such word
        # each thread that waits for the kernel would have a heap of its own: 3 MiB at a thousand ports
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    from overlay.kernel import namespaces
    from overlay.kernel.apply import DataPlane
    from overlay.kernel.gateways import GatewayPlane
    from playground import wire
    from playground.agent.agent import Agent
    from playground.agent.gateways import NAT, Gateways
    from playground.agent.inventory import Underlay, cpus, facts, memory_mib, refuse_hidden_names
    from playground.agent.link import Link
    from playground.agent.removal import remove, tidy
    from playground.agent.responding import keep_responder
    from playground.agent.standing import FILE, StandingFile
    from playground.records import Driver as DriverRecord
    from playground.responder.client import Client
    from playground.workspaces.drivers.api import Driver
    from playground.workspaces.drivers.external import ExternalDriver
    from playground.workspaces.drivers.libvirt import hooks
    from playground.workspaces.drivers.libvirt.driver import LibvirtDriver, peer_uri
    from playground.workspaces.drivers.netns import NetnsDriver
    from policies.kernel.enforcement import Enforcement

    refuse_hidden_names(namespaces.DIRECTORY)
    state = options.state_dir or paths.host_state_dir(options.site, options.name)
    run = options.run_dir or paths.host_run_dir(options.site, options.name)
    workspaces = options.workspaces_dir or paths.workspaces_dir(options.site)
    for folder in (state, run, workspaces):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not await _is_alone(run / "agent.lock"):
        print(
            f"playground agent: another agent of host {options.name} runs already ({run / 'agent.lock'})",
            file=sys.stderr,
        )
        return 1
    peer = options.libvirt_peer or peer_uri("tls", options.underlay or "")
    hypervisor = LibvirtDriver(
        Path("/run/netns") / options.dataplane,
        options.libvirt,
        peer,
        state / "libvirt",
        lambda guest: agent.changed(guest),
        lambda port: agent.told(port),
        lambda guest: agent.paused(guest),
    )
    if options.remove:
        removed = await remove(options.name, options.dataplane, state, run, workspaces, hypervisor, force=options.force)
        removed += [str(path) for path in hooks.remove(hooks.FOLDER, run.absolute() / hooks.SOCKET)]
        tidy(options.site)
        print(f"{options.name}: {', '.join(removed) or 'nothing was left here'}")
        return 0
    agent: Agent
    token = options.token_file.read_text().strip()
    underlay = Underlay(options.underlay)
    underlay.look()
    dataplane, gateways = DataPlane(options.dataplane), GatewayPlane(options.dataplane)
    os.environ["PLAYGROUND_DATAPLANE"] = str(dataplane.path)  # for the tools of `execute`
    # the site's own folders beside this host's: on a machine with a controller they hold its store and its socket
    hidden = [state, run, options.token_file, paths.state_dir(options.site), paths.run_dir(options.site)]
    drivers: dict[str, Driver] = {
        "netns": NetnsDriver(options.name, options.dataplane, folder=workspaces, hidden=hidden),
        "external": ExternalDriver(options.dataplane),
    }
    drivers["libvirt"] = hypervisor
    is_offered = False

    instance = secrets.token_hex(8)

    async def hello() -> wire.Hello:
        nonlocal is_offered
        underlay.look_again()
        is_offered = await hypervisor.offered()
        offers = [DriverRecord(d.name, d.move, d.domain) for d in drivers.values() if d is not hypervisor]
        if is_offered:
            types = await hypervisor.types()
            own = (await hypervisor.archs(), str(hypervisor.folder), types)
            if moves(types):
                offers.append(DriverRecord(hypervisor.name, hypervisor.move, "", hypervisor.peer, *own))
            else:  # what runs here stays here
                offers.append(DriverRecord(hypervisor.name, "same-kernel", options.name, "", *own))
        return wire.Hello(
            host=options.name,
            protocol=wire.PROTOCOL,
            version=__version__,
            underlay=options.underlay,
            underlay_mtu=underlay.mtu,
            drivers=[*offers, NAT],
            cpus=cpus(),
            memory_mib=memory_mib(),
            instance=instance,
            facts=facts(options.offer),
        )

    link = Link(
        options.controller,
        options.name,
        token,
        str(options.ca) if options.ca else None,
        hello,
        lambda message: agent.said(message),
        lambda connected, cause: agent.connection_changed(connected, cause),
    )
    responder = Client(
        run / "responder.sock",
        on_leased=lambda leased: agent.leased(leased),
        on_problem=lambda problem: agent.problem(problem),
        on_effect=lambda: agent.answering(),
        on_given=lambda lease: agent.given(lease),
        on_router=lambda router: agent.router(router),
    )
    agent = Agent(
        host=options.name,
        underlay=options.underlay,
        dataplane=dataplane,
        dataplane_name=options.dataplane,
        door=Enforcement(dataplane.path),
        gateways=Gateways(gateways),
        drivers=drivers,
        responder=responder,
        link=link,
        cache=state / "view.json",
        standing=StandingFile(run / FILE),
        hook=run.absolute() / hooks.SOCKET,
        consoles=state / "libvirt" / "consoles",
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    responding = asyncio.create_task(
        keep_responder(
            lambda: responder.is_connected,
            lambda: responder.version,
            run / "responder.sock",
            run / "responder.json",
            state / "responder.leases",
            options.dataplane,
            state / "responder.log",
        )
    )
    working = asyncio.create_task(agent.run())
    stopping = asyncio.create_task(stop.wait())

    async def keep_offer() -> None:
        while True:
            await asyncio.sleep(OFFER_S)
            if await hypervisor.offered() != is_offered:
                await link.again()

    offering = asyncio.create_task(keep_offer())
    done, _ = await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    for task in (working, responding, offering):
        task.cancel()
    await asyncio.gather(working, responding, offering, return_exceptions=True)
    if working in done:
        working.result()
    return 0


async def _is_alone(lock: Path) -> bool:
    """Takes the host's lock for the life of this process; an agent that is ending has TAKEOVER_S to end."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + TAKEOVER_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
