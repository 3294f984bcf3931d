"""Pure. What a file's gateways mean for admission: members of their networks, and routers of workspaces' NICs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from playground.gateways import DRIVER, gateway_name, workspace_name
from playground.spec import GatewaySpec, NicSpec, PlaygroundSpec, Problem, WorkspaceSpec


def with_gateways(spec: PlaygroundSpec) -> PlaygroundSpec:
    """The spec with a member for each gateway, after all workspaces: addresses are given in this order."""
    if not spec.connectivity.gateways:
        return spec
    members = {workspace_name(one.name): _member(one) for one in spec.connectivity.gateways}
    return replace(spec, workspaces={**spec.workspaces, **members})


def routers_of(spec: PlaygroundSpec) -> dict[str, str]:
    """Networks by name that have a gateway, and its name."""
    return {network: one.name for one in reversed(spec.connectivity.gateways) for network in one.networks}


def router_of(index: int, nics: Sequence[NicSpec], routers: Mapping[str, str], workspace: str) -> str:
    """The gateway that the client of a NIC is told of, "" for none: a workspace has one default router, on the NIC that
    the file says, else on its first NIC where there is one."""
    if not routers or gateway_name(workspace) is not None:
        return ""
    routed = [at for at, nic in enumerate(nics) if nic.network in routers and nic.default_route is not False]
    routed.sort(key=lambda at: not nics[at].default_route)
    return routers[nics[index].network] if routed and routed[0] == index else ""


def check_gateways(spec: PlaygroundSpec, problems: list[Problem]) -> None:
    """A network has one way to the world: a second gateway would be one that no client is told of. A workspace has one
    default route, and that leads to a gateway."""
    first: dict[str, GatewaySpec] = {}
    for gateway in spec.connectivity.gateways:
        for network in sorted(gateway.networks):
            other = first.setdefault(network, gateway)
            if other is not gateway:
                message = f"{network} has the gateway {other.name} already (line {other.place.line}); keep one of them"
                problems.append(Problem.at(gateway.place, message))
    for workspace in spec.workspaces.values():
        chosen = [nic for nic in workspace.nics if nic.default_route]
        for nic in chosen:
            if nic.network not in first:
                message = f"default_route: no gateway is on {nic.network}; name it in one, or leave default_route out"
                problems.append(Problem.at(nic.place, message))
        if len(chosen) > 1:
            message = (
                f"default_route: {chosen[0].network} is the default route of {workspace.declared} already; keep one"
            )
            problems.append(Problem.at(chosen[1].place, message))


def _member(gateway: GatewaySpec) -> WorkspaceSpec:
    name = workspace_name(gateway.name)
    return WorkspaceSpec(
        name=name,
        labels={},
        nics=tuple(NicSpec(network, {}, None, None, gateway.place) for network in sorted(gateway.networks)),
        host=gateway.host,
        driver=DRIVER,
        cpus=0.0,
        memory_mib=0,
        place=gateway.place,
        host_place=gateway.host_place,
        declared=name,
    )
