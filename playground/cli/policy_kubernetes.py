"""`policy import` and `policy export`: between our files and Kubernetes manifests. Owns what is written where."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from playground.cli import sources
from playground.cli.failure import DONE, Failure, UsageFailure

_MARK = "# Imported from Kubernetes documents"
"""What an imported file begins with: only such files are written over."""


def import_(args: argparse.Namespace) -> int:
    """Both files, or none."""
    from playground.spec.names import dns_label
    from policies.importers.kubernetes.findings import Gravity, KubernetesError
    from policies.importers.kubernetes.notation import notation

    name = args.name or _name(args.output)
    try:
        dns_label(name)
    except ValueError as error:
        raise UsageFailure(f"--name: {error}") from error
    scene, findings = sources.kubernetes(args.path)
    try:
        found = notation(scene, findings, name)
    except KubernetesError as error:
        raise sources.refused_kubernetes(error) from error
    sources.say(one for one in findings if one.gravity is not Gravity.REFUSED)
    if args.output == "-":
        if found.site:
            raise Failure("these manifests have policies for a site's file, so that two are to be written: use -o FILE")
        print(found.playground, end="")
        return DONE
    output = Path(args.output)
    site = output.with_suffix(f".site{output.suffix}")
    written = {output: found.playground} | ({site: found.site} if found.site else {})
    for path in written:
        _check_ours(path)
    for path, text in written.items():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise Failure(f"{path}: {(error.strerror or str(error)).lower()}; -o names a file to write") from error
        print(f"playground: wrote {path}", file=sys.stderr)
    return DONE


def _name(output: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", Path(output).stem.lower()).strip("-")[:57].strip("-") or "imported"


def _check_ours(path: Path) -> None:
    """Nobody's own words are written over."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            is_ours = file.read(len(_MARK)) == _MARK
    except FileNotFoundError:
        return
    except OSError as error:
        raise Failure(f"{path}: {(error.strerror or str(error)).lower()}; -o names a file to write") from error
    if not is_ours:
        raise Failure(f"{path} exists and was not written by an import; name another file with -o")


def export(args: argparse.Namespace) -> int:
    """Documents on stdout."""
    from policies.importers.kubernetes.export import kubernetes_text
    from policies.importers.kubernetes.findings import KubernetesError

    source = sources.source(args.file, args.site_file)
    owned = [subnet.prefix for subnet in source.scene.subnets]
    try:
        print(kubernetes_text(source.scene, owned, with_pods=args.with_pods), end="")
    except KubernetesError as error:
        raise sources.refused_kubernetes(error) from error
    return DONE
