"""Real DHCPv6 clients from boot to release: through renewals, a responder that is restarted, one of another host,
rebinding, another address, a crash of their own. They live all at once, as the times that they obey really pass."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from clients6 import CLIENTS, SILENT_AT_THE_END, Client, Transcript, addresses
from responder_lab import Agent, Guest, Host, Responder

from dhcp.scope import PortScope, Scope6, ScopeRa
from overlay.state import LEG_LINK_LOCAL
from playground.responder.protocol import port_key

pytestmark = [pytest.mark.system, pytest.mark.long]

LASTS_S = 20
"""Renewed after 10 s, rebound after 16: less would be over while a busy machine starts a responder."""
STAGE_S = 30.0
GIVEN = {("SOLICIT", "REPLY"), ("REQUEST", "REPLY")}
RENEWED, REBOUND = {("RENEW", "REPLY")}, {("REBIND", "REPLY")}
STAGES = {
    "boot": GIVEN,
    "renewal after a restart of the responder": RENEWED,
    "renewal on another host": RENEWED,
    "rebinding": REBOUND,
    "another address": RENEWED,
    "a crash of its own": GIVEN | REBOUND | {("CONFIRM", "REPLY")},
}
"""By which of what it hears each is done."""


class Life:
    """One client, and what it went through."""

    def __init__(self, kind: type[Client], guest: Guest, folder: Path) -> None:
        folder.mkdir()
        guest.up()
        self.client = kind(guest, folder)
        self.guest = guest
        self.transcript = Transcript(guest)
        self.address = f"fd00:20::{int(guest.port):x}"
        self.first = self.address
        self.seen: dict[str, tuple[list[tuple[str, str]], set[str]]] = {}

    def scope(self, *, is_silent: bool = False) -> PortScope:
        """Short times, and the address it is to have now; or nothing of DHCPv6."""
        six = Scope6((self.address,), LEG_LINK_LOCAL, LASTS_S, dns=("fd00:20::1",))
        ra = ScopeRa(LEG_LINK_LOCAL, prefixes=(("fd00:20::/64", False),), mtu=1400, managed=True, other=True)
        return replace(self.guest.scope(with_v4=False), ra=ra, v6=None if is_silent else six)

    def has_done(self, stage: str) -> bool:
        """Whether it heard all that belongs to a stage, and has its address."""
        if not STAGES[stage].intersection(self.transcript.read()) or addresses(self.guest) != {self.address}:
            return False
        self.note(stage)
        return True

    def note(self, stage: str) -> None:
        """Ends a stage."""
        self.seen[stage] = list(self.transcript.read()), addresses(self.guest)
        self.transcript.heard.clear()


class Site:
    """The responder that answers, and the clients. folders: of two responders, with nothing in them."""

    def __init__(self, plane: str, folders: tuple[Path, Path], lives: list[Life]) -> None:
        self.lives = lives
        self._plane, self._other = plane, folders[1]
        self.responder = Responder(folders[0], plane)
        self.tell()

    def tell(self) -> None:
        """What each is to be told from now on; agents come and go with it."""
        agent = Agent(self.responder)
        agent.tell({port_key(life.guest.port): life.scope() for life in self.lives}, whole=True)
        agent.close()

    def restart(self) -> None:
        """As it crashed: it goes on by its file, and no agent says a word."""
        self.responder.kill()
        self.responder.start()

    def move(self) -> None:
        """Another one answers, which remembers nothing: as on the host where a workspace comes to."""
        self.responder.kill()
        self.responder = Responder(self._other, self._plane)
        self.tell()

    def all_do(self, stage: str) -> None:
        """Waits until each has, or some have not in time."""
        waiting, end = self.lives, time.monotonic() + STAGE_S
        while waiting and time.monotonic() < end:
            waiting = [life for life in waiting if not life.has_done(stage)]
            time.sleep(0.02)
        for life in waiting:
            life.note(stage)

    def begin(self, act: Callable[[], None]) -> None:
        """What was heard before counts no more."""
        act()
        for life in self.lives:
            life.transcript.read().clear()

    def miss_a_renewal(self) -> None:
        """Each port is silent until its client has asked the server that it knows, which it does once (§18.2.4)."""
        agent = Agent(self.responder)
        agent.tell({port_key(life.guest.port): life.scope(is_silent=True) for life in self.lives})
        for life in self.lives:
            life.transcript.read().clear()  # here, as some may rebind before others have missed theirs
            life.transcript.asked.append("---")
        waiting, end = self.lives, time.monotonic() + STAGE_S
        while waiting and time.monotonic() < end:
            for life in waiting:
                life.transcript.read()
            asked = [life for life in waiting if "RENEW" in life.transcript.asked[life.transcript.asked.index("---") :]]
            if asked:
                agent.tell({port_key(life.guest.port): life.scope() for life in asked})
            waiting = [life for life in waiting if life not in asked]
            time.sleep(0.02)
        agent.close()

    def live(self) -> None:
        """Every stage, and the end."""
        for life in self.lives:
            life.client.start()
        self.all_do("boot")
        self.begin(self.restart)
        self.all_do("renewal after a restart of the responder")
        self.begin(self.move)
        self.all_do("renewal on another host")
        self.miss_a_renewal()
        self.all_do("rebinding")
        for number, life in enumerate(self.lives, 0x200):
            life.address = f"fd00:20::{number:x}"
        self.begin(self.tell)
        self.all_do("another address")
        for life in self.lives:
            life.client.kill()
        self.begin(lambda: None)
        for life in self.lives:
            life.client.start()
        self.all_do("a crash of its own")
        for life in self.lives:
            life.client.release()
            life.transcript.read()

    def close(self) -> None:
        """Nothing is left."""
        self.responder.kill()
        for life in self.lives:
            life.client.kill()
            life.transcript.close()
            life.guest.__exit__()


@pytest.fixture(scope="module")
def lives(host: Host) -> Iterator[dict[str, Life]]:
    with contextlib.ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rsp"))) for _ in range(3)]
        folders[2].chmod(0o755)  # some clients give up root
        kinds = [kind for kind in CLIENTS if not kind.missing()]
        found = [Life(kind, Guest(host, at), folders[2] / kind.name) for at, kind in enumerate(kinds, 150)]
        site = Site(host.plane.path, (folders[0], folders[1]), found)
        stack.callback(site.close)
        site.live()
        yield {life.client.name: life for life in found}


each_client = pytest.mark.parametrize("kind", CLIENTS, ids=lambda kind: kind.name)


def life_of(kind: type[Client], lives: dict[str, Life]) -> Life:
    if kind.name not in lives:
        pytest.skip(kind.missing())
    return lives[kind.name]


@each_client
@pytest.mark.parametrize("stage", STAGES)
def test_a_client_has_its_address_through(stage: str, kind: type[Client], lives: dict[str, Life]) -> None:
    life = life_of(kind, lives)
    heard, found = life.seen[stage]
    said = life.client.log.read_text()[-2000:]
    assert STAGES[stage].intersection(heard), f"{heard}\n{life.transcript.asked}\n{said}"
    wanted = life.address if stage in ("another address", "a crash of its own") else life.first
    assert found == {wanted}, said


@each_client
def test_a_client_gives_its_address_back(kind: type[Client], lives: dict[str, Life]) -> None:
    life = life_of(kind, lives)
    if kind in SILENT_AT_THE_END:
        pytest.skip(f"{kind.name} ends without a word")
    assert life.transcript.asked[-1] == "RELEASE", life.transcript.asked
