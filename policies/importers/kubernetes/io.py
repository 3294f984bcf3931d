"""Reads the Kubernetes files of a path. The one module here that touches the disk; knows nothing of their content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from policies.importers.kubernetes.documents import MAX_BYTES
from policies.importers.kubernetes.findings import Finding, Gravity
from policies.model import Origin

SUFFIXES = (".yaml", ".yml", ".json")


def read_files(path: Path) -> tuple[list[tuple[str, bytes]], list[Finding]]:
    """(name, bytes) of a file, or of every file of a directory tree that ends in SUFFIXES, by name; and what to say.

    A file that is named itself is read whatever its end. Other files and hidden folders are skipped with a finding;
    links to folders are not followed. Raises OSError if the path itself can't be read.
    """
    if not path.is_dir():
        return [(str(path), _bytes(path))], []
    files: list[tuple[str, bytes]] = []
    findings: list[Finding] = []
    for one in _tree(path):
        name = str(one)
        if one.is_dir():
            findings.append(Finding(Origin(name, 0), "a hidden folder; skipped", Gravity.SKIPPED))
        elif one.suffix.lower() not in SUFFIXES:
            findings.append(Finding(Origin(name, 0), f"no {', '.join(SUFFIXES)}; skipped", Gravity.SKIPPED))
        elif not one.is_file():
            findings.append(Finding(Origin(name, 0), "no regular file; skipped", Gravity.SKIPPED))
        else:
            try:
                files.append((name, _bytes(one)))
            except OSError as error:
                findings.append(Finding(Origin(name, 0), f"can't be read: {error.strerror}"))
    return files, findings


def _tree(folder: Path) -> Iterator[Path]:
    """Files, and the hidden folders that are not entered, in the order of names."""
    for one in sorted(folder.iterdir()):
        if not one.is_dir() or one.name.startswith("."):
            yield one
        elif not one.is_symlink():
            yield from _tree(one)


def _bytes(path: Path) -> bytes:
    """One byte more than is read of any file at most, so that a larger one is refused as such."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)
