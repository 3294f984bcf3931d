"""A namespace workspace from inside: its init, its DHCP client, its files; and commands that enter it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from namespace_lab import SCRIPTS, Host, a_guest, capture, run

from playground.workspaces.drivers.api import DriverError, GuestState
from playground.workspaces.drivers.netns import NetnsDriver
from playground.workspaces.drivers.processes import start_ticks
from tests.waiting import eventually

pytestmark = pytest.mark.system
GUEST = a_guest()
MAC = GUEST.nics[0].mac


@pytest.fixture
def driver(hosts: tuple[Host, Host], folder: Path) -> Iterator[NetnsDriver]:
    made = NetnsDriver("a", hosts[0].dataplane, folder=folder)
    run(made.prepare(GUEST))
    yield made
    run(made.stop(GUEST.id, 0))


def init_pid(folder: Path) -> int:
    return int(json.loads((folder / GUEST.id / "guest.json").read_text())["pid"])


def test_a_guest_sees_only_its_own_processes_name_and_devices(driver: NetnsDriver) -> None:
    _, text = capture(
        driver, GUEST.id, ["sh", "-c", "hostname; ls /sys/class/net; ls -d /proc/[0-9]* | wc -l; ls /run"]
    )
    hostname, *rest = text.split()
    assert hostname == "worker-1"
    assert set(rest[:2]) == {"eth0", "lo"}
    assert int(rest[2]) <= 5  # init, sh, ls, wc, and the shell of the pipe
    assert rest[3:] == ["dhcp"]


def test_an_agents_death_touches_no_guest(hosts: tuple[Host, Host], folder: Path) -> None:
    child = os.fork()
    if child == 0:
        doomed = NetnsDriver("a", hosts[0].dataplane, folder=folder)
        run(doomed.prepare(GUEST))
        run(doomed.start(GUEST))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    driver = NetnsDriver("a", hosts[0].dataplane, folder=folder)
    assert run(driver.observe())[GUEST.id].state is GuestState.RUNNING
    assert eventually(lambda: capture(driver, GUEST.id, ["pidof", "busybox", "udhcpc"])[0] == 0), "no client was begun"
    run(driver.stop(GUEST.id, 1))


def a_dhcp_server(host: Host, tmp_path: Path) -> subprocess.Popen[str]:
    """busybox udhcpd on the guest's own port: an independent server."""
    host.run("ip", "address", "add", "10.0.0.1/24", "dev", GUEST.nics[0].device)
    (tmp_path / "leases").touch()
    (tmp_path / "udhcpd.conf").write_text(
        f"""start 10.0.0.50
end 10.0.0.50
interface {GUEST.nics[0].device}
pidfile {tmp_path}/pid
lease_file {tmp_path}/leases
option subnet 255.255.255.0
option router 10.0.0.9
option dns 10.0.0.1 10.0.0.3
option search grid.atlas.internal atlas.internal
option mtu 1400
option staticroutes 10.9.0.0/16 10.0.0.7, 169.254.169.254/32 0.0.0.0
option lease 600
"""
    )
    return host.spawn("busybox", "udhcpd", "-f", str(tmp_path / "udhcpd.conf"))


def test_everything_the_guest_knows_of_ipv4_comes_by_dhcp(
    driver: NetnsDriver, hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    if subprocess.run(["busybox", "udhcpd", "--help"], capture_output=True).returncode not in (0, 1):
        pytest.skip("this busybox has no udhcpd to ask")
    server = a_dhcp_server(hosts[0], tmp_path)
    try:
        run(driver.start(GUEST))
        started = time.monotonic()
        assert eventually(lambda: "nameserver" in capture(driver, GUEST.id, ["cat", "/etc/resolv.conf"])[1])
        assert time.monotonic() - started < 4  # udhcpd itself looks for the address by ARP, for up to 2 s
        _, addresses = capture(driver, GUEST.id, ["ip", "-4", "-o", "address", "show", "dev", "eth0"])
        assert "10.0.0.50/24" in addresses
        _, links = capture(driver, GUEST.id, ["ip", "-o", "link", "show", "dev", "eth0"])
        assert "mtu 1400" in links and MAC in links
        _, routes = capture(driver, GUEST.id, ["ip", "-4", "route"])
        assert "10.9.0.0/16 via 10.0.0.7" in routes and "169.254.169.254 dev eth0" in routes
        assert "default" not in routes  # RFC 3442: option 121 replaces option 3
        _, resolver = capture(driver, GUEST.id, ["cat", "/etc/resolv.conf"])
        assert resolver == "search grid.atlas.internal atlas.internal\nnameserver 10.0.0.1\nnameserver 10.0.0.3\n"
        assert "10.0.0.50" not in Path("/etc/resolv.conf").read_text()
    finally:
        server.kill()
        server.communicate()


def test_a_router_advertisement_gives_the_eui64_address_within_a_second(
    driver: NetnsDriver, hosts: tuple[Host, Host]
) -> None:
    run(driver.start(GUEST))

    def advertise() -> None:
        prefix = struct.pack(
            "!BBBBIII16s", 3, 4, 64, 0xC0, 86400, 14400, 0, socket.inet_pton(socket.AF_INET6, "fd00::")
        )
        advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 0, 0, 0) + prefix
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as channel:
            channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            channel.sendto(advertisement, ("ff02::1", 0, 0, socket.if_nametoindex("router")))

    host, device = hosts[0], GUEST.nics[0].device
    host.run("ip", "link", "add", "router", "type", "bridge")
    host.run("ip", "link", "set", device, "master", "router")
    host.run("ip", "link", "set", "router", "up")
    host.run("ip", "address", "add", "fe80::1/64", "dev", "router", "nodad")

    def has_address() -> bool:
        host.within(advertise)
        _, text = capture(driver, GUEST.id, ["ip", "-6", "-o", "address", "show", "dev", "eth0", "-tentative"])
        return "fd00::ff:fe00:100/64" in text

    assert eventually(has_address)


def test_a_dhcp_client_that_dies_is_started_again(driver: NetnsDriver) -> None:
    run(driver.start(GUEST))

    def client() -> str:
        return capture(driver, GUEST.id, ["pidof", "busybox", "udhcpc"])[1].strip()

    assert eventually(lambda: client() != "")
    first = client()
    capture(driver, GUEST.id, ["kill", "-9", first])
    assert eventually(lambda: client() not in ("", first))


def test_orphans_are_reaped_by_the_guests_init(driver: NetnsDriver) -> None:
    capture(driver, GUEST.id, ["sh", "-c", "(sh -c 'sleep 0.05' & ) &"])
    states = ["sh", "-c", "cat /proc/[0-9]*/stat"]
    assert eventually(lambda: ") Z" not in capture(driver, GUEST.id, states)[1])


def test_stop_asks_first_and_then_kills(driver: NetnsDriver, folder: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    polite = f"trap 'echo bye > {told}; exit' TERM; echo up > {told}; while :; do sleep 0.02; done"
    capture(
        driver,
        GUEST.id,
        ["sh", "-c", f"setsid sh -c '{polite.replace(chr(39), chr(34))}' </dev/null >/dev/null 2>&1 &"],
    )
    assert eventually(lambda: told.exists() and told.read_text() == "up\n")
    run(driver.stop(GUEST.id, 5))
    assert told.read_text() == "bye\n"

    run(driver.prepare(GUEST))
    armed = tmp_path / "armed"
    deaf = f'trap "" TERM HUP; echo armed > {armed}; while :; do sleep 9; done'
    capture(driver, GUEST.id, ["sh", "-c", f"setsid sh -c '{deaf}' </dev/null >/dev/null 2>&1 &"])
    assert eventually(armed.exists)
    pid = init_pid(folder)
    before = time.monotonic()
    run(driver.stop(GUEST.id, 0.2))
    assert 0.2 <= time.monotonic() - before < 3
    assert start_ticks(pid) is None


def test_a_command_on_a_tty_has_it_as_its_controlling_terminal_and_knows_its_name(driver: NetnsDriver) -> None:
    master, slave = run(driver.terminal(GUEST.id))
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    argv = ["sh", "-c", "tty; stty size; test -c $(tty) && echo ready >/dev/tty; read answer"]
    process = run(driver.exec(GUEST.id, argv, slave, slave, slave, True))
    os.close(slave)
    said = b""
    while b"ready" not in said:
        said += os.read(master, 100)
    assert said.split() == [b"/dev/pts/0", b"33", b"77", b"ready"]
    os.write(master, b"\x03")  # ^C: only a controlling terminal turns it into a signal
    assert os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]) == 128 + signal.SIGINT
    os.close(master)


def test_a_command_ignores_no_signal_that_the_agent_ignores(driver: NetnsDriver) -> None:
    ignored = {signo: signal.signal(signo, signal.SIG_IGN) for signo in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)}
    try:
        _, text = capture(driver, GUEST.id, ["grep", "SigIgn", "/proc/self/status"])
    finally:
        for signo, handler in ignored.items():
            signal.signal(signo, handler)
    standard = (1 << 31) - 1  # those above 31 are the C library's own
    assert int(text.split()[1], 16) & standard == 0


@pytest.mark.parametrize(
    ("argv", "code"), [(["no-such-command"], 127), (["/"], 126), (["sh", "-c", "kill -9 $$"], 137)]
)
def test_how_a_command_ended_is_told_as_a_shell_does(driver: NetnsDriver, argv: list[str], code: int) -> None:
    assert capture(driver, GUEST.id, argv)[0] == code


def test_a_command_sees_neither_the_agents_environment_nor_its_descriptors(
    driver: NetnsDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAYGROUND_SECRET", "sesame")
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    _, text = capture(
        driver,
        GUEST.id,
        [sys.executable, "-I", "-S", "-c", "import os; print(os.environ, os.listdir('/proc/self/fd'))"],
    )
    os.close(reader)
    os.close(writer)
    assert "sesame" not in text
    assert "['0', '1', '2', '3']" in text  # 3 is the listing itself


def test_a_command_ends_with_the_agent_that_started_it(
    driver: NetnsDriver, hosts: tuple[Host, Host], folder: Path
) -> None:
    child = os.fork()
    if child == 0:
        doomed = NetnsDriver("a", hosts[0].dataplane, folder=folder)
        null = os.open("/dev/null", os.O_RDWR)
        run(doomed.exec(GUEST.id, ["sleep", "271828"], null, null, null, False))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert eventually(lambda: capture(driver, GUEST.id, ["pgrep", "-f", "sleep 27182[8]"])[0] == 1)


def test_a_missing_dhcp_client_is_named_with_its_package(
    hosts: tuple[Host, Host], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = NetnsDriver("a", hosts[0].dataplane, folder=folder)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DriverError, match="install the package busybox"):
        run(driver.prepare(GUEST))
    run(driver.stop(GUEST.id, 0))
    assert run(driver.observe()) == {}


def test_without_a_data_plane_nothing_is_made(folder: Path, permitted: None) -> None:
    driver = NetnsDriver("a", "no-such-namespace", folder=folder)
    with pytest.raises(DriverError, match="no namespace /run/netns/no-such-namespace"):
        run(driver.prepare(GUEST))
    assert run(driver.observe()) == {}


def test_a_guest_whose_host_vanished_is_taken_over(driver: NetnsDriver, hosts: tuple[Host, Host], folder: Path) -> None:
    run(driver.start(GUEST))
    old = init_pid(folder)
    hosts[0].run("ip", "link", "del", GUEST.nics[0].device)  # what the end of a host's namespace does to its legs
    other = NetnsDriver("b", hosts[1].dataplane, folder=folder)
    run(other.prepare(GUEST))
    assert run(other.observe())[GUEST.id].state is GuestState.PREPARED
    assert run(driver.observe()) == {} and init_pid(folder) != old
    run(other.stop(GUEST.id, 0))


def test_the_scripts_start_without_any_package(permitted: None) -> None:
    for script in ("guest/init.py", "guest/enter.py", "stream.py", "prober.py"):
        code = f"import runpy; runpy.run_path({str(SCRIPTS / script)!r}, run_name='imported')"
        subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
