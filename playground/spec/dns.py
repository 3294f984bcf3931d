"""Pure. Names that a file gives beside those that follow from workspaces: aliases, groups, and a network's records.

Each name means one thing: workspaces, groups and aliases share one name space, and whoever asks for a name hears the
same from every host. Knows nothing of how names are answered.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from playground.spec import names
from playground.spec.models import NetworkShape, WorkspaceShape
from playground.spec.objects import DnsSpec, NameSpec, NetworkSpec, NicSpec, WorkspaceSpec
from playground.spec.problem import Place, Problem, suggestion
from playground.spec.scene import endpoint_labels
from playground.spec.source import Document, Path
from policies.selector import Selector

MAX_TEXT = 4096
"""Bytes of one text: sixteen strings (RFC 1035 §3.3), and a reply that fits one TCP segment or two."""

MAX_RECORDS = 1000
"""Of one network."""

_RECORD_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
_PER_INSTANCE = frozenset({"workspace", "index"})
"""Labels in which instances of one workspace differ."""


def with_names(
    playground: str,
    members: Mapping[str, WorkspaceSpec],
    shapes: Mapping[str, WorkspaceShape],
    groups: Mapping[str, Selector | None],
    document: Document,
    problems: list[Problem],
) -> dict[str, WorkspaceSpec]:
    """The workspaces with all names of their NICs; an alias that means something else already is a problem."""
    taken = _Taken(members, groups, document, problems)
    for name, shape in shapes.items():
        taken.take(name, shape)
    selectors = {group: selector for group, selector in groups.items() if selector is not None}
    differs = any(term.key in _PER_INSTANCE for selector in selectors.values() for term in selector.terms)
    found: dict[str, WorkspaceSpec] = {}
    made: dict[str, tuple[NicSpec, ...]] = {}
    for name, workspace in members.items():
        nics = None if differs else made.get(workspace.declared)
        if nics is None:
            nics = made[workspace.declared] = tuple(
                replace(nic, aliases=tuple(_aliases(playground, workspace, nic, shapes, selectors)))
                for nic in workspace.nics
            )
        found[name] = replace(workspace, nics=nics)
    return found


def _aliases(
    playground: str,
    workspace: WorkspaceSpec,
    nic: NicSpec,
    shapes: Mapping[str, WorkspaceShape],
    groups: Mapping[str, Selector],
) -> Iterator[str]:
    """Relative to the playground, each once."""
    shape = shapes[workspace.declared]
    labels = endpoint_labels(playground, workspace, nic)
    both = [*shape.aliases, *(group for group, selector in groups.items() if selector.matches(labels))]
    own = [alias for one in shape.networks if one.network == nic.network for alias in one.aliases]
    yield from dict.fromkeys([*both, *(f"{alias}.{nic.network}" for alias in (*both, *own))])


@dataclass(slots=True)
class _Taken:
    """Who has which alias, by alias and network; "" stands for the playground itself."""

    members: Mapping[str, WorkspaceSpec]
    groups: Mapping[str, Selector | None]
    document: Document
    problems: list[Problem]
    aliases: dict[tuple[str, str], tuple[str, Place]] = field(default_factory=dict)

    def take(self, name: str, shape: WorkspaceShape) -> None:
        networks = [nic.network for nic in shape.networks]
        for index, alias in enumerate(shape.aliases):
            self._take(name, alias, ["", *networks], ("workspaces", name, "aliases", index))
        for at, nic in enumerate(shape.networks):
            for index, alias in enumerate(nic.aliases):
                self._take(name, alias, [nic.network], ("workspaces", name, "networks", at, "aliases", index))

    def _take(self, name: str, alias: str, networks: Sequence[str], path: Path) -> None:
        place = self.document.place(path)
        try:
            names.dns_label(alias)
            if alias in self.members or alias in self.document.keys(("workspaces",)):
                raise ValueError(f"a workspace is named {alias}; choose another alias")
            if alias in self.groups:
                raise ValueError(f"a group is named {alias}, which is a name of all its members; choose another alias")
            for network in networks:
                owner, first = self.aliases.setdefault((alias, network), (name, place))
                if owner != name:
                    where = f"{first.path} in line {first.line}"
                    raise ValueError(f"{alias} is an alias of {owner} already, {where}; for several write a group")
        except ValueError as error:
            self.problems.append(Problem.at(place, str(error)))


def with_records(
    playground: str,
    networks: Mapping[str, NetworkSpec],
    shapes: Mapping[str, NetworkShape],
    members: Mapping[str, WorkspaceSpec],
    document: Document,
    problems: list[Problem],
) -> dict[str, NetworkSpec]:
    """The networks with what they say of names. members: with their names."""
    known: dict[str, str] = {}
    for workspace in members.values():
        for nic in workspace.nics:
            own = (workspace.name, f"{workspace.name}.{nic.network}")
            known.update(dict.fromkeys(own, f"the workspace {workspace.name}"))
            known.update((alias, known.get(alias, f"a name of {workspace.name}")) for alias in nic.aliases)
    declared = {
        _qualified(name, network)
        for network, shape in shapes.items()
        for name in shape.dns.records
        if network in networks
    }
    longest = 253 - names.MAX_DOMAIN - len(f".{playground}.")
    reader = _Records(known, declared, longest, document, problems)
    found = {name: replace(one, dns=reader.dns(one, shapes[name])) for name, one in networks.items()}
    reader.check_loops()
    return found


def _qualified(name: str, network: str) -> str:
    """Relative to the playground."""
    return network if name == "@" else f"{name}.{network}"


@dataclass(slots=True)
class _Records:
    """known: names of ports, and whose they are; declared: names of records. All relative to the playground, and of at
    most `longest` characters, which leaves room for the playground's name and the site's domain."""

    known: Mapping[str, str]
    declared: set[str]
    longest: int
    document: Document
    problems: list[Problem]
    aliases: dict[str, tuple[str, Place]] = field(default_factory=dict)
    """CNAMEs, with where they lead and where they are written."""

    def dns(self, network: NetworkSpec, shape: NetworkShape) -> DnsSpec:
        path = ("networks", network.name, "dns")
        transfer = tuple(self._transfer(network, shape.dns.transfer, (*path, "transfer")))
        if len(shape.dns.records) > MAX_RECORDS:
            message = f"{len(shape.dns.records)} names; a network may have {MAX_RECORDS}"
            self._refuse(self.document.key_place((*path, "records")), message)
            return DnsSpec(shape.dns.forward, transfer)
        found = (one for name in shape.dns.records for one in self._records(network.name, name, shape))
        return DnsSpec(shape.dns.forward, transfer, tuple(found))

    def _refuse(self, place: Place, message: str) -> None:
        self.problems.append(Problem.at(place, message))

    def _transfer(self, network: NetworkSpec, texts: Sequence[str], path: Path) -> Iterator[str]:
        subnets = [ipaddress.ip_network(subnet.text) for subnet in network.subnets]
        for index, text in enumerate(texts):
            place = self.document.place((*path, index))
            try:
                prefix = ipaddress.ip_network(text.strip())
            except ValueError:
                self._refuse(
                    place, f"{text[:60]!r} is no address and no prefix; write one as 10.20.0.5 or 10.20.0.0/28"
                )
                continue
            if any(prefix.version == one.version and prefix.subnet_of(one) for one in subnets):  # type: ignore[arg-type]
                yield str(prefix)
            else:
                listed = ", ".join(map(str, subnets)) or "it has none"
                self._refuse(place, f"{text} lies in no subnet of {network.name}, where nobody else asks: {listed}")

    def _records(self, network: str, name: str, shape: NetworkShape) -> Iterator[NameSpec]:
        path = ("networks", network, "dns", "records", name)
        place, record = self.document.key_place(path), shape.dns.records[name]
        full = _qualified(name, network)
        if name != "@" and (len(full) > self.longest or not all(map(_is_record_label, name.split(".")))):
            message = (
                f"{name[:80]!r} is no name; write DNS labels in lower case, as _sip._tcp, or @ for the network itself"
            )
            self._refuse(place, message)
            return
        if record.cname is not None:
            if record.srv or record.txt:
                self._refuse(place, f"{name} has a cname, and whatever has one has nothing else; leave one out")
            elif name == "@":
                self._refuse(place, "the network's own name can't have a cname; give it to a name in it")
            elif full in self.known:
                self._refuse(place, f"{full} is {self.known[full]}; a cname needs a name of its own")
            elif (target := self._target(record.cname, network, self.document.place((*path, "cname")))) is not None:
                self.aliases[full] = target, place
                yield NameSpec(full, "CNAME", target)
            return
        if not record.srv and not record.txt:
            self._refuse(place, f"{name} says nothing; write cname, srv or txt")
        for index, text in enumerate(record.srv):
            if (service := self._service(text, network, self.document.place((*path, "srv", index)))) is not None:
                yield NameSpec(full, "SRV", service)
        for index, text in enumerate(record.txt):
            if len(text.encode()) > MAX_TEXT:
                where = self.document.place((*path, "txt", index))
                self._refuse(where, f"the text has {len(text.encode())} bytes; {MAX_TEXT} are allowed")
            yield NameSpec(full, "TXT", text)

    def _service(self, text: str, network: str, place: Place) -> str | None:
        words = text.split()
        if len(words) != 4 or not all(_is_u16(word) for word in words[:3]):
            message = f"read {text[:80]!r}; write PRIORITY WEIGHT PORT TARGET, as 0 5 5060 head"
            self._refuse(place, message)
            return None
        target = self._target(words[3], network, place)
        return None if target is None else " ".join((*(str(int(word)) for word in words[:3]), target))

    def _target(self, text: str, network: str, place: Place) -> str | None:
        """Relative to the playground, or absolute with its last dot. A client's search is followed: network first."""
        if text.endswith("."):
            labels = text.removesuffix(".").split(".")
            if text == "." or (len(text) <= 254 and all(_is_record_label(label.lower()) for label in labels)):
                return text.lower()
            self._refuse(place, f"{text[:80]!r} is no domain name; write DNS labels, as www.example.org.")
            return None
        for name in (f"{text}.{network}", text):
            if name in self.known or name in self.declared:
                return name
        inside = {name.removesuffix(f".{network}") for name in (*self.known, *self.declared)}
        hint = suggestion(text, inside) if len(inside) <= 2000 else ""
        self._refuse(
            place, f"there is no {text[:80]!r} in {network} or the playground{hint}; names elsewhere end in a dot"
        )
        return None

    def check_loops(self) -> None:
        """No CNAME leads back to itself."""
        for name, (target, place) in self.aliases.items():
            seen = {name}
            while target in self.aliases and target not in seen:
                seen.add(target)
                target = self.aliases[target][0]
            if target == name:
                self._refuse(place, f"the cname of {name} leads back to it; let one of them name a workspace")


def _is_record_label(text: str) -> bool:
    return len(text) <= names.MAX_LABEL and bool(_RECORD_LABEL.fullmatch(text))


def _is_u16(word: str) -> bool:
    return word.isascii() and word.isdecimal() and int(word) < 1 << 16
