"""DHCPv4 clients that people run, each behind the same few verbs, and a listener that notes what they say and hear.

They obey renewal and rebinding times of seconds, so that nobody has to wait or to ask them; udhcpc, which knows
neither option, is asked by its signal.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import ClassVar

from responder_lab import Guest

from dhcp import frame, message
from dhcp.options import Code, MessageType

NETWORKD = "/usr/lib/systemd/systemd-networkd"


def state_of(asked: message.Message, destination: bytes) -> str:
    """Which of a client's messages this is; of REQUESTs the state that it was sent in (RFC 2131 §4.3.2, table 4)."""
    kind = MessageType(asked.options[Code.MESSAGE_TYPE][0])
    if kind is not MessageType.REQUEST:
        return kind.name
    if Code.SERVER_ID in asked.options:
        return "SELECTING"
    if asked.ciaddr == message.ZERO:
        return "INIT-REBOOT"
    return "REBINDING" if destination == b"\xff" * 4 else "RENEWING"


class Transcript:
    """What passes at a guest's NIC, as (what its client said, what it heard then)."""

    def __init__(self, guest: Guest) -> None:
        self._socket = guest.socket()
        self._socket.setblocking(False)
        self._said: dict[bytes, str] = {}
        self.heard: list[tuple[str, str]] = []
        self.asked: list[str] = []

    def read(self) -> list[tuple[str, str]]:
        """All up to now."""
        while True:
            try:
                raw = self._socket.recv(4096)
            except BlockingIOError:
                return self.heard
            datagram = frame.parse_udp4(raw)
            if datagram is None or datagram.destination_port not in (67, 68):
                continue
            found = message.parse(datagram.payload)
            assert isinstance(found, message.Message), found
            if found.op == message.BOOTREQUEST:
                self._said[found.xid] = state_of(found, datagram.destination)
                self.asked.append(self._said[found.xid])
            else:
                kind = MessageType(found.options[Code.MESSAGE_TYPE][0])
                self.heard.append((self._said[found.xid], kind.name))

    def close(self) -> None:
        """Hears no more."""
        self._socket.close()


def children_of(pid: int) -> list[int]:
    """A process's children, and theirs; none of one that has ended."""
    try:
        own = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*own, *(each for child in own for each in children_of(child))]


class Client:
    """A client at a guest's eth0, whose address it sets."""

    name: ClassVar[str]
    program: ClassVar[str]
    remembers: ClassVar[bool] = False
    """Whether it asks for just what it had, when it begins again."""

    def __init__(self, guest: Guest, folder: Path) -> None:
        self.guest = guest
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "log"

    @classmethod
    def missing(cls) -> str:
        """Why it can't run here; empty when it can."""
        return "" if shutil.which(cls.program) else f"{cls.program} is not installed"

    def argv(self) -> list[str]:
        """In the foreground."""
        raise NotImplementedError

    def start(self) -> None:
        """Begins, or after `kill` begins again with what it remembers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.guest.argv(*self.argv()), stdout=log, stderr=log)

    def renew(self) -> None:
        """Has it renew now; most do by themselves."""

    def rebind(self, server: str) -> None:
        """What it says to the server alone is lost from now on, so that in time it asks everybody."""
        rule = f"{{ type filter hook output priority 0; ip daddr {server} drop; }}"
        self.guest.run("nft", f"table ip alone {{ chain out {rule}; }}")
        self.renew()

    def end_rebind(self) -> None:
        """The server hears it again."""
        self.guest.run("nft", "delete table ip alone")

    def kill(self) -> None:
        """As a crash does: nothing is released."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def release(self) -> None:
        """Gives its address back, and ends."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(10)

    def sets(self) -> Path:
        """A script that sets the address, for clients that call one."""
        script = self.folder / "script"
        script.write_text(
            textwrap.dedent("""\
            #!/bin/sh
            case "${reason:-$1}" in
            bound|renew) new=$ip ;;
            BOUND|REBOOT|RENEW|REBIND) new=$new_ip_address ;;
            deconfig|EXPIRE|FAIL|RELEASE|STOP) ip address flush dev eth0; exit 0 ;;
            PREINIT) ip link set eth0 up; exit 0 ;;
            *) exit 0 ;;
            esac
            ip -4 address show dev eth0 | grep -q "inet $new/" && exit 0
            ip -4 address flush dev eth0; ip address add "$new/24" dev eth0
            """)
        )
        script.chmod(0o755)
        return script


class Udhcpc(Client):
    """busybox's."""

    name, program = "udhcpc", "busybox"

    def argv(self) -> list[str]:
        return ["busybox", "udhcpc", "-i", "eth0", "-f", "-R", "-T", "1", "-s", str(self.sets())]

    def renew(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR1)


class Dhclient(Client):
    """ISC's. Of all that it had, it may ask for what is long another's."""

    name, program = "dhclient", "dhclient"

    def argv(self) -> list[str]:
        config = self.folder / "conf"
        config.write_text("request subnet-mask, dhcp-renewal-time, dhcp-rebinding-time;\ninitial-interval 1;\n")
        argv = ["dhclient", "-4", "-d", "-sf", str(self.sets()), "-cf", str(config)]
        return [*argv, "-lf", str(self.folder / "leases"), "-pf", str(self.folder / "pid"), "eth0"]

    def release(self) -> None:
        self.kill()
        self.guest.run(*self.argv()[:-1], "-r", "eth0")


class Dhcpcd(Client):
    """Roy Marples'. It has folders of its own, which live as long as a mount namespace."""

    name, program, remembers = "dhcpcd", "dhcpcd", True

    @classmethod
    def missing(cls) -> str:
        users = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
        if os.geteuid() or users == 1:
            return "dhcpcd gives up root for a user of its own, and only one user is mapped here"
        return super().missing()

    def argv(self) -> list[str]:
        config, state = self.folder / "conf", self.folder / "state"
        config.write_text("option dhcp_renewal_time, dhcp_rebinding_time\nipv4only\nnoarp\nnodelay\nrelease\n")
        state.mkdir(exist_ok=True)
        state.chmod(0o777)
        script = (
            "mount -t tmpfs none /run && mkdir -p /var/lib/dhcpcd && mount --bind $0 /var/lib/dhcpcd"
            ' && exec dhcpcd -B -f "$1" -c /bin/true eth0'
        )
        return ["unshare", "--mount", "sh", "-c", script, str(state), str(config)]

    def kill(self) -> None:
        parts = [] if self.process is None else children_of(self.process.pid)
        super().kill()
        for part in parts:  # it is several processes, some of which would go on alone
            with contextlib.suppress(ProcessLookupError):
                os.kill(part, signal.SIGKILL)


class Networkd(Client):
    """systemd-networkd, without systemd: with folders of its own, and no bus."""

    name, program = "systemd-networkd", NETWORKD

    def argv(self) -> list[str]:
        files = self.folder / "etc"
        files.mkdir(exist_ok=True)
        (files / "eth0.network").write_text(
            "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
            "[DHCPv4]\nSendRelease=yes\nClientIdentifier=mac\nUseDNS=no\nUseHostname=no\n"
        )
        for path in (self.folder, files):
            path.chmod(0o755)
        # Where /sys can't be written it asks no udev about its links.
        script = (
            "mount -t tmpfs none /run && mkdir -p /run/systemd/network && cp $0/* /run/systemd/network"
            " && mount -t sysfs -o ro none /sys && exec $1"
        )
        return ["unshare", "--mount", "sh", "-c", script, str(files), NETWORKD]


class Pyroute2(Client):
    """pyroute2's, from its own command. It renews by a packet socket, which no rule about packets holds up."""

    name, program = "pyroute2", sys.executable

    def argv(self) -> list[str]:
        hooks = "--hook pyroute2.dhcp.hooks.configure_ip --hook pyroute2.dhcp.hooks.remove_ip"
        return ["sh", "-c", f"cd $0 && exec {sys.executable} -m pyroute2.dhcp.cli {hooks} eth0", str(self.folder)]

    def rebind(self, server: str) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR2)

    def end_rebind(self) -> None:
        pass

    def release(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.wait(10)


CLIENTS: list[type[Client]] = [Udhcpc, Dhclient, Dhcpcd, Networkd, Pyroute2]
