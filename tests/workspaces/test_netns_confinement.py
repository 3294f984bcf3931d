"""What a guest's root can't do to its machine. Each claim is tried from inside, by a command run in the guest."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from namespace_lab import Host, a_guest, capture, run

from playground.workspaces.drivers.netns import NetnsDriver
from playground.workspaces.guest.confine import KEPT

pytestmark = pytest.mark.system
GUEST = a_guest()


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """What stands for a site's state: a token, and a socket that owns everything."""
    made = tmp_path / "state"
    made.mkdir()
    (made / "token").write_text("sesame")
    (tmp_path / "token-elsewhere").write_text("sesame")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(made / "controller.sock"))
    return made


@pytest.fixture
def driver(hosts: tuple[Host, Host], folder: Path, secrets: Path) -> Iterator[NetnsDriver]:
    hidden = [secrets, secrets.parent / "token-elsewhere", secrets.parent / "never-made"]
    made = NetnsDriver("a", hosts[0].dataplane, folder=folder, hidden=hidden)
    run(made.prepare(GUEST))
    yield made
    run(made.stop(GUEST.id, 0))


def shell(driver: NetnsDriver, line: str) -> tuple[int, str]:
    return capture(driver, GUEST.id, ["sh", "-c", line])


def test_a_guest_sees_no_state_no_token_and_no_socket_of_its_site(
    driver: NetnsDriver, secrets: Path, folder: Path
) -> None:
    assert shell(driver, f"ls -A {secrets} {folder} | grep -v :")[1].split() == []
    assert "sesame" not in shell(driver, f"cat {secrets}/token {secrets.parent}/token-elsewhere")[1]
    assert (secrets / "token").read_text() == "sesame"


def test_a_guest_cant_lift_what_hides_the_state(driver: NetnsDriver, secrets: Path) -> None:
    assert shell(driver, f"umount {secrets}")[0] != 0
    assert shell(driver, f"mount --bind / {secrets}")[0] != 0
    assert shell(driver, f"nsenter -t 1 -n true; unshare -m umount {secrets}")[0] != 0


def test_a_guest_can_write_only_where_it_was_given_room(driver: NetnsDriver, tmp_path: Path) -> None:
    mine = f"written-by-{GUEST.id}"
    ours = Path(__file__).parent
    places = ["/etc", "/usr/bin", "/var/lib", "/root"]
    if not ours.is_relative_to("/tmp"):  # a checkout there lies where guests may write
        places.append(str(ours))
    for place in places:
        code, text = shell(driver, f"touch {place}/{mine}")
        assert code != 0 and "Read-only" in text, place
        assert not (Path(place) / mine).exists()
    for place in ("/tmp", "/run", "/dev/shm"):
        assert shell(driver, f"echo x > {place}/{mine} && rm {place}/{mine}") == (0, "")


@pytest.mark.parametrize("knob", ["kernel/core_pattern", "kernel/panic", "vm/swappiness", "fs/file-max"])
def test_a_guest_turns_no_knob_of_its_machine(driver: NetnsDriver, knob: str) -> None:
    before = Path("/proc/sys", knob).read_text()
    assert "Read-only" in shell(driver, f"cat /proc/sys/{knob} > /proc/sys/{knob}")[1]
    assert Path("/proc/sys", knob).read_text() == before


def test_a_guest_turns_the_knobs_of_its_own_network(driver: NetnsDriver) -> None:
    knob = "/proc/sys/net/ipv4/conf/eth0/arp_ignore"
    assert shell(driver, f"echo 1 > {knob} && cat {knob}") == (0, "1\n")


def test_a_guest_reaches_no_device_but_harmless_ones(driver: NetnsDriver) -> None:
    _, text = shell(driver, "ls /dev; find /dev /sys -type b 2>/dev/null")
    assert set(text.split()) <= {
        *("fd", "full", "net", "null", "ptmx", "pts", "random", "shm"),
        *("stderr", "stdin", "stdout", "tty", "urandom", "zero"),
    }
    assert shell(driver, "mknod /tmp/disk b 254 0")[0] != 0
    assert shell(driver, "echo s > /proc/sysrq-trigger")[0] != 0
    assert "Read-only" in shell(driver, "echo 1 > /sys/class/net/lo/ifalias")[1]
    assert shell(driver, "cat /proc/kmsg /proc/kcore 2>/dev/null")[1] == ""
    assert shell(driver, "echo x > /dev/null && head -c 4 /dev/urandom | wc -c") == (0, "4\n")


def test_a_guest_has_the_capabilities_of_its_network_and_no_others(driver: NetnsDriver) -> None:
    _, text = shell(driver, "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status")
    assert {int(line.split()[1], 16) for line in text.splitlines()} == {sum(1 << number for number in KEPT.values())}


def test_a_guest_cant_look_into_its_init(driver: NetnsDriver) -> None:
    for path in ("fd/100", "ns/net", "root"):
        assert shell(driver, f"readlink /proc/1/{path}") == (1, "")
    code, text = shell(driver, "nsenter --net=/proc/1/fd/100 true")
    assert code != 0 and os.strerror(errno.EACCES) in text
