"""DHCPv6 clients that people run, behind the verbs of those for DHCPv4, and a listener that notes what they do.

They renew by themselves after the seconds that they are told.
"""

from __future__ import annotations

import json
import subprocess
import textwrap
from pathlib import Path

from clients4 import Client, Dhcpcd, Networkd
from responder_lab import Guest

from dhcp import frame, v6
from dhcp.v6 import Code, Kind
from tests.waiting import eventually


class Transcript:
    """What passes at a guest's NIC, as (what its client said, what it heard then)."""

    def __init__(self, guest: Guest) -> None:
        self._mac = frame.mac(guest.mac)
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
            datagram = frame.parse_udp6(raw)
            if datagram is None or self._mac not in (raw[:6], raw[6:12]):  # no guard is here: others' come by too
                continue
            if datagram.destination_port not in (v6.SERVER_PORT, v6.CLIENT_PORT):
                continue
            found = v6.parse(datagram.payload)
            assert isinstance(found, v6.Message), found
            if datagram.destination_port == v6.SERVER_PORT:
                self._said[found.xid] = Kind(found.kind).name
                self.asked.append(self._said[found.xid])
            else:
                status = found.first(Code.STATUS) or b"\0\0"
                how = Kind(found.kind).name if status[:2] == b"\0\0" else f"{Kind(found.kind).name} {status[1]}"
                self.heard.append((self._said[found.xid], how))

    def close(self) -> None:
        """Hears no more."""
        self._socket.close()


def addresses(guest: Guest, scope: str = "global") -> set[str]:
    """IPv6 addresses that may be used."""
    said = json.loads(guest.run("ip", "-json", "-6", "address", "show", "dev", "eth0", "scope", scope))
    found = [one for link in said for one in link.get("addr_info", ()) if one]
    return {one["local"] for one in found if not one.get("deprecated") and not one.get("tentative")}


class Dhclient6(Client):
    """ISC's."""

    name, program = "dhclient", "dhclient"

    def start(self) -> None:
        """It gives up at once where its link-local address is still being tried (RFC 4862 §5.4)."""
        eventually(lambda: addresses(self.guest, "link"), 10, "its link-local address")
        super().start()

    def argv(self) -> list[str]:
        script = self.folder / "script"
        script.write_text(
            textwrap.dedent("""\
            #!/bin/sh
            case "$reason" in
            BOUND6|RENEW6|REBIND6)
                ip -6 address replace "$new_ip6_address/128" dev eth0 valid_lft "$new_max_life" \
                    preferred_lft "$new_preferred_life" ;;
            DEPREF6) ip -6 address change "$cur_ip6_address/128" dev eth0 preferred_lft 0 ;;
            EXPIRE6|RELEASE6|STOP6) ip -6 address delete "$old_ip6_address/128" dev eth0 ;;
            esac
            exit 0
            """)
        )
        script.chmod(0o755)
        argv = ["dhclient", "-6", "-d", "-sf", str(script), "-cf", "/dev/null"]
        return [*argv, "-lf", str(self.folder / "leases"), "-pf", str(self.folder / "pid"), "eth0"]

    def release(self) -> None:
        self.kill()
        self.guest.run(*self.argv()[:-1], "-r", "eth0")


class Dhcpcd6(Dhcpcd):
    """Roy Marples', led to DHCPv6 by the flags that routers advertise."""

    def argv(self) -> list[str]:
        argv = super().argv()
        Path(argv[-1]).write_text("ipv6only\nnodelay\nslaac hwaddr\nduid ll\nrelease\nnohook resolv.conf\n")
        return argv


class Networkd6(Networkd):
    """systemd-networkd, likewise."""

    def argv(self) -> list[str]:
        argv = super().argv()
        (self.folder / "etc" / "eth0.network").write_text(
            "[Match]\nName=eth0\n[Network]\nIPv6AcceptRA=yes\nDHCP=no\nLinkLocalAddressing=ipv6\n"
            "[IPv6AcceptRA]\nUseDNS=no\nDHCPv6Client=yes\n[DHCPv6]\nDUIDType=link-layer\nUseDNS=no\nUseHostname=no\n"
        )
        return argv


class Udhcpc6(Client):
    """busybox's, where it is built in."""

    name, program = "udhcpc6", "busybox"

    @classmethod
    def missing(cls) -> str:
        if reason := super().missing():
            return reason
        applets = subprocess.run(["busybox", "--list"], capture_output=True, text=True).stdout.split()
        return "" if "udhcpc6" in applets else "busybox is built without udhcpc6 here"

    def argv(self) -> list[str]:
        script = self.folder / "script"
        script.write_text('#!/bin/sh\n[ -z "$ipv6" ] || ip -6 address replace "$ipv6/128" dev eth0\n')
        script.chmod(0o755)
        return ["busybox", "udhcpc6", "-i", "eth0", "-f", "-R", "-s", str(script)]


CLIENTS: list[type[Client]] = [Dhclient6, Dhcpcd6, Networkd6, Udhcpc6]
SILENT_AT_THE_END: tuple[type[Client], ...] = (Networkd6,)
"""They release nothing by DHCPv6 (systemd before version 255)."""
