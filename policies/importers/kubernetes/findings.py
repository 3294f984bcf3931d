"""Pure. What is to be said of Kubernetes documents: where, what, and how grave. Prints nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from policies.model import Origin


class Gravity(Enum):
    """REFUSED: no answer without a remedy. LEFT_OUT: a part that our words can't say is missing from the answer.

    SKIPPED: what is no matter of policies. NOTED: the answer stands, and a person should know this beside it.
    """

    REFUSED = "refused"
    LEFT_OUT = "left out"
    SKIPPED = "skipped"
    NOTED = "noted"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One sentence about one place."""

    origin: Origin
    message: str
    gravity: Gravity = Gravity.REFUSED

    def __str__(self) -> str:
        return f"{self.origin}: {self.message}"


class KubernetesError(ValueError):
    """Documents are refused; `findings` has all reasons, in the order of files and lines."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(sorted(findings, key=lambda one: (one.origin, one.message)))
        super().__init__("\n".join(str(one) for one in self.findings))
