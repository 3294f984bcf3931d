from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sandbox_drive import SLEEP
from sandbox_lab import NOBODY, Folders, answer, drive, held, inside, kill_first, namespaces, program, run, start

from playground import paths, sandbox
from playground.sandbox.namespaces import started
from playground.sandbox.plan import Family, Program, SandboxPlan
from tests.waiting import eventually

pytestmark = pytest.mark.system


def sandbox_processes(folders: Folders) -> set[int]:
    """First processes that were started for this test's folders, published or not."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            is_init = b"playground.sandbox.launch" in (entry / "cmdline").read_bytes()
            if is_init and str(folders.run).encode() in (entry / "environ").read_bytes():
                found.add(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


@pytest.mark.parametrize(("family", "address"), [("ipv4", "192.0.2.12"), ("ipv6", "2001:db8::12")])
def test_hosts_reach_each_other_and_the_controller_over_the_underlay(site: str, family: Family, address: str) -> None:
    made = start(site, 3, underlay=family)
    controller = {"ipv4": "192.0.2.1", "ipv6": "2001:db8::1"}[family]
    assert run(made, "ping", "-c1", "-W2", address, host="n3").returncode == 0
    assert run(made, "ping", "-c1", "-W2", controller, host="n3").returncode == 0
    assert run(made, "hostname", host="n3").stdout == "n3\n"


def test_a_host_sees_its_own_links_and_named_namespaces_only(site: str) -> None:
    made = start(site, 2)
    assert run(made, "ip", "netns", "add", "playground", host="n1").returncode == 0
    assert run(made, "ls", "/run/netns", host="n1").stdout == "playground\n"
    assert run(made, "ls", "/run/netns", host="n2").stdout == ""
    assert run(made, "ls", "/run/netns").stdout == ""
    assert set(run(made, "ls", "/sys/class/net", host="n1").stdout.split()) == {"lo", "eth0", "eth1"}


def test_a_second_ensure_joins_and_another_number_of_hosts_is_refused(site: str) -> None:
    made = start(site, 2)
    assert start(site, 2) == made == sandbox.find(site)
    with pytest.raises(sandbox.SandboxError, match="runs with 2 emulated hosts, not 3"):
        start(site, 3)
    assert sandbox.find(site) == made


def test_two_sites_live_side_by_side(site: str) -> None:
    made, other = start(site, 2), start("west", 2)
    try:
        assert not namespaces(inside(made.pid)) & namespaces(inside(other.pid))
        assert sandbox.stop("west")
        assert sandbox.find(site) == made
        assert run(made, "ping", "-c1", "-W2", "192.0.2.11", host="n2").returncode == 0
    finally:
        sandbox.stop("west")


def test_after_stop_no_process_namespace_or_file_is_left(site: str, folders: Folders) -> None:
    made = start(site, 2)
    run(made, "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &", host="n1")
    before = inside(made.pid)
    assert len(before) >= 5
    before_stop = held(before)
    assert sandbox.stop(site) is True
    assert before_stop.still() == set()
    assert sandbox_processes(folders) == set()
    assert folders.are_empty()
    assert sandbox.find(site) is None
    assert sandbox.stop(site) is False


@pytest.mark.parametrize("then", ["stop", "ensure"])
def test_when_its_first_process_is_killed_a_sandbox_ends_whole(site: str, folders: Folders, then: str) -> None:
    made = start(site, 2)
    before = {pid: started(pid) for pid in inside(made.pid)}
    (made.state_dir / "store.db").write_text("kept")
    kill_first(made)
    assert {pid for pid, who in before.items() if started(pid) == who} == set()
    if then == "stop":
        assert sandbox.stop(site) is True
        assert folders.are_empty()
    else:
        assert start(site, 2).pid != made.pid
        assert (made.state_dir / "store.db").read_text() == "kept"


@pytest.mark.parametrize("name", ["controller", "agent-n1"])
def test_a_program_that_is_killed_is_started_again_and_counted(site: str, name: str) -> None:
    made = start(site)
    run(made, "kill", "-9", str(program(made, name)["pid"]))
    eventually(lambda: program(made, name)["restarts"] == 1 and program(made, name)["pid"])


def test_orphans_are_reaped(site: str) -> None:
    made = start(site)
    run(made, "sh", "-c", "for i in 1 2 3 4 5; do (true &) ; done")
    eventually(lambda: " Z" not in run(made, "ps", "ax", "-o", "pid,stat").stdout)


def test_killing_the_command_line_stops_nothing_that_was_to_stay(site: str) -> None:
    driver = drive("ensure", site, "2")
    pid = answer(driver)["pid"]
    driver.kill()
    driver.wait()
    found = sandbox.find(site)
    assert found is not None and found.pid == pid


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_start_that_is_broken_off_leaves_nothing(site: str, folders: Folders, number: signal.Signals) -> None:
    driver = drive("ensure", site, "2", "mute")
    eventually(lambda: paths.sandbox_file(site).exists())
    assert sandbox_processes(folders)
    driver.send_signal(number)
    driver.wait()
    eventually(lambda: not sandbox_processes(folders))
    eventually(folders.are_empty)


def test_a_leashed_sandbox_ends_with_its_command_line(site: str, folders: Folders) -> None:
    driver = drive("ensure", site, "2", "leash", "memory")
    try:
        assert answer(driver)["ping"] == 0
    finally:
        driver.kill()
        driver.wait()
    eventually(lambda: sandbox.find(site) is None and not sandbox_processes(folders))
    eventually(folders.are_empty)


def test_a_stale_file_is_not_believed_and_harms_no_stranger(site: str, folders: Folders) -> None:
    stranger = subprocess.Popen(SLEEP)
    try:
        made = start(site)
        file = paths.sandbox_file(site)
        said = json.loads(file.read_text()) | {"pid": stranger.pid}
        kill_first(made)
        file.write_text(json.dumps(said))
        assert sandbox.find(site) is None
        assert sandbox.stop(site) is True
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_controller_that_dies_ends_the_start_with_its_last_words(site: str, folders: Folders) -> None:
    def broken(plan: SandboxPlan) -> tuple[Program, ...]:
        return (Program("controller", ("sh", "-c", "echo no store here >&2; exit 1")),)

    with pytest.raises(sandbox.SandboxError, match=r"(?s)died \d times.*no store here"):
        start(site, 1, commands=broken)
    assert folders.are_empty() and not sandbox_processes(folders)


def test_a_controller_that_never_answers_ends_the_start(site: str, folders: Folders) -> None:
    with pytest.raises(sandbox.SandboxError, match="does not answer"):
        start(site, 1, commands=lambda plan: (Program("controller", SLEEP),), timeout_s=1.0)
    assert folders.are_empty() and not sandbox_processes(folders)


def test_a_start_that_fails_keeps_the_state_of_an_earlier_one(site: str) -> None:
    made = start(site)
    (made.state_dir / "store.db").write_text("kept")
    kill_first(made)
    with pytest.raises(sandbox.SandboxError):
        start(site, 1, commands=lambda plan: (Program("controller", SLEEP),), timeout_s=0.5)
    assert (made.state_dir / "store.db").read_text() == "kept"


def test_state_in_memory_never_touches_the_disk(site: str, folders: Folders) -> None:
    made = start(site, 1, in_memory_state=True)
    assert [path.name for path in made.state_dir.iterdir()] == ["emulated.json"]
    assert run(made, "cat", f"{made.state_dir}/hosts/n1/token", host="n1").stdout
    assert sandbox.stop(site) and folders.are_empty()


def test_tokens_are_for_their_owner_only(site: str) -> None:
    made = start(site)
    for file in (made.state_dir / "hosts/n1/token", made.run_dir / "tokens.json"):
        assert file.stat().st_mode & 0o077 == 0


def test_a_killed_host_is_gone_with_all_its_processes_and_comes_back(site: str) -> None:
    made = start(site, 2)
    run(made, "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &", host="n2")
    assert sandbox.ask(made, "kill-host", host="n2")["killed"] == 2
    assert run(made, "ping", "-c1", "-W1", "192.0.2.12", host="n1").returncode != 0
    assert "u2" not in run(made, "ls", "/sys/class/net").stdout.split()
    assert program(made, "agent-n2")["pid"] is None
    with pytest.raises(sandbox.SandboxError, match="dead already"):
        sandbox.ask(made, "kill-host", host="n2")
    with pytest.raises(sandbox.SandboxError, match="runs no host n2"):
        sandbox.command_in(made, ["true"], "n2")
    sandbox.ask(made, "start-host", host="n2")
    eventually(lambda: program(made, "agent-n2")["pid"])
    assert run(made, "ping", "-c1", "-W2", "192.0.2.12", host="n1").returncode == 0


def test_an_unknown_request_is_refused_by_name(site: str) -> None:
    made = start(site)
    with pytest.raises(sandbox.SandboxError, match="it does status"):
        sandbox.ask(made, "dance")
    with pytest.raises(sandbox.SandboxError, match="no host 'n9'"):
        sandbox.ask(made, "kill-host", host="n9")


@pytest.mark.parametrize(
    "said", [b"", b"{", b"\xff", b"[]", b'{"do": []}', b'{"do": "log", "lines": "x"}', b"[" * 50_000]
)
def test_nonsense_ends_no_site(site: str, said: bytes) -> None:
    made = start(site)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(made.run_dir / "sandbox.sock"))
        connection.sendall(said + b"\n")
        assert b"error" in connection.recv(4096)
    assert sandbox.ask(made, "status")["hosts"]


def test_the_state_of_a_site_that_is_not_emulated_is_never_touched(folders: Folders) -> None:
    state = paths.state_dir("campus")
    state.mkdir(parents=True)
    (state / "store.db").write_text("precious")
    with pytest.raises(sandbox.SandboxError, match="not emulated"):
        start("campus")
    assert sandbox.stop("campus") is False
    assert (state / "store.db").read_text() == "precious"
    assert not paths.run_dir("campus").exists()


def test_a_site_with_a_controller_of_its_own_is_neither_joined_nor_stopped(folders: Folders) -> None:
    socket_path = paths.controller_socket("campus")
    socket_path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(socket_path))
        server.listen()
        with pytest.raises(sandbox.SandboxError, match="emulates nothing"):
            start("campus")
        with pytest.raises(sandbox.SandboxError, match="not emulated"):
            sandbox.stop("campus")
    assert socket_path.exists()


def test_a_folder_too_deep_for_a_socket_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLAYGROUND_RUN", str(tmp_path / ("x" * 80)))
    with pytest.raises(sandbox.SandboxError, match="set PLAYGROUND_RUN"):
        start("east")


def ways_down() -> tuple[str, ...]:
    """How root becomes an ordinary user: by number, or, where that number is not mapped, in a user namespace again."""
    by_number = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    if subprocess.run([*by_number, "true"], capture_output=True).returncode == 0:
        return by_number
    return ("unshare", "--user", "--map-user=1000", "--map-group=1000")


@pytest.fixture
def ordinary() -> tuple[tuple[str, ...], str]:
    """How to become an ordinary user, and a Python that this user may run: ours may lie in somebody's home."""
    if os.geteuid() != 0:
        return (), sys.executable
    become = (*ways_down(), "sh", "-c", 'exec "$@"', "-")  # by a shell: the first exec still has root's rights
    source = Path(sandbox.__file__).parents[2]
    check = (
        f"import sys; sys.path.insert(0, {str(source)!r}); import playground.paths; assert sys.version_info >= (3, 11)"
    )
    for python in (sys.executable, "/usr/bin/python3"):
        if subprocess.run([*become, python, "-c", check], capture_output=True, cwd="/").returncode == 0:
            return become, python
    pytest.skip("no Python 3.11, or not this checkout, may be read by an ordinary user")


def test_an_ordinary_user_has_the_whole_site_in_a_user_namespace(
    folders: Folders, ordinary: tuple[tuple[str, ...], str]
) -> None:
    prefix, python = ordinary
    said = answer(drive("ensure", "east", "3", "memory", prefix=prefix, python=python))
    assert "error" not in said, said["error"]
    assert said["user"] is True and said["ping"] == 0
    before_stop = held(inside(said["pid"]))
    assert answer(drive("stop", "east", prefix=prefix, python=python)) == {"stopped": True}
    assert before_stop.still() == set()
    assert folders.are_empty()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take rights away")
def test_where_namespaces_are_forbidden_one_line_says_so(folders: Folders) -> None:
    powerless = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    said = answer(drive("ensure", "east", "1", prefix=powerless))
    assert said["error"].startswith("this machine does not allow a sandbox")
    assert "--privileged" in said["error"] and "\n" not in said["error"]
    assert folders.are_empty()
