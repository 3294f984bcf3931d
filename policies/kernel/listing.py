"""Owns what is asked of nf_tables by raw netlink: generation, structure, counters. Only reads.

Layouts: linux/netfilter/nf_tables.h; comments: libnftnl/udata.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from policies.kernel.netlink import BODY, Netfilter, body, number, parse

_NFTABLES = 10 << 8
_GETTABLE, _GETCHAIN, _GETRULE, _GETSET, _GETGEN, _GETOBJ = (_NFTABLES | kind for kind in (1, 4, 7, 10, 16, 19))
NFNLGRP_NFTABLES = 7
"""What the kernel tells of every transaction, whoever's it is."""

_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_INET_HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_HOOKS = {"netdev": ("ingress", "egress"), "arp": ("input", "output", "forward")}
_COUNTER = 1
_DORMANT = 1
_RULE_COMMENT, _SET_COMMENT = 0, 7


@dataclass(slots=True)
class TableFound:
    """A table as it stands. chains: to each its hook, as tables.Chain has it, and its rules' comments; sets: to each
    its comment. A missing comment is ""; so is a hook in a dormant table, whose chains meet no packet."""

    chains: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    sets: dict[str, str] = field(default_factory=dict)
    counters: set[str] = field(default_factory=set)


class Listing:
    """The tables of one namespace. Not for two threads at once. Raises OSError throughout."""

    def __init__(self, namespace: Path) -> None:
        self._kernel = Netfilter(namespace)

    def close(self) -> None:
        """Closes its socket."""
        self._kernel.close()

    def generation(self) -> int:
        """A number that every transaction of this namespace makes greater by one, whoever's it is."""
        answer = self._kernel.get(_GETGEN, body(0))
        if answer is None:
            raise OSError("the kernel tells no generation of its tables")
        return number(parse(answer, BODY)[1])

    def tables(self, prefix: str) -> dict[tuple[str, str], TableFound]:
        """What stands in tables whose names begin like this: all but sets' elements."""
        flags = {place: number(parts[2]) for place, parts in self._named(_GETTABLE) if place[1].startswith(prefix)}
        found = {place: TableFound() for place in flags}
        for place, parts in self._named(_GETCHAIN):
            if place in found:
                hook = "" if flags[place] & _DORMANT else _hook_text(place[0], parts)
                found[place].chains[text_of(parts[3])] = hook, []
        for place, parts in self._named(_GETRULE):
            if place in found:
                found[place].chains[text_of(parts[2])][1].append(_comment(parts.get(7, b""), _RULE_COMMENT))
        for place, parts in self._named(_GETSET):
            if place in found and not (name := text_of(parts[2])).startswith("__"):  # those have no name of their own
                found[place].sets[name] = _comment(parts.get(13, b""), _SET_COMMENT)
        for place, parts in self._named(_GETOBJ):
            if place in found and number(parts[3]) == _COUNTER:
                found[place].counters.add(text_of(parts[2]))
        return found

    def counters(self, prefix: str) -> dict[tuple[str, str], tuple[int, int]]:
        """(packets, bytes) by (table, counter), of tables whose names begin like this."""
        found = {}
        for (_, table), parts in self._named(_GETOBJ):
            if table.startswith(prefix) and number(parts[3]) == _COUNTER:
                values = parse(parts[4])
                found[table, text_of(parts[2])] = number(values[2]), number(values[1])
        return found

    def _named(self, kind: int) -> Iterator[tuple[tuple[str, str], dict[int, bytes]]]:
        """((family, table), attributes) of all objects of a kind."""
        for content in self._kernel.dump(kind, body(0)):
            parts = parse(content, BODY)
            yield (_FAMILIES.get(content[0], ""), text_of(parts[1])), parts


def text_of(value: bytes) -> str:
    """A name, which ends with a zero byte."""
    return value.partition(b"\0")[0].decode(errors="replace")


def _hook_text(family: str, parts: dict[int, bytes]) -> str:
    if 4 not in parts:
        return ""
    hook = parse(parts[4])
    place = _HOOKS.get(family, _INET_HOOKS)[number(hook[1])]
    device = f' device "{text_of(hook[3])}"' if 3 in hook else ""
    priority = int.from_bytes(hook[2], "big", signed=True)
    policy = "accept" if number(parts.get(5, b"\1")) else "drop"
    return f"type {text_of(parts[7])} hook {place}{device} priority {priority}; policy {policy};"


def _comment(userdata: bytes, kind: int) -> str:
    """Userdata is a row of (type, length, value), a byte each of the first two."""
    place = 0
    while place + 2 <= len(userdata):
        found, length = userdata[place], userdata[place + 1]
        if found == kind:
            return text_of(userdata[place + 2 : place + 2 + length])
        place += 2 + length
    return ""
