"""Pure. The answer to a DHCPv6 client at a bound port (RFC 8415 §18.3): knows no socket, clock or lease file.

The port's addresses are fixed before the client boots, so an answer is a function of the scope, the request and what
the client has just declined; nothing is written. The first association that names one of the port's addresses, else the
first of all, gets all of them: a port has one client.

Choices beyond the RFC: an ADVERTISE has preference 255, since no other server is at the port and the client need not
wait a second for one (§18.2.1).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Collection
from typing import Final, NamedTuple

from dhcp import frame, v6
from dhcp.decide import LeaseKind
from dhcp.decide6 import ACTS, FATES, REPORTED, Act, Fate, Situation, Standing, situation
from dhcp.options import encode_name
from dhcp.reason import Reason
from dhcp.scope import Boot, PortScope
from dhcp.v6 import Association, Code, Kind, Message, Option, Status

_NO_ADDRESSES: Final = v6.status(Status.NO_ADDRESSES, "no address for this association")
_NO_PREFIX: Final = v6.status(Status.NO_PREFIX, "no prefixes are delegated here")
_NO_BINDING: Final = v6.status(Status.NO_BINDING, "nothing of this association is the client's")
_SUCCESS: Final = v6.status(Status.SUCCESS, "")
_NOT_ON_LINK: Final = v6.status(Status.NOT_ON_LINK, "not an address of this port")
_USE_MULTICAST: Final = v6.status(Status.USE_MULTICAST, "ask ff02::1:2")
_IA_NA, _IA_PD = int(Code.IA_NA), int(Code.IA_PD)
_MOST_WISHES: Final = 8
_LEAST_MTU: Final = 1280
"""Bytes of a packet that any link carries (RFC 8200 §5)."""
_HEADERS: Final = 48
"""Bytes of IPv6 and UDP."""
_FIRST: Final = (Situation.SOLICITING, Situation.SOLICITING_RAPIDLY, Situation.REQUESTING)
_ASKING: Final = (*_FIRST, Situation.RENEWING, Situation.REBINDING)


class Reply(NamedTuple):
    """One message for the client, to the address that it asked from. leases: what it means for the port's addresses, 16
    bytes each."""

    act: Act
    payload: bytes
    leases: tuple[tuple[bytes, LeaseKind], ...] = ()


class Bound:
    """One port's answers."""

    __slots__ = (
        "_boot",
        "_boot_parameters",
        "_fqdn",
        "_leased",
        "_most",
        "_times",
        "_values",
        "_wished",
        "addresses",
        "mac",
        "server",
        "server_mac",
        "source",
    )

    def __init__(self, scope: PortScope) -> None:
        """Raises ValueError for a scope without DHCPv6, or with a value that can't be told to a client."""
        told = scope.v6
        if told is None:
            raise ValueError("the scope has no DHCPv6")
        if not 0 < told.lease_s <= v6.FOREVER:
            raise ValueError(f"a lifetime is 1 to {v6.FOREVER} s, not {told.lease_s}")
        self.mac: Final = frame.mac(scope.mac)
        self.server_mac: Final = frame.mac(scope.server_mac)
        self.server: Final = v6.duid_ll(self.server_mac)
        self.source: Final = ipaddress.IPv6Address(told.source).packed
        self.addresses: Final = tuple(ipaddress.IPv6Address(text).packed for text in told.addresses)
        # When to renew and to rebind (§21.4); what is given for ever is never renewed.
        parts = [told.lease_s if told.lease_s == v6.FOREVER else told.lease_s * n // of for n, of in ((1, 2), (4, 5))]
        self._times: Final = struct.pack("!II", *parts)
        self._most: Final = ((scope.ra.mtu if scope.ra is not None else None) or _LEAST_MTU) - _HEADERS
        leased = (v6.leased(address, told.lease_s, told.lease_s) for address in self.addresses)
        self._leased: Final = dict(zip(self.addresses, map(v6.encode_options, zip(leased)), strict=True))
        self._wished: dict[bytes, list[Option]] = {}
        """What is told to whoever asks so; clients of one kind ask alike."""
        self._fqdn: Final = encode_name(f"{told.hostname}.{told.domain}") if told.hostname and told.domain else b""
        self._boot: Final = told.boot
        parameters = () if told.boot is None else told.boot.parameters
        counted = b"".join(len(one).to_bytes(2, "big") + one.encode("ascii") for one in parameters)
        self._boot_parameters: Final = {int(Code.BOOT_PARAMETERS): counted} if counted else {}
        values = (
            (Code.DNS, v6.addresses(told.dns)),
            (Code.DOMAIN_SEARCH, v6.names(told.search)),
            (Code.NTP, v6.ntp(told.ntp)),
        )
        self._values: Final = {int(code): value for code, value in values if value} | dict(told.options)

    def answer(
        self, request: Message, *, is_unicast: bool = False, quarantined: Collection[bytes] = ()
    ) -> Reply | Reason:
        """The reply to one message, or why there is none. quarantined: of the port's addresses, those that the client
        declined a short while ago."""
        doing = situation(request, self.server, is_unicast)
        if isinstance(doing, Reason):
            return doing
        if isinstance(doing, Act):
            return self._reply(request, doing, [_USE_MULTICAST])
        asked = v6.associations(request)
        if isinstance(asked, Reason):
            return asked
        if doing is Situation.INFORMING:
            # §16.12: a client that wants addresses is to ask for them in another way.
            return Reason.MALFORMED_OPTIONS if asked else self._reply(request, ACTS[doing], self._parameters(request))
        fates = self._fates(doing, asked, quarantined)
        reported = REPORTED[doing]
        leases = tuple([(one, reported[fate]) for one, fate in fates.items() if fate in reported])
        over = tuple([one for one in leases if one[1] is LeaseKind.RELEASED])
        if doing is Situation.CONFIRMING:
            if not any(one.addresses for one in asked):
                return Reason.NO_ADDRESS_NAMED
            if Fate.NOT_ON_LINK in fates.values():
                return self._reply(request, Act.REPLY_NOT_ON_LINK, [_NOT_ON_LINK], over)
            return self._reply(request, ACTS[doing], [_SUCCESS, *self._parameters(request)], leases)
        if doing not in _ASKING:
            rest = [v6.association(one, 0, 0, [_NO_BINDING]) for one in asked if not self._has_own(one)]
            return self._reply(request, ACTS[doing], [_SUCCESS, *rest], leases)
        chosen = self._chosen(asked)
        if chosen is None:
            leases = over
        options = [self._associated(doing, one, one is chosen, fates) for one in asked]
        return self._reply(request, ACTS[doing], [*options, *self._parameters(request)], leases)

    def _has_own(self, asked: Association) -> bool:
        return asked.code != _IA_PD and any(one in self.addresses for one in asked.addresses)

    def _chosen(self, asked: tuple[Association, ...]) -> Association | None:
        """The association that gets the port's addresses."""
        lasting = [one for one in asked if one.code == _IA_NA]
        if len(lasting) < 2:
            return lasting[0] if lasting else None
        return next((one for one in lasting if self._has_own(one)), lasting[0])

    def _fates(
        self, doing: Situation, asked: tuple[Association, ...], quarantined: Collection[bytes]
    ) -> dict[bytes, Fate]:
        """By address: the port's that there is something to say of, and all others that the client names."""
        named = [address for one in asked for address in one.addresses]
        candidates = [*self.addresses, *named] if doing in _ASKING else named
        found: dict[bytes, Fate] = {}
        row = FATES[doing]
        for address in candidates:
            standing = Standing.FOREIGN
            if address in self.addresses:
                standing = Standing.QUARANTINED if address in quarantined else Standing.OWN
            found[address] = row[standing]
        return found

    def _associated(self, doing: Situation, asked: Association, is_chosen: bool, fates: dict[bytes, Fate]) -> Option:
        given = [address for address in self.addresses if fates[address] is Fate.GIVEN] if is_chosen else []
        ended = [v6.leased(address, 0, 0) for address in asked.addresses if fates[address] is Fate.ENDED]
        if given:
            parts = b"".join([self._leased[address] for address in given])
            return asked.code, asked.iaid + self._times + parts + v6.encode_options(ended)
        if doing not in _FIRST:
            return v6.association(asked, 0, 0, [*ended, _NO_BINDING])
        return v6.association(asked, 0, 0, [_NO_PREFIX if asked.code == Code.IA_PD else _NO_ADDRESSES])

    def _parameters(self, request: Message) -> list[Option]:
        """What the client asks for, in its order (§21.7), and its name if it said one."""
        asked = request.first(Code.OPTION_REQUEST) or b""
        found = self._wished.get(asked)
        if found is None:
            wishes, values = dict.fromkeys(v6.wished(request)), self._values
            is_booting = Code.BOOT_URL in wishes and self._boot is not None
            if is_booting and self._boot is not None and (url := _url(self._boot, request)):
                values = {int(Code.BOOT_URL): url} | self._boot_parameters | values
            found = [(code, values[code]) for code in wishes if code in values]
            if not is_booting and len(self._wished) < _MOST_WISHES:
                self._wished[asked] = found
        said = request.first(Code.CLIENT_FQDN)
        if said and self._fqdn:
            # the name is the port's, and ours to put into the DNS (RFC 4704 §6)
            return [*found, (int(Code.CLIENT_FQDN), bytes((1 if said[0] & 1 else 3,)) + self._fqdn)]
        return found

    def _reply(
        self, request: Message, act: Act, options: list[Option], leases: tuple[tuple[bytes, LeaseKind], ...] = ()
    ) -> Reply | Reason:
        client = request.first(Code.CLIENT_ID)
        head: list[Option] = [] if client is None else [(int(Code.CLIENT_ID), client)]
        head.append((int(Code.SERVER_ID), self.server))
        if act is Act.ADVERTISE:
            head.append((int(Code.PREFERENCE), b"\xff"))
        if act is Act.REPLY_RAPID:
            head.append((int(Code.RAPID_COMMIT), b""))
        kind = Kind.ADVERTISE if act is Act.ADVERTISE else Kind.REPLY
        payload = v6.encode(Message(kind, request.xid, (*head, *options)))
        return Reply(act, payload, leases) if len(payload) <= self._most else Reason.TOO_LARGE


def _url(boot: Boot, request: Message) -> bytes:
    """What this client boots: iPXE by its user class, others by their architecture (RFC 5970 §3.3). Only a URL can be
    told (§3.1): a name becomes one where the server's IPv6 address is known."""
    if boot.ipxe and b"iPXE" in (request.first(Code.USER_CLASS) or b""):
        name = boot.ipxe
    else:
        said = request.first(Code.ARCHITECTURE) or b""
        files = dict(boot.files)
        kinds = [int.from_bytes(said[at : at + 2], "big") for at in range(0, len(said) - 1, 2)]
        name = next((files[kind] for kind in (*kinds, -1) if kind in files), "")
    if name and "://" not in name:
        name = f"tftp://[{boot.server6}]/{name.lstrip('/')}" if boot.server6 else ""
    return name.encode("ascii")


def answer(scope: PortScope, request: Message) -> Reply | Reason:
    """What is sent to a client at a port, or why nothing is. Whoever answers often keeps a `Bound`."""
    return Reason.NO_SCOPE if scope.v6 is None else Bound(scope).answer(request)
