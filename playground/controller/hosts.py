"""Makes the hosts of a site file the hosts of the store. Hosts come and go by that file; their tokens stay."""

from __future__ import annotations

from collections.abc import Mapping

from playground.controller.world import World
from playground.records import HostRecord, encode, key_of
from playground.spec import SiteSpec
from playground.store.api import Delete, Put, Store


async def admit_hosts(store: Store, world: World, site: SiteSpec, tokens: Mapping[str, str]) -> None:
    """tokens: host → sha256 (hex) of its agent's secret, for those given from outside. A host that the file lacks goes,
    unless something is bound to it; raises ValueError then, with nothing changed."""
    if not site.hosts:
        return
    bound = {b.active for g in world.grids.values() for b in g.bindings.values()}
    lost = sorted((world.hosts.keys() - site.hosts.keys()) & bound)
    if lost:
        raise ValueError(f"{site.name}: hosts {', '.join(lost)} still carry workspaces; move or remove those first")
    changes: list[Put | Delete] = [Delete(f"host/{name}") for name in world.hosts.keys() - site.hosts.keys()]
    changes += [Delete(key_of(drain)) for name, drain in world.drains.items() if name not in site.hosts]
    for name, host in site.hosts.items():
        known = world.hosts.get(name)
        record = HostRecord(
            name=name,
            site=site.name,
            underlay=host.underlay,
            underlay_mtu=known.underlay_mtu if known else 1500,
            labels=dict(host.labels),
            cpus=host.cpus,
            memory_mib=host.memory_mib,
            token_sha256=tokens.get(name) or (known.token_sha256 if known else ""),
            drivers=known.drivers if known else (),
            version=known.version if known else "",
            share=host.share,
            found_cpus=known.found_cpus if known else None,
            found_memory_mib=known.found_memory_mib if known else None,
            facts=dict(known.facts) if known else {},
        )
        if record != known:
            changes.append(Put(key_of(record), encode(record)))
    for start in range(0, len(changes), 100):
        await store.commit([], changes[start : start + 100])
