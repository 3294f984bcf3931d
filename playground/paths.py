"""Where files of a site lie. Pure but for the environment and the user id."""

from __future__ import annotations

import os
from pathlib import Path


def state_dir(site: str) -> Path:
    """What outlives a reboot (store, caches, logs): `$PLAYGROUND_STATE`, else /var/lib/playground for root, else
    XDG."""
    if base := os.environ.get("PLAYGROUND_STATE"):
        return Path(base) / site
    if os.geteuid() == 0:
        return Path("/var/lib/playground") / site
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "playground" / site


def run_dir(site: str) -> Path:
    """Sockets and pids: `$PLAYGROUND_RUN`, else /run/playground for root, else `$XDG_RUNTIME_DIR`, else below /tmp.

    Kept short: a Unix socket's path holds 107 bytes.
    """
    if base := os.environ.get("PLAYGROUND_RUN"):
        return Path(base) / site
    if os.geteuid() == 0:
        return Path("/run/playground") / site
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "playground" / site
    return Path(f"/tmp/playground-{os.getuid()}") / site


def controller_socket(site: str) -> Path:
    """The controller's Unix socket; whoever may open it may do everything."""
    return run_dir(site) / "controller.sock"


def sandbox_file(site: str) -> Path:
    """JSON of an emulated site's sandbox: {"pid", "started", "emulate"}; see `playground.sandbox`."""
    return run_dir(site) / "sandbox.json"


def workspaces_dir(site: str) -> Path:
    """One folder a namespace workspace, shared by all hosts of one kernel."""
    return run_dir(site) / "workspaces"


def host_run_dir(site: str, host: str) -> Path:
    """A host's own sockets (responder)."""
    return run_dir(site) / "hosts" / host


def host_state_dir(site: str, host: str) -> Path:
    """A host's own state: the cached view, its token, logs."""
    return state_dir(site) / "hosts" / host
