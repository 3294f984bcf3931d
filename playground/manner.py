"""Pure. How a move is to be made, as it was asked for; knows no driver and no host."""

from __future__ import annotations

import msgspec


class Manner(msgspec.Struct, frozen=True):
    """post_copy: the machine goes on at the target before all of its memory is there. auto_converge: it is slowed down
    where it writes faster than is copied. bandwidth_mib_s: most that copying takes of the network, 0 for all.
    copy_storage: disks that its host has made go along. timeout_s: then it is called off, 0 for what is usual.
    max_gap_ms: the longest silence that is allowed, 0 for any."""

    post_copy: bool = False
    auto_converge: bool = False
    bandwidth_mib_s: int = 0
    copy_storage: bool = False
    timeout_s: float = 0.0
    max_gap_ms: float = 0.0

    def of_copying(self) -> tuple[str, ...]:
        """The words among these that only mean something where a hypervisor copies, as the command line has them."""
        asked = {
            "--post-copy": self.post_copy,
            "--auto-converge": self.auto_converge,
            "--bandwidth": self.bandwidth_mib_s > 0,
            "--copy-storage": self.copy_storage,
        }
        return tuple(word for word, is_asked in asked.items() if is_asked)

    @property
    def longest_pause_ms(self) -> int:
        """What a hypervisor may plan to have the machine stand still for, 0 for what it thinks right: half of the
        longest silence, as what it does beside its plan, and the network, take their part."""
        return max(1, int(self.max_gap_ms / 2)) if self.max_gap_ms else 0


PLAIN = Manner()
