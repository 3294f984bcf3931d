"""Two guarded hosts joined by VXLAN, with guests that have a kernel's own network stack."""

from __future__ import annotations

import subprocess
import time
from contextlib import ExitStack

from filter_lab import Namespace
from guarded_lab import FAR, HOSTS, ME, NEAR, UNDERLAY, Host, Station, ll, v4, v6

UNDERLAY_MTU, GUEST_MTU, PATH_MTU = 1500, 4000, 1450
"""The path's is the underlay's less VXLAN's 50 (RFC 7348); the guests think that they have more."""


class Stacks:
    """Both hosts, with ARP and ND suppression as hosts have it, and a guest's namespace for each of three stations."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.hosts = {name: self._closed(Host(name, HOSTS[name], HOSTS[_other(name)])) for name in HOSTS}
        self.guests = {station: self._closed(Namespace()) for station in (ME, NEAR, FAR)}
        link = f"ip link add up0 mtu {UNDERLAY_MTU} type veth peer name up0 mtu {UNDERLAY_MTU}"
        self.hosts["a"].space.run(f"{link} netns {self.hosts['b'].space.pid}")
        for name, host in self.hosts.items():
            host.space.run(f"ip addr add {UNDERLAY[name]}/24 dev up0")
            host.space.run("ip link set up0 up")
            host.space.run("sysctl -qw net.ipv6.conf.br0.addr_gen_mode=1 net.ipv6.conf.br0.disable_ipv6=0")
            host.space.run("bridge link set dev vx0 neigh_suppress on")
            known = [(address, station.mac) for station in host.peers for address in (*station.addresses, ll(station))]
            lines = [f"neigh replace {address} lladdr {mac} dev br0 nud permanent" for address, mac in known]
            host.space.run("ip -batch -", "\n".join(lines))
            host.guard()
        for station, guest in self.guests.items():
            end = f"c{int(station.mac[-2:], 16)}"
            space = next(host.space for host in self.hosts.values() if station in host.stations)
            space.run(f"ip link set {end} netns {guest.pid} name eth0")
            guest.run("sysctl -qw net.ipv6.neigh.eth0.retrans_time_ms=200")
            guest.run(f"ip link set eth0 mtu {GUEST_MTU} up")
            guest.run(f"ip addr add {v4(station)}/24 dev eth0")
            guest.run(f"ip addr add {v6(station)}/64 dev eth0")

    def _closed(self, made):  # type: ignore[no-untyped-def]
        self._stack.callback(made.close)
        return made

    def close(self) -> None:
        self._stack.close()

    def dropped(self) -> dict[str, int]:
        """By both hosts."""
        both = [host.dropped() for host in self.hosts.values()]
        return {name: sum(one.get(name, 0) for one in both) for name in {**both[0], **both[1]}}

    def await_settled(self, station: Station) -> None:
        """Until it has found its addresses to be nobody else's."""
        end = time.monotonic() + 10
        while "tentative" in (said := self.guests[station].run("ip -6 addr show dev eth0")):
            assert time.monotonic() < end, said
            time.sleep(0.02)
        assert "dadfailed" not in said

    def ping(self, by: Station, to: str, *words: str) -> subprocess.CompletedProcess[str]:
        argv = ["nsenter", f"--net={self.guests[by].path}", "ping", "-n", "-c1", "-w5", *words, to]
        return subprocess.run(argv, capture_output=True, text=True, check=False)


def _other(name: str) -> str:
    return next(other for other in HOSTS if other != name)
