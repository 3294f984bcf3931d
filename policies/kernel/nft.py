"""Owns the `nft` command, run in the network namespace of the thread that calls. Decides nothing about rulesets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

_SYSTEM_PATHS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
"""Where it lies when an ordinary user's PATH does not say so."""

_TIMEOUT_S = 30


class NftError(Exception):
    """nft refused, or is not there; the text is its own, or the remedy."""


class NftCommand:
    """The command, in the network namespace of the thread that calls it; see libnftables.Nft."""

    def load(self, text: str, *, is_trial: bool = False) -> None:
        """One process, one transaction. Raises NftError."""
        _run([_find(), *(["-c"] if is_trial else []), "-f", "-"], text)

    def list(self, text: str) -> list[dict[str, Any]]:
        """Entries of all `list …` commands. Raises NftError."""
        said = _run([_find(), "-j", text], "")  # from a file it would read JSON alone
        return [entry for line in said.splitlines() if line for entry in json.loads(line)["nftables"]]

    def close(self) -> None:
        """Holds nothing."""


def _run(command: Sequence[str], text: str) -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise NftError(f"nft did not end within {_TIMEOUT_S} s") from error
    if done.returncode:
        raise NftError(done.stderr.strip() or f"nft ended with {done.returncode}")
    return done.stdout


def _find() -> str:
    path = shutil.which("nft", path=os.pathsep.join((os.environ.get("PATH", ""), _SYSTEM_PATHS)))
    if path is None:
        raise NftError("nft is not installed; it comes with the package nftables")
    return path
