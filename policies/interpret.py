"""Pure. What nft rules, read back as JSON (libnftables-json(5)), do with the first packet of a flow, for all ports at
once. Knows the statements that policies are made of, and refuses to guess at others; knows no compiler and no policy.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from ipaddress import ip_address, ip_network
from typing import Any

from policies.compile.marks import REFUSED
from policies.ports import EVERYTHING, LIMITS, NOTHING, Algebra, Ports, Protocol

_ICMP6 = {0: {129}, 3: {1, 2}, 8: {128}, 11: {3}, 12: {4}}
"""ICMP type → the ICMPv6 types that mean it (RFC 792, RFC 4443)."""

_L4 = {"tcp": Protocol.TCP, "udp": Protocol.UDP, "sctp": Protocol.SCTP}

SIX_ALIKE = EVERYTHING - Ports.union(Ports.of(Protocol.ICMP, number) for number in range(255) if number not in _ICMP6)
"""What can be told apart in IPv6: ICMP types that ICMPv6 has, too; all of its others count as 255."""


class NotUnderstood(ValueError):
    """A rule says what no rule of ours does; its text, as JSON."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow's first packet, but for its ports. mark: of the packet; zone: of connection tracking."""

    bridge: str
    source: str
    destination: str
    mark: int = 0
    zone: int = 0

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.source else 4


@dataclass(slots=True)
class _Part:
    """Some ports of a flow, on their way."""

    ports: Ports
    flow: Flow


@dataclass
class Table:
    """A table as listed. base: base chains by hook, in order of priority. counters: names."""

    chains: dict[str, list[list[dict[str, Any]]]] = field(default_factory=dict)
    base: dict[str, list[tuple[int, str, str]]] = field(default_factory=dict)
    maps: dict[str, dict[Any, Any]] = field(default_factory=dict)
    counters: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._known: dict[tuple[str, Flow], tuple[Ports, list[_Part]]] = {}
        self._named: dict[tuple[int, int], Ports] = {}
        """Ports that a match speaks of, by its id and the version of IP."""
        self._equal: dict[Ports, Ports] = {}
        """Of those that rules speak of, one object for all that are equal."""
        self.algebra = Algebra()

    @classmethod
    def read(cls, entries: Iterable[Mapping[str, Any]]) -> Table:
        """From the entries of `list table`, of one table."""
        table = cls()
        for entry in entries:
            kind, body = next(iter(entry.items()))
            if kind == "chain":
                table.chains.setdefault(body["name"], [])
                if "hook" in body:
                    table.base.setdefault(body["hook"], []).append((body["prio"], body["name"], body["policy"]))
            elif kind == "rule":
                table.chains.setdefault(body["chain"], []).append(body["expr"])
            elif kind == "counter":
                table.counters.add(body["name"])
            elif kind in ("set", "map"):
                pairs = body.get("elem", ()) if kind == "map" else [(key, True) for key in body.get("elem", ())]
                table.maps[body["name"]] = {_key(key): value for key, value in pairs}
        for chains in table.base.values():
            chains.sort()
        return table

    def told_by(self, bridge: str, address: str) -> tuple[Any, ...]:
        """All that rules can tell an address on a bridge by: two that are told alike, are treated alike."""
        version = 6 if ":" in address else 4
        found = [str(known.get((bridge, address))) for _, known in sorted(self.maps.items())]
        return version, *found, *(_is_within(spans, address) for spans in self._constants)

    @cached_property
    def _constants(self) -> list[list[_Span]]:
        """Addresses that rules name themselves, of each rule together: in order, and none twice."""
        found: list[list[_Span]] = []
        for rules in self.chains.values():
            for rule in rules:
                for body in (statement["match"] for statement in rule if "match" in statement):
                    if _is_of_address(body["left"]):
                        right = body["right"]
                        words = right["set"] if isinstance(right, dict) and "set" in right else [right]
                        found.append(_merged(map(_span, words)))
        return found

    @cached_property
    def _blind(self) -> set[str]:
        """Chains in which, and below which, no rule looks at an address."""
        seeing = {name for name, rules in self.chains.items() if any("addr" in str(rule) for rule in rules)}
        leads = {name: set(self._targets(rules)) for name, rules in self.chains.items()}
        while more := {name for name, targets in leads.items() if name not in seeing and targets & seeing}:
            seeing |= more
        return self.chains.keys() - seeing

    def _targets(self, value: Any) -> Iterator[str]:
        """Chains that rules, or a value in them, lead to, also by a map."""
        if isinstance(value, dict):
            if "target" in value:
                yield value["target"]
            for one in value.values():
                yield from self._targets(one)
        elif isinstance(value, list):
            for one in value:
                yield from self._targets(one)
        elif isinstance(value, str) and value.startswith("@"):
            yield from self._targets(list(self.maps.get(value[1:], {}).values()))

    def accepted(self, hook: str, flow: Flow) -> tuple[Ports, Flow]:
        """What of it all base chains of a hook accept, and the flow as it leaves them. Raises NotUnderstood."""
        ports, now = EVERYTHING, flow
        for _, name, policy in self.base.get(hook, ()):
            accepted, rest = self._run(name, now)
            if policy == "accept":
                for part in rest:
                    accepted = self.algebra.either(accepted, part.ports)
                now = rest[0].flow if rest else now
            ports = self.algebra.both(ports, accepted)
        return ports, now

    def _run(self, chain: str, flow: Flow) -> tuple[Ports, list[_Part]]:
        """(what is accepted, what comes back) of a flow with all its ports."""
        if chain not in self.chains:
            raise NotUnderstood(f"chain {chain} is not there")
        if chain not in self._blind:
            return self._walk(chain, flow)
        unseen = "::" if flow.version == 6 else "0.0.0.0"
        key = chain, replace(flow, source=unseen, destination=unseen)
        if key not in self._known:
            self._known[key] = self._walk(*key)
        accepted, back = self._known[key]
        came = [
            _Part(part.ports, replace(part.flow, source=flow.source, destination=flow.destination)) for part in back
        ]
        return accepted, came

    def _walk(self, chain: str, flow: Flow) -> tuple[Ports, list[_Part]]:
        both, either = self.algebra.both, self.algebra.either
        accepted, parts, back = NOTHING, [_Part(EVERYTHING, flow)], []
        for rule in self.chains[chain]:
            waiting: list[_Part] = []
            for part in parts:
                matched, verdict, after, rest = self._apply(rule, part)
                if rest:
                    waiting.append(_Part(rest, part.flow))
                if not matched:
                    continue
                name, target = next(iter(verdict.items())) if verdict else ("continue", {})
                if name == "accept":
                    if after.mark != REFUSED:
                        accepted = either(accepted, matched)
                elif name == "return":
                    back.append(_Part(matched, after))
                elif name in ("jump", "goto"):
                    inside, returned = self._run(target["target"], after)
                    accepted = either(accepted, both(inside, matched))
                    came = [_Part(left, one.flow) for one in returned if (left := both(one.ports, matched))]
                    (waiting if name == "jump" else back).extend(came)
                elif name == "continue":
                    waiting.append(_Part(matched, after))
            parts = waiting
        return accepted, self._united(back + parts)

    def _united(self, parts: list[_Part]) -> list[_Part]:
        found: dict[Flow, Ports] = {}
        for part in parts:
            found[part.flow] = self.algebra.either(found.get(part.flow, NOTHING), part.ports)
        return [_Part(ports, flow) for flow, ports in found.items()]

    def _apply(self, rule: list[dict[str, Any]], part: _Part) -> tuple[Ports, dict[str, Any], Flow, Ports]:
        """(ports that match, verdict, flow after, ports that don't match)."""
        without = self.algebra.without
        matched, flow = part.ports, part.flow
        for statement in rule:
            kind, body = next(iter(statement.items()))
            if kind == "match":
                matched = self.algebra.both(matched, self._matching(body, flow))
            elif kind == "vmap":
                verdict = self._looked_up(body, flow)
                rest = without(part.ports, matched)
                return (matched, verdict, flow, rest) if verdict is not None else _untouched(part)
            elif kind == "mangle":
                changed = self._mangled(body, flow)
                if changed is None:
                    return _untouched(part)
                flow = changed
            elif kind in ("accept", "drop", "return", "jump", "goto"):
                return matched, {kind: body}, flow, without(part.ports, matched)
            elif kind == "notrack":
                return (
                    matched,
                    {"drop": None},
                    flow,
                    without(part.ports, matched),
                )  # a first packet of a flow is tracked
            elif kind == "set" or kind == "limit":
                return _untouched(part)  # bounds and logs: what is within them is judged by the rest
            elif kind not in ("counter", "log"):
                raise NotUnderstood(str(statement))
            if not matched:
                return _untouched(part)
        return matched, {}, flow, without(part.ports, matched)

    def _matching(self, body: Mapping[str, Any], flow: Flow) -> Ports:
        match body["left"]:
            case {"meta": {"key": "l4proto"}} | {"ct": {"key": "proto-dst", "dir": "original"}}:
                key = id(body), flow.version
                if key not in self._named:
                    made = self._holding(body, flow)
                    self._named[key] = self._equal.setdefault(made, made)
                return self._named[key]
        return self._holding(body, flow)

    def _holding(self, body: Mapping[str, Any], flow: Flow) -> Ports:
        left, right, is_equal = body["left"], body["right"], body["op"] in ("==", "in")
        if "'protocol': 'tcp', 'field': 'flags'" in str(left):
            return NOTHING  # asked of connections that were not seen to begin; this one begins
        if body["op"] not in ("==", "!=", "in"):
            raise NotUnderstood(str(body))
        words = right["set"] if isinstance(right, dict) and "set" in right else [right]
        match left:
            case {"meta": {"key": "l4proto"}}:
                found = _of_protocols(words, flow.version)
                return found if is_equal else EVERYTHING - found
            case {"ct": {"key": "proto-dst", "dir": "original"}}:
                return _of_numbers(words, flow.version) if is_equal else EVERYTHING - _of_numbers(words, flow.version)
            case {"meta": {"key": "mark"}}:
                holds = flow.mark in map(int, words)
            case {"meta": {"key": "iifname"}}:
                holds = flow.bridge in words
            case {"meta": {"key": "pkttype"}}:
                holds = "host" in words  # what is judged is for one machine
            case {"ct": {"key": "direction"}}:
                holds = "original" in words
            case {"ct": {"key": "state"}}:
                holds = "new" in words
            case {"ct": {"key": "mark"}}:
                holds = 0 in words
            case {"&": [{"ct": {"key": "mark"}}, _]}:
                holds = 0 in words
            case {"concat": keys}:
                holds = self._is_in(tuple(_value(key, flow) for key in keys), right)
            case {"ct": {"key": key, "dir": "original"}} if key in ("ip saddr", "ip daddr", "ip6 saddr", "ip6 daddr"):
                address = _value(left, flow)
                holds = address is not None and any(_has(word, address) for word in words)
                if address is None:
                    return NOTHING
            case {"payload": {"protocol": "ip" | "ip6"}}:
                address = _value(left, flow)
                if address is None:
                    return NOTHING
                holds = any(_has(word, address) for word in words)
            case {"payload": {"protocol": "icmpv6", "field": "type"}}:
                return NOTHING  # neighbour discovery, which begins no flow
            case _:
                raise NotUnderstood(str(body))
        return EVERYTHING if holds == is_equal else NOTHING

    def _is_in(self, key: tuple[Any, ...], right: Any) -> bool:
        if not isinstance(right, str) or not right.startswith("@"):
            raise NotUnderstood(str(right))
        return key in self.maps.get(right[1:], {})

    def _looked_up(self, body: Mapping[str, Any], flow: Flow) -> Any:
        key, data = body["key"], body["data"]
        known = self.maps.get(data[1:], {}) if isinstance(data, str) else {_key(one): two for one, two in data["set"]}
        if "concat" in key:
            return known.get(tuple(_value(one, flow) for one in key["concat"]))
        return known.get(_value(key, flow))

    def _mangled(self, body: Mapping[str, Any], flow: Flow) -> Flow | None:
        """The flow after; None if the rule ends here."""
        key, value = body["key"], body["value"]
        if isinstance(value, dict) and "map" in value:
            value = self._looked_up(value["map"], flow)
            if value is None:
                return None
        match key:
            case {"meta": {"key": "mark"}}:
                return replace(flow, mark=int(value))
            case {"ct": {"key": "zone"}}:
                return replace(flow, zone=int(value))
            case {"ct": {"key": "mark"}}:
                return flow
            case {"payload": {"base": "ll"}}:
                return flow
        raise NotUnderstood(str(body))


def _is_of_address(left: Mapping[str, Any]) -> bool:
    match left:
        case {"ct": {"key": str(key)}}:
            return key.endswith("addr")
        case {"payload": {"field": "saddr" | "daddr"}}:
            return True
    return False


def _untouched(part: _Part) -> tuple[Ports, dict[str, Any], Flow, Ports]:
    return NOTHING, {}, part.flow, part.ports


def _value(key: Mapping[str, Any], flow: Flow) -> Any:
    """What a key is of this flow; None where it has none, as an IPv6 flow has no IPv4 address."""
    match key:
        case {"meta": {"key": "iifname"}}:
            return flow.bridge
        case {"meta": {"key": "mark"}}:
            return flow.mark
        case {"ct": {"key": "state"}}:
            return "new"
        case {"ct": {"key": found, "dir": "original"}}:
            family, _, side = str(found).partition(" ")
        case {"payload": {"protocol": family, "field": side}}:
            pass
        case _:
            raise NotUnderstood(str(key))
    if (family, side) not in {(one, two) for one in ("ip", "ip6") for two in ("saddr", "daddr")}:
        raise NotUnderstood(str(key))
    if (family == "ip6") != (flow.version == 6):
        return None
    return flow.source if side == "saddr" else flow.destination


def _key(key: Any) -> Any:
    if isinstance(key, dict) and "elem" in key:
        key = key["elem"]["val"]
    return (
        tuple(key["concat"])
        if isinstance(key, dict) and "concat" in key
        else str(key)
        if isinstance(key, dict)
        else key
    )


_Span = tuple[int, int, int]
"""IP version, first and last address."""


def _has(word: Any, address: str) -> bool:
    return _is_within([_span(word)], address)


def _span(word: Any) -> _Span:
    if isinstance(word, dict) and "prefix" in word:
        block = ip_network(f"{word['prefix']['addr']}/{word['prefix']['len']}")
        return block.version, int(block[0]), int(block[-1])
    if isinstance(word, dict) and "range" in word:
        first, last = (ip_address(end) for end in word["range"])
        return first.version, int(first), int(last)
    if isinstance(word, str) and not word.startswith("@"):
        one = ip_address(word)
        return one.version, int(one), int(one)
    raise NotUnderstood(str(word))


def _merged(spans: Iterable[_Span]) -> list[_Span]:
    found: list[_Span] = []
    for version, first, last in sorted(spans):
        if found and found[-1][0] == version and first <= found[-1][2]:
            found[-1] = version, found[-1][1], max(last, found[-1][2])
        else:
            found.append((version, first, last))
    return found


def _is_within(spans: Sequence[_Span], address: str) -> bool:
    """spans: in order, and apart."""
    one = ip_address(address)
    place = bisect_right(spans, (one.version, int(one), 1 << 128)) - 1
    return place >= 0 and spans[place][0] == one.version and int(one) <= spans[place][2]


def _of_protocols(words: Iterable[Any], version: int) -> Ports:
    found = []
    for word in words:
        if word in _L4:
            found.append(Ports.of(_L4[word]))
        elif word in ("icmp", "ipv6-icmp"):
            found.append(Ports.of(Protocol.ICMP) if (word == "icmp") == (version == 4) else NOTHING)
        else:
            raise NotUnderstood(f"protocol {word}")
    return Ports.union(found)


def _of_numbers(words: Iterable[Any], version: int) -> Ports:
    """Of what connection tracking has for a destination port: a port, or for ICMP type × 256 + code."""
    spans = [tuple(map(_number, word["range"])) if isinstance(word, dict) else (_number(word),) * 2 for word in words]
    lowest, highest = LIMITS[Protocol.TCP]  # as those of UDP and SCTP
    within = tuple((max(a, lowest), min(b, highest)) for a, b in spans if b >= lowest and a <= highest)
    found = [Ports(tuple((protocol, within) for protocol in _L4.values()))]
    types = {kind for a, b in spans for kind in range(a + 255 >> 8, min(b - 255, 0xFF00) + 256 >> 8)}  # with all codes
    if version == 6:
        others = set(range(256)) - set().union(*_ICMP6.values())
        types = {number for number, kinds in _ICMP6.items() if kinds <= types} | ({255} if others <= types else set())
    return Ports.union([*found, *(Ports.of(Protocol.ICMP, kind) for kind in types)])


def _number(word: Any) -> int:
    """nft 1.0 lists these as `0x16 [invalid type]`, in JSON too."""
    return int(word.split()[0], 0) if isinstance(word, str) else int(word)
