"""What controller and agent say to each other: one websocket that the agent dials, JSON text messages, tagged by `say`.

The agent opens with `Hello`, the controller answers `Welcome` and then keeps the agent's view: `Enter` a scope with a
snapshot, `Changed` records, `Leave`. The agent sends `Report`s of what it observed. Whatever either side does not have
after a reconnect is sent again whole; the agent diffs. Beside that the controller may `Ask`, and the agent `Answer`s.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from playground.questions import Question
from playground.records import (
    BindingRecord,
    Driver,
    DynamicRecord,
    HostRecord,
    MigrationRecord,
    NetworkRecord,
    ObservedHost,
    ObservedLeases,
    ObservedPort,
    ObservedWorkspace,
    PolicyRecord,
    PortRecord,
    WorkspaceRecord,
)

PROTOCOL = 2
"""2: views hold policies; an agent that would not enforce them is not served."""

BEAT_S = 1.5

Viewed = (
    HostRecord
    | NetworkRecord
    | WorkspaceRecord
    | PortRecord
    | PolicyRecord
    | BindingRecord
    | DynamicRecord
    | MigrationRecord
)
"""The records that an agent may be shown."""

Observation = ObservedPort | ObservedLeases | ObservedWorkspace | ObservedHost


class _Said(msgspec.Struct, frozen=True, tag_field="say"):
    pass


class Hello(_Said, frozen=True, tag="hello"):
    """The agent's first message. The token goes in the HTTP header, not here. instance: tells this process from any
    other agent of the same host, over all its connections. facts: what workspaces may require, as labels."""

    host: str
    protocol: int
    version: str
    underlay: str
    underlay_mtu: int
    drivers: list[Driver]
    cpus: float
    memory_mib: int
    instance: str = ""
    facts: dict[str, str] = {}


class Welcome(_Said, frozen=True, tag="welcome"):
    """The controller's answer. domain: DNS suffix of the site; max_stale_s: how old a cache may be to open a port
    anew."""

    site: str
    session: str
    domain: str
    resolvers: list[str]
    max_stale_s: float


class Enter(_Said, frozen=True, tag="enter"):
    """A scope begins to concern this host: everything in it as of `revision`. What the agent held of it before is
    void."""

    scope: str
    revision: int
    records: list[Viewed]


class Changed(_Said, frozen=True, tag="changed"):
    """Records written and keys gone in one scope, up to `revision`."""

    scope: str
    revision: int
    puts: list[Viewed]
    deletes: list[str]


class Leave(_Said, frozen=True, tag="leave"):
    """A scope no longer concerns this host."""

    scope: str


class Complete(_Said, frozen=True, tag="complete"):
    """The view is whole as of `revision`: what is not in it does not exist for this host."""

    revision: int


class Notice(_Said, frozen=True, tag="notice"):
    """The agent's: a machine that is to come here (`arrives`), or to begin here (`starts`), by somebody else's doing.
    `Noted` with the same id is the answer."""

    id: str
    what: Literal["arrives", "starts"]
    playground: str
    workspace: str


class Noted(_Said, frozen=True, tag="noted"):
    """What a `Notice` told of is recorded now; or why it must not be."""

    id: str
    problem: str = ""


class Execute(_Said, frozen=True, tag="execute"):
    """Run a command and dial `/v1/agent/exec/ID` with its streams. guest is None for the host itself."""

    id: str
    guest: str | None
    driver: str
    argv: list[str]
    tty: bool
    rows: int
    cols: int
    env: dict[str, str]


class Ask(_Said, frozen=True, tag="ask"):
    """A question; `Answer`s with its id come back, at once or, of one that is followed, until `Enough`."""

    id: str
    question: Question


class Enough(_Said, frozen=True, tag="enough"):
    """No more answers to a question are wanted."""

    id: str


class Answer(_Said, frozen=True, tag="answer"):
    """What the question's kind says (`playground.questions`). problem: why there is no answer; then that is the last,
    and body is null."""

    id: str
    body: msgspec.Raw
    is_last: bool = True
    problem: str = ""


class Report(_Said, frozen=True, tag="report"):
    """Observations that are new or changed since the last report of this session, and keys that no longer hold.

    whole: these are all; whatever else the store has of this host no longer holds.
    """

    whole: bool
    observed: list[Observation]
    gone: list[str]


class Beat(_Said, frozen=True, tag="beat"):
    """The agent is there and its loop turns. Said every `BEAT_S`; what a controller has not heard for long is gone."""


FromAgent = Hello | Report | Answer | Notice | Beat
FromController = Welcome | Enter | Changed | Leave | Complete | Execute | Ask | Enough | Noted

_encoder = msgspec.json.Encoder()
_from_agent: msgspec.json.Decoder[FromAgent] = msgspec.json.Decoder(FromAgent)
_from_controller: msgspec.json.Decoder[FromController] = msgspec.json.Decoder(FromController)


def encode(message: FromAgent | FromController) -> str:
    """One websocket text message."""
    return _encoder.encode(message).decode()


def decode_from_agent(text: str | bytes) -> FromAgent:
    """Raises msgspec.DecodeError for what no agent says."""
    return _decoded(_from_agent, text)


def decode_from_controller(text: str | bytes) -> FromController:
    """Raises msgspec.DecodeError for what no controller says."""
    return _decoded(_from_controller, text)


T = TypeVar("T")


def _decoded(decoder: msgspec.json.Decoder[T], text: str | bytes) -> T:
    try:
        return decoder.decode(text)
    except RecursionError:
        raise msgspec.DecodeError("it is nested too deeply") from None
