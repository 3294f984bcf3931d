"""Pure. Groups, policies, tests and gateways of a playground's files, and the policies of a site: read into the model.

Whom words mean is decided in `peers`; what policies then do is no matter of files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network

from playground.spec import names
from playground.spec.models import GatewayShape, WorkspaceShape
from playground.spec.objects import Connectivity, GatewaySpec, NetworkSpec
from playground.spec.peers import PeerError, Words
from playground.spec.policy_models import (
    EgressShape,
    ExpectationShape,
    IncludedShape,
    IngressShape,
    PeerShape,
    PolicyShape,
    SiteEgressShape,
    SiteIngressShape,
    SitePolicyShape,
)
from playground.spec.ports import parse_ports
from playground.spec.problem import Place, Problem
from playground.spec.shape import is_left_out
from playground.spec.source import Document
from playground.spec.workspace import host_of
from policies.model import (
    ALL_PORTS,
    Action,
    EndpointPeer,
    Expectation,
    Mode,
    OnDeny,
    Origin,
    Peer,
    Policy,
    Rule,
    Tier,
)
from policies.ports import NOTHING, Ports
from policies.selector import Selector, SelectorError, is_selector, parse_selector

_Path = tuple[str | int, ...]
_AnyRule = IngressShape | EgressShape | SiteIngressShape | SiteEgressShape


@dataclass(frozen=True, slots=True)
class Source:
    """One file's part: its groups, policies and tests, and the document that knows their places."""

    document: Document
    groups: Mapping[str, str]
    policies: Sequence[PolicyShape | SitePolicyShape]
    tests: Sequence[ExpectationShape]

    @classmethod
    def of(cls, document: Document, shape: IncludedShape) -> Source:
        """Of an included file."""
        return cls(document, shape.groups, shape.policies, shape.tests)


def connectivity(
    playground: str,
    sources: Sequence[Source],
    workspaces: Mapping[str, WorkspaceShape],
    networks: Mapping[str, NetworkSpec],
    gateways: Mapping[str, GatewayShape],
    problems: list[Problem],
) -> Connectivity:
    """All that a playground's files say. sources: the file itself, then those that it includes."""
    own = sources[0].document
    subnets = tuple((ip_network(subnet.text), one.name) for one in networks.values() for subnet in one.subnets)
    words = Words(
        playground,
        dict(_groups(sources, workspaces, problems)),
        dict.fromkeys(own.keys(("workspaces",))) | {name: shape.scale for name, shape in workspaces.items()},
        own.keys(("gateways",)),
        subnets,
    )
    reader = _Reader(words, problems)
    policies = tuple(policy for source in sources for policy in reader.policies(source))
    reader.check_replaced()
    tests = tuple(test for source in sources for test in reader.tests(source))
    found = tuple(_gateways(gateways, own, words, problems))
    return Connectivity(policies, tests, found, reader.places, words)


def site_policies(
    document: Document, shapes: Sequence[SitePolicyShape], problems: list[Problem]
) -> tuple[tuple[Policy, ...], Mapping[Origin, Place]]:
    """The admin and baseline tiers, and where each policy and rule stands."""
    reader = _Reader(Words(), problems)
    policies = tuple(reader.policies(Source(document, {}, shapes, ())))
    reader.check_replaced()
    return policies, reader.places


def _groups(
    sources: Iterable[Source], workspaces: Mapping[str, WorkspaceShape], problems: list[Problem]
) -> Iterator[tuple[str, Selector | None]]:
    """By name; None for those that have problems: the word is known all the same."""
    seen: dict[str, Place] = {}
    for source in sources:
        for name in source.document.keys(("groups",)):
            if name.startswith("x-"):
                continue
            place = source.document.key_place(("groups", name))
            twin = seen.setdefault(name, place)
            try:
                names.dns_label(name)
                if twin is not place:
                    raise ValueError(f"the group {name} is in {twin.file}:{twin.line} too; rename one")
                declared, _, index = name.rpartition("-")
                scaled = workspaces.get(declared)
                if name in workspaces or (scaled and index.isdecimal() and int(index) < (scaled.scale or 0)):
                    raise ValueError(f"a workspace is named {name} too, and they share one name space; rename one")
            except ValueError as error:
                problems.append(Problem.at(place, str(error)))
            yield name, _group(source, name, problems)


def _group(source: Source, name: str, problems: list[Problem]) -> Selector | None:
    text = source.groups.get(name)
    if text is None:
        return None
    try:
        if not is_selector(text):
            raise SelectorError(f"{text[:60]!r} is no selector; a group is one over labels, as role=worker")
        return parse_selector(text)
    except SelectorError as error:
        problems.append(Problem.at(source.document.place(("groups", name)), str(error)))
        return None


def _gateways(
    shapes: Mapping[str, GatewayShape], document: Document, words: Words, problems: list[Problem]
) -> Iterator[GatewaySpec]:
    declared = document.keys(("networks",))
    for name, shape in shapes.items():
        for index, network in enumerate(shape.networks):
            if network not in declared:
                place = document.place(("gateways", name, "networks", index))
                hint = words.hint(network, declared, "; the file has no networks")
                problems.append(Problem.at(place, f"unknown network {network[:60]!r}{hint}"))
        place, host_place = document.key_place(("gateways", name)), document.place(("gateways", name, "host"))
        try:
            host = host_of(shape.host)
        except ValueError as error:
            problems.append(Problem.at(host_place, str(error)))
            host = None
        yield GatewaySpec(name, shape.kind, frozenset(shape.networks), host, place, host_place)


@dataclass(slots=True)
class _Reader:
    words: Words
    problems: list[Problem]
    places: dict[Origin, Place] = field(default_factory=dict)
    _named: dict[str, tuple[Place, Mode]] = field(default_factory=dict)
    _replacing: list[tuple[Place, str, str]] = field(default_factory=list)
    _ports: dict[str, Ports] = field(default_factory=dict)
    _priorities: dict[tuple[Tier, int, Selector], tuple[int, str]] = field(default_factory=dict)

    def _refuse(self, place: Place, message: str) -> None:
        self.problems.append(Problem.at(place, message))

    def _origin(self, place: Place) -> Origin:
        origin = Origin(place.file, place.line)
        self.places.setdefault(origin, place)
        return origin

    def policies(self, source: Source) -> Iterator[Policy]:
        """Those of one file, in its order."""
        for index, shape in enumerate(source.policies):
            if not is_left_out(shape):
                yield self._policy(shape, source.document, ("policies", index))

    def _policy(self, shape: PolicyShape | SitePolicyShape, document: Document, path: _Path) -> Policy:
        place = document.place(path)
        origin = self._origin(place)
        tier = Tier(shape.tier) if isinstance(shape, SitePolicyShape) else Tier.OWNER
        if shape.ingress is None and shape.egress is None:
            self._refuse(place, "neither ingress nor egress stands here; write [] to close one, or rules")
        subjects = tuple(self._subjects(shape.subject, document, (*path, "subject")))
        priority = shape.priority if isinstance(shape, SitePolicyShape) else 0
        if isinstance(shape, SitePolicyShape):
            self._check_priority(tier, priority, subjects, int(path[-1]), place)
        mode = Mode(shape.mode)
        if shape.replaces is not None and mode is not Mode.STAGE:
            self._refuse(document.key_place((*path, "replaces")), "only a staged policy replaces; write mode: stage")
        name = self._name(shape.name, document, path, mode)
        if shape.replaces is not None:
            self._replacing.append((document.place((*path, "replaces")), shape.replaces, name))
        return Policy(
            name=name,
            subjects=subjects,
            ingress=self._rules(shape.ingress, document, (*path, "ingress"), "from", tier),
            egress=self._rules(shape.egress, document, (*path, "egress"), "to", tier),
            origin=origin,
            tier=tier,
            priority=priority,
            mode=mode,
            on_deny=OnDeny(shape.on_deny),
            playground=self.words.playground,
            replaces=shape.replaces or "",
            keeps_established=shape.established is not None,
        )

    def _name(self, given: str | None, document: Document, path: _Path, mode: Mode) -> str:
        """As written; else the place, with its column where another policy begins in the same line."""
        place = document.place((*path, "name") if given is not None else path)
        name = f"{place.file}:{place.line}" if given is None else given
        if given is not None:
            try:
                names.dns_label(given)
            except ValueError as error:
                self._refuse(place, str(error))
            if given in self._named:
                twin = self._named[given][0]
                self._refuse(place, f"the policy {given} is in {twin.file}:{twin.line} too; rename one")
        elif name in self._named:
            name += f":{place.column}"
        self._named.setdefault(name, (place, mode))
        return name

    def check_replaced(self) -> None:
        """Each `replaces` names a policy of the same files that is in force."""
        for place, wanted, name in self._replacing:
            if wanted == name:
                self._refuse(place, f"{name} can't replace itself; name the policy that it is to replace")
            elif wanted not in self._named:
                hint = self.words.hint(wanted, {one for one in self._named if ":" not in one} - {name}, "")
                self._refuse(place, f"there is no policy {wanted[:60]!r}{hint}")
            elif self._named[wanted][1] is Mode.STAGE:
                self._refuse(place, f"{wanted} is staged itself; name a policy that is in force")

    def _check_priority(
        self, tier: Tier, priority: int, subjects: Iterable[EndpointPeer], index: int, place: Place
    ) -> None:
        """Equal priorities on equal subjects; on overlapping ones only the endpoints that there are can tell."""
        for subject in subjects:
            key = (tier, priority, subject.selector)
            first, where = self._priorities.setdefault(key, (index, f"line {place.line}"))
            if first != index:
                self._refuse(
                    place,
                    f"priority {priority} of the {tier.value} tier is that of the policy in {where} too, on the same "
                    "subject, and no order would be told; choose another",
                )

    def _subjects(self, texts: Sequence[str], document: Document, path: _Path) -> Iterator[EndpointPeer]:
        for index, text in enumerate(texts):
            try:
                yield self.words.endpoints(text)
            except PeerError as error:
                self._refuse(document.place((*path, index)), str(error))

    def _rules(
        self, shapes: Sequence[_AnyRule] | None, document: Document, path: _Path, key: str, tier: Tier
    ) -> tuple[Rule, ...] | None:
        if shapes is None:
            return None
        rules = []
        for index, shape in enumerate(shapes):
            at = (*path, index)
            peers = shape.from_ if isinstance(shape, IngressShape | SiteIngressShape) else shape.to
            action = Action.ALLOW
            if isinstance(shape, SiteIngressShape | SiteEgressShape):
                action = Action(shape.action)
                if action is Action.PASS and tier is Tier.BASELINE:
                    message = "the baseline is the last tier, there is none to pass to; write allow or deny"
                    self._refuse(document.place((*at, "action")), message)
            rules.append(
                Rule(
                    self._peers(peers, document, (*at, key), tier),
                    self._port_set(shape.ports, document, (*at, "ports")),
                    self._origin(document.place(at)),
                    action,
                )
            )
        return tuple(rules)

    def _peers(
        self, shapes: Sequence[PeerShape] | None, document: Document, path: _Path, tier: Tier
    ) -> tuple[Peer, ...]:
        if shapes is None:
            return self.words.everybody()
        found = (self._peer(shape, document, (*path, index), tier) for index, shape in enumerate(shapes))
        return tuple(peer for peer in found if peer is not None)

    def _peer(self, shape: PeerShape, document: Document, path: _Path, tier: Tier | None) -> Peer | None:
        try:
            return self.words.peer(shape, tier)
        except PeerError as error:
            self._refuse(document.place((*path, *error.path)), str(error))
            return None

    def _port_set(self, texts: Sequence[str] | None, document: Document, path: _Path) -> Ports:
        if texts is None:
            return ALL_PORTS
        found = []
        for index, text in enumerate(texts):
            try:
                known = self._ports.get(text)
                if known is None:
                    known = self._ports[text] = parse_ports(text)
                found.append(known)
            except ValueError as error:
                self._refuse(document.place((*path, index)), str(error))
        return Ports.union(found) if len(found) > 1 else found[0] if found else NOTHING

    def tests(self, source: Source) -> Iterator[Expectation]:
        """Those of one file."""
        for index, shape in enumerate(source.tests):
            if is_left_out(shape):
                continue
            path: _Path = ("tests", index)
            ends = [
                self._peer(end, source.document, (*path, key), None)
                for key, end in (("from", shape.from_), ("to", shape.to))
            ]
            ports = self._port_set(None if shape.port is None else [shape.port], source.document, (*path, "port"))
            yield Expectation(
                sources=tuple(end for end in ends[:1] if end is not None),
                destinations=tuple(end for end in ends[1:] if end is not None),
                ports=ports,
                is_allowed=shape.expect == "allow",
                origin=self._origin(source.document.place(path)),
                text=_line(shape),
            )


def _line(shape: ExpectationShape) -> str:
    """A test as people say it."""
    ends = " to ".join(one.select or one.cidr or one.playground or "?" for one in (shape.from_, shape.to))
    return f"{shape.expect} {shape.port or 'everything'} from {ends}"
