"""Pure. What files say of room, read: what a workspace requires of its host and whom it wants beside it, and how much
of a host is given. Knows no host; `playground.placement` decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from playground.inventory import Neighbours, Share
from playground.spec.models import HostShape, SiteCapacityShape, WorkspaceShape
from playground.spec.problem import Problem
from playground.spec.source import Document
from policies.selector import is_label_key, is_selector, parse_selector

Path = tuple[str | int, ...]


def requires_of(shape: WorkspaceShape, document: Document, path: Path, problems: list[Problem]) -> tuple[str, ...]:
    """What the host has to have, each a word or a selector; what is wrong is added to `problems`."""
    for index, text in enumerate(shape.requires):
        if (wrong := _misread(text)) is not None:
            problems.append(Problem.at(document.place((*path, "requires", index)), wrong))
    return tuple(text.strip() for text in shape.requires)


def _misread(text: str) -> str | None:
    if is_selector(text):
        return _misread_selector(text)
    if not is_label_key(text):
        return f"{text!r} can't be what a host has; write a word, as kvm, or a selector, as gpu=a100"
    return None


def neighbours_of(shape: WorkspaceShape, document: Document, path: Path, problems: list[Problem]) -> Neighbours:
    """Whom it wants beside it; what is wrong is added to `problems`."""
    for where, text in _selectors(shape):
        if (wrong := _misread_selector(text)) is not None:
            problems.append(Problem.at(document.place((*path, "placement", *where)), wrong))
    of, prefer = shape.placement, shape.placement.prefer
    return Neighbours(
        "pack" if of.strategy == "pack" else "spread",
        of.affinity or "",
        of.anti_affinity or "",
        prefer.affinity or "",
        prefer.anti_affinity or "",
    )


def check_neighbours(shapes: Mapping[str, WorkspaceShape], document: Document) -> Iterator[Problem]:
    """Selectors that mean nobody: they would keep a workspace from every host, or from none."""
    for name, shape in shapes.items():
        for where, text in _selectors(shape):
            if _misread_selector(text) is None and not any(
                parse_selector(text).matches(other.labels) for other in shapes.values()
            ):
                place = document.place(("workspaces", name, "placement", *where))
                message = f"{text} selects no workspace of this playground by its labels"
                yield Problem.at(place, f"{message}; give one such a label, or leave it out")


def _selectors(shape: WorkspaceShape) -> Iterator[tuple[Path, str]]:
    for where, of in (((), shape.placement), (("prefer",), shape.placement.prefer)):
        for key in ("affinity", "anti_affinity"):
            text = getattr(of, key)
            if text is not None:
                yield (*where, key), text


def _misread_selector(text: str) -> str | None:
    if not is_selector(text):
        return f"{text!r} is no selector over labels of workspaces; write one, as app=db"
    try:
        parse_selector(text)
    except ValueError as error:
        return str(error)
    return None


def share_of(
    name: str, shape: HostShape, site: SiteCapacityShape, document: Document, problems: list[Problem]
) -> Share:
    """How much of a host is given: as it says, else as its site does. What is wrong is added to `problems`."""
    own = shape.capacity
    reserved_cpus = (site.reserve.cpus or 0.0) if own.reserve.cpus is None else own.reserve.cpus
    reserved_memory = own.reserve.memory or site.reserve.memory or 0
    path: Path = ("hosts", name, "capacity")
    if own.cpus is not None and reserved_cpus >= own.cpus:
        message = f"of {own.cpus:g} cpus {reserved_cpus:g} are reserved, which leaves none for workspaces"
        problems.append(Problem.at(document.place((*path, "cpus")), message))
    if own.memory is not None and reserved_memory >= own.memory:
        message = f"of {own.memory} MiB {reserved_memory} are reserved, which leaves none for workspaces"
        problems.append(Problem.at(document.place((*path, "memory")), message))
    return Share(
        reserved_cpus,
        reserved_memory,
        own.overcommit.cpus or site.overcommit.cpus or 1.0,
        own.overcommit.memory or site.overcommit.memory or 1.0,
    )
