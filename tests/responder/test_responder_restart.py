"""A responder that takes another's place, as an upgrade does: it waits until the first one ends, ready to go on."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from responder_lab import SERVER, VIEW, Agent, Host, Responder, until, waits_for

from playground.responder import netns
from playground.responder.protocol import Name, name_key

pytestmark = pytest.mark.system
ASKED = bytes.fromhex("000001000001000000000000") + b"\1w\5atlas\x08internal\0\0\1\0\1"
PAUSE_S = 0.1
TRIES = 3


@contextmanager
def asking(host: Host) -> Iterator[list[float]]:
    """When a name was answered, while the body runs; it is asked for every 2 ms."""
    times: list[float] = []
    ended = threading.Event()
    _, opened = netns.inside(host.service.path, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    def ask() -> None:
        opened.settimeout(0.002)
        while not ended.is_set():
            try:
                opened.sendto(ASKED, (SERVER, 53))
                opened.recv(4096)
            except OSError:
                continue
            times.append(time.monotonic())
            ended.wait(0.002)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        until(lambda: times)
        yield times
    finally:
        ended.set()
        thread.join()
        opened.close()


def pause_s(responder: Responder, host: Host) -> float:
    """The longest silence while another responder takes this one's place."""
    with asking(host) as times:
        first = responder.process
        second = responder.process = subprocess.Popen(responder.argv)
        until(lambda: waits_for(second.pid, responder.folder / "r.sock.lock"), 20.0)
        before = time.monotonic()
        first.terminate()
        assert first.wait(5) == 0
        until(lambda: times[-1] > before + 0.5, 10.0, "names are not answered again")
    around = [at for at in times if at > before - 0.1]
    return max(later - at for at, later in pairwise(around))


def test_names_pause_for_100_ms_at_most_when_another_takes_over(responder: Responder, agent: Agent, host: Host) -> None:
    name = Name(workspace="w", network="grid", addresses=("10.20.0.9",))
    agent.tell({VIEW: host.view(), name_key("atlas", "0" * 12): name}, whole=True)
    until(lambda: (responder.folder / "r.json").exists(), what="what it was told is not remembered")
    agent.close()
    pauses: list[float] = []
    while len(pauses) < TRIES and min(pauses, default=1.0) > PAUSE_S:  # others' work may be in the way of one
        pauses.append(pause_s(responder, host))
    print(f"a responder took another's place, silence in s: {pauses}")
    assert min(pauses) <= PAUSE_S
