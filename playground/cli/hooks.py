"""`host install-hooks`: what libvirt asks by, on this host. Owns only the words."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from playground import paths
from playground.cli import render, site
from playground.cli.failure import DONE, Failure
from playground.workspaces.drivers.libvirt import hooks


def install(args: argparse.Namespace) -> int:
    """Puts it there, or takes it away."""
    folder = Path(args.dir) if args.dir else hooks.FOLDER
    try:
        if args.remove:
            gone = [str(path) for path in hooks.remove(folder)]
            said = f"removed: {', '.join(gone)}" if gone else f"{folder}: none of ours was there"
            print(render.json_text({"removed": gone}) if args.json else said)
            return DONE
        known = hooks.version()
        if known is None:
            raise Failure("this host has no libvirtd: install libvirt first (Debian: libvirt-daemon-system)")
        name = args.name or _only_host(site.name_of(args))
        socket = paths.host_run_dir(site.name_of(args), name).absolute() / hooks.SOCKET
        is_new = hooks.install(folder, socket, known)
    except (hooks.HookRefused, OSError) as error:
        raise Failure(str(error)) from error
    path = hooks.place(folder, known)
    if not socket.parent.is_dir():
        remedy = "until it does, libvirt is told to refuse what comes here; --name HOST names another"
        print(f"playground: no agent of {name} has run here, in {socket.parent}; {remedy}", file=sys.stderr)
    if args.json:
        print(render.json_text({"path": str(path), "host": name, "socket": str(socket), "changed": is_new}))
    else:
        print(f"{path}: asks the agent of {name}" + ("; restart libvirtd once" if is_new else ", as before"))
    return DONE


def _only_host(site_name: str) -> str:
    """The one host of the site whose agent has run on this machine."""
    folder = paths.run_dir(site_name) / "hosts"
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise Failure(f"whose agent is it to ask? --name HOST says so; agents of {site_name} that ran here: {found}")
    return names[0]
