"""`policy check`, `connections`, `explain`, `diff`: what files say of who may talk to whom. Needs no controller."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from playground.cli import render, sources
from playground.cli.failure import DONE, REFUSED, BadFile, Failure, UsageFailure

if TYPE_CHECKING:
    from playground.spec import PlaygroundSpec, SiteSpec
    from policies.difference import Change
    from policies.model import Origin, Peer
    from policies.ports import Ports


@dataclass(frozen=True, slots=True)
class _Found:
    """A line of `check`. column 0: not known."""

    file: str
    line: int
    column: int
    severity: str
    message: str
    code: str

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        return render.printable(f"{place}: {self.severity}: {self.message} [{self.code}]")


def check(args: argparse.Namespace) -> int:
    """1 where there are errors or failing tests."""
    if not args.files and args.site_file is None:
        raise UsageFailure("name a playground's file, or a site's with --site-file")
    found: list[_Found] = []
    playgrounds, site = _read_all(args.files, args.site_file, found)
    if not found:
        found = sorted(_judged(playgrounds, site), key=lambda one: (one.file, one.line, one.column, one.message))
    errors = sum(one.severity == "error" for one in found)
    tests = sum(len(one.connectivity.tests) for one in playgrounds)
    policies = sum(len(one.connectivity.policies) for one in playgrounds) + (len(site.policies) if site else 0)
    if args.json:
        fields = _Found.__slots__
        listed = [{field: getattr(one, field) for field in fields} for one in found]
        print(render.json_text({"ok": not errors, "policies": policies, "tests": tests, "findings": listed}))
    else:
        for one in found:
            print(one)
        counts = [render.count(policies, "policy"), render.count(tests, "test"), render.count(errors, "error")]
        warnings = render.count(len(found) - errors, "warning")
        print(f"playground: {', '.join(counts)}, {warnings}", file=sys.stderr)
    return REFUSED if errors else DONE


def _read_all(
    files: Iterable[str], site_file: str | None, found: list[_Found]
) -> tuple[list[PlaygroundSpec], SiteSpec | None]:
    playgrounds: dict[str, PlaygroundSpec] = {}
    site = None
    for file in files:
        try:
            one = sources.playground(*sources.read(file))
        except BadFile as error:
            found.extend(_refused(error))
            continue
        if (twin := playgrounds.setdefault(one.name, one)) is not one:
            raise Failure(f"{file} and {twin.file} both say that they are {one.name}; check them one by one")
    try:
        site = sources.site(site_file)
    except BadFile as error:
        found.extend(_refused(error))
    return list(playgrounds.values()), site


def _refused(error: BadFile) -> Iterator[_Found]:
    for one in error.problems:
        message = f"{one.path}: {one.message}" if one.path else one.message
        yield _Found(one.file, one.line, one.column, "error", message, "refused")


def _judged(playgrounds: list[PlaygroundSpec], site: SiteSpec | None) -> Iterator[_Found]:
    """What lint and tests say of files that are accepted."""
    from playground.spec import scene
    from policies.expect import failures
    from policies.lint import lint
    from policies.resolve import resolve

    found = scene(*playgrounds, site=site)
    ir = resolve(found)
    tests = [test for one in playgrounds for test in one.connectivity.tests]
    columns = {origin: place.column for one in playgrounds for origin, place in one.connectivity.places.items()}
    columns |= {origin: place.column for origin, place in (site.places if site else {}).items()}

    def at(origin: Origin) -> tuple[str, int, int]:
        return origin.file, origin.line, columns.get(origin, 0)

    for one in lint(found, tests, ir):
        yield _Found(*at(one.origin), one.severity.value, one.message, one.code.value)
    for failure in failures(found, tests, ir):
        yield _Found(*at(failure.origin), "error", failure.message, "test-failed")


def connections(args: argparse.Namespace) -> int:
    from playground.cli import listing
    from policies.connections import blocks

    if sum((args.json, args.csv, args.dot)) > 1:
        raise UsageFailure("--json, --csv and --dot are three forms; take one")
    begin = getattr(args, "from")
    path = args.source_file
    if begin == "kubernetes":
        begin, path = None, path if path.startswith(sources.KUBERNETES) else sources.KUBERNETES + path
    if begin is not None and args.source is not None:
        raise UsageFailure("--from and --source are one; take one")
    source = sources.source(path, args.site_file)
    found = listing.lines(
        blocks(
            source.scene,
            sources=_ends(source, begin or args.source),
            destinations=_ends(source, args.to),
            ports=None if args.port is None else _ports(args.port),
        )
    )
    forms = ((args.json, listing.as_json), (args.csv, listing.as_csv), (args.dot, listing.as_dot))
    write = next((form for is_asked, form in forms if is_asked), listing.as_table)
    is_any = False
    for text in write(found):
        is_any = True
        sys.stdout.write(text)
    if args.json or (is_any and write is listing.as_table):
        print()
    if not is_any:
        print("playground: no connections", file=sys.stderr)
    return DONE


def _ends(source: sources.Source, text: str | None) -> Collection[str] | None:
    """The names that a filter means. Raises Failure."""
    from policies.connections import WORLD, names, selected
    from policies.model import EndpointPeer, WorldPeer

    if text is None:
        return None
    if text == WORLD or text in (known := names(source.scene).values()):
        return [text]
    peer = _peer(source, text, known)
    if not isinstance(peer, EndpointPeer | WorldPeer):
        raise Failure(f"{text} is not listed among connections; name a workspace, a group, a selector or {WORLD}")
    return selected(source.scene, [peer])


def _peer(source: sources.Source, text: str, known: Iterable[str]) -> Peer:
    from playground.spec.peers import PeerError
    from playground.spec.policy_models import PeerShape
    from playground.spec.problem import suggestion
    from policies.model import EndpointPeer
    from policies.selector import SelectorError, is_selector, parse_selector

    try:
        if source.playground is not None:
            return source.playground.connectivity.words.peer(PeerShape(select=text), None)
        if not is_selector(text):
            raise Failure(f"there is no workload {text}{suggestion(text, known)}")
        return EndpointPeer(parse_selector(text), None)
    except (PeerError, SelectorError) as error:
        raise Failure(str(error)) from error


def _ports(text: str) -> Ports:
    from playground.spec.ports import parse_ports

    try:
        return parse_ports(text)
    except ValueError as error:
        raise Failure(str(error)) from error


def explain(args: argparse.Namespace) -> int:
    """The steps, and the verdict last."""
    from policies import explain as explaining
    from policies.ends import UnknownEnd, parse_end

    source = sources.source(args.file, args.site_file)
    try:
        ends = parse_end(source.scene, args.source), parse_end(source.scene, args.destination)
    except UnknownEnd as error:
        raise Failure(str(error)) from error
    found = explaining.explain(source.scene, *ends, _ports(args.port))
    if args.json:
        print(render.json_text(found.to_json()))
        return DONE
    *steps, last = found.steps
    ink = render.Ink.of(sys.stdout)
    for step in steps:
        print(render.printable(step))
    print((ink.good if found.is_allowed else ink.bad)(render.printable(last)))
    return DONE


def diff(args: argparse.Namespace) -> int:
    from policies.difference import difference

    if args.before == args.after == "-":
        raise UsageFailure("standard input can be one of the two only")
    before = sources.source(args.before, args.site_file if not _is_kubernetes(args.before) else None)
    after = sources.source(args.after, args.site_file if not _is_kubernetes(args.after) else None)
    found = sorted(difference(before.scene, after.scene), key=_order)
    if args.json:
        print(render.json_text([one.to_json() for one in found]))
    elif not found:
        print("no difference in who may talk to whom")
    else:
        print(change_table(found, render.Ink.of(sys.stdout)))
    return DONE


def _is_kubernetes(path: str) -> bool:
    return path.startswith(sources.KUBERNETES)


def _order(one: Change) -> tuple[object, object]:
    from playground.cli.listing import counted

    return counted(one.source), counted(one.destination)


def change_table(found: Iterable[Change], ink: render.Ink) -> str:
    """A line for what is opened, `+`, and one for what is cut, `-`, between two ends."""
    from policies.explain import ports_text

    rows = [
        (sign, one.source, one.destination, ports_text(ports))
        for one in found
        for sign, ports in (("+", one.opened), ("-", one.cut))
        if ports
    ]
    lines = render.table(("", "FROM", "TO", "PORTS"), rows).splitlines()
    paint = {"+": ink.good, "-": ink.bad}
    return "\n".join(paint.get(line[:1], str)(line) for line in lines)
