"""Pure. The one place that writes the command lines of the controller and the agents of an emulated site."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from playground.sandbox import echo
from playground.sandbox.plan import (
    WORLD,
    WORLD_ADDRESSES,
    HostPlan,
    Program,
    SandboxPlan,
    site_path,
    token_path,
    tokens_path,
)
from playground.uri import host_text
from playground.workspaces.drivers.libvirt import hooks

CONTROLLER_PORT = 7470

PROBED = ("203.0.113.1", "2001:db8:ffff::1")
"""Of the world's addresses, the first of each family."""

Commands = Callable[[SandboxPlan], tuple[Program, ...]]
"""What a sandbox runs; tests give stand-ins."""


def programs(plan: SandboxPlan) -> tuple[Program, ...]:
    """The controller beside the underlay, an agent on each host, and who answers in the world."""
    world = Program(WORLD, (sys.executable, "-I", "-S", echo.__file__, *WORLD_ADDRESSES), WORLD)
    return (_controller(plan), *(_agent(plan, host) for host in plan.hosts), world)


def hypervisor(site: str, run: Path, state: Path, host: str, address: str) -> Program:
    """The libvirtd of an emulated host. run, state: the site's. address: on the underlay."""
    argv = [sys.executable, "-m", "playground.sandbox.hypervisor", "--site", site, "--name", host]
    argv += ["--address", address, "--folder", str(state / "hosts" / host / "hypervisor")]
    argv += ["--hook", str(run / "hosts" / host / hooks.SOCKET)]
    return Program(f"libvirtd-{host}", tuple(argv), host)


def _at(plan: SandboxPlan) -> str:
    return f"{host_text(plan.controller_address)}:{CONTROLLER_PORT}"


def _controller(plan: SandboxPlan) -> Program:
    argv = [sys.executable, "-m", "playground.controller", "--site", plan.site, "--listen", _at(plan)]
    argv += ["--socket", f"{plan.run_dir}/controller.sock"]
    argv += ["--store", f"{plan.state_dir}/store.db"]  # in_memory_state: a tmpfs lies there
    argv += ["--site-file", str(site_path(plan)), "--tokens", str(tokens_path(plan))]
    for address in PROBED:
        argv += ["--world", address]
    return Program("controller", tuple(argv))


def _agent(plan: SandboxPlan, host: HostPlan) -> Program:
    argv = [sys.executable, "-m", "playground.agent", "--site", plan.site, "--name", host.name]
    argv += ["--controller", f"http://{_at(plan)}", "--underlay", host.address]
    argv += ["--token-file", str(token_path(plan, host.name))]
    argv += ["--state-dir", f"{plan.state_dir}/hosts/{host.name}", "--run-dir", f"{plan.run_dir}/hosts/{host.name}"]
    argv += ["--libvirt-peer", f"qemu+tcp://{host_text(host.address)}/system"]
    return Program(f"agent-{host.name}", tuple(argv), host.name)
