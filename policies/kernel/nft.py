"""Owns the `nft` command inside one network namespace: loads rulesets, reads them back. Decides nothing about them.

`nsenter` runs it in the namespace, so the caller's thread stays where it is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policies import guard

_SYSTEM_PATHS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
"""Where it lies when an ordinary user's PATH does not say so."""

_TIMEOUT_S = 30


class NftError(Exception):
    """nft refused, or is not there; the text is its own, or the remedy."""


class NftCommand:
    """The command, in the network namespace of the thread that calls it; see libnftables.Nft."""

    def load(self, text: str, *, is_trial: bool = False) -> None:
        """One process, one transaction. Raises NftError."""
        _run([_find("nft", "nftables"), *(["-c"] if is_trial else []), "-f", "-"], text)

    def list(self, text: str) -> list[dict[str, Any]]:
        """Entries of all `list …` commands. Raises NftError."""
        said = _run([_find("nft", "nftables"), "-j", text], "")  # from a file it would read JSON alone
        return [entry for line in said.splitlines() if line for entry in json.loads(line)["nftables"]]

    def close(self) -> None:
        """Holds nothing."""


def load(namespace: Path | str, ruleset: str) -> None:
    """Loads a text in one transaction in the namespace at this path. Raises NftError; then nothing has changed."""
    _nft(namespace, ["-f", "-"], ruleset)


def is_loaded(namespace: Path | str) -> bool:
    """Whether the guard is in force: its chain at its hook holds exactly its rules, in order. Raises NftError."""
    listing = _list(namespace)
    chains = [entry["chain"] for entry in listing if "chain" in entry]
    rules = [entry["rule"] for entry in listing if "rule" in entry]
    hooks = {(chain["name"], chain.get("hook"), chain.get("prio")) for chain in chains}
    if hooks != {(guard.CHAIN, "prerouting", -300)}:
        return False
    return tuple(rule.get("comment") for rule in rules) == guard.rule_comments()


def ensure_guard(namespace: Path | str) -> bool:
    """Loads the guard unless it is in force; whether it had to. Raises NftError."""
    if is_loaded(namespace):
        return False
    load(namespace, guard.ruleset())
    return True


def counters(namespace: Path | str) -> dict[str, int]:
    """Frames that the guard dropped so far, by counter; empty when it is not loaded. Raises NftError."""
    found = (entry["counter"] for entry in _list(namespace) if "counter" in entry)
    return {counter["name"]: counter["packets"] for counter in found}


def _list(namespace: Path | str) -> list[dict[str, Any]]:
    """The guard's table, entry by entry (libnftables-json(5)); empty when there is none."""
    text = _nft(namespace, ["-j", "-t", "list", "ruleset", guard.FAMILY])
    entries: list[dict[str, Any]] = json.loads(text)["nftables"]
    return [
        entry
        for entry in entries
        for thing in entry.values()
        if isinstance(thing, dict) and guard.TABLE in (thing.get("table"), thing.get("name"))
    ]


def _nft(namespace: Path | str, arguments: Sequence[str], text: str = "") -> str:
    command = [_find("nsenter", "util-linux"), f"--net={namespace}", _find("nft", "nftables"), *arguments]
    return _run(command, text)


def _run(command: Sequence[str], text: str) -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise NftError(f"nft did not end within {_TIMEOUT_S} s") from error
    if done.returncode:
        raise NftError(done.stderr.strip() or f"nft ended with {done.returncode}")
    return done.stdout


def _find(program: str, package: str) -> str:
    path = shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", ""), _SYSTEM_PATHS)))
    if path is None:
        raise NftError(f"{program} is not installed; it comes with the package {package}")
    return path
