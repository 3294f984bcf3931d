"""Makes the policies of a site file the site's policies in the store: those that differ are written, the others go."""

from __future__ import annotations

import secrets

from playground.admit.policies import policy_records
from playground.controller.batches import Work, batches
from playground.controller.world import World
from playground.records import SITE_POLICIES, PoliciesRecord, encode, key_of, policy_key
from playground.spec import Problem, SiteSpec, SpecErrors
from playground.store.api import Delete, Put, Store


async def admit_tiers(store: Store, world: World, site: SiteSpec) -> None:
    """Before hosts are served: none sees one half of it. Raises SpecErrors, with nothing changed."""
    problems: list[Problem] = []
    wanted, _ = policy_records(SITE_POLICIES, site.policies, site.places, problems)
    if problems:
        raise SpecErrors(problems)
    work: list[Work] = [
        (None, Put(key_of(record), encode(record)))
        for name, record in wanted.items()
        if world.site_policies.get(name) != record
    ]
    work += [
        (None, Delete(policy_key(SITE_POLICIES, name))) for name in sorted(world.site_policies.keys() - wanted.keys())
    ]
    if work:
        done = PoliciesRecord(playground=SITE_POLICIES, change=secrets.token_hex(6))
        work.append((None, Put(key_of(done), encode(done))))
    for part in batches(work):
        await store.commit([], [change for _, change in part])
