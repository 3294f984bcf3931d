"""Pure. The words in which the doctor speaks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. detail: what was found. remedy: what to do, by whom; said only when not ok.

    is_fixable: `doctor --fix` does it. is_optional: something is missing, but a playground runs without.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    is_fixable: bool = False
    is_optional: bool = False


class FixFailed(Exception):
    """It could not be had; the text is the cause in one sentence. What was done before stays, and is right."""
