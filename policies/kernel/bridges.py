"""Owns what sends bridged packets through the inet hooks, and has refused ones answered. Knows no rule.

Bridges are asked and told by raw route netlink (linux/if_link.h), sysctls by /proc/sys of the calling thread, which
shows the namespace of who opens it.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from itertools import count
from pathlib import Path
from typing import NamedTuple

from policies.guard.answers import pair_of
from policies.kernel import answering
from policies.kernel.listing import text_of
from policies.kernel.netlink import attribute, error_of, framed, nest, parse, split

_NETLINK_ROUTE = 0
_DUMP, _ERROR, _DONE = 0x300, 2, 3
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_GROUP_LINK = 1
_IFNAME, _LINKINFO, _KIND, _DATA = 3, 18, 1, 2
_NF_CALL_IPTABLES, _NF_CALL_IP6TABLES = 36, 37
_IFINFO = struct.Struct("=BBHiII")

_SYSCTLS = {
    "net/bridge/bridge-nf-call-iptables": "0",  # each bridge that is to be policed says so itself
    "net/bridge/bridge-nf-call-ip6tables": "0",
    "net/bridge/bridge-nf-call-arptables": "0",
    # A window that was seen on another host, before a move, is none that this host knows, ...
    "net/netfilter/nf_conntrack_tcp_be_liberal": "1",
    # ... and a connection may be seen first when it runs already.
    "net/netfilter/nf_conntrack_tcp_loose": "1",
}
"""Nothing tells of a change of these, so they are read whenever rules are converged. Until they are put back nothing
passes that should not: the rules track no bridge that is not policed, and less of TCP is known than could be."""

_CHUNK = 1 << 18
_A_BRIDGE = attribute(_KIND, b"bridge")


class Switches:
    """Those of the namespace of the thread that makes it. `heard` may be called by another thread than the rest.

    A bridge is policed by both switches, IPv4's and IPv6's.
    """

    def __init__(self) -> None:
        """Raises OSError."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
        self._socket.settimeout(10)
        self._sequence = 0
        self._policed: frozenset[str] = frozenset()
        self._in_force: dict[str, int] = {}
        self._pairs: set[str] = set()
        """Names of the devices that answer."""
        self._news = count(1)
        self._touched = next(self._news)
        self._looked = 0
        self.mended: list[str] = []
        """What the last `converge` found otherwise than it had left it, in sentences."""

    def close(self) -> None:
        """Closes its socket."""
        self._socket.close()

    def heard(self, heard: socket.socket) -> bool:
        """Takes in all that a monitor has to say: whether a bridge is not as it should be."""
        is_touched = False
        try:
            while chunk := heard.recv(_CHUNK):
                for kind, _, body in split(chunk):
                    state = _bridge_state(body) if kind in (_NEWLINK, _DELLINK) else None
                    is_touched |= kind == _DELLINK and _name(body) in self._pairs
                    if state is None:
                        continue
                    is_touched |= state.name in self._policed if kind == _DELLINK else not _is_as(state, self._policed)
        except BlockingIOError:
            pass
        except OSError:  # ENOBUFS: some of it was lost
            is_touched = True
        if is_touched:
            self._touched = next(self._news)
        return is_touched

    def converge(self, policed: frozenset[str], is_doubted: bool) -> tuple[frozenset[str], dict[str, int]]:
        """Turns the switches of all bridges to what is asked; looks at bridges only if there is news, or it is doubted.

        (those asked for that are not policed, objects by kind that somebody else had turned). Raises OSError.
        """
        is_first = not self._looked
        repaired: Counter[str] = Counter()
        self.mended = []
        wrong = _wrong_sysctls()
        for name, value in wrong.items():
            Path("/proc/sys", name).write_text(value)
        if not is_first and wrong:
            repaired["sysctl"] = len(wrong)
            self.mended += map(_sysctl_text, wrong.items())
        if not (is_doubted or is_first or policed != self._policed or self._touched > self._looked):
            return policed - self._in_force.keys(), repaired
        self._policed, self._looked = policed, self._touched
        in_force: dict[str, int] = {}
        can_police = not why_no_netfilter()
        for name, index, v4, v6 in self._states():
            if (v4, v6) != (name in policed,) * 2:
                self._police(index, name in policed)
                if self._in_force.get(name) == index and name in policed:
                    repaired["bridge"] += 1
                    self.mended.append(f"bridge {name} does not send its packets through the rules")
            if name in policed and can_police:
                in_force[name] = index
        self._pairs = {name for pair in map(pair_of, in_force.values()) for name in (pair.near, pair.far)}
        made = answering.converge(self._ask, in_force.values())
        if not is_first:
            repaired["device"] += max(0, made - len(in_force.items() - self._in_force.items()))
            if repaired["device"]:
                self.mended.append(f"{repaired['device']} of the devices that answer the refused are missing")
        self._in_force = in_force
        return policed - in_force.keys(), {kind: number for kind, number in repaired.items() if number}

    def differences(self, policed: frozenset[str]) -> list[str]:
        """What is not as converge would leave it, in sentences; changes nothing. Raises OSError."""
        found = {state.name: state for state in self._states()}
        names = sorted(name for name in found.keys() | policed if name not in found or not _is_as(found[name], policed))
        switches = [
            f"bridge {name} is missing"
            if name not in found
            else f"bridge {name} {'does not send' if name in policed else 'sends'} its packets through the rules"
            for name in names
        ]
        policing = {state.number for name, state in found.items() if name in policed}
        missing = answering.missing(self._ask, policing)
        switches += [f"device {name} and its peer are not as they should be" for name in missing]
        return switches + sorted(map(_sysctl_text, _wrong_sysctls().items()))

    def _states(self) -> list[_Bridge]:
        found = self._ask(_GETLINK, _DUMP, _IFINFO.pack(0, 0, 0, 0, 0, 0) + nest(_LINKINFO, _A_BRIDGE))
        return [state for state in map(_bridge_state, found) if state is not None]

    def _police(self, number: int, is_policed: bool) -> None:
        switches = [attribute(kind, bytes([is_policed])) for kind in (_NF_CALL_IPTABLES, _NF_CALL_IP6TABLES)]
        content = _IFINFO.pack(0, 0, 0, number, 0, 0) + nest(_LINKINFO, _A_BRIDGE, nest(_DATA, *switches))
        self._ask(_NEWLINK, 0, content)

    def _ask(self, kind: int, flags: int, content: bytes) -> list[bytes]:
        """What follows the headers of all that is answered. Raises OSError."""
        self._sequence += 1
        self._socket.send(framed((kind, flags, content), self._sequence, is_acknowledged=flags != _DUMP))
        found: list[bytes] = []
        while True:
            for answer, sequence, body in split(self._socket.recv(_CHUNK)):
                if sequence != self._sequence:
                    continue
                if answer == _ERROR and (error := error_of(body)):
                    raise error
                if answer in (_ERROR, _DONE):
                    return found
                found.append(body)


def _is_as(state: _Bridge, policed: frozenset[str]) -> bool:
    return (state.v4, state.v6) == (state.name in policed,) * 2


def _name(body: bytes) -> str:
    return text_of(parse(body, _IFINFO.size).get(_IFNAME, b""))


class _Bridge(NamedTuple):
    """number: its interface index. v4, v6: whether its packets of this version are sent through the hooks."""

    name: str
    number: int
    v4: bool
    v6: bool


def _bridge_state(body: bytes) -> _Bridge | None:
    """Of what follows a link message's header; None of what is no bridge."""
    parts = parse(body, _IFINFO.size)
    info = parse(parts.get(_LINKINFO, b""))
    if text_of(info.get(_KIND, b"")) != "bridge":
        return None
    data = parse(info.get(_DATA, b""))
    number = _IFINFO.unpack_from(body)[3]
    v4, v6 = (any(data.get(kind, b"")) for kind in (_NF_CALL_IPTABLES, _NF_CALL_IP6TABLES))
    return _Bridge(text_of(parts[_IFNAME]), number, v4, v6)


def open_monitor() -> socket.socket:
    """Hears of every link that changes in the namespace of the calling thread. Non-blocking."""
    heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
    try:
        heard.setblocking(False)
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        heard.bind((0, 1 << (_GROUP_LINK - 1)))
    except OSError:
        heard.close()
        raise
    return heard


def _wrong_sysctls() -> dict[str, str]:
    """Those of this thread's namespace that are not as they should be, with what they should be; not those that are not
    there."""
    found = {}
    for name, value in _SYSCTLS.items():
        try:
            if Path("/proc/sys", name).read_text().strip() != value:
                found[name] = value
        except FileNotFoundError:
            continue
    return found


def _sysctl_text(wrong: tuple[str, str]) -> str:
    return f"sysctl {wrong[0]} should be {wrong[1]}"


def why_no_netfilter() -> str:
    """Why bridged packets can't be sent through the hooks here; "" if they can."""
    if Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        return ""
    return "the kernel module br_netfilter is not loaded, so bridged packets meet no policy; run: modprobe br_netfilter"
