"""A client and a server, and between them two routers with a connection tracking each."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from policies.kernel.netlink import inside

CLIENT, SERVER = {4: "10.1.0.2", 6: "fd01::2"}, {4: "10.2.0.2", 6: "fd02::2"}
ZONE = 7

RULES = f"""
table inet t {{
  chain zones {{ type filter hook prerouting priority -450; ct zone set {ZONE}; }}
  counter refused {{ }}
  chain forward {{
    type filter hook forward priority 0; policy drop;
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    ct state established ct original ip saddr 10.1.0.2 ct original ip daddr 10.2.0.2 accept
    ct state established ct original ip6 saddr fd01::2 ct original ip6 daddr fd02::2 accept
    ct state established counter name refused drop
    tcp flags & (syn | ack) == syn accept
    udp dport 5000 ip saddr 10.1.0.2 accept
    udp dport 5000 ip6 saddr fd01::2 accept
    icmp type echo-request accept
    icmpv6 type echo-request accept
    counter name refused
  }}
}}
"""
"""Whatever began at the client may go on; only what begins may begin."""


def run(namespace: str, *words: str, text: str = "") -> str:
    """A command in a namespace; what it says. Raises CalledProcessError."""
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, *words], input=text, capture_output=True, text=True, check=True
    )
    return done.stdout


@dataclass(frozen=True)
class Lab:
    """Names of the namespaces. Packets pass the first router until `switch`."""

    client: str
    server: str
    routers: tuple[str, str]

    def switch(self, to: int) -> None:
        """Has packets pass a router, in both directions."""
        for namespace, other in ((self.client, 2), (self.server, 1)):
            run(
                namespace, "ip", "route", "replace", f"10.{other}.0.0/24", "dev", f"to{to}", "onlink", "via", "10.9.0.1"
            )
            run(namespace, "ip", "-6", "route", "replace", f"fd0{other}::/64", "dev", f"to{to}", "via", "fe80::1")

    def refused(self, router: int) -> int:
        """Packets that a router refused."""
        text = run(self.routers[router], "nft", "list", "counter", "inet", "t", "refused")
        return int(text.split("packets")[1].split()[0])


def path(namespace: str) -> Path:
    return Path("/run/netns") / namespace


@contextmanager
def built() -> Iterator[Lab]:
    """The lab, with rules in both routers."""
    lab = Lab("flows-c", "flows-s", ("flows-r0", "flows-r1"))
    names = (lab.client, lab.server, *lab.routers)
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
            run(name, "ip", "link", "set", "lo", "up")
        for end, side, own in ((lab.client, 1, CLIENT), (lab.server, 2, SERVER)):
            run(end, "ip", "address", "add", f"{own[4]}/32", "dev", "lo")
            run(end, "ip", "address", "add", f"{own[6]}/128", "dev", "lo", "nodad")
            for number, router in enumerate(lab.routers):
                run(
                    end, "ip", "link", "add", f"to{number}", "type", "veth",
                    "peer", "name", f"side{side}", "address", "02:00:00:00:00:01", "netns", router,
                )  # fmt: skip
                for namespace, device in ((end, f"to{number}"), (router, f"side{side}")):
                    run(namespace, "ip", "link", "set", device, "addrgenmode", "none", "up")
                run(end, "ip", "neigh", "add", "10.9.0.1", "lladdr", "02:00:00:00:00:01", "dev", f"to{number}")
                run(end, "ip", "address", "add", f"fe80::{side + 1}/64", "dev", f"to{number}", "nodad")
                run(router, "ip", "address", "add", "fe80::1/64", "dev", f"side{side}", "nodad")
                run(router, "ip", "route", "add", f"10.{side}.0.0/24", "dev", f"side{side}")
                run(router, "ip", "-6", "route", "add", f"fd0{side}::/64", "via", f"fe80::{side + 1}",
                    "dev", f"side{side}")  # fmt: skip
                mac = run(end, "cat", f"/sys/class/net/to{number}/address").strip()
                run(router, "ip", "neigh", "add", own[4], "lladdr", mac, "dev", f"side{side}")
        for router in lab.routers:
            run(router, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
                "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")  # fmt: skip
            run(router, "nft", "-f", "-", text=RULES)
        lab.switch(0)
        yield lab
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def opened(namespace: str, version: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket in a namespace, with a patience of ten seconds."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    made = inside(path(namespace), lambda: socket.socket(family, kind, protocol))
    made.settimeout(10)
    return made
