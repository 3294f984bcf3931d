"""Real DHCPv4 clients from boot to release: through renewals, a responder that is restarted, one of another host,
rebinding, another address, a crash of their own. They live all at once, as the times that they obey really pass."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from clients4 import CLIENTS, Client, Transcript
from responder_lab import SERVER, Agent, Guest, Host, Responder, needs, until, waits_for

from dhcp.options import Code
from dhcp.scope import PortScope
from playground.responder.protocol import port_key

pytestmark = pytest.mark.system

RENEWS_S, REBINDS_S, LASTS_S = 1, 3, 40
STAGE_S = 15.0
GIVEN = {("SELECTING", "ACK"), ("DISCOVER", "ACK")}
"""The latter by rapid commit."""
RENEWED, REBOUND, REBOOTED = {("RENEWING", "ACK")}, {("REBINDING", "ACK")}, {("INIT-REBOOT", "ACK")}
STAGES = {
    "boot": GIVEN,
    "renewal after a restart of the responder": RENEWED,
    "renewal on another host": RENEWED,
    "rebinding": REBOUND,
    "another address": GIVEN,
    "a crash of its own": REBOOTED,
}
"""By which of what it hears each is done."""


class Seen(NamedTuple):
    """heard: (what the client said, what it heard then), in one stage. address: that it had in the end."""

    heard: list[tuple[str, str]]
    address: str


class Life:
    """One client, and what it went through."""

    def __init__(self, kind: type[Client], guest: Guest, folder: Path) -> None:
        folder.mkdir()
        guest.up()
        self.guest = guest
        self.client = kind(guest, folder)
        self.transcript = Transcript(guest)
        self.address = guest.address
        self.seen: dict[str, Seen] = {}

    def scope(self) -> PortScope:
        """Short times, and the address it is to have now."""
        times = ((Code.RENEWAL_TIME, RENEWS_S.to_bytes(4, "big")), (Code.REBINDING_TIME, REBINDS_S.to_bytes(4, "big")))
        whole = self.guest.scope()
        assert whole.v4 is not None
        return replace(whole, v4=replace(whole.v4, address=self.address, lease_s=LASTS_S, options=times))

    def wanted(self, stage: str) -> set[tuple[str, str]]:
        """What it is to hear."""
        return STAGES[stage] | GIVEN if STAGES[stage] is REBOOTED and not self.client.remembers else STAGES[stage]

    def has_done(self, stage: str) -> bool:
        """Whether it heard all that belongs to a stage, and has its address."""
        heard = self.transcript.read()
        if not self.wanted(stage).intersection(heard) or self.guest.ipv4() != self.address:
            return False
        self.note(stage)
        return True

    def said(self) -> str:
        """The client's own words, the last of them."""
        return self.client.log.read_text()[-2000:]

    def note(self, stage: str) -> None:
        """Ends a stage."""
        self.seen[stage] = Seen(list(self.transcript.read()), self.guest.ipv4())
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
        """As it crashed: the next one, which waits already, goes on by its file, and no agent says a word."""
        crashing = self.responder.process
        following = self.responder.process = subprocess.Popen(self.responder.argv)
        until(lambda: waits_for(following.pid, self.responder.folder / "r.sock.lock"), 20.0)
        crashing.kill()
        crashing.wait()
        until(self.responder.serves)

    def move(self) -> None:
        """Another one answers, which remembers nothing: as on the host where a workspace comes to."""
        there = Responder(self._other, self._plane)
        self.responder.kill()
        self.responder = there
        self.tell()

    def all_do(self, stage: str) -> None:
        """Waits until each has, or some have not in time."""
        waiting, end = self.lives, time.monotonic() + STAGE_S
        while waiting and time.monotonic() < end:
            waiting = [life for life in waiting if not life.has_done(stage)]
            time.sleep(0.02)
        for life in waiting:
            life.note(stage)

    def begin(self, act: Callable[[Client], None]) -> None:
        """What was heard before counts no more."""
        for life in self.lives:
            life.transcript.read().clear()
            act(life.client)

    def live(self) -> None:
        """Every stage, and the end."""
        for life in self.lives:
            life.client.start()
        self.all_do("boot")
        for stage, begin in (
            ("renewal after a restart of the responder", self.restart),
            ("renewal on another host", self.move),
        ):
            begin()
            self.begin(lambda client: client.renew())
            self.all_do(stage)
        self.begin(lambda client: client.rebind(SERVER))
        self.all_do("rebinding")
        for number, life in enumerate(self.lives, 200):
            life.client.end_rebind()
            life.address = f"10.20.0.{number}"
        self.tell()
        self.begin(lambda client: client.renew())
        self.all_do("another address")
        for life in self.lives:
            life.client.kill()
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
    needs("nft")
    with contextlib.ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rsp"))) for _ in range(3)]
        folders[2].chmod(0o755)  # some clients give up root
        kinds = [kind for kind in CLIENTS if not kind.missing()]
        found = [Life(kind, Guest(host, at), folders[2] / kind.name) for at, kind in enumerate(kinds, 100)]
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
    heard, address = life.seen[stage]
    wanted = life.address if stage in ("another address", "a crash of its own") else life.guest.address
    assert life.wanted(stage).intersection(heard), f"{heard}\n{life.said()}"
    assert address == wanted


@each_client
def test_a_client_hears_no_until_its_address_is_another(kind: type[Client], lives: dict[str, Life]) -> None:
    seen = life_of(kind, lives).seen
    refused = {stage for stage, (heard, _) in seen.items() if any(answer == "NAK" for _, answer in heard)}
    assert refused - {"a crash of its own"} == {"another address"}


@each_client
def test_a_client_gives_its_address_back(kind: type[Client], lives: dict[str, Life]) -> None:
    assert life_of(kind, lives).transcript.asked[-1] == "RELEASE"
