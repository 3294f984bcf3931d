"""The first process of a namespace workspace. Standard library only; must not know of hosts, networks or drivers.

`python -I -S init.py FOLDER HOSTNAME HIDDEN CLIENT…` makes the namespaces, forks what becomes their PID 1, writes its
pid into FOLDER/guest.json and ends; PID 1 is then nobody's child but the outer init's, so no agent's death touches it.
PID 1 reaps, keeps one DHCP client a NIC (CLIENT is its command, without options) once SIGUSR1 says that the NICs are
up, asks by DHCPv6 where routers advertise that (`leases6`), has the name servers that either says in resolv.conf, and
ends everything gracefully on SIGTERM. It holds the hidden NIC namespace as descriptor 100. HIDDEN: JSON list of paths
that the guest must not see.

Exit status of the launcher: 0, or 1 with one line of cause on stderr.
"""

# pathlib would cost every workspace a megabyte, and a third of its start.
# ruff: noqa: PTH100, PTH101, PTH102, PTH103, PTH105, PTH110, PTH118, PTH120, PTH123, PTH208, PTH211

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import sys
import time

sys.path.append(os.path.abspath(__file__).rsplit("/", 4)[0])  # started by path, without any package's folder

from playground.workspaces.guest import confine
from playground.workspaces.guest.confine import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_REC, check, libc, mount
from playground.workspaces.guest.leases6 import Leases6
from playground.workspaces.guest.routers import Routers, Told

NIC_NAMESPACE = 100
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = (
    0x20000,
    0x4000000,
    0x8000000,
    0x20000000,
    0x40000000,
)
MS_SLAVE, MNT_DETACH = 0x80000, 2
RESTART_AFTER_S = 1.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DHCP_SCRIPT = "/run/dhcp/script"
RESOLV = "/etc/resolv.conf"


def unshare(flags: int, what: str) -> None:
    """Gives this process new namespaces."""
    check(libc.unshare(flags), f"make {what}")


def write(path: str, text: str) -> None:
    """Writes a file in place (no rename: it may be a mount point or a sysctl)."""
    with open(path, "w") as file:
        file.write(text)


def note(text: str) -> None:
    """One line in the guest's log."""
    print(f"{time.strftime('%H:%M:%S')} init: {text}", file=sys.stderr, flush=True)


def launch(folder: str, hostname: str, hidden: list[str], client: list[str]) -> None:
    """Makes namespaces and PID 1, and returns once PID 1 is ready and written down. Raises OSError with the cause."""
    unshare(CLONE_NEWNET, "a NIC namespace")
    for which in ("all", "default"):
        silence = f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6"
        if os.path.exists(silence):
            write(silence, "1")
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
    os.dup2(namespace, NIC_NAMESPACE, inheritable=False)
    os.close(namespace)
    unshare(CLONE_NEWNET | CLONE_NEWPID, "a network and a PID namespace")
    told, tell = os.pipe()
    heard, say = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    pid = os.fork()
    if pid == 0:
        os.close(tell)
        os.close(heard)
        become_init(folder, hostname, hidden, client, told, say)
    os.close(told)
    os.close(say)
    with os.fdopen(heard) as answer:
        cause = answer.read()
    if cause != "ready":
        raise OSError(cause or "the workspace's init died while it came up")
    with open(f"/proc/{pid}/stat") as stat:
        started = int(stat.read().rpartition(")")[2].split()[19])
    path = os.path.join(folder, "guest.json")
    with open(path) as file:
        entry = json.load(file)
    entry.update(pid=pid, started=started)
    with open(path + ".new", "w") as file:
        json.dump(entry, file, indent=2)
    os.replace(path + ".new", path)
    os.write(tell, b"go")


def become_init(folder: str, hostname: str, hidden: list[str], client: list[str], told: int, say: int) -> None:
    """PID 1 from its first instruction; never returns. It goes on only when told that it is written down."""
    status = 1
    try:
        # before the mount namespace: a mount of it with a file open for writing can't be made read-only
        keep_only({told, say, NIC_NAMESPACE}, os.path.join(folder, "log"))
        furnish(hostname)
        isolate()
        confine.confine(hidden)
        # Its own capabilities stay, so that no process of the guest may look into it or at what it holds.
        confine.bound_capabilities()
        os.write(say, b"ready")
        os.close(say)
        say = -1
        if os.read(told, 2) == b"go":
            os.close(told)
            status = Init(client).run()
    except BaseException as error:  # a fork of the launcher must end here whatever happens, and say why
        cause = str(error.args[-1]) if isinstance(error, OSError) else repr(error)
        if say >= 0:
            os.write(say, cause.encode())
        else:
            note(f"ends: {cause}")
    os._exit(status)


def keep_only(kept: set[int], log: str) -> None:
    """Closes all descriptors but these; standard input is empty, standard output and error go to the log."""
    empty, out = os.open("/dev/null", os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((empty, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                continue  # the listing's own descriptor, closed by now


def furnish(hostname: str) -> None:
    """Session, host name, loopback and IPv6 defaults: all that needs no mount of ours yet."""
    os.setsid()
    os.chdir("/")
    unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC, "a mount, a UTS and an IPC namespace")
    mount("none", "/", "", MS_REC | MS_SLAVE)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    socket.sethostname(hostname)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", 0x41))  # SIOCSIFFLAGS: IFF_UP | IFF_RUNNING
    if os.path.exists("/proc/sys/net/ipv6"):
        for name, value in (("accept_ra", 1), ("autoconf", 1), ("addr_gen_mode", 0), ("use_tempaddr", 0)):
            write(f"/proc/sys/net/ipv6/conf/default/{name}", str(value))
        # Both the wait before DAD and the one before the first solicitation (RFC 4861 §6.3.7) are meant for many hosts
        # booting at once; here answers come from the port itself.
        write("/proc/sys/net/ipv6/conf/default/router_solicitation_delay", "0")


def isolate() -> None:
    """The guest's own /run, /sys and /etc/resolv.conf. The folder and all else below the outer /run go out of sight."""
    try:
        mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError as error:
        note(f"{error.args[-1]}; /sys/class/net shows the host's devices")
    for path in reversed(confine.mount_points()):
        if path.startswith(b"/run/"):  # they would pin namespaces and file systems that the host wants to let go of
            libc.umount2(path, MNT_DETACH)
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "dhcp.sh")) as source:
        script = source.read()
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=16m")
    os.makedirs("/run/dhcp")
    write(DHCP_SCRIPT, script)
    os.chmod(DHCP_SCRIPT, 0o755)  # a copy: the original may have lost its mode on the way through an archive
    own_resolv_conf()


def own_resolv_conf() -> None:
    """An empty /etc/resolv.conf of the guest's own, however the host has it: file, symbolic link, or nothing at all."""
    write("/run/dhcp/resolv.conf", "")
    target = os.path.realpath(RESOLV)
    if not target.startswith("/run/") and not os.path.exists(target):
        # Nothing to mount over, and nothing may be made on the host's disk: a tmpfs of links to the old /etc instead.
        os.mkdir("/run/etc")
        mount("/etc", "/run/etc", "", MS_BIND | MS_REC)
        mount("tmpfs", "/etc", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
        for name in os.listdir("/run/etc"):
            if name != "resolv.conf":
                os.symlink(f"/run/etc/{name}", f"/etc/{name}")
        os.symlink("/run/dhcp/resolv.conf", RESOLV)
    elif target.startswith("/run/"):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if target != "/run/dhcp/resolv.conf":
            os.symlink("/run/dhcp/resolv.conf", target)
    else:
        mount("/run/dhcp/resolv.conf", target, "", MS_BIND)


SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGIO}
"""All blocked in PID 1 and taken with sigtimedwait: a blocked signal reaches even a PID 1 without a handler for it."""


class Init:
    """What PID 1 does all its life."""

    def __init__(self, client: list[str]) -> None:
        self.client = client
        self.clients: dict[int, str] = {}
        self.anew: set[str] = set()
        self.restart_at: dict[str, float] = {}
        self.routers = Routers()
        self.leases6 = Leases6()
        self.untold: dict[tuple[int, str], Told] = {}
        self.telling = 0

    def run(self) -> int:
        """Until SIGTERM has ended all."""
        while True:
            now = time.monotonic()
            due = min([*self.restart_at.values(), self.routers.next_s(), self.leases6.next_s(), now + 3600])
            got = signal.sigtimedwait(SIGNALS, max(due - now, 0))
            self.reap()
            self.heed()
            if got is not None and got.si_signo == signal.SIGTERM:
                return self.end()
            if got is not None and got.si_signo == signal.SIGUSR1:
                self.start_clients()
            if got is not None and got.si_signo == signal.SIGUSR2:
                self.renew()
            for nic in [nic for nic, due in self.restart_at.items() if due <= time.monotonic()]:
                del self.restart_at[nic]
                self.start_client(nic)

    def reap(self) -> None:
        """Takes all that ended; a DHCP client that ended starts anew, a little later."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.telling:
                self.telling = 0
            if nic := self.clients.pop(pid, None):
                pause = 0.0 if nic in self.anew else RESTART_AFTER_S
                self.anew.discard(nic)
                if pause:
                    note(f"the DHCP client of {nic} ended with status {status}")
                self.restart_at[nic] = time.monotonic() + pause

    def start_clients(self) -> None:
        """One client a NIC; those that run go on. May be asked any number of times."""
        have = set(self.clients.values()) | set(self.restart_at)
        for _, nic in socket.if_nameindex():
            if nic.startswith("eth") and nic not in have:
                self.start_client(nic)

    def heed(self) -> None:
        """The resolver is told what routers advertise and DHCPv6 says, where that has changed: one script after the
        other."""
        now = time.monotonic()
        self.untold.update({(index, "routers"): told for index, told in self.routers.changed(now).items()})
        self.untold.update({(index, "dhcp6"): told for index, told in self.leases6.changed(now).items()})
        while self.untold and not self.telling:
            (index, who), (servers, domains) = self.untold.popitem()
            try:
                nic = socket.if_indextoname(index)
            except OSError:
                continue  # it is gone, and what was told of it stays: a workspace's NICs go with the workspace
            environment = {"PATH": PATH, "interface": nic, "dns": " ".join(servers), "search": " ".join(domains)}
            argv = [DHCP_SCRIPT, who]
            self.telling = os.posix_spawn(DHCP_SCRIPT, argv, environment, setsigmask=[], setsigdef=SIGNALS)

    def renew(self) -> None:
        """Every client asks at once. udhcpc starts anew: asked to renew, it would take a NAK and then sleep for 3 s."""
        self.leases6.renew(time.monotonic())
        for pid in self.clients:
            os.kill(pid, signal.SIGTERM)
        self.anew.update(self.clients.values())

    def start_client(self, nic: str) -> None:
        """A DISCOVER at once, then one a second; it stays to renew."""
        name = socket.gethostname()
        options = ["-f", "-i", nic, "-s", DHCP_SCRIPT, "-x", f"hostname:{name}", "-t", "4", "-T", "1", "-A", "2"]
        wanted = [part for option in ("mtu", "search", "staticroutes", "ntpsrv") for part in ("-O", option)]
        argv = [*self.client, *options, *wanted]
        # Its own environment is the guest's: the agent's secrets end at the launcher.
        environment = {"PATH": PATH, "HOME": "/root"}
        mute = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_WRONLY, 0) for fd in (1, 2)]  # it talks at every renewal
        pid = os.posix_spawn(argv[0], argv, environment, file_actions=mute, setsigmask=[], setsigdef=SIGNALS)
        self.clients[pid] = nic

    def end(self) -> int:
        """Asks every process of the workspace to end, and waits until all have. Whoever is impatient kills PID 1."""
        for pid in others():
            ask_to_end(pid)
        while others():
            signal.sigtimedwait(SIGNALS, 0.02)  # processes entered from outside are nobody's children here
            while True:
                try:
                    if os.waitpid(-1, os.WNOHANG)[0] == 0:
                        break
                except ChildProcessError:
                    break
        return 0


def others() -> list[int]:
    """Every process of the workspace but this one."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]


def ask_to_end(pid: int) -> None:
    """TERM, and HUP where there is a terminal to hang up: interactive shells ignore TERM, daemons expect no HUP."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            has_terminal = stat.read().rpartition(")")[2].split()[4] != "0"
        for signo in (signal.SIGTERM, signal.SIGCONT, *([signal.SIGHUP] if has_terminal else [])):
            os.kill(pid, signo)
    except (FileNotFoundError, ProcessLookupError):
        return  # it ended by itself


def main(argv: list[str]) -> int:
    """`init.py FOLDER HOSTNAME HIDDEN CLIENT…`."""
    try:
        launch(argv[0], argv[1], json.loads(argv[2]), argv[3:])
    except OSError as error:
        print(error.args[-1], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
