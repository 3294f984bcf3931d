"""Pure. Judges what the kernel refused: which refusal is an error of its step, and which steps it forbids."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from overlay import ops as do
from overlay.kernel.converge import OpError
from overlay.ops import Op

_ABSENT = frozenset({errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL})
"""What the kernel says when the thing to remove, or the device it was on, is gone."""

_DROPS = (
    do.RemoveNamespace | do.DeleteLink | do.Detach | do.DropAddress | do.DropTunnelEntry | do.DropForwarding
    | do.DropNeighbour | do.DropFlood | do.DropChase
)  # fmt: skip

_MAKES = (
    do.CreateBridge | do.CreateVxlan | do.CreateLeg | do.PutAddress | do.PutTunnelEntry | do.PutForwarding
    | do.PutNeighbour | do.PutFlood | do.PutChase
)  # fmt: skip

GUARDS: Mapping[type[Op], tuple[type[Op], ...]] = {
    do.Attach: (do.SetDown,),
    do.SetUp: (do.SetDown, do.Attach, do.SetFlags),
}
"""A kind of step, and the kinds that must not have been refused for the same device.

A new bridge port floods and learns until it is told not to: a device that could not be taken down is not attached, and
one whose flags could not be set does not come up.
"""


class Refusals:
    """The errors of some steps that are taken in order."""

    def __init__(self) -> None:
        self.errors: list[OpError] = []
        self._refused: set[tuple[str, type[Op]]] = set()
        """Devices, and the kinds of steps that were refused for them."""

    def note(self, op: Op, error: OSError) -> None:
        """Takes a refusal. What is there already, or gone already, is none; nor is what follows from the first."""
        number = error.errno or 0
        if isinstance(op, _DROPS) and number in _ABSENT:
            return
        # A file that exists is a namespace of that name, and somebody else's.
        if isinstance(op, _MAKES) and number == errno.EEXIST and not isinstance(error, FileExistsError):
            return
        self._refused.add((op.name, type(op)))
        if any(earlier.op == op for earlier in self.errors[-1:]):
            return  # the second message of a step fails because the first did
        name = f" ({errno.errorcode.get(number, number)})" if number else ""
        self.errors.append(OpError(op, number, f"{error.strerror or error}{name}"))

    def bars(self, op: Op) -> bool:
        """Whether a step must not be tried; then it is an error, too."""
        if not any((op.name, guard) in self._refused for guard in GUARDS.get(type(op), ())):
            return False
        self.note(op, OSError(0, "not tried, since a step before it was refused"))
        return True
