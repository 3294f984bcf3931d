"""Pure. What an agent and its host's responder say to each other; opens nothing and decides nothing.

The agent tells a flat map, key → value, and the responder answers from it and from nothing else:

    port/PORT               PortScope   what is answered at a port (DHCPv4, DHCPv6, router advertisements)
    view/PLAYGROUND         View        where names are answered: a service namespace and its addresses
    name/PLAYGROUND/PORT    Name        one port's names in that view
    records/PLAYGROUND/NETWORK  Records  what a network's file declares in that view

Both ways it is JSON, one object a line, on a Unix stream socket. Agent: `{"set": {key: value}, "delete": [key],
"whole": bool, "seq": n}`; `delete` goes first, so a key in both begins from nothing; `whole` drops every key that `set`
does not hold. Responder: `{"ack": n}` once the update is
in effect, `{"leased": {…}}`, `{"given": […]}`, `{"problem": {…}}`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from dhcp.decide import LeaseKind as LeaseKind
from dhcp.leases import Lease
from dhcp.scope import PortScope

LINE_LIMIT: Final = 64 << 20
"""Longest line read, in bytes; a whole map of 100 000 ports is about 50 MB."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Where a playground's names are answered on this host.

    netns: name in /run/netns, or an absolute path. listen: plain addresses that the namespace has (or will have).
    origin: the playground's domain name, with or without the last dot. reverse: the subnets whose addresses have names
    here. resolvers: who is asked for everything else, from the responder's own namespace; none: such questions are
    refused. forward: prefixes whose clients may ask for everything else; transfer: whose may copy whole zones. ttl:
    seconds, of every record.
    """

    netns: str
    listen: tuple[str, ...]
    origin: str
    reverse: tuple[str, ...] = ()
    resolvers: tuple[str, ...] = ()
    forward: tuple[str, ...] = ("0.0.0.0/0", "::/0")
    transfer: tuple[str, ...] = ()
    ttl: int = 30


class Name(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One port's names: WORKSPACE.NETWORK.origin, and a share in WORKSPACE.origin. addresses: plain, IPv4 or IPv6.

    aliases: more names, relative to the origin; several ports may share one.
    """

    workspace: str
    network: str
    addresses: tuple[str, ...]
    aliases: tuple[str, ...] = ()


class Records(msgspec.Struct, frozen=True, kw_only=True):
    """Records as (name, type, data): name relative to the origin, type and data as in zone files, names in it absolute;
    the data of a TXT is the text itself."""

    records: tuple[tuple[str, str, str], ...]


Value = PortScope | View | Name | Records


class Leased(msgspec.Struct, frozen=True, kw_only=True):
    """The last word on a port's lease of its own address. Times: seconds since the epoch. until_utc_s: its end, None
    where nobody here has heard when it was given. since_utc_s: since when the client has it without a break. router:
    the default router that its client was told of with the address, "" for none; None where that is not known."""

    port: str
    address: str
    mac: str
    at_utc_s: float
    kind: LeaseKind
    until_utc_s: float | None = None
    router: str | None = None
    since_utc_s: float = 0.0


class Router(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual router's MAC, which several ports may have, speaks at this one."""

    port: str
    mac: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a key is not in effect (it is tried again by itself); an empty cause says that it is now."""

    key: str
    cause: str


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """Agent → responder: what happened at these ports? It is answered by a `Told` with the same id."""

    id: int
    ports: tuple[str, ...]


class Exchange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of a client and what came of it. what: DISCOVER, …, or empty for what could not be read. address:
    that it named, or was given. outcome: a name of `dhcp.decide.Act` or of `dhcp.reason.Reason`."""

    at_utc_s: float
    what: str
    mac: str
    address: str
    outcome: str


class PoolClient(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A client that nobody declared: what it has or had from its port's pool, and what it said of itself, as far as it
    was heard since the responder runs."""

    lease: Lease
    seen_utc_s: float | None = None
    vendor: str = ""
    hostname: str = ""


class Unanswered(msgspec.Struct, frozen=True, kw_only=True):
    """A question for a name that got no answer. outcome: a name of `overlay.dns.history.Outcome`."""

    at_utc_s: float
    name: str
    kind: str
    outcome: str


class PortTold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of one port. counts: outcomes since since_utc_s; counts6: by DHCPv6, and of router solicitations.
    exchanges: the last ones of all. lease: of the port's own IPv4 address. client_id: hex digits; it, vendor, hostname:
    as its client said last. pool: leases of clients that nobody declared, ended ones too while they are
    remembered.

    leases6: of each IPv6 address that its client was given, or formed. given6: the addresses that DHCPv6 gives there.
    duid: hex digits. unanswered: the last questions for names that its addresses asked, and unnamed: for which reason
    how many; origin: the domain of its playground's names, "" where none are answered. stopped: questions for names
    that the port's guard let not through; the agent says so.
    """

    port: str
    since_utc_s: float
    counts: dict[str, int] = {}
    counts6: dict[str, int] = {}
    exchanges: tuple[Exchange, ...] = ()
    lease: Leased | None = None
    seen_utc_s: float | None = None
    client_id: str = ""
    vendor: str = ""
    hostname: str = ""
    pool: tuple[PoolClient, ...] = ()
    leases6: tuple[Leased, ...] = ()
    given6: tuple[str, ...] = ()
    duid: str = ""
    unanswered: tuple[Unanswered, ...] = ()
    unnamed: dict[str, int] = {}
    origin: str = ""
    stopped: int = 0


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an `Ask`; ports that are not answered for here are left out."""

    id: int
    ports: tuple[PortTold, ...]


class Update(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Agent → responder. Values stay undecoded: their key says what they are (`decode_value`). fence_utc_s: when no
    pool is given from any more. One that says that, or asks, changes nothing of the map and is not acknowledged."""

    seq: int
    set: dict[str, msgspec.Raw] = {}
    delete: tuple[str, ...] = ()
    whole: bool = False
    ask: Ask | None = None
    fence_utc_s: float | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Responder → agent; exactly one of the fields is there. ack: the `seq` of an update that is in effect. version:
    the responder's own, which it says first. given: a lease of a pool, its port a device's name."""

    ack: int | None = None
    leased: Leased | None = None
    given: Lease | None = None
    router: Router | None = None
    problem: Problem | None = None
    told: Told | None = None
    version: str | None = None


DATA_PLANE_KEY: Final = "netns"
"""Key of the one problem that is no key of the map: the data plane namespace, without which no port is answered."""


def port_key(port: str) -> str:
    """Key of a port's scope; port: 12 hex digits."""
    return f"port/{port}"


def view_key(playground: str) -> str:
    """Key of a playground's view."""
    return f"view/{playground}"


def name_key(playground: str, port: str) -> str:
    """Key of a port's names in its playground's view."""
    return f"name/{playground}/{port}"


def records_key(playground: str, network: str) -> str:
    """Key of the records that a network declares in its playground's view."""
    return f"records/{playground}/{network}"


_encoder = msgspec.json.Encoder()
_scopes = msgspec.json.Decoder(PortScope)
_views = msgspec.json.Decoder(View)
_names = msgspec.json.Decoder(Name)
_records = msgspec.json.Decoder(Records)
_updates = msgspec.json.Decoder(Update)
_reports = msgspec.json.Decoder(Report)


def encode_value(value: Value) -> msgspec.Raw:
    """JSON of one value of the map."""
    return msgspec.Raw(_encoder.encode(value))


def decode_value(key: str, raw: msgspec.Raw | bytes) -> Value:
    """The value under `key`. Raises msgspec.ValidationError for what does not fit, ValueError for a key of no kind."""
    match key.split("/"):
        case ["port", _]:
            return _scopes.decode(raw)
        case ["view", _]:
            return _views.decode(raw)
        case ["name", _, _]:
            return _names.decode(raw)
        case ["records", _, _]:
            return _records.decode(raw)
    raise ValueError(f"key {key!r} is none of port/…, view/…, name/…, records/…")


def encode_line(message: Update | Report) -> bytes:
    """One line, newline included."""
    return _encoder.encode(message) + b"\n"


def decode_update(line: bytes) -> Update:
    """Raises msgspec.ValidationError or msgspec.DecodeError."""
    return _updates.decode(line)


def decode_report(line: bytes) -> Report:
    """Raises msgspec.ValidationError or msgspec.DecodeError."""
    return _reports.decode(line)
