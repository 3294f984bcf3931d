"""Pure. What the API says of the world: desired, programmed and probed, and one sentence of cause where they differ.

Every function reads a `World` and changes nothing; the shapes are those of `docs/api.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from overlay.state import PortId, port_device
from playground.controller import strangers
from playground.controller.rooms import takes_room_of
from playground.controller.world import Grid, World, givers
from playground.gateways import gateway_name, object_name
from playground.placement import given_cpus, given_memory_mib
from playground.records import (
    BindingRecord,
    NetworkRecord,
    ObservedHost,
    ObservedPort,
    PortRecord,
    ProbeRecord,
    WorkspaceRecord,
)

Json = dict[str, Any]


def host_state(world: World, host: str) -> str:
    """up | gone (seen before) | never."""
    if host in world.alive:
        return "up"
    return "gone" if world.hosts[host].drivers else "never"


def hosts(world: World) -> list[Json]:
    """Every host of the site, by name."""
    counts: dict[str, int] = {}
    for grid in world.grids.values():
        for binding in grid.bindings.values():
            if gateway_name(binding.workspace) is not None:
                continue
            counts[binding.active] = counts.get(binding.active, 0) + 1
    taken = _taken(world)
    came_or_went = {
        event.object: event.at_utc_s
        for _, event in sorted(world.events.items())
        if event.what in ("host-up", "host-gone")
    }
    found = []
    for name, record in sorted(world.hosts.items()):
        seen = world.observed_hosts.get(name)
        found.append(
            {
                "name": name,
                "site": record.site,
                "state": host_state(world, name),
                "drain": _drain(world, name),
                "since": came_or_went.get(f"host {name}"),
                "underlay": record.underlay,
                "ports": counts.get(name, 0),
                "labels": record.labels,
                "offers": record.facts,
                "cpus": {"given": given_cpus(record), "taken": taken[name][0]},
                "memory_mib": {"given": given_memory_mib(record), "taken": taken[name][1]},
                "drivers": [driver.name for driver in record.drivers],
                "version": record.version,
                "problems": _problems(world, seen) if seen else [],
                "repaired": dict(seen.repaired) if seen else {},
            }
        )
    return found


def _taken(world: World) -> dict[str, tuple[float, int]]:
    """cpus and MiB of memory that workspaces take of each host, as they declare them."""
    found = dict.fromkeys(world.hosts, (0.0, 0))
    for grid in world.grids.values():
        for workspace in grid.workspaces.values():
            for host in takes_room_of(grid, workspace) & found.keys():
                cpus, memory_mib = found[host]
                found[host] = round(cpus + workspace.cpus, 6), memory_mib + workspace.memory_mib
    return found


def on_host(world: World, host: str) -> list[WorkspaceRecord]:
    """Workspaces and gateways that are on a host, come to it, leave it, or have left something there, in order; of a
    host that is gone those alone that are placed there."""
    found = (
        workspace
        for playground, names in world.ties.concerned.get(host, {}).items()
        for workspace in (world.workspace(playground, name) for name in names)
        if workspace is not None and (host in world.alive or workspace.host == host)
    )
    return sorted(found, key=lambda one: (one.playground, natural(one.name)))


def _drain(world: World, host: str) -> str | None:
    """draining | drained, None where nobody wants it empty."""
    if host not in world.drains:
        return None
    return "draining" if on_host(world, host) else "drained"


def _problems(world: World, seen: ObservedHost) -> list[str]:
    unpoliced = [f"can't enforce policies: {seen.cannot_police}"] if seen.cannot_police else []
    return [*unpoliced, *seen.problems, *strangers.of_host(world, seen)]


def port_state(world: World, grid: Grid, port: PortRecord) -> tuple[str | None, str, str]:
    """(host, state, cause) of a port: forwarding | gated | waiting | failed | stopped | unknown | unplaced."""
    workspace = grid.workspaces.get(port.workspace)
    binding = grid.bindings.get(port.id)
    if workspace is not None and workspace.host is not None and binding is None:
        holder = world.holder(port)
        return (
            workspace.host,
            "waiting",
            f"host {holder} still holds its address for another" if holder else "is bound next",
        )
    if workspace is None or binding is None or workspace.host is None:
        return None, "unplaced", (workspace.reason if workspace else "") or "waits for a host"
    host = binding.active
    if host not in world.alive:
        return host, "unknown", f"host {host} is gone"
    if workspace.desired in ("stopped", "saved"):
        return host, "stopped", ""
    seen = seen_of(world, binding)
    if seen is None:
        return host, "waiting", f"host {host} has not reported it yet"
    return host, seen.programmed, seen.cause


def seen_of(world: World, binding: BindingRecord) -> ObservedPort | None:
    """What the active host says of the binding as it is now."""
    seen = world.observed_ports.get(binding.port, {}).get(binding.active)
    return seen if seen is not None and seen.generation == binding.generation else None


def _sorted_ports(grid: Grid) -> list[PortRecord]:
    """Of workspaces; a gateway's legs are told of with it."""
    own = (port for port in grid.ports.values() if gateway_name(port.workspace) is None)
    return sorted(own, key=lambda p: (natural(p.workspace), p.index))


def natural(name: str) -> tuple[str, int]:
    """A key to sort names by: worker-10 after worker-9."""
    base, _, number = name.rpartition("-")
    return (base, int(number)) if base and number.isdigit() else (name, -1)


def _grids(world: World, playground: str | None) -> list[tuple[str, Grid]]:
    return [(name, world.grids[name]) for name in world.playgrounds() if playground in (None, name)]


def ports(world: World, playground: str | None = None) -> list[Json]:
    """Every workspace port."""
    found = []
    for name, grid in _grids(world, playground):
        for port in _sorted_ports(grid):
            host, state, cause = port_state(world, grid, port)
            binding = grid.bindings.get(port.id)
            found.append(
                {
                    "playground": name,
                    "workspace": port.workspace,
                    "network": port.network,
                    "mac": port.mac,
                    "learned": list(binding.learned) if binding is not None else [],
                    "routers": list(binding.routers) if binding is not None else [],
                    "addresses": list(port.addresses),
                    "host": host,
                    "state": state,
                    "device": port_device(PortId(port.id)),
                    "cause": cause,
                }
            )
    return found


def leases(world: World, playground: str | None = None) -> list[Json]:
    """Every address that is meant for a port, and whether its client has taken it."""
    found = []
    for name, grid in _grids(world, playground):
        for port in _sorted_ports(grid):
            binding = grid.bindings.get(port.id)
            seen = seen_of(world, binding) if binding else None
            for address in port.addresses:
                found.append(
                    {
                        "playground": name,
                        "workspace": port.workspace,
                        "network": port.network,
                        "port": port.id,
                        "mac": port.mac,
                        "address": address,
                        "host": binding.active if binding else None,
                        "state": "bound" if seen is not None and address in seen.leased else "offered",
                    }
                )
    return found


def workspace_state(world: World, workspace: WorkspaceRecord) -> tuple[str, str]:
    """(state, cause) of a workspace: running | rebooting | suspended | saved | preparing | prepared | stopped |
    failed | leaving | unknown | unplaced."""
    if workspace.host is None:
        return "unplaced", workspace.reason or "waits for a host"
    if workspace.host not in world.alive:
        return "unknown", f"host {workspace.host} is gone"
    seen = world.observed_workspaces.get((workspace.playground, workspace.name), {}).get(workspace.host)
    if seen is None:
        return "preparing", f"host {workspace.host} has not reported it yet"
    if seen.generation != workspace.generation and seen.state != "running":
        return "preparing", seen.cause
    if seen.state == "running" and seen.reboots < workspace.reboots:
        return "rebooting", seen.cause
    return seen.state, seen.cause


def _workspace(world: World, grid: Grid, workspace: WorkspaceRecord) -> Json:
    state, cause = workspace_state(world, workspace)
    seen = world.observed_workspaces.get((workspace.playground, workspace.name), {}).get(workspace.host or "")
    addresses = [a for p in workspace.ports if p in grid.ports for a in grid.ports[p].addresses]
    return {
        "name": workspace.name,
        "desired": workspace.desired,
        "state": state,
        "host": workspace.host,
        "driver": workspace.driver,
        "cause": cause,
        "ended": seen.ended if seen is not None else 0,
        "addresses": addresses,
    }


def _gateway(world: World, grid: Grid, record: WorkspaceRecord) -> Json:
    state, cause = workspace_state(world, record)
    legs = [grid.ports[port] for port in record.ports if port in grid.ports]
    return {
        "name": gateway_name(record.name),
        "kind": record.driver,
        "state": state,
        "host": record.host,
        "cause": record.reason or cause,
        "networks": [leg.network for leg in legs],
        "addresses": [address for leg in legs for address in leg.addresses],
        "generation": record.generation,
    }


def _probed(probe: ProbeRecord | None) -> str:
    """never | as modelled | differs | incomplete (what was observed is as modelled, but not all was)."""
    if probe is None:
        return "never"
    if probe.mismatches:
        return "differs"
    return "incomplete" if probe.unobserved else "as modelled"


def _network(network: NetworkRecord) -> Json:
    return {"name": network.name, "vni": network.vni, "mtu": network.mtu, "subnets": list(network.subnets)}


def lingering(world: World, name: str) -> list[Json]:
    """What is left of a playground whose records are gone: on hosts that are up, and claims that no host holds."""
    found = []
    grid = world.grids.get(name)
    dynamics = grid.dynamics if grid is not None else {}
    for host in sorted(world.alive.keys() & {host for record in dynamics.values() for host in givers(record)}):
        found.append({"object": f"playground {name}", "cause": f"host {host} is ending its machines' leases"})
    claims = grid.claims.items() if grid is not None else ()
    if any(claim.owner not in dynamics and not world.is_held(claim.owner, key) for key, claim in claims):
        found.append({"object": f"playground {name}", "cause": "its addresses are being freed"})
    for (playground, workspace), seen in sorted(world.observed_workspaces.items()):
        if playground == name:
            found += [
                {"object": object_name(workspace), "cause": f"host {host} is ending it"}
                for host in sorted(seen)
                if host in world.alive
            ]
    return found


def _by_name(grid: Grid) -> list[WorkspaceRecord]:
    return sorted(grid.workspaces.values(), key=lambda w: natural(w.name))


def status(
    world: World, site: str, now_utc_s: float, progress: Callable[[str], Json], playground: str | None = None
) -> Json:
    """The whole site, or one playground of it. progress: of a playground by name (`progress.Progress.of`)."""
    found = []
    for name, grid in _grids(world, playground):
        done = progress(name)
        probe = world.probes.get(name)
        differs = [*done["failed"], *done["waiting"]]
        found.append(
            {
                "name": name,
                "desired": grid.root.state if grid.root else "removing",
                "programmed": "converged" if done["converged"] else ("failed" if done["failed"] else "converging"),
                "probed": {
                    "state": _probed(probe),
                    "age_s": None if probe is None else max(0.0, now_utc_s - probe.at_utc_s),
                    "pairs": None if probe is None else probe.pairs,
                    "mismatches": None if probe is None else probe.mismatches,
                    "unobserved": None if probe is None else probe.unobserved,
                },
                "cause": f"{differs[0]['object']}: {differs[0]['cause']}" if differs else "",
                "networks": [_network(n) for n in sorted(grid.networks.values(), key=lambda n: n.name)],
                "gateways": [_gateway(world, grid, w) for w in _by_name(grid) if gateway_name(w.name) is not None],
                "workspaces": [_workspace(world, grid, w) for w in _by_name(grid) if gateway_name(w.name) is None],
            }
        )
    return {"site": site, "hosts": hosts(world), "playgrounds": found}
