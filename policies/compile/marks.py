"""Pure. What policies and the guard tell each other of a packet that is on its way through a policed bridge.

The marks are greater than every end's number (`numbers`), and 0 is the mark of what may pass.
"""

from __future__ import annotations

from typing import Final

UNJUDGED: Final = 0x80000000
"""No policy has spoken of it yet: put there by the guard as a packet comes in."""

UNJUDGED_BITS: Final = 0x80000001
"""Of a mark, those that tell whether it is UNJUDGED; between them is a zone, or none."""

REFUSED: Final = 0x80000001
"""A policy has refused it, and its sender is to be told."""


def unjudged(zone: int) -> int:
    """UNJUDGED, and the zone of connection tracking that the packet belongs to: to look that up by a number costs a
    fraction of what a device's name costs."""
    return UNJUDGED | zone << 1


TURNED: Final = "@ll,0,48 set @ll,0,48 ^ 0x040000000000"
"""A bit of its destination's MAC turned over, so that nobody takes a refused packet for his own; done twice, it is as
it was."""
