"""`policy promote`: shows what a staged policy would have refused, and enforces it in its file."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playground.cli import render, site, sources
from playground.cli.edits import connections_text
from playground.cli.failure import DONE, Failure, UsageFailure
from playground.client import Client, Refused, Unreachable

if TYPE_CHECKING:
    from playground.spec import PlaygroundSpec, SiteSpec
    from playground.spec.promote import Promotion

SHOWN = 20
"""Pairs that would have been refused; more are counted."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Files:
    """A playground's file with those that it includes, or a site's; texts by name."""

    spec: PlaygroundSpec | SiteSpec
    texts: Mapping[str, str]

    @property
    def playground(self) -> str | None:
        """None of a site's file."""
        from playground.spec import PlaygroundSpec

        return self.spec.name if isinstance(self.spec, PlaygroundSpec) else None

    def edited(self, texts: Mapping[str, str]) -> _Files:
        """The same with other texts. Raises SpecErrors."""
        from playground.spec import PlaygroundSpec, load_playground, load_site

        file = self.spec.file
        if not isinstance(self.spec, PlaygroundSpec):
            return _Files(load_site(texts[file], file), texts)
        included = {
            pattern: [(name, texts[name] if text else "") for name, text in files]
            for pattern, files in self.spec.connectivity.included.items()
        }
        return _Files(load_playground(texts[file], file, included), texts)


def promote(args: argparse.Namespace) -> int:
    """Writes nothing where anything is refused."""
    from playground.spec.promote import NotPromotable
    from playground.spec.promote import promote as edit

    if args.file == "-":
        raise UsageFailure("name a file: it is edited where it stands")
    files = _read(args.file)
    policies, places = _policies(files.spec)
    try:
        found = edit(args.name, policies, places, files.texts, lambda texts: _policies(files.edited(texts).spec)[0])
    except NotPromotable as error:
        raise Failure(str(error)) from error
    connections = _judged(files.spec, found, sources.site(args.site_file))
    evidence = _evidence(site.client_of(args), files.playground, found)
    if not args.dry_run:
        for name, text in found.texts.items():
            _write(Path(name), text)
    if args.json:
        print(render.json_text(_as_json(found, files, connections, evidence, is_written=not args.dry_run)))
        return DONE
    ink = render.Ink.of(sys.stdout)
    print(_evidence_text(found, evidence, ink))
    print(connections_text(connections, ink) or "connections: none is opened or cut")
    if args.dry_run:
        sys.stdout.writelines(_diffs(found, files).values())
        return DONE
    what = "is enforced as it stands" if found.replaced is None else f"says what {found.policy.name} said"
    verb = "up" if files.playground else "site apply"
    print(f"{', '.join(found.texts)}: {found.name} {what}; `playground {verb} {args.file}` puts it in force")
    return DONE


def _read(path: str) -> _Files:
    """A file without workspaces is a site's. Raises BadFile, Failure."""
    from playground.spec import SpecErrors
    from playground.spec.source import read

    file, text = sources.read(path)
    try:
        is_site = "workspaces" not in read(text, file).keys(())
    except SpecErrors as error:
        raise sources.bad_file(error) from error
    if is_site and (found := sources.site(path)) is not None:
        return _Files(found, {file: text})
    spec = sources.playground(file, text)
    included = {name: text for files in spec.connectivity.included.values() for name, text in files if text}
    return _Files(spec, {**included, file: text})


def _policies(spec: PlaygroundSpec | SiteSpec) -> Any:
    """Its policies, and the places of these."""
    from playground.spec import PlaygroundSpec

    if isinstance(spec, PlaygroundSpec):
        return spec.connectivity.policies, spec.connectivity.places
    return spec.policies, spec.places


def _judged(before: PlaygroundSpec | SiteSpec, found: Promotion, tiers: SiteSpec | None) -> Row | None:
    """What it opens and cuts, once its tests hold; None of a site's file, which says nothing by itself. Raises
    BadFile."""
    from playground.spec import PlaygroundSpec, SpecErrors, check_tests, connections_changed, scene

    if not isinstance(before, PlaygroundSpec):
        return None
    after = replace(before, connectivity=replace(before.connectivity, policies=found.policies))
    sources.checked(scene(after, site=tiers))
    try:
        check_tests(after, tiers)
    except SpecErrors as error:
        raise sources.bad_file(error) from error
    return connections_changed(before, after, tiers)


def _evidence(client: Client, playground: str | None, found: Promotion) -> Row | None:
    """`{counters, refused, unobserved}`: what hosts have counted and logged of it; None where no controller answers, or
    nothing of it is in force."""
    name, tier = found.policy.name, found.policy.tier.value

    def is_its(row: Row) -> bool:
        return bool(row["staged"] and name in row["policies"] and row["tier"] == tier)

    try:
        names = [playground] if playground is not None else client.get("site")["playgrounds"]
        answers = [client.get("policy/counters", {"playground": one}) for one in names]
        verdicts = client.get("policy/log", {"playground": playground})["verdicts"]
    except Unreachable:
        return None
    except Refused as refusal:
        if refusal.status == 404:
            return None
        raise
    counters = [row for answer in answers for row in answer["counters"] if is_its(row)]
    refused = [row for row in verdicts if is_its(row) and row["verdict"] == "deny"]
    times = Counter((row["playground"], row["from"], row["to"], row["port"]) for row in refused)
    last = {(row["playground"], row["from"], row["to"], row["port"]): row["at"] for row in refused}
    listed = [
        {"playground": key[0], "from": key[1], "to": key[2], "port": key[3], "times": count, "last": last[key]}
        for key, count in times.most_common()
    ]
    unobserved = [row for answer in answers for row in answer["unobserved"]]
    return {"counters": counters, "refused": listed, "unobserved": unobserved} if counters or unobserved else None


def _evidence_text(found: Promotion, evidence: Row | None, ink: render.Ink) -> str:
    name = found.policy.name
    head = name if found.replaced is None else f"{name} replaces {found.name}"
    if evidence is None:
        return f"{head}: nothing is known of its verdicts (no controller answers, or the policy is not up)"
    counted = {
        verdict: sum(row["packets"] for row in evidence["counters"] if row["verdict"] == verdict)
        for verdict in ("allow", "deny")
    }
    parts = [f"{head}: since it was put in force it would have allowed {counted['allow']}, denied {counted['deny']}"]
    parts += [
        f"  {render.word(row, 'host')} was not asked: {render.word(row, 'cause')}" for row in evidence["unobserved"]
    ]
    if refused := evidence["refused"]:
        rows = ([render.word(row, key) for key in ("from", "to", "port", "times")] for row in refused[:SHOWN])
        parts += [
            "of those that were logged, it would have denied:",
            render.table(("FROM", "TO", "PORT", "TIMES"), rows, ink),
        ]
        if len(refused) > SHOWN:
            parts.append(f"and {len(refused) - SHOWN} more; `playground policy log --denied` lists all")
    return "\n".join(parts)


def _diffs(found: Promotion, files: _Files) -> dict[str, str]:
    return {
        name: "".join(
            difflib.unified_diff(
                files.texts[name].splitlines(keepends=True), text.splitlines(keepends=True), name, f"{name} (promoted)"
            )
        )
        for name, text in found.texts.items()
    }


def _as_json(found: Promotion, files: _Files, connections: Row | None, evidence: Row | None, is_written: bool) -> Row:
    return {
        "policy": found.policy.name,
        "name": found.name,
        "replaces": found.policy.replaces or None,
        "evidence": evidence,
        "connections": connections,
        "files": [{"file": name, "diff": diff} for name, diff in _diffs(found, files).items()],
        "written": is_written,
    }


def _write(path: Path, text: str) -> None:
    """Whole or not at all, with the line ends and the rights that the file has. Raises Failure."""
    draft = path.with_name(f".{path.name}.promoted")
    try:
        was = path.read_bytes()
        raw = text.encode()
        if b"\r\n" in was and b"\r\n" not in raw:
            raw = raw.replace(b"\n", b"\r\n")
        draft.write_bytes(raw)
        draft.chmod(path.stat().st_mode & 0o7777)
        draft.replace(path.resolve())
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise Failure(f"{path}: {(error.strerror or str(error)).lower()}; it was not written") from error
