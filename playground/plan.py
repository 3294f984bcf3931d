"""Pure. What a change does, in steps for people: the difference of a playground's records before and after.

Decides nothing: `playground.admit` does, and shows its decision by these steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from zlib import crc32

from dhcp import catalogue, catalogue6
from dhcp.scope import Boot
from playground.gateways import DRIVER, gateway_name, object_name
from playground.inventory import Neighbours
from playground.machine import Disk, Machine, Seed
from playground.policy_words import policy_change, policy_text
from playground.records import NetworkRecord, PolicyRecord, PortRecord, WorkspaceRecord
from playground.spec.names import BUILT_IN_LABELS
from playground.spec.peers import DECLARED

Action = Literal["create", "change", "remove"]


@dataclass(frozen=True, slots=True)
class Step:
    """One object's change. object: its kind and name, as `workspace worker-0`; detail: what is new, for people."""

    action: Action
    object: str
    detail: str


@dataclass(frozen=True, slots=True)
class Grid:
    """One playground's records at one time. networks, workspaces and policies by name, ports by id."""

    networks: Mapping[str, NetworkRecord]
    workspaces: Mapping[str, WorkspaceRecord]
    ports: Mapping[str, PortRecord]
    policies: Mapping[str, PolicyRecord] = field(default_factory=dict)


def steps(before: Grid, after: Grid, called: Mapping[str, str] | None = None) -> tuple[Step, ...]:
    """Networks, workspaces, then policies, in the order of `after`; what is removed comes last.

    called: what people call policies, by the names of their records, where that is another name.
    """
    found: list[Step] = []
    for name, network in after.networks.items():
        _add(found, f"network {name}", _network_facts(before.networks.get(name)), _network_facts(network))
    for name, workspace in after.workspaces.items():
        if _is_same(before, after, workspace):
            continue
        facts = _workspace_facts(before, name), _workspace_facts(after, workspace.name)
        _add(found, object_name(name), *facts, "restarts it" if _restarts(before, after, name) else "")
    for name, policy in after.policies.items():
        old = before.policies.get(name)
        if old is None:
            found.append(Step("create", f"policy {(called or {}).get(name, name)}", policy_text(policy.body)))
        elif old.body != policy.body:
            found.append(Step("change", f"policy {name}", policy_change(old.body, policy.body)))
    for name in before.policies.keys() - after.policies.keys():
        found.append(
            Step("remove", f"policy {(called or {}).get(name, name)}", policy_text(before.policies[name].body))
        )
    for name in before.workspaces.keys() - after.workspaces.keys():
        host = before.workspaces[name].host
        found.append(Step("remove", object_name(name), f"on {host}" if host else "not placed"))
    for name in before.networks.keys() - after.networks.keys():
        found.append(Step("remove", f"network {name}", f"VNI {before.networks[name].vni}"))
    removed = [step for step in found if step.action == "remove"]
    return (*(step for step in found if step.action != "remove"), *sorted(removed, key=_removal_order))


def _is_same(before: Grid, after: Grid, workspace: WorkspaceRecord) -> bool:
    return before.workspaces.get(workspace.name) == workspace and all(
        before.ports.get(port) == after.ports.get(port) for port in workspace.ports
    )


def _removal_order(step: Step) -> tuple[bool, str]:
    return step.object.startswith("network"), step.object


def _restarts(before: Grid, after: Grid, name: str) -> bool:
    """Whether a running workspace is made anew: its NICs are others, or have other MACs, or it is another machine."""
    old, new = before.workspaces.get(name), after.workspaces[name]
    if old is None or old.desired != "running" or {"external", DRIVER} & {old.driver, new.driver}:
        return False
    return old.made_of != new.made_of or _nics(before, old) != _nics(after, new)


def _nics(grid: Grid, workspace: WorkspaceRecord) -> list[tuple[str, str]]:
    return [(port, grid.ports[port].mac) for port in workspace.ports if port in grid.ports]


def _add(
    found: list[Step], label: str, old: Mapping[str, str] | None, new: Mapping[str, str] | None, effect: str = ""
) -> None:
    if new is None or old == new:
        return
    if old is None:
        found.append(Step("create", label, _join(f"{key} {value}" for key, value in new.items() if value)))
        return
    changed = [key for key in {**old, **new} if old.get(key, "") != new.get(key, "")]
    detail = _join(f"{key} {old.get(key) or 'none'} → {new.get(key) or 'none'}" for key in changed)
    found.append(Step("change", label, f"{detail}; {effect}" if effect else detail))


def _join(parts: Iterable[str]) -> str:
    return ", ".join(parts)


def _network_facts(network: NetworkRecord | None) -> dict[str, str] | None:
    if network is None:
        return None
    return {
        "VNI": str(network.vni),
        "MTU": str(network.mtu),
        "subnets": " ".join(network.subnets),
        "gateways": " ".join(network.gateways),
        "DHCPv6": {"dhcp": "alone", "both": "beside SLAAC"}.get(network.ipv6, ""),
        "lease": f"{network.lease_s} s",
        "dynamic": " ".join(network.dynamic),
        "forward": "" if network.forward else "no",
        "transfer": " ".join(network.transfer),
        "records": "; ".join(f"{one.name} {one.type} {one.data}" for one in network.names),
        **_told(network.options, network.options6, network.boot),
    }


def _workspace_facts(grid: Grid, name: str) -> dict[str, str] | None:
    workspace = grid.workspaces.get(name)
    if workspace is None:
        return None
    ports = [grid.ports[port] for port in workspace.ports if port in grid.ports]
    facts = {
        "driver" if gateway_name(name) is None else "kind": workspace.driver,
        "host": workspace.pin or "",
        "cpus": f"{workspace.cpus:g}" if workspace.cpus else "",
        "memory": f"{workspace.memory_mib} MiB" if workspace.memory_mib else "",
        "requires": ", ".join(workspace.requires),
        **_neighbour_facts(workspace.neighbours),
        **_machine_facts(workspace.machine),
        "labels": _labels(workspace.labels),
        "networks": " ".join(port.network for port in ports),
        "also": " ".join(dict.fromkeys(alias for port in ports for alias in port.aliases)),
        "router": "".join(port.router for port in ports),
    }
    for port in ports:
        facts[f"{port.network}:"] = " ".join((*port.addresses, port.mac, _labels(_own(port, workspace)))).strip()
        if allowed := (*port.allowed_addresses, *port.allowed_macs):
            facts[f"{port.network} allows"] = " ".join(allowed)
        if port.leads:
            facts[f"{port.network} leads to"] = " ".join(port.leads)
        if port.dynamic:
            facts[f"{port.network} machines"] = str(port.dynamic)
        told = _told(port.options, port.options6, port.boot)
        told |= {} if port.lease_s is None else {"lease": f"{port.lease_s} s"}
        facts |= {f"{port.network} {key}": text for key, text in told.items()}
    return facts


def _neighbour_facts(neighbours: Neighbours | None) -> dict[str, str]:
    if neighbours is None:
        return {}
    return {
        "placement": "" if neighbours.strategy == "spread" else neighbours.strategy,
        "affinity": neighbours.affinity,
        "anti-affinity": neighbours.anti_affinity,
        "prefers affinity": neighbours.preferred_affinity,
        "prefers anti-affinity": neighbours.preferred_anti_affinity,
    }


def _machine_facts(machine: Machine | None) -> dict[str, str]:
    if machine is None:
        return {}
    disks = map(_disk_fact, machine.disks)
    return {
        "type": machine.type,
        "arch": machine.arch,
        "machine": " ".join(filter(None, (machine.model, machine.cpu))),
        "kernel": " ".join(filter(None, (machine.kernel, machine.initrd, machine.cmdline))),
        "disks": ", ".join(disks),
        "XML": f"{len(machine.extra)} characters" if machine.extra else "",
        "cloud-init": _seed_fact(machine.seed),
    }


def _disk_fact(disk: Disk) -> str:
    if disk.path:
        return disk.path
    return f"copy of {disk.base}" if disk.base else f"new of {disk.size_mib} MiB, {disk.kind}"


def _seed_fact(seed: Seed | None) -> str:
    if seed is None:
        return ""
    text = f"user-data {crc32(seed.user_data.encode()):08x}" if seed.user_data else seed.user_data_file
    return ", ".join(filter(None, (text, f"network {seed.network}")))


def _told(
    options: Iterable[tuple[int, bytes]], options6: Iterable[tuple[int, bytes]], boot: Boot | None
) -> dict[str, str]:
    """What clients are told, by option."""
    found = dict(catalogue.described(code, value) for code, value in options)
    found |= dict(catalogue6.described(code, value) for code, value in options6)
    if boot is not None:
        files = dict.fromkeys(name for _, name in boot.files)
        words = (boot.server, boot.server6, *files, boot.ipxe, *boot.parameters)
        found["boot"] = " ".join(filter(None, words))
    return found


def _own(port: PortRecord, workspace: WorkspaceRecord) -> dict[str, str]:
    """The labels that a NIC does not have by its workspace, and that are not built in."""
    known = {**workspace.labels, **dict.fromkeys((*BUILT_IN_LABELS, DECLARED))}
    return {key: value for key, value in port.labels.items() if known.get(key, "") not in (value, None)}


def _labels(labels: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(labels.items()))
