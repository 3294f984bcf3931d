"""Pure. From a file's text to its spec, or to everything that is wrong with it. Reads no file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from overlay.pools import address_text, parse_address
from playground.spec import names
from playground.spec.addresses import parse_ip
from playground.spec.allowance import withheld
from playground.spec.dns import with_names, with_records
from playground.spec.models import IncludedShape, PlaygroundShape, SiteShape
from playground.spec.network import networks
from playground.spec.objects import HostSpec, PlaygroundSpec, SiteSpec
from playground.spec.placement import share_of
from playground.spec.policies import Source, connectivity, site_policies
from playground.spec.problem import Problem, SpecErrors
from playground.spec.shape import fit
from playground.spec.source import Document, Path, read
from playground.spec.workspace import check_labels, workspaces

Included = Mapping[str, Sequence[tuple[str, str | bytes]]]
"""Pattern → the files that it matched, as (name for problems, text), in order."""


MAX_INCLUDED = 1000
"""Files that one playground includes."""


MAX_TOGETHER = 8 << 20
"""Bytes of a file and those that it includes."""


def load_playground(
    text: str | bytes, file: str, included: Included | Callable[[str], Sequence[tuple[str, bytes]]] | None = None
) -> PlaygroundSpec:
    """A playground file. file: how problems name it. included: what its `include` patterns matched, or what reads that
    for a pattern; patterns are relative to the file.

    Raises SpecErrors with every problem that can be told, each with line, column and path; also where the file includes
    others and `included` is None: whoever reads files has to send them along.
    """
    document = read(text, file)
    if callable(included):
        included = {pattern: included(pattern) for pattern in _patterns(document)}
    problems: list[Problem] = []
    shape = fit(PlaygroundShape, document, problems)
    if shape is None:
        raise SpecErrors(problems)
    _check(names.dns_label, shape.name, document, ("name",), problems)
    for section in ("networks", "workspaces", "gateways"):
        _check_keys(document, section, problems)
    found = networks(shape.networks, document, problems)
    members = workspaces(shape.workspaces, found, document, problems)
    sources = [Source(document, shape.groups, shape.policies, shape.tests)]
    sources += _included(shape.include, included, document, len(text), problems)
    rules = connectivity(shape.name, sources, shape.workspaces, found, shape.gateways, problems)
    found = withheld(found, members.values())
    members = with_names(shape.name, members, shape.workspaces, rules.words.groups, document, problems)
    found = with_records(shape.name, found, shape.networks, members, document, problems)
    if problems:
        raise SpecErrors(problems)
    rules = replace(rules, included=dict(_given(shape.include, included or {})))
    return PlaygroundSpec(shape.name, found, members, file, _text(text), document.place(("name",)), rules)


def _patterns(document: Document) -> tuple[str, ...]:
    """The patterns of files that a file includes; what is none is refused with the rest."""
    listed = document.value(("include",))
    return tuple(one for one in (listed if isinstance(listed, list) else [listed]) if isinstance(one, str))


def _included(
    patterns: Sequence[str], included: Included | None, document: Document, size: int, problems: list[Problem]
) -> Iterator[Source]:
    """The files that are included, each once however many patterns match it. size: bytes of the file itself."""
    seen: set[str] = set()
    for index, pattern in enumerate(patterns):
        place = document.place(("include", index))
        if included is None:
            message = "the files that it includes were not sent along with it (`playground up` does that)"
            problems.append(Problem.at(place, message))
            return
        files = included.get(pattern, ())
        if not files:
            problems.append(Problem.at(place, f"{pattern[:80]!r} matches no file; paths are relative to this file"))
        for name, text in files:
            if name in seen:
                continue
            if len(seen) == MAX_INCLUDED:
                problems.append(Problem.at(place, f"more than {MAX_INCLUDED} files are included; name fewer"))
                return
            seen.add(name)
            size += len(text)
            if size > MAX_TOGETHER:
                message = f"with {name}, the file and those that it includes have more than {MAX_TOGETHER} bytes"
                problems.append(Problem.at(place, f"{message} together: name fewer, or make it several playgrounds"))
                return
            try:
                one = read(text, name)
            except SpecErrors as error:
                problems.extend(error.problems)
                continue
            if (shape := fit(IncludedShape, one, problems)) is not None:
                yield Source.of(one, shape)


def _given(patterns: Sequence[str], included: Included) -> Iterator[tuple[str, Sequence[tuple[str, str]]]]:
    """The files as text, by pattern; one that an earlier pattern matched has none: it is read once."""
    seen: set[str] = set()
    for pattern in dict.fromkeys(patterns):
        files = [(name, "" if name in seen else _text(text)) for name, text in included[pattern]]
        seen.update(name for name, _ in files)
        yield pattern, files


def load_site(text: str | bytes, file: str) -> SiteSpec:
    """A site file. Raises SpecErrors, as `load_playground` does."""
    document = read(text, file)
    problems: list[Problem] = []
    shape = fit(SiteShape, document, problems)
    if shape is None:
        raise SpecErrors(problems)
    _check(names.dns_label, shape.name, document, ("name",), problems)
    _check(names.domain_name, shape.domain, document, ("domain",), problems)
    _check_keys(document, "hosts", problems)
    resolvers = tuple(_addresses(shape.resolvers, document, ("resolvers",), problems))
    hosts = dict(_hosts(shape, document, problems))
    _check_underlays(hosts, problems)
    policies, places = site_policies(document, shape.policies, problems)
    if problems:
        raise SpecErrors(problems)
    place = document.place(("name",))
    return SiteSpec(shape.name, shape.domain, resolvers, hosts, file, _text(text), place, policies, places)


def _text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode("utf-8")


def _check(rule: Callable[[str], object], text: str, document: Document, path: Path, problems: list[Problem]) -> None:
    try:
        rule(text)
    except ValueError as error:
        problems.append(Problem.at(document.place(path), str(error)))


def _check_keys(document: Document, section: str, problems: list[Problem]) -> None:
    """Every name of a section, also of entries that have other problems, is a DNS label."""
    for name in document.keys((section,)):
        try:
            names.dns_label(name)
        except ValueError as error:
            problems.append(Problem.at(document.key_place((section, name)), str(error)))


def _addresses(
    texts: Iterable[str], document: Document, path: tuple[str | int, ...], problems: list[Problem]
) -> Iterator[str]:
    for index, text in enumerate(texts):
        try:
            yield address_text(*parse_ip(text))
        except ValueError as error:
            problems.append(Problem.at(document.place((*path, index)), str(error)))


def _hosts(site: SiteShape, document: Document, problems: list[Problem]) -> Iterator[tuple[str, HostSpec]]:
    for name, shape in site.hosts.items():
        path = ("hosts", name)
        problems.extend(check_labels(shape.labels, document, (*path, "labels")))
        try:
            underlay = address_text(*parse_ip(shape.underlay))
        except ValueError as error:
            problems.append(Problem.at(document.place((*path, "underlay")), str(error)))
            continue
        capacity = shape.capacity
        place = document.place((*path, "underlay"))
        share = share_of(name, shape, site.capacity, document, problems)
        yield name, HostSpec(name, underlay, shape.labels, capacity.cpus, capacity.memory, place, share)


def _check_underlays(hosts: Mapping[str, HostSpec], problems: list[Problem]) -> None:
    """One tunnel address a host, and one family a site: a VXLAN device sends in one."""
    seen: dict[str, HostSpec] = {}
    first: HostSpec | None = None
    for host in hosts.values():
        first = first or host
        if (twin := seen.setdefault(host.underlay, host)) is not host:
            problems.append(
                Problem.at(host.place, f"{host.underlay} is the underlay of {twin.name} too; choose another")
            )
        ours, theirs = parse_address(host.underlay)[0], parse_address(first.underlay)[0]
        if ours != theirs:
            message = (
                f"{host.underlay} is IPv{ours}, but the underlay of {first.name} is IPv{theirs}; "
                "give all hosts of a site one family"
            )
            problems.append(Problem.at(host.place, message))
