"""Pure. What the DHCPv6 client of one NIC says and when, and what it was told (RFC 8415 §18.2). No socket, no clock.

One association of addresses, known by the NIC's MAC: the same after a restart, without a file. Standard library only.
The server is at the port, so a message is repeated sooner than RFC 8415 §7.6 has it, which thinks of many clients.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from playground.workspaces.guest.routers import Told, domains, servers

SOLICIT, ADVERTISE, REQUEST, RENEW, REBIND, REPLY, DECLINE, INFORM = 1, 2, 3, 5, 6, 7, 9, 11
IDLE, BOUND, INFORMED = "idle", "bound", "informed"
"""What a client does that says nothing; else it is known by the message that it repeats."""
CLIENT_ID, SERVER_ID, IA_NA, ADDRESS, WISHES, ELAPSED, STATUS, RAPID, DNS, SEARCH = 1, 2, 3, 5, 6, 8, 13, 14, 23, 24
FOREVER = 0xFFFFFFFF
FIRST_S = 1.0
LONGEST_S = {SOLICIT: 8.0, REQUEST: 8.0, RENEW: 60.0, REBIND: 60.0, DECLINE: 8.0, INFORM: 60.0}
MOST = {REQUEST: 10, DECLINE: 4}
"""After so many, a client begins anew."""
REFRESH_S = 86400.0
"""How long information holds that came without addresses (RFC 8415 §7.6)."""

State = int | str


class Client:
    """Of one NIC. random: that many random bytes. Times are monotonic seconds."""

    def __init__(self, mac: bytes, random: Callable[[int], bytes]) -> None:
        self.duid = b"\0\3\0\1" + mac
        self.addresses: dict[bytes, tuple[float, float]] = {}
        """What it may use: until when by choice, and until when at all."""
        self.told: Told = ((), ())
        self.state: State = IDLE
        self._iaid = mac[-4:]
        self._random = random
        self._server = self._declined = b""
        self._xid = b""
        self._began_s = 0.0
        self._sent = 0
        self._due_s = float("inf")
        self._t1_s = self._t2_s = float("inf")

    def heed(self, is_managed: bool, has_other: bool, now_s: float) -> None:
        """What routers advertise now: that addresses are to be had, or only other things (RFC 4861 §4.2)."""
        if is_managed and self.state in (IDLE, INFORM, INFORMED):
            self._begin(SOLICIT, now_s)
        elif not is_managed:
            if not (has_other and self.state in (INFORM, INFORMED)):
                self.addresses, self.told = {}, ((), ())
                self._rest(IDLE)
            if has_other and self.state == IDLE:
                self._begin(INFORM, now_s)

    def renew(self, now_s: float) -> None:
        """Asks at once whether its addresses are still its own; a client that is asking goes on."""
        if self.state in (BOUND, RENEW, REBIND):
            self._begin(RENEW, now_s)
        elif self.state != IDLE:
            self._due_s = now_s

    def decline(self, address: bytes, now_s: float) -> None:
        """Another has this one."""
        if self.addresses.pop(address, None) is not None:
            self._begin(DECLINE, now_s)
            self._declined = address

    def due_s(self) -> float:
        """When `said` should be asked next."""
        return min(self._due_s, self._turn_s())

    def said(self, now_s: float) -> bytes | None:
        """The message that is due."""
        if self._turn_s() <= now_s:
            self._turn(now_s)
        if self._due_s > now_s:
            return None
        if self._sent >= MOST.get(int(self.state), 1 << 30):
            self._begin(SOLICIT, now_s)
        self._sent += 1
        wait_s = min(FIRST_S * 2.0 ** min(self._sent - 1, 16), LONGEST_S[int(self.state)])
        self._due_s = now_s + wait_s * (0.9 + self._random(1)[0] / 1280)  # ±10 % (RFC 8415 §15)
        return self._message(now_s)

    def hear(self, message: bytes, now_s: float) -> None:
        """What a server says; what is malformed, or not for this client, is nothing."""
        if len(message) < 4 or message[1:4] != self._xid or isinstance(self.state, str):
            return
        found = dict(reversed(list(options(message[4:]))))  # the first of each counts
        server = found.get(SERVER_ID, b"")
        if found.get(CLIENT_ID) != self.duid or not server:
            return
        if message[0] == ADVERTISE and self.state == SOLICIT and any(self._leased(found)):
            self._server = server
            self._begin(REQUEST, now_s)
        is_ours = self.state not in (REQUEST, RENEW, DECLINE) or server == self._server
        if message[0] == REPLY and is_ours and (self.state != SOLICIT or RAPID in found):
            self._reply(found, server, now_s)

    def _reply(self, found: dict[int, bytes], server: bytes, now_s: float) -> None:
        if self.state == DECLINE:
            self._begin(SOLICIT, now_s)
            return
        if self.state == INFORM:
            self.told = _told(found)
            self._rest(INFORMED)
            self._due_s = now_s + REFRESH_S
            return
        leased = list(self._leased(found))
        for address, preferred_s, valid_s in leased:
            if valid_s:
                self.addresses[address] = now_s + preferred_s, now_s + valid_s
            else:
                self.addresses.pop(address, None)
        if not self.addresses or not leased:
            if self.state != SOLICIT:  # it has no binding of us any more, or nothing now: ask for what there is
                self._begin(SOLICIT, now_s, at_s=now_s + FIRST_S)
            return
        self._server, self.told = server, _told(found)
        ends = min(valid for _, valid in self.addresses.values())
        t1_s, t2_s = struct.unpack_from("!II", found[IA_NA], 4)
        lasting = ends - now_s
        self._rest(BOUND)
        self._t1_s = now_s + (_span(t1_s) if t1_s else lasting * 0.5)
        self._t2_s = now_s + (_span(t2_s) if t2_s else lasting * 0.8)

    def _leased(self, found: dict[int, bytes]) -> Iterator[tuple[bytes, float, float]]:
        """Addresses with their lifetimes in seconds."""
        association = found.get(IA_NA, b"")
        if association[:4] != self._iaid or len(association) < 12:
            return
        for code, value in options(association[12:]):
            if code == ADDRESS and len(value) >= 24:
                preferred, valid = struct.unpack_from("!II", value, 16)
                if preferred <= valid:
                    yield value[:16], _span(preferred), _span(valid)

    def _turn_s(self) -> float:
        """When it does something else than now, though it hears nothing."""
        ends = min((valid for _, valid in self.addresses.values()), default=float("inf"))
        return min(ends, {BOUND: self._t1_s, RENEW: self._t2_s, INFORMED: self._due_s}.get(self.state, float("inf")))

    def _turn(self, now_s: float) -> None:
        before = len(self.addresses)
        self.addresses = {one: ends for one, ends in self.addresses.items() if ends[1] > now_s}
        if len(self.addresses) < before and not self.addresses:
            self._begin(SOLICIT, now_s)
        elif self.state == BOUND and self._t1_s <= now_s:
            self._begin(RENEW, now_s)
        elif self.state == RENEW and self._t2_s <= now_s:
            self._begin(REBIND, now_s)
        elif self.state == INFORMED:
            self._begin(INFORM, now_s)

    def _begin(self, state: int, now_s: float, at_s: float | None = None) -> None:
        self.state, self._xid, self._began_s, self._sent = state, self._random(3), now_s, 0
        self._due_s = now_s if at_s is None else at_s

    def _rest(self, state: str) -> None:
        self.state, self._due_s = state, float("inf")

    def _message(self, now_s: float) -> bytes:
        elapsed = min(int((now_s - self._began_s) * 100), 0xFFFF)
        said = [_option(CLIENT_ID, self.duid), _option(ELAPSED, struct.pack("!H", elapsed))]
        if self.state in (REQUEST, RENEW, DECLINE):
            said.append(_option(SERVER_ID, self._server))
        if self.state == SOLICIT:
            said.append(_option(RAPID, b""))
        if self.state != DECLINE:
            said.append(_option(WISHES, struct.pack("!HH", DNS, SEARCH)))
        if self.state != INFORM:
            named = [self._declined] if self.state == DECLINE else self.addresses if self.state != SOLICIT else ()
            inner = b"".join(_option(ADDRESS, address + bytes(8)) for address in named)
            said.append(_option(IA_NA, self._iaid + bytes(8) + inner))
        return bytes((int(self.state),)) + self._xid + b"".join(said)


def options(data: bytes) -> Iterator[tuple[int, bytes]]:
    """In order; what runs past the end is left out."""
    at = 0
    while at + 4 <= len(data):
        code, size = struct.unpack_from("!HH", data, at)
        if at + 4 + size > len(data):
            return
        yield code, data[at + 4 : at + 4 + size]
        at += 4 + size


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("!HH", code, len(value)) + value


def _span(seconds: int) -> float:
    return float("inf") if seconds == FOREVER else float(seconds)


def _told(found: dict[int, bytes]) -> Told:
    return tuple(servers(found.get(DNS, b""))), tuple(domains(found.get(SEARCH, b"")))
