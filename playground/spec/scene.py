"""Pure. The scene of files: who is there, how they are joined, and what all tiers say; what `policies` judges."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from overlay.pools import address_text
from playground.gateways import gateway_name
from playground.spec.objects import NicSpec, PlaygroundSpec, SiteSpec, WorkspaceSpec
from playground.spec.peers import DECLARED
from policies.model import Endpoint, Gateway, Scene, Subnet


def scene(*playgrounds: PlaygroundSpec, site: SiteSpec | None = None) -> Scene:
    """Playgrounds side by side, under the tiers of a site. Names of playgrounds differ.

    An endpoint's addresses are those that its file fixes: the others are in its subnets, and known once it runs.
    """
    return Scene(
        endpoints=tuple(endpoint for one in playgrounds for endpoint in endpoints(one)),
        policies=(*(site.policies if site else ()), *(p for one in playgrounds for p in one.connectivity.policies)),
        gateways=tuple(
            Gateway(one.name, gateway.name, gateway.networks, is_open_inward=gateway.kind == "bridge")
            for one in playgrounds
            for gateway in one.connectivity.gateways
        ),
        subnets=tuple(
            Subnet(one.name, network.name, ip_network(subnet.text))
            for one in playgrounds
            for network in one.networks.values()
            for subnet in network.subnets
        ),
    )


def endpoints(playground: PlaygroundSpec) -> Iterator[Endpoint]:
    """Every NIC of every workspace."""
    for workspace in playground.workspaces.values():
        for nic in workspace.nics:
            fixed: tuple[str, ...] = () if nic.address is None else (address_text(4, nic.address),)
            fixed += tuple(address_text(6, address) for address in nic.addresses6)
            labels = endpoint_labels(playground.name, workspace, nic)
            yield Endpoint(playground.name, workspace.name, nic.network, labels, fixed)


def endpoint_labels(playground: str, workspace: WorkspaceSpec, nic: NicSpec) -> dict[str, str]:
    """All that selectors may ask of a NIC: the workspace's labels, then the NIC's own, then the built-in ones; the
    later win. None for a gateway's leg, which no selector means."""
    if gateway_name(workspace.name) is not None:
        return {}
    labels = {**workspace.labels, **nic.labels}
    labels[DECLARED] = workspace.declared
    labels["workspace"] = workspace.name
    labels["playground"] = playground
    labels["network"] = nic.network
    if workspace.index is not None:
        labels["index"] = str(workspace.index)
    return labels
