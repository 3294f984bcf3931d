"""Pure. Faults as values: what goes wrong at which call that `overlay.kernel.memory` takes. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Refuse:
    """The call fails, and nothing is done."""

    errno: int


@dataclass(frozen=True, slots=True)
class FailAfter:
    """The call is done, and fails all the same."""

    errno: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """A list changes while it is read (`NLM_F_DUMP_INTR`), so many times on end."""

    times: int


@dataclass(frozen=True, slots=True)
class Meddle:
    """Somebody else does something just before the call. edit: gets the kernel; what it answers does not matter."""

    name: str
    edit: Callable[[Any], object]

    def __repr__(self) -> str:
        return f"Meddle({self.name})"


@dataclass(frozen=True, slots=True)
class Call:
    """One call to the kernel: a message, or what asks for one list. kind: the word of `overlay.kernel.messages`."""

    kind: str
    device: str = ""

    @property
    def is_list(self) -> bool:
        return self.kind.startswith("list_")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at the `nth` call (from 0) of a kind, or of all calls where the kind is empty."""

    nth: int
    what: Refuse | FailAfter | Interrupt | Meddle
    kind: str = ""
