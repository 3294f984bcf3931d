"""What a host gives to workspaces, and whom a workspace wants beside it: words that file, record and placement share.
No behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Strategy = Literal["spread", "pack"]


@dataclass(frozen=True, slots=True)
class Share:
    """How much of a host workspaces may take: what is not reserved for the host's own work, so many times over."""

    reserved_cpus: float = 0.0
    reserved_memory_mib: int = 0
    overcommit_cpus: float = 1.0
    overcommit_memory: float = 1.0


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What a workspace says of the others of its playground on its host. strategy: few of them, or many. The rest are
    selectors over their labels, "" for none: one has to be there, none may be there; the same where it can be had."""

    strategy: Strategy = "spread"
    affinity: str = ""
    anti_affinity: str = ""
    preferred_affinity: str = ""
    preferred_anti_affinity: str = ""


ANY = Neighbours()
PACKED = Neighbours("pack")
ALL = Share()
