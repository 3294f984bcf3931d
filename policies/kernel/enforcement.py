"""Owns our tables in one network namespace, and the switches that send its bridges' packets through them.

Puts there what it is given, whatever stood there before, and says what it could not. Decides nothing about what passes.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from policies.compile.changes import Command, DeclareTable, DeleteTable, as_text, difference
from policies.compile.tables import Part, Ruleset, Table, whole
from policies.kernel import netlink
from policies.kernel.bridges import Switches, open_monitor, why_no_netfilter
from policies.kernel.fields import Unspoken
from policies.kernel.inside import Inside
from policies.kernel.libnftables import open_nft
from policies.kernel.listing import NFNLGRP_NFTABLES, Listing
from policies.kernel.nft import NftError
from policies.kernel.readback import found_ruleset, wrong_objects
from policies.kernel.transaction import Changed, Transactions
from policies.prove import Claim, prove
from policies.verify import differences

log = logging.getLogger("enforcement")

PREFIX = "playground_"
"""What the names of all tables of ours begin with. Tables of this name that nobody wants are deleted."""

_TRIAL = """
table inet playground_trial {
    map zones { typeof iifname : ct zone
    }
    set sources { typeof iifname . ct original ip saddr; flags dynamic; size 16
    }
    chain entry { type filter hook prerouting priority -450; policy accept;
        ct zone set iifname map @zones
        add @sources { iifname . ct original ip saddr ct count over 100 } drop
    }
    chain forwarded { type filter hook forward priority 0; policy accept;
        ct mark 7 meta l4proto tcp ct original proto-dst { 22, 5000-5100 } log group 1 drop
        @ll,0,48 set @ll,0,48 ^ 0x040000000000
    }
}
table netdev playground_trial {
    chain entry { type filter hook ingress device "lo" priority 0; policy accept; meta mark set 1
        reject with icmpx admin-prohibited
    }
    chain exit { type filter hook egress device "lo" priority 0; policy accept; fwd to "lo"
    }
}
"""
"""One of each thing that our tables are made of, to see whether a kernel has it."""

MENDED = 20
"""Sentences about what somebody else has changed; who changed more is told how much."""

_CHUNK = 1 << 18
_ATTEMPTS = 5
_NO_PART = Part()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. cause: why nothing at all is sure to be in force, "" if it is.

    refused: parts that the kernel would not take, with its words; what was in force of them before still is.
    unpoliced: bridges asked for whose packets do not meet the rules: not there, or their switches won't turn.
    repaired: by kind, how many objects somebody else had changed since they were last put in force from here; mended:
    the same in sentences, of each look the first `MENDED`.
    """

    cause: str = ""
    refused: Mapping[tuple[Table, Hashable], str] = field(default_factory=dict)
    unpoliced: frozenset[str] = frozenset()
    repaired: Mapping[str, int] = field(default_factory=dict)
    mended: tuple[str, ...] = ()


class Enforcement:
    """The tables of the namespace at a path; another one may take its place there. For any threads: but for `touched`
    and `fileno`, each waits for its turn."""

    def __init__(self, namespace: Path) -> None:
        self._namespace = namespace
        self._poll = select.epoll()
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._door: _Door | None = None

    def fileno(self) -> int:
        """Always the same descriptor: readable once something may have been touched, until `touched` was asked."""
        return self._poll.fileno()

    def converge(self, ruleset: Ruleset, policed: frozenset[str] = frozenset(), *, is_doubted: bool = False) -> Outcome:
        """Makes ruleset all that is ours, and policed the bridges whose packets meet it.

        What nobody else has touched is not looked at, unless is_doubted; so one changed element costs its change. If
        the kernel refuses a part, the others go in without it.
        """
        with self._turn:
            try:
                door = self._entered()
                self.touched()  # what was heard so far is looked at now
                return door.inside.call(door.converge, ruleset, policed, is_doubted)
            except (NftError, OSError) as error:
                self._leave()
                return Outcome(str(error))

    def touched(self) -> bool:
        """Whether somebody else has changed tables or switches since the last `converge`."""
        with self._lock:
            try:
                return self._door is not None and self._door.touched()
            except OSError:
                return True

    def counters(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(packets, bytes) by (table, counter): all of ours. Raises NftError, OSError."""
        with self._turn:
            door = self._entered()
            return door.inside.call(door.counters)

    def differences(
        self, ruleset: Ruleset, policed: frozenset[str] = frozenset(), claims: Sequence[tuple[Table, Claim]] = ()
    ) -> list[str]:
        """What there is beside what converge would leave, in sentences; reads all of it back, and changes nothing.

        claims: what tables should mean; followed through the rules as they are, whatever they were made from.

        Raises NftError, OSError.
        """
        with self._turn:
            door = self._entered()
            found = door.inside.call(door.differences, ruleset, policed)
            listed = {table: door.inside.call(door.listing, table) for table, _ in claims}
        return found + [said for table, claim in claims for said in prove(listed[table], claim)]

    def listing(self, table: Table) -> list[dict[str, Any]]:
        """All of a table, as `list table` says it in JSON; empty where there is none. Raises NftError, OSError."""
        with self._turn:
            door = self._entered()
            return door.inside.call(door.listing, table)

    def can_police(self) -> str | None:
        """Why this kernel can't enforce policies; None if it can."""
        with self._turn:
            try:
                door = self._entered()
                return door.inside.call(door.why_not)
            except (NftError, OSError) as error:
                return str(error)

    def close(self) -> None:
        """Lets go; what is in force stays."""
        with self._turn:
            self._leave()
        self._poll.close()

    def _entered(self) -> _Door:
        if self._door is None or not self._door.inside.is_at(self._namespace):
            self._leave()
            try:
                inside = Inside(self._namespace)
            except OSError as error:
                raise NftError(f"the rules of {self._namespace} can't be reached: {error.strerror}") from error
            try:
                door = inside.call(_Door, inside)
            except (OSError, NftError):
                inside.close()
                raise
            with self._lock:
                self._door = door
                for heard in door.heard:
                    self._poll.register(heard, select.EPOLLIN)
        return self._door

    def _leave(self) -> None:
        with self._lock:
            door, self._door = self._door, None
            if door:
                for heard in door.heard:
                    self._poll.unregister(heard)
        if door:
            door.close()


class _Door:
    """One namespace, for as long as it is that one. Made in its thread, and working there but for `touched`."""

    def __init__(self, inside: Inside) -> None:
        self.inside = inside
        self._nft = open_nft()
        self._transactions = Transactions()
        self._tables = Listing(inside.path)
        self._asks = Listing(inside.path)
        self._switches = Switches()
        self.heard: tuple[socket.socket, socket.socket] = netlink.opened([NFNLGRP_NFTABLES]), open_monitor()
        self.heard[0].setblocking(False)
        self._last: Ruleset | None = None
        self._generation = -1

    def close(self) -> None:
        self.inside.call(self._nft.close)
        for one in (self._transactions, self._tables, self._asks, self._switches, *self.heard, self.inside):
            one.close()

    def touched(self) -> bool:
        """See Enforcement. Raises OSError."""
        with suppress(OSError):  # ENOBUFS, too: so much was said that some was lost; the generation tells all
            while True:
                self.heard[0].recv(_CHUNK)
        is_switch_touched = self._switches.heard(self.heard[1])
        return is_switch_touched or (self._last is not None and self._asks.generation() != self._generation)

    def counters(self) -> dict[tuple[str, str], tuple[int, int]]:
        return self._tables.counters(PREFIX)

    def differences(self, ruleset: Ruleset, policed: frozenset[str]) -> list[str]:
        noted = self._generation
        try:
            found = self._read_back(ruleset)
        finally:
            self._generation = noted  # what was seen here was not put right
        return [*differences(found, ruleset), *self._switches.differences(policed)]

    def listing(self, table: Table) -> list[dict[str, Any]]:
        if table not in self._tables.tables(PREFIX):
            return []
        return self._nft.list(f"list table {' '.join(table)}")

    def why_not(self) -> str | None:
        if cause := why_no_netfilter():
            return cause
        try:
            self._nft.load(_TRIAL, is_trial=True)
        except NftError as error:
            return f"this kernel's nf_tables lacks something that policies need: {error}"
        return None

    def converge(self, ruleset: Ruleset, policed: frozenset[str], is_doubted: bool) -> Outcome:
        repaired: dict[str, int] = {}
        mended: list[str] = []
        for _ in range(_ATTEMPTS):
            with suppress(Changed):
                refused = self._converged(ruleset, is_doubted, repaired, mended)
                break
        else:
            raise NftError("somebody keeps changing the tables while they are changed")
        unpoliced, switched = self._switches.converge(policed, is_doubted)
        if "device" in switched:  # with it chains that were hooked there may have gone, which no generation tells
            again = self.converge(ruleset, policed, is_doubted=True)
            repaired = Counter(repaired) + Counter(switched) + Counter(again.repaired)
            return replace(again, repaired=repaired, mended=(*mended, *self._switches.mended, *again.mended))
        return Outcome("", refused, unpoliced, repaired | switched, (*mended, *self._switches.mended))

    def _converged(
        self, ruleset: Ruleset, is_doubted: bool, repaired: dict[str, int], mended: list[str]
    ) -> dict[tuple[Table, Hashable], str]:
        """What was refused. Raises Changed, where somebody else was in between."""
        refused: dict[tuple[Table, Hashable], str] = {}
        before = self._last
        self._is_alone = True
        if before is None or is_doubted or self._tables.generation() != self._generation:
            self._last = None  # whatever goes wrong from here on, the next time looks again
            found = self._read_back(before if before is not None else ruleset)
            wrong = wrong_objects(found, before if before is not None else ruleset)
            if before is not None:
                repaired |= wrong
                mended += islice(differences(found, before), MENDED)
            if wrong:
                before = self._mended(found, ruleset, refused)
            elif before is None:
                before = ruleset
        if before is not ruleset and not refused:
            self._last = None
            before = self._changed(before, ruleset, refused)
        self._last = before if self._is_alone else None
        return refused

    def _read_back(self, wanted: Ruleset) -> Ruleset:
        """The tables as they are, at one generation, which is noted. Raises NftError, OSError."""
        for _ in range(5):
            self._generation = self._tables.generation()
            found = found_ruleset(self._tables.tables(PREFIX), self._nft.list("list sets\nlist maps"), wanted)
            if self._tables.generation() == self._generation:
                return found
        raise NftError("somebody keeps changing the tables while they are read")

    def _mended(self, found: Ruleset, wanted: Ruleset, refused: dict[tuple[Table, Hashable], str]) -> Ruleset:
        """From what was found: by the difference, if nothing is wrong then (a dormant table stays so), else by the
        whole, else part by part, from nothing. What is then in force."""
        try:
            self._load(difference(found, wanted))
        except NftError:
            pass
        else:  # tables that were not there are what they were declared to be
            if not found or not wrong_objects(found := self._read_back(wanted), wanted):
                return wanted
        nothing = "".join(f"delete table {family} {name}\n" for family, name in found)
        with suppress(NftError):
            self._load_text(nothing + whole(wanted))
            return wanted
        self._load_text(nothing)
        return self._changed({}, wanted, refused)

    def _changed(self, before: Ruleset, wanted: Ruleset, refused: dict[tuple[Table, Hashable], str]) -> Ruleset:
        """In one transaction; if the kernel will not, each changed part in one of its own, those that it refuses left
        as they were. What is then in force."""
        try:
            self._load(difference(before, wanted))
        except NftError:
            now = before
        else:
            return wanted
        missing: Ruleset = {table: {} for table in wanted if table not in now}
        if missing:
            self._load(difference(now, {**now, **missing}))
            now = {**now, **missing}
        waiting = changed_parts(before, wanted)
        while waiting:  # again, as long as any goes in: parts may need each other, in whatever order they come
            said: dict[tuple[Table, Hashable], str] = {}
            for table, key in waiting:
                after = {**now, table: {**now.get(table, {}), key: wanted.get(table, {}).get(key, _NO_PART)}}
                try:
                    self._load(difference(now, after))
                except NftError as error:
                    said[table, key] = str(error)
                else:
                    now = after
            if len(said) == len(waiting):
                refused |= said
                break
            waiting = list(said)
        return now

    def _load(self, commands: Sequence[Command]) -> None:
        """One transaction, by our own messages if they can say it all. Raises Changed."""
        if not commands:
            return
        try:
            self._generation = self._transactions.apply(commands, self._generation)
        except Unspoken as unspoken:
            if not any(isinstance(command, DeclareTable | DeleteTable) for command in commands):
                log.info("rules changed by libnftables words=%r", str(unspoken))
            self._load_text(as_text(commands))

    def _load_text(self, text: str) -> None:
        """By libnftables. Notes the generation, and whether ours was the only transaction since the last that was
        noted."""
        if text:
            self._nft.load(text)
            found = self._tables.generation()
            self._is_alone &= found == self._generation + 1
            self._generation = found


def changed_parts(before: Ruleset, wanted: Ruleset) -> list[tuple[Table, Hashable]]:
    """First those that go, then those that come or change."""
    gone = [(table, key) for table, parts in before.items() for key in parts if key not in wanted.get(table, {})]
    return gone + [
        (table, key)
        for table, parts in wanted.items()
        for key, part in parts.items()
        if before.get(table, {}).get(key) is not part
    ]
