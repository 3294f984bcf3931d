"""The site's policies: makes those of an accepted file the store's, and tells what that means for each playground.

The file is kept whole, as a playground's is; its record comes first, so whoever starts after a crash finishes the rest.
Knows nothing of the other things that a site file says.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from playground.admit.policies import policy_records
from playground.controller.batches import Work, batches
from playground.controller.changes import Raced, accepted
from playground.controller.events import EventLog
from playground.controller.world import World
from playground.plan import Grid, Step, steps
from playground.policy_words import policy_text
from playground.records import (
    LARGEST,
    SITE_KEY,
    SITE_POLICIES,
    HostRecord,
    PlaygroundRecord,
    PoliciesRecord,
    PolicyRecord,
    SiteRecord,
    encode,
    key_of,
    pack_files,
    policy_key,
    unpack_files,
)
from playground.spec import (
    HostSpec,
    PlaygroundSpec,
    Problem,
    SiteSpec,
    SpecErrors,
    check_tests,
    check_tiers,
    connections_under,
    load_site,
    scene,
)
from playground.store.api import Compare, Conflict, Delete, Put, Store
from playground.view import policy_of
from policies.model import Policy, Tier

Json = dict[str, Any]


class Tiers:
    """One controller's."""

    def __init__(self, store: Store, world: World, events: EventLog, site: str) -> None:
        self._store = store
        self._world = world
        self._events = events
        self._site = site
        self._lock = asyncio.Lock()
        self.written: Mapping[str, Policy] = {}
        """The policies of the accepted file with their places, by the names of their records."""

    def now(self) -> SiteSpec:
        """What is in force, with places where a file says it."""
        stored = self._world.site_policies
        policies = tuple(self.written.get(name) or policy_of(stored[name]) for name in sorted(stored))
        return SiteSpec(self._site, policies=policies)

    async def begin(self, own: SiteSpec | None) -> None:
        """Before hosts are served, and the world is followed. own: of the file that the controller was started with; it
        counts where it says others than at the start before, else what was accepted last. Raises SpecErrors, with
        nothing changed."""
        before = self._world.site_file
        if own is not None:
            wanted = _Wanted(own)
            digest = wanted.digest
            is_same = before is not None and _Wanted(_spec(before)).digest == digest
            if before is None or before.own != digest or is_same:  # where it says the same, it has the newer places
                change = before.change if before is not None and is_same else secrets.token_hex(6)
                packed = pack_files(own.text, {})
                await self._put(wanted, SiteRecord(file=own.file, files=packed, change=change, own=digest))
                return
        if before is not None:
            await self._put(_Wanted(_spec(before)), before)

    async def plan(self, file: str, text: str) -> Json:
        """What `apply` of this file would change: `{name, changes, playgrounds, unapplied}`. Raises SpecErrors."""
        wanted = await asyncio.to_thread(_read, text, file)
        return await self._told(wanted)

    async def apply(self, file: str, text: str) -> Json:
        """Has the policies of a site's file accepted and written; beside what `plan` says, the `change`. Raises
        SpecErrors, with nothing changed, and Raced."""
        wanted = await asyncio.to_thread(_read, text, file)
        async with self._lock:
            told = await self._told(wanted)
            before = self._world.site_file
            change = secrets.token_hex(6) if told["changes"] or before is None else before.change
            packed = pack_files(wanted.site.text, {})
            record = SiteRecord(file=wanted.site.file, files=packed, change=change, own=before.own if before else "")
            with self._world.withhold(SITE_POLICIES):
                await self._put(wanted, record, is_followed=True)
            if told["changes"]:
                said = f"{len(told['changes'])} change{'s' if len(told['changes']) > 1 else ''}"
                self._events.add("site-policies-changed", f"site {self._site}", said)
        return {**told, "change": change}

    def show(self) -> Json:
        """`{name, file, text, change, policies, waiting}`. waiting: hosts that do not enforce all of it yet."""
        record, newest = self._world.site_file, self._world.modified(f"policies/{SITE_POLICIES}")
        waiting = []
        for host in sorted({host for name in self._world.playgrounds() for host in self._world.ties.hosts(name)}):
            seen = self._world.observed_hosts.get(host)
            if host in self._world.alive and (seen is None or seen.applied < newest):
                waiting.append({"object": f"host {host}", "cause": "has not converged to the last change yet"})
        shown = sorted(self._world.site_policies.values(), key=self._order)
        return {
            "name": self._site,
            "file": record.file if record else None,
            "text": unpack_files(record.files)[0] if record else None,
            "change": record.change if record else None,
            "policies": [self._shown(one) for one in shown],
            "waiting": waiting,
        }

    def _order(self, record: PolicyRecord) -> tuple[bool, int, str]:
        policy = policy_of(record)
        return policy.tier is not Tier.ADMIN, policy.priority or 0, record.name

    def _shown(self, record: PolicyRecord) -> Json:
        policy, written = policy_of(record), self.written.get(record.name)
        return {
            "name": written.name if written else record.name,
            "tier": policy.tier.value,
            "priority": policy.priority,
            "mode": policy.mode.value,
            "says": policy_text(record.body),
            "place": str(written.origin) if written else None,
        }

    async def _told(self, wanted: _Wanted) -> Json:
        world, now = self._world, self.now()
        changes = _steps(world.site_policies, wanted, self.written)
        roots = [root for name in world.playgrounds() if (root := world.grids[name].root) and root.state == "present"]
        playgrounds = await asyncio.to_thread(_meant, roots, now, wanted.site) if changes else []
        differ = [key for key in ("hosts", "domain", "resolvers") if self._is_left_out(wanted.site, key)]
        found = [{"action": step.action, "object": step.object, "detail": step.detail} for step in changes]
        return {"name": self._site, "changes": found, "playgrounds": playgrounds, "unapplied": differ}

    def _is_left_out(self, site: SiteSpec, key: str) -> bool:
        """Whether the file says something of hosts or names that a running controller does not take up."""
        if key == "hosts":
            known = {name: _declared(host) for name, host in self._world.hosts.items()}
            return bool(site.hosts) and {name: _declared(host) for name, host in site.hosts.items()} != known
        return bool(getattr(site, key) != getattr(SiteSpec(""), key))

    async def _put(self, wanted: _Wanted, record: SiteRecord, is_followed: bool = False) -> None:
        """is_followed: whether the world sees what is committed; else its caller has it loaded."""
        stored = self._world.site_policies
        work: list[Work] = []
        if record != self._world.site_file:
            work.append((Compare(SITE_KEY, self._world.modified(SITE_KEY)), Put(SITE_KEY, encode(record))))
        differing = [one for name, one in wanted.records.items() if stored.get(name) != one]
        gone = sorted(stored.keys() - wanted.records.keys())
        work += [(None, Put(key_of(one), encode(one))) for one in differing]
        work += [(None, Delete(policy_key(SITE_POLICIES, name))) for name in gone]
        if differing or gone:
            done = PoliciesRecord(playground=SITE_POLICIES, change=record.change)
            work.append((None, Put(key_of(done), encode(done))))
        for part in batches(work):
            result = await self._store.commit([one for one, _ in part if one], [change for _, change in part])
            if isinstance(result, Conflict):
                raise Raced("somebody else changed the site's policies meanwhile; try again")
            if is_followed:
                await self._world.reached(result)
        self.written = wanted.written


class _Wanted:
    """A site's file, and the records that its policies become. Raises SpecErrors."""

    def __init__(self, site: SiteSpec) -> None:
        problems: list[Problem] = []
        self.site = site
        self.records, self.written = policy_records(SITE_POLICIES, site.policies, site.places, problems)
        size = len(encode(SiteRecord(file=site.file, files=pack_files(site.text, {}), change="")))
        if size > LARGEST:
            message = f"the file takes {size} bytes compressed; {LARGEST} are allowed: write fewer policies"
            problems.append(Problem.at(site.place, message))
        if problems:
            raise SpecErrors(problems)

    @property
    def digest(self) -> str:
        """Of what the policies say, and not of where."""
        found = hashlib.sha256()
        for _, record in sorted(self.records.items()):
            found.update(encode(record))
        return found.hexdigest()


def _read(text: str, file: str) -> _Wanted:
    return _Wanted(load_site(text, file))


def _spec(record: SiteRecord) -> SiteSpec:
    """What an accepted file says. Raises SpecErrors only for one that another version accepted."""
    return load_site(unpack_files(record.files)[0], record.file)


def _steps(stored: Mapping[str, PolicyRecord], wanted: _Wanted, written: Mapping[str, Policy]) -> tuple[Step, ...]:
    called = {name: policy.name for name, policy in (*written.items(), *wanted.written.items())}
    return steps(Grid({}, {}, {}, stored), Grid({}, {}, {}, wanted.records), called)


def _meant(roots: Iterable[PlaygroundRecord], before: SiteSpec, after: SiteSpec) -> list[Json]:
    """For each playground, the connections that are opened and cut, and the lines of its `tests:` that do not hold any
    more. Raises SpecErrors where two policies give no order."""
    specs = [accepted(root) for root in roots]
    check_tiers(scene(*specs, site=after))
    return [
        {
            "name": spec.name,
            "connections": connections_under(spec, before, after),
            "failing": [dataclasses.asdict(one) for one in _failing(spec, after)],
        }
        for spec in specs
    ]


def _failing(spec: PlaygroundSpec, site: SiteSpec) -> Iterable[Problem]:
    try:
        check_tests(spec, site)
    except SpecErrors as error:
        return error.problems
    return ()


def _declared(host: HostSpec | HostRecord) -> tuple[object, ...]:
    """What a site's file says of a host, or said when the controller started."""
    return host.underlay, dict(host.labels), host.cpus, host.memory_mib, host.share
