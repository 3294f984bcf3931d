"""The controller's side of the watch stream: what an agent may say that is no agent of ours. In process.

Claims: no message raises past the session, nothing is written but what the host may say of itself, and afterwards the
site is seen, planned and changed as if nothing had been said.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence

import msgspec
from fuzz_api import ATLAS, HELLO, HOST_TOKEN, Lab, a_lab
from fuzz_lab import Json, Target, as_json, bounded, edited, garbled, steps_from_file, steps_to_file
from hypothesis import strategies as st

from playground import wire
from playground.records import (
    BindingRecord,
    ObservedHost,
    ObservedPort,
    ObservedWorkspace,
    Record,
    encode,
    key_of,
    port_id,
)
from playground.store.api import Put

PORT = port_id("atlas", "w-0", "grid")
SAID: list[wire.FromAgent] = [
    wire.Beat(),
    wire.Report(
        True,
        [
            ObservedHost(host="h1", version="1", applied=3, repaired={"fdb": 1}, problems=("p",)),
            ObservedPort(port=PORT, host="h1", generation=1, programmed="forwarding", leased=("10.0.0.2", "fd00::2")),
            ObservedWorkspace(
                playground="atlas", workspace="w-0", host="h1", generation=1, state="running", pause_ms=1.0
            ),
        ],
        [],
    ),
    wire.Answer("0123456789abcdef", msgspec.Raw(b'{"rows": [], "lost": 0}'), is_last=False),
    wire.Answer("0123456789abcdef", msgspec.Raw(b"null"), problem="no such table"),
    wire.Report(False, [], [f"observed/port/{PORT}/h1", "observed/host/h2", "playground/atlas"]),
]
SEEDS: list[Json] = [json.loads(wire.encode(message)) for message in SAID]
MESSAGE = garbled(st.one_of(edited(SEEDS), edited([*SEEDS, json.loads(HELLO)], most=8)).map(as_json))
SESSIONS: st.SearchStrategy[list[list[bytes]]] = st.lists(
    st.builds(
        lambda hello, said: [hello, *said],
        st.one_of(st.just(HELLO.encode()), st.just(HELLO.encode()), garbled(edited([json.loads(HELLO)]).map(as_json))),
        st.lists(MESSAGE, max_size=6),
    ),
    min_size=1,
    max_size=3,
)
"""Each connection's messages; most begin with a proper hello."""

HEADERS = ((b"authorization", b"Bearer " + HOST_TOKEN.encode()), (b"x-playground-host", b"h1"))


class Errors(logging.Handler):
    """What the controller says of its own bugs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(
            record.getMessage() + (logging.Formatter().formatException(record.exc_info) if record.exc_info else "")
        )


async def _place(lab: Lab) -> None:
    """w-0 is on h1, and h2 has said something of itself."""
    grid = lab.controller.world.grids["atlas"]
    placed = msgspec.structs.replace(grid.workspaces["w-0"], host="h1")
    found: list[Record] = [
        placed,
        BindingRecord(port=PORT, playground="atlas", workspace="w-0", active="h1", source="h1"),
        ObservedHost(host="h2", version="1"),
    ]
    revision = await lab.store.commit([], [Put(key_of(record), encode(record)) for record in found])
    assert isinstance(revision, int)
    await lab.controller.world.reached(revision)


def _is_its_own(key: str) -> bool:
    """Whether an agent of h1 may cause this key to be written."""
    return key in ("alive/h1", "host/h1") or (key.startswith("observed/") and key.endswith("/h1"))


def check_sessions(sessions: Sequence[Sequence[bytes]]) -> None:
    """All of these connections, one after the other, at one controller."""
    errors = Errors()
    logging.getLogger().addHandler(errors)
    try:
        asyncio.run(_check_sessions(sessions))
    finally:
        logging.getLogger().removeHandler(errors)
    assert not errors.said, errors.said[0]


async def _check_sessions(sessions: Sequence[Sequence[bytes]]) -> None:
    async with a_lab() as lab:
        await _place(lab)
        writing = asyncio.create_task(lab.controller.events.run())
        others = {key: value for key, value in lab.held().items() if not _is_its_own(key)}
        with bounded():
            for said in sessions:
                await lab.websocket("/v1/agent", [text.decode("utf-8", "replace") for text in said], HEADERS)
        assert {key: value for key, value in lab.held().items() if not _is_its_own(key)} == others
        await _assert_well(lab)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def _assert_well(lab: Lab) -> None:
    """People are served as before, an honest agent as well, and what happens is written down."""
    await lab.assert_told()
    more = ATLAS.replace("scale: 2", "scale: 3").replace("atlas", "other")
    status, answer = await lab.http("PUT", "/v1/playgrounds", as_json({"file": "x.yaml", "text": more}))
    assert status == 200, answer
    sane = wire.Report(True, [ObservedHost(host="h1", version="sane", applied=0)], [])
    sent = await lab.websocket("/v1/agent", [HELLO, wire.encode(sane)], HEADERS)
    assert any("welcome" in message.get("text", "") for message in sent), sent
    async with asyncio.timeout(5):
        while not any(seen.version == "sane" for seen in lab.controller.world.observed_hosts.values()):
            await lab.controller.world.moved(lab.controller.world.revision)


AGENTS = Target("agents", SESSIONS, check_sessions, steps_to_file, steps_from_file)
