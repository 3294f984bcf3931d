"""Two hosts joined by VXLAN, guarded or not, with guests that are packet sockets: they say whatever they want to."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import cache
from itertools import count

from filter_lab import Namespace

from policies.guard.parts import TABLE, parts
from policies.guard.reason import Reason
from policies.guard.rules import SERVICE_MAC
from policies.guard.station import GuardedPort, GuardedTunnel, Station, link_local
from policies.kernel.enforcement import Enforcement, Outcome

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy.layers.inet import IP, UDP  # noqa: E402
from scapy.layers.l2 import Ether  # noqa: E402
from scapy.packet import Packet, Raw  # noqa: E402

_SOL_PACKET, _IGNORE_OUTGOING, _SO_RCVBUFFORCE = 263, 23, 33
"""linux/if_packet.h, asm-generic/socket.h."""

SYSCTLS = (
    "net.ipv6.conf.default.disable_ipv6=1",  # no device of the lab's own says anything
    "net.ipv6.conf.all.disable_ipv6=1",
    "net.bridge.bridge-nf-call-iptables=0",  # which drops what is malformed: the guard is to be seen doing it
    "net.bridge.bridge-nf-call-ip6tables=0",
    "net.bridge.bridge-nf-call-arptables=0",
)
SUBNETS = ("10.0.0.0/24", "fd00::/64")
BRIDGE_MAC = "02:00:00:00:bb:00"
"""No port's: else a bridge takes that of one, and what is for it for the host's (br_handle_frame)."""
LEG = ("10.0.0.254", "fd00::fe", "fe80::1")


def a_station(number: int, **more: tuple[str, ...]) -> Station:
    return Station(f"02:00:00:00:00:{number:02x}", (f"10.0.0.{number}", f"fd00::{number:x}"), **more)  # type: ignore


ME, NEAR, FAR, FAR_TOO = map(a_station, (1, 2, 3, 4))
VRRP = a_station(
    5,
    allowed_addresses=("10.0.0.100/32", "10.9.0.0/16", "fd00::100/128", "fd09::/64"),
    allowed_macs=("00:00:5e:00:01:07",),
)
GATEWAY = a_station(6, owned=("10.0.0.0/16", "fd00::/48"))
HOSTS = {"a": (ME, NEAR, VRRP), "b": (FAR, FAR_TOO, GATEWAY)}
UNDERLAY = {"a": "192.0.2.1", "b": "192.0.2.2"}
ALL = {station.mac: station for stations in HOSTS.values() for station in stations}


def v4(station: Station) -> str:
    return station.addresses[0]


def v6(station: Station) -> str:
    return station.addresses[1]


def ll(station: Station) -> str:
    return link_local(station.mac)


def port_of(station: Station) -> str:
    return f"p{int(station.mac[-2:], 16)}"


class Host:
    """One host's data plane: bridge `br0`, tunnel `vx0`, service leg `lg0` (its inner end `sv0`), a port `p<n>` for
    each of its stations, and the guest's end `c<n>` beside it."""

    def __init__(self, name: str, stations: tuple[Station, ...], peer_stations: tuple[Station, ...]) -> None:
        self.stations, self.peers = stations, peer_stations
        self.space = Namespace()
        self.space.run("sysctl -qw " + " ".join(SYSCTLS))
        lines = [f"link add br0 address {BRIDGE_MAC} type bridge mcast_snooping 0", "link set br0 up", "link set lo up"]
        lines += [f"link add vx0 type vxlan id 7 local {UNDERLAY[name]} dstport 4789 nolearning"]
        lines += ["link set vx0 mtu 65000 master br0 up"]
        lines += [f"link add lg0 type veth peer name sv0 address {SERVICE_MAC}", "link set lg0 master br0 up"]
        lines += ["link set sv0 up"]
        for station in stations:
            number = int(station.mac[-2:], 16)
            lines += [f"link add p{number} type veth peer name c{number} address {station.mac}"]
            lines += [f"link set p{number} mtu 65000 master br0 up", f"link set c{number} mtu 65000 up"]
        self.space.run("ip -batch -", "\n".join(lines))
        flags = "learning off flood off"
        lines = [f"link set dev {name} {flags}" for name in ("vx0", "lg0", *map(port_of, stations))]
        lines += ["link set dev vx0 isolated on", "link set dev lg0 isolated on"]
        lines += [f"fdb replace {mac} dev {port_of(s)} master static" for s in stations for mac in s.macs]
        lines += [f"fdb replace {SERVICE_MAC} dev lg0 master static"]
        lines += [f"fdb replace {mac} dev vx0 master static" for s in peer_stations for mac in s.macs]
        other = next(address for host, address in UNDERLAY.items() if host != name)
        lines += [f"fdb replace {mac} dev vx0 dst {other} self static" for s in peer_stations for mac in s.macs]
        lines += [f"fdb append 00:00:00:00:00:00 dev vx0 dst {other} self"]
        if name == "b":  # what a hostile host would do: it reaches the other's service leg by the tunnel
            lines += [f"fdb replace {SERVICE_MAC} dev vx0 dst {other} self static"]
        self.space.run("bridge -batch -", "\n".join(lines))
        self.enforcement = Enforcement(self.space.path)

    def guard(self) -> None:
        """Puts the guard in force, all of it."""
        outcome = self.look()
        assert (outcome.cause, dict(outcome.refused)) == ("", {})

    def look(self) -> Outcome:
        """Puts it in force, and says what of it had to be."""
        ports = [GuardedPort(port_of(station), station, SUBNETS) for station in self.stations]
        tunnel = GuardedTunnel("vx0", self.peers, SUBNETS)
        return self.enforcement.converge({TABLE: parts(ports, [tunnel])}, is_doubted=True)

    def unguard(self) -> None:
        self.enforcement.converge({})

    def dropped(self) -> dict[str, int]:
        """Packets dropped so far, by the name of the reason; those that are 0 are left out."""
        found = self.enforcement.counters()
        return {name: packets for (_, name), (packets, _) in found.items() if packets}

    def open(self, device: str) -> socket.socket:
        """A packet socket that hears all of a device, but what is sent by it."""

        def work() -> socket.socket:
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            opened.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
            with suppress(PermissionError):  # in a user namespace
                opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
            opened.bind((device, 3))
            opened.settimeout(5)
            return opened

        return self.space.call(work)

    def close(self) -> None:
        self.enforcement.close()
        self.space.close()


class Lab:
    """Both hosts, and an open end for each station."""

    def __init__(self) -> None:
        self._stack, self._fences = ExitStack(), count()
        self.a = Host("a", HOSTS["a"], HOSTS["b"])
        self._stack.callback(self.a.close)
        self.b = Host("b", HOSTS["b"], HOSTS["a"])
        self._stack.callback(self.b.close)
        self.a.space.run(f"ip link add up0 mtu 65535 type veth peer name up0 mtu 65535 netns {self.b.space.pid}")
        for name, host in (("a", self.a), ("b", self.b)):
            host.space.run(f"ip addr add {UNDERLAY[name]}/24 dev up0")
            host.space.run("ip link set up0 up")
        self.ends = {
            station: self._stack.enter_context(host.open(f"c{int(station.mac[-2:], 16)}"))
            for host in (self.a, self.b)
            for station in host.stations
        }
        self.await_ready()

    def await_ready(self) -> None:
        """Until each station hears each other one."""
        for one, raw in self.ends.items():
            raw.settimeout(0.05)
            for other in self.ends:
                if other != one:
                    for _ in range(100):
                        mark = self.fence(other, one)
                        try:
                            self.hear(one, mark)
                            break
                        except TimeoutError:
                            continue
                    else:
                        raise AssertionError(f"{one.mac} never hears {other.mac}")
            raw.settimeout(5)

    def guard(self) -> None:
        self.a.guard()
        self.b.guard()

    def say(self, station: Station, frame: Packet | bytes) -> None:
        self.ends[station].send(bytes(frame))

    def fence(self, by: Station, to: Station) -> bytes:
        """Says what its source may, the last frame that is waited for, and returns what it is known by."""
        mark = FENCE + next(self._fences).to_bytes(8, "big")
        self.say(by, _fence(by, to) + mark)
        return mark

    def hear(self, station: Station, mark: bytes) -> list[bytes]:
        """Frames that came in at its end, up to a fence."""
        return heard_at(self.ends[station], mark)

    def heard(self, by: Station, among: tuple[Station, ...] = ()) -> int:
        """How many frames the others (or these) heard since this was last asked. Nobody here speaks unasked."""
        found = 0
        for station in among or tuple(self.ends):
            if station != by:
                found += len(self.hear(station, self.fence(by, station)))
        return found

    def dropped(self) -> dict[str, int]:
        """By both hosts."""
        found: dict[str, int] = {}
        for host in (self.a, self.b):
            for name, packets in host.dropped().items():
                found[name] = found.get(name, 0) + packets
        return found

    def dropped_since(self, before: dict[str, int], expected: dict[str, int]) -> dict[str, int]:
        """What was dropped since; it is waited for, not long."""
        end = time.monotonic() + 2
        while (now := grown(before, self.dropped())) != expected and time.monotonic() < end:
            time.sleep(0.005)
        return now

    def close(self) -> None:
        self._stack.close()


def heard_at(raw: socket.socket, mark: bytes) -> list[bytes]:
    """Frames up to a fence; older fences that nobody waited for are left out."""
    found: list[bytes] = []
    while not (data := raw.recv(65535)).endswith(mark):
        if FENCE not in data:
            found.append(data)
    return found


FENCE = b"until here, and no further"


@cache
def _fence(source: Station, destination: Station) -> bytes:
    head = Ether(src=source.mac, dst=destination.mac) / IP(src=v4(source), dst=v4(destination))
    return bytes(head / UDP(sport=5000, dport=5001) / Raw(bytes(len(FENCE) + 8)))[: -len(FENCE) - 8]


def grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}


def only(reason: Reason, times: int = 1) -> dict[str, int]:
    return {reason.counter: times}
