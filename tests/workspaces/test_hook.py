"""libvirt's hook: the script as libvirt calls it, and where it is put."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from playground.workspaces.drivers.api import Guest
from playground.workspaces.drivers.libvirt import hook, hooks
from playground.workspaces.drivers.libvirt.parts import Setting
from playground.workspaces.drivers.libvirt.xml import domain_xml, read_domain, write_console

GUEST = Guest("7a010e8d8fc8", "atlas", "w", "w", ())
OURS = domain_xml(GUEST, Setting("qemu", log="/var/lib/n1/consoles/7a010e8d8fc8.log"))
THEIRS = "<domain><name>w</name></domain>"
MODERN, OLD = hooks.SINCE, (5, 0)


def installed(folder: Path, at: Path, quickly: bool = False) -> Path:
    """The script. quickly: it waits for nobody for long."""
    hooks.install(folder, at, MODERN)
    path = hooks.place(folder, MODERN)
    if quickly:
        path.write_text(path.read_text().replace(f"WITHOUT_S = {hook.WITHOUT_S}", "WITHOUT_S = 0.3"))
    return path


def called(path: Path, *words: str, xml: str = OURS) -> tuple[int, str, str]:
    """(exit code, standard output, standard error)"""
    done = subprocess.run([str(path), *words], input=xml, capture_output=True, text=True, timeout=20)
    return done.returncode, done.stdout, done.stderr.strip()


@contextmanager
def an_agent(at: Path, answer: dict[str, str] | bytes, after_s: float = 0.0) -> Iterator[list[dict[str, Any]]]:
    """Answers one call; yields what it was asked."""
    heard: list[dict[str, Any]] = []

    def serve() -> None:
        time.sleep(after_s)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(at))
            server.listen()
            server.settimeout(10)
            channel, _ = server.accept()
            with channel:
                heard.append(json.loads(channel.makefile("rb").read()))
                channel.sendall(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield heard
    finally:
        thread.join(15)


@pytest.mark.parametrize(
    ("words", "xml"),
    [
        (("w", "migrate", "begin", "-"), THEIRS),
        (("w", "prepare", "begin", "-"), THEIRS),
        (("w", "start", "begin", "-"), OURS),
        (("w", "started", "begin", "-"), OURS),
        (("w", "stopped", "end", "-"), OURS),
        (("w", "release", "end", "-"), OURS),
        (("w", "reconnect", "begin", "-"), OURS),
        ((), ""),
    ],
)
def test_of_others_machines_and_of_what_is_over_nobody_is_asked(
    tmp_path: Path, words: tuple[str, ...], xml: str
) -> None:
    assert called(installed(tmp_path, tmp_path / "s"), *words, xml=xml) == (0, "", "")


@pytest.mark.parametrize("operation", ["migrate", "prepare"])
def test_what_the_agent_says_is_what_libvirt_hears(tmp_path: Path, operation: str) -> None:
    path = installed(tmp_path, tmp_path / "s")
    with an_agent(tmp_path / "s", {"refused": "", "xml": ""}) as heard:
        assert called(path, "w", operation, "begin", "-") == (0, "", "")
    assert heard == [{"operation": operation, "xml": OURS}]
    (tmp_path / "s").unlink()
    with an_agent(tmp_path / "s", {"refused": "", "xml": "<domain/>"}):
        assert called(path, "w", operation, "begin", "-") == (0, "<domain/>", "")
    (tmp_path / "s").unlink()
    with an_agent(tmp_path / "s", {"refused": "it can't enforce", "xml": ""}):
        assert called(path, "w", operation, "begin", "-") == (1, "", "it can't enforce")


def test_an_agent_that_is_started_again_is_waited_for(tmp_path: Path) -> None:
    path = installed(tmp_path, tmp_path / "s")
    with an_agent(tmp_path / "s", {"refused": "", "xml": ""}, after_s=0.5):
        assert called(path, "w", "migrate", "begin", "-") == (0, "", "")


@pytest.mark.parametrize("answer", [b"", b"nonsense", b"[]", b"{}"])
def test_without_a_sound_answer_a_machine_of_ours_is_refused_in_bounded_time(tmp_path: Path, answer: bytes) -> None:
    path = installed(tmp_path, tmp_path / "s", quickly=True)
    code, out, said = called(path, "w", "migrate", "begin", "-")
    assert (code, out) == (1, "") and "no agent of the playground answers" in said
    with an_agent(tmp_path / "s", answer):
        code, out, said = called(path, "w", "migrate", "begin", "-")
    assert (code, out) == (1, "") and "no agent of the playground answers" in said


def test_it_is_one_of_several_where_libvirt_calls_several(tmp_path: Path) -> None:
    (tmp_path / "qemu").write_text("#!/bin/sh\n")
    assert hooks.install(tmp_path, tmp_path / "s", MODERN)
    assert not hooks.install(tmp_path, tmp_path / "s", MODERN)
    assert hooks.install(tmp_path, tmp_path / "other", MODERN)
    path = tmp_path / "qemu.d" / hooks.NAME
    assert path.stat().st_mode & 0o777 == 0o755 and "SOCKET = '" + str(tmp_path / "other") in path.read_text()
    assert hooks.remove(tmp_path, tmp_path / "s") == []
    assert hooks.remove(tmp_path) == [path] and hooks.remove(tmp_path) == []
    assert (tmp_path / "qemu").exists()


def test_an_older_libvirt_calls_one_and_somebody_elses_stays(tmp_path: Path) -> None:
    assert hooks.install(tmp_path, tmp_path / "s", OLD)
    assert hooks.remove(tmp_path) == [tmp_path / "qemu"]
    (tmp_path / "qemu").write_text("#!/bin/sh\n")
    with pytest.raises(hooks.HookRefused, match=r"is somebody else's hook, and libvirt 5\.0 calls one only"):
        hooks.install(tmp_path, tmp_path / "s", OLD)
    assert hooks.remove(tmp_path) == [] and (tmp_path / "qemu").read_text() == "#!/bin/sh\n"


def test_a_machine_that_comes_writes_its_console_where_this_host_keeps_them() -> None:
    assert read_domain(OURS) == GUEST
    here = write_console(OURS, Path("/var/lib/n2/consoles/7a010e8d8fc8.log"))
    assert "/var/lib/n2/consoles/7a010e8d8fc8.log" in here and "n1" not in here
    assert write_console(THEIRS, Path("/x.log")) == THEIRS
    with pytest.raises(ValueError, match="no mark of ours"):
        read_domain(THEIRS)
