"""Machines that are suspended, saved, rebooted and typed at, by us and behind our back; whatever restarts meanwhile."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from site_lab import Json
from vm_lab import Machines

from playground.client import Refused, Unreachable
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.vm]

DOMAIN = "web.life"


@pytest.fixture(scope="module")
def life(machines: Machines) -> Iterator[Machines]:
    machines.up("life", files(machines))
    machines.booted("life", "web", "n1")
    yield machines
    machines.site.down("life")
    assert machines.domains("life", "web") == {} and machines.taps("life", "web") == {}


def files(machines: Machines, **more: object) -> dict[str, object]:
    return {"web": machines.machine("web", host="n1", **more)}


def restarts(machines: Machines, *programs: str) -> None:
    """They are killed, and all hosts are there again."""
    for program in programs:
        machines.site.kill(program)
    eventually(lambda: answers(machines), 30, "a controller")
    machines.site.await_hosts()


def answers(machines: Machines) -> bool:
    try:
        return bool(machines.site.hosts())
    except Unreachable:
        return False


def workspace(machines: Machines) -> Json:
    (playground,) = machines.site.client.get("status", {"playground": "life"})["playgrounds"]
    return dict(playground["workspaces"][0])


def becomes(machines: Machines, state: str, seconds: float = 30.0) -> Json:
    return eventually(lambda: (now := workspace(machines))["state"] == state and now, seconds, f"web {state}")


def ask(machines: Machines, verb: str, state: str) -> None:
    machines.site.client.post(verb, {"workspace": "life/web"})
    becomes(machines, state)


def boots(machines: Machines) -> int:
    return len(re.findall(r"BOUND \S+ ", machines.said("life", "web", "n1")))


def test_a_suspended_machine_stays_so_whatever_restarts_and_goes_on_with_its_memory(life: Machines) -> None:
    before = boots(life)
    done = life.site.cli("suspend", "web")
    assert (done.returncode, done.stdout) == (0, "life/web: suspended\n"), done.stderr
    assert life.domains("life", "web") == {"n1": "paused"}
    restarts(life, "agent-n1", "controller", "libvirtd-n1")
    eventually(lambda: life.virsh("n1", "domstate", DOMAIN, check=False).strip() == "paused", 20, "libvirtd again")
    assert becomes(life, "suspended")["cause"] == "" and life.taps("life", "web") == {"n1": "dataplane"}
    assert life.site.cli("resume", "web").stdout == "life/web: running\n"
    assert boots(life) == before and life.domains("life", "web") == {"n1": "running"}


def test_a_saved_machine_frees_its_host_and_comes_back_where_it_was(life: Machines) -> None:
    before = boots(life)
    assert life.site.cli("save", "web").stdout == "life/web: saved\n"
    assert life.domains("life", "web") == {"n1": "shut off"} and life.taps("life", "web") == {}
    assert life.site.ports("life")["web.grid"]["state"] == "stopped"
    for verb, words in (("suspend", "restore it first"), ("reboot", "restore it first")):
        with pytest.raises(Refused, match=words):
            life.site.client.post(verb, {"workspace": "life/web"})
    with pytest.raises(Refused, match="saved; restore it, then move it"):
        life.site.begin("life/web", "n2")
    with pytest.raises(Refused, match="without the memory that is kept"):
        life.up("life", files(life, memory="128MiB"))
    restarts(life, "agent-n1")
    assert life.site.cli("restore", "web").stdout == "life/web: running\n"
    assert boots(life) == before and life.taps("life", "web") == {"n1": "dataplane"}


def test_what_is_done_behind_our_back_is_shown_with_its_reason_and_counted(life: Machines) -> None:
    life.virsh("n1", "suspend", DOMAIN)
    assert becomes(life, "suspended")["cause"] == "suspended by another tool"
    restarts(life, "agent-n1")
    assert becomes(life, "suspended")["cause"] == "suspended by another tool"
    ask(life, "resume", "running")
    before = boots(life)
    life.virsh("n1", "destroy", DOMAIN)
    eventually(lambda: boots(life) > before, 40, "it booted again")
    assert becomes(life, "running")["ended"] == 1
    told = {event["kind"]: event["text"] for event in life.site.client.get("events")}
    assert told["workspace-halted"] == "on n1: suspended by another tool"
    assert told["workspace-ended"] == "on n1: another tool has ended it; it begins again, 1 times so far"


def test_a_reboot_is_done_once(life: Machines) -> None:
    before = boots(life)
    assert life.site.cli("reboot", "web").stdout == "life/web: running\n"
    eventually(lambda: boots(life) == before + 1, 40, "it booted again")
    restarts(life, "agent-n1", "controller")
    life.site.converged("life")
    assert boots(life) == before + 1 and life.domains("life", "web") == {"n1": "running"}


def test_a_terminal_joins_the_serial_line_and_leaves_it(life: Machines) -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "playground", "console", "web"]
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=subprocess.PIPE, env=life.site.environment, start_new_session=True
    )
    os.close(slave)
    try:
        heard = b""
        deadline = time.monotonic() + 30
        os.write(master, b"\r")
        asked = False
        while b"=42=" not in heard and time.monotonic() < deadline:
            if select.select([master], [], [], 0.5)[0]:
                try:
                    heard += os.read(master, 4096)
                except OSError:
                    raise AssertionError(process.communicate()[1]) from None
            if b"# " in heard and not asked:
                os.write(master, b"echo =$((6*7))=\r")
                asked = True
        assert b"=42=" in heard, heard
        other = life.site.cli("console", "web")
        assert other.returncode == 1 and "somebody else has this console open" in other.stderr
        os.write(master, b"\x1d")
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
    shown = life.site.cli("console", "web", "--log")
    assert shown.returncode == 0 and "=42=" in shown.stdout
