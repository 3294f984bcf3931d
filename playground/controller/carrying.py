"""Has the flows of a moving workspace known where it goes, as the host that it leaves knows them. Holds no move up.

Flows pass through here and are kept nowhere.
"""

from __future__ import annotations

import logging

from playground.controller.asking import Asking
from playground.controller.events import EventLog
from playground.controller.execution import NotPossible
from playground.controller.world import World
from playground.questions import Flows, TakeFlows, Taken, TellFlows
from playground.records import MigrationRecord

log = logging.getLogger("controller")

CARRY_S = 2.0
"""How long each of the two hosts may take. Connections that are not known after that are judged anew, each in the
direction of the packet that comes first."""


class Carrying:
    """Of all moves."""

    def __init__(self, world: World, asking: Asking, events: EventLog) -> None:
        self._world = world
        self._asking = asking
        self._events = events

    def is_needed(self, move: MigrationRecord) -> bool:
        """Whether anything judges the workspace's connections, so that somebody tracks them."""
        grid = self._world.grids.get(move.playground)
        return bool(self._world.site_policies or (grid is not None and grid.policies))

    async def carry(self, move: MigrationRecord) -> None:
        """Once, from source to target. What could not go is said among the events."""
        grid = self._world.grids.get(move.playground)
        workspace = grid.workspaces.get(move.workspace) if grid is not None else None
        if workspace is None:
            return
        try:
            told = await self._asking.ask(move.source, TellFlows(list(workspace.ports)), Flows, CARRY_S)
            taken = Taken(0)
            if any(one.flows for one in told.flows):
                taken = await self._asking.ask(move.target, TakeFlows(told.flows), Taken, CARRY_S)
        except NotPossible as error:
            self._say(move, f"the connections of before are not known on {move.target}: {error}")
            return
        log.info("flows carried workspace=%s/%s flows=%d", move.playground, move.workspace, taken.taken)
        if told.left or taken.refused:
            why = taken.cause or "they are too many"
            self._say(move, f"{told.left + taken.refused} connections of before are not known on {move.target}: {why}")

    def _say(self, move: MigrationRecord, text: str) -> None:
        self._events.add("flows-left", f"workspace {move.playground}/{move.workspace}", text)
