"""What moves are made with where nobody polices and nobody measures."""

from __future__ import annotations

from playground.controller.moves import Metering
from playground.records import MigrationRecord


class NoCarrier:
    def is_needed(self, move: MigrationRecord) -> bool:
        return False

    async def carry(self, move: MigrationRecord) -> None: ...


async def no_meter(move: MigrationRecord) -> Metering | None:
    return None
