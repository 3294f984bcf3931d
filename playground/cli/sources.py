"""Reads what policy commands are about: playgrounds' files with those they include, sites' files, Kubernetes manifests.

The one place of the command line that opens such files; what they mean is decided in `playground.spec` and `policies`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from playground.cli.failure import BadFile, Failure

if TYPE_CHECKING:
    from playground.client import Problem
    from playground.spec import PlaygroundSpec, SiteSpec, SpecErrors
    from policies.importers.kubernetes.findings import Finding, KubernetesError
    from policies.model import Scene

KUBERNETES = "kubernetes:"
"""What a source begins with that is no playground's file."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a file says. playground: None for Kubernetes manifests, whose names are NAMESPACE/NAME."""

    scene: Scene
    playground: PlaygroundSpec | None = None


def read(path: str, whose: str = "playground") -> tuple[str, str]:
    """A file's name for errors, and its text; `-` is standard input. whose: what the file should be of. Raises
    Failure."""
    try:
        if path == "-":
            return "<stdin>", sys.stdin.read()
        return path, Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise Failure(f"{path}: {(error.strerror or str(error)).lower()}; name a {whose}'s file") from error
    except UnicodeDecodeError as error:
        raise Failure(f"{path}: byte {error.start} is not UTF-8; a {whose}'s file is UTF-8 text") from error


def playground(file: str, text: str) -> PlaygroundSpec:
    """An accepted playground, with all that it includes. file: as `read` named it. Raises BadFile, Failure."""
    from playground.spec import SpecErrors, load_playground

    try:
        return load_playground(text, file, partial(_matched, file))
    except SpecErrors as error:
        raise bad_file(error) from error


def site(file: str | None) -> SiteSpec | None:
    """An accepted site. Raises BadFile, Failure."""
    from playground.spec import SpecErrors, load_site

    if file is None:
        return None
    name, text = read(file, "site")
    try:
        return load_site(text, name)
    except SpecErrors as error:
        raise bad_file(error) from error


def source(path: str, site_file: str | None = None) -> Source:
    """A playground's file, or `kubernetes:PATH`. Raises BadFile, Failure; what else is to be said goes to stderr."""
    from playground.spec import scene

    if path.startswith(KUBERNETES):
        if site_file is not None:
            raise Failure("a site's file says nothing of Kubernetes manifests; leave --site-file out")
        found, findings = kubernetes(path.removeprefix(KUBERNETES))
        say(findings)
        return Source(found)
    spec = playground(*read(path))
    return Source(checked(scene(spec, site=site(site_file))), spec)


def checked(found: Scene) -> Scene:
    """The scene, unless two policies of the site have one priority on one workspace. Raises BadFile."""
    from playground.spec import SpecErrors, check_tiers

    try:
        check_tiers(found)
    except SpecErrors as error:
        raise bad_file(error) from error
    return found


def kubernetes(path: str) -> tuple[Scene, list[Finding]]:
    """The scene of manifests, and all that is to be said of them. Raises BadFile, Failure."""
    from policies.importers.kubernetes.findings import Gravity, KubernetesError
    from policies.importers.kubernetes.io import read_files
    from policies.importers.kubernetes.lower import lower
    from policies.importers.kubernetes.resources import read_cluster

    try:
        files, unread = read_files(Path(path))
    except OSError as error:
        raise Failure(
            f"{path}: {(error.strerror or str(error)).lower()}; name a file or folder of manifests"
        ) from error
    try:
        if refused := [one for one in unread if one.gravity is Gravity.REFUSED]:
            raise KubernetesError(refused)
        found, said = lower(read_cluster(files))
    except KubernetesError as error:
        raise refused_kubernetes(error) from error
    return found, [*unread, *said]


def say(findings: Iterable[Finding]) -> None:
    """A line each on stderr: what was left out or skipped."""
    from playground.cli import render

    for one in findings:
        print(render.printable(f"{one.origin}: warning: {one.message}"), file=sys.stderr)


def bad_file(error: SpecErrors) -> BadFile:
    """The same as the command line ends with."""
    from playground.client import Problem

    return BadFile([Problem(**asdict(problem)) for problem in error.problems])


def refused_kubernetes(error: KubernetesError) -> BadFile:
    """The same as the command line ends with."""
    return BadFile([_problem(one.origin.file, one.origin.line, one.message) for one in error.findings])


def _problem(file: str, line: int, message: str) -> Problem:
    from playground.client import Problem

    return Problem(file, line, 0, "", message)


def _matched(file: str, pattern: str) -> list[tuple[str, bytes]]:
    """The files that a pattern of `file` matches, by name, without `file` itself. Raises Failure."""
    from playground.spec import MAX_INCLUDED

    base = Path() if file == "<stdin>" else Path(file).parent
    found: list[tuple[str, bytes]] = []
    try:
        matching = sorted(base.glob(pattern)) if PurePath(pattern).parts else []  # pathlib fails at "."
    except (NotImplementedError, ValueError):
        raise Failure(f"{file}: {pattern!r} can't be included; write a path relative to this file") from None
    for path in matching:
        if not path.is_file() or path.resolve() == Path(file).resolve():
            continue
        if len(found) > MAX_INCLUDED:
            break  # refused by whoever reads them
        try:
            found.append((str(path), path.read_bytes()))
        except OSError as error:
            raise Failure(f"{path}: {(error.strerror or str(error)).lower()}; {file} includes it") from error
    return found
