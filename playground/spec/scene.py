"""Pure. The scene of files: who is there, how they are joined, and what all tiers say; what `policies` judges."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from overlay.pools import address_text
from playground.spec.objects import PlaygroundSpec, SiteSpec
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
    """Every NIC of every workspace, with the labels of both and the built-in ones; the NIC's own win."""
    for workspace in playground.workspaces.values():
        built_in = {DECLARED: workspace.declared, "workspace": workspace.name, "playground": playground.name}
        if workspace.index is not None:
            built_in["index"] = str(workspace.index)
        for nic in workspace.nics:
            labels = {**workspace.labels, **nic.labels, **built_in, "network": nic.network}
            fixed = () if nic.address is None else (address_text(4, nic.address),)
            yield Endpoint(playground.name, workspace.name, nic.network, labels, fixed)
