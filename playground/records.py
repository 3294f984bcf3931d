"""The records that the store holds, their keys, and how they are encoded. Frozen; the only shared words of controller
and agent.

Every record carries `schema`, the version of its own shape: a reader meets an older one with defaults, and refuses a
newer one by name (`RecordTooNew`) instead of guessing.
"""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from dhcp.leases import Lease
from dhcp.scope import Boot
from playground.inventory import ALL, Neighbours, Share
from playground.machine import Machine
from playground.manner import PLAIN, Manner
from policies.codec import PackedPolicy

SCHEMA = 3
"""The newest shape of any record."""

SITE_POLICIES = "@site"
"""Stands for the playground in records of the site's own policies; no playground's name begins so."""

SITE_KEY = "site"
"""Where the accepted file of the site's policies stands."""

LARGEST = 1_000_000
"""Most bytes of one record: with its key it fits a commit of every engine."""

LEARNED = "learned"
"""Stands for the change that took a claim, of addresses that clients formed themselves."""

Files = Mapping[str, Sequence[tuple[str, str]]]
"""Pattern → the files that it matched, as (name, text), in order."""


class RecordTooNew(Exception):
    """A record was written by a newer version; upgrade this process before it touches the store."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", omit_defaults=False):
    # gc=False: records hold texts, numbers and plain containers of these, so no cycle goes through one
    schema: int = 1


Move = Literal["live", "cold", "same-kernel"]
Desired = Literal["running", "suspended", "saved", "stopped"]
Phase = Literal["bound", "requested", "prepared", "copying", "landing", "activated"]
"""A binding's place in a move; "bound" is at rest (settled and aborted moves both end there). "landing": a hypervisor
has copied the workspace, which stands still until it goes on at the target: what comes for it waits there."""


Led = Literal["", "tool", "hypervisor"]
"""Who says when a move goes on: "" we do; "tool": whoever moves a port of its own, by the binding API; "hypervisor": a
hypervisor that somebody else had begin it."""


class Driver(msgspec.Struct, frozen=True):
    """What a host says of one of its workspace drivers. domain: moves of kind same-kernel work between equal domains.
    peer: how other hosts' hypervisors reach this one's; empty where none copies workspaces. archs: of the processors
    that it has or emulates; none where nobody says. folder: where this one has what it makes for its guests. types: of
    the machines that it runs, as kvm or lxc; none where nobody says."""

    name: str
    move: Move
    domain: str = ""
    peer: str = ""
    archs: tuple[str, ...] = ()
    folder: str = ""
    types: tuple[str, ...] = ()


class HostRecord(_Record, frozen=True, kw_only=True, tag="host"):
    """A VMM host. underlay: its tunnel address. token_sha256: of the secret that its agent dials in with. cpus,
    memory_mib: what the site file says that it has, None where that is its agent's to say; found_cpus and
    found_memory_mib are what that says. facts: what its agent found and was told to offer, as labels are."""

    name: str
    site: str
    underlay: str
    underlay_mtu: int = 1500
    labels: dict[str, str] = {}
    cpus: float | None = None
    memory_mib: int | None = None
    token_sha256: str = ""
    drivers: tuple[Driver, ...] = ()
    version: str = ""
    share: Share = ALL
    found_cpus: float | None = None
    found_memory_mib: int | None = None
    facts: dict[str, str] = {}


class AliveRecord(_Record, frozen=True, kw_only=True, tag="alive"):
    """Exists while the host's agent keeps its lease; session tells one connection from the next."""

    host: str
    session: str


class DrainRecord(_Record, frozen=True, kw_only=True, tag="drain"):
    """Somebody wants a host empty: while this exists nothing is placed on it, and what is there leaves, so many at a
    time."""

    host: str
    began_utc_s: float
    parallel: int = 2


class Named(msgspec.Struct, frozen=True):
    """A DNS record that the file declares. name: relative to the playground. type: CNAME, SRV or TXT.

    data: as zone files write it (of a TXT the text itself); a name in it ends in a dot or is relative to the
    playground.
    """

    name: str
    type: str
    data: str


class NetworkRecord(_Record, frozen=True, kw_only=True, tag="network"):
    """One L2 overlay. gateways: the service leg's address per subnet, in the subnets' order. mtu: guest IP packet,
    bytes.

    forward: whether the site's resolvers are asked for its workspaces. transfer: prefixes whose workspaces may copy all
    names. names: records that the file declares. options, options6, boot: what DHCPv4 and DHCPv6 clients are told,
    unless their port says other; codes with values as on the wire. ntp: addresses, in records from before there were
    options.
    ipv6: slaac, dhcp or both. dynamic: ranges FIRST-LAST for machines that no one declared.
    """

    playground: str
    name: str
    id: str
    vni: int
    mtu: int
    subnets: tuple[str, ...]
    gateways: tuple[str, ...]
    lease_s: int = 3600
    ntp: tuple[str, ...] = ()
    forward: bool = True
    transfer: tuple[str, ...] = ()
    names: tuple[Named, ...] = ()
    options: tuple[tuple[int, bytes], ...] = ()
    boot: Boot | None = None
    options6: tuple[tuple[int, bytes], ...] = ()
    ipv6: str = "slaac"
    dynamic: tuple[str, ...] = ()


class WorkspaceRecord(_Record, frozen=True, kw_only=True, tag="workspace"):
    """A workspace as declared and as placed. host is None until placed; ports are port ids in NIC order (eth0 first).

    generation grows with each (re)placement or start and stop; a report that answers an older one is dropped.
    placed: the number of its placement, of the same count as those of moves: what ran under its name before that is
    another guest, and no move up to it counts. 0 until placed.
    overridden: the pin that a move by hand went against; the file's word counts again when it is another one. machine:
    of one on a hypervisor. grace_s: how long it has to end when it is asked to, None for its driver's own; hurry_s:
    what whoever stopped it said instead. reboots, resumes: how many of each have been asked for so far. requires:
    words and selectors that its host has to meet. neighbours: None for any.
    """

    playground: str
    name: str
    id: str
    driver: str
    ports: tuple[str, ...]
    labels: dict[str, str] = {}
    pin: str | None = None
    overridden: str | None = None
    cpus: float = 0.0
    memory_mib: int = 0
    machine: Machine | None = None
    desired: Desired = "running"
    host: str | None = None
    generation: int = 1
    placed: int = 0
    reason: str = ""
    grace_s: float | None = None
    hurry_s: float | None = None
    reboots: int = 0
    resumes: int = 0
    requires: tuple[str, ...] = ()
    neighbours: Neighbours | None = None

    @property
    def made_of(self) -> tuple[float, int, Machine] | None:
        """What a hypervisor has to make anew when it is another: processors, memory, the rest; None of all others."""
        return (self.cpus, self.memory_mib, self.machine) if self.machine is not None else None


class PortRecord(_Record, frozen=True, kw_only=True, tag="port"):
    """A workspace's NIC on a network, or a gateway's leg (`playground.gateways`). addresses: plain, IPv4 first.

    index: 0 is eth0. router: the gateway that its client is told of as its default router, or "". aliases: names beside
    the workspace's own, relative to the playground.

    labels: all that policies may ask of it: the workspace's, the NIC's own and the built-in ones
    (`playground.spec.scene.endpoint_labels`); in schema 1 the NIC's own alone. lease_s, options, options6, boot: as
    the network's, before which they count. allowed_addresses, allowed_macs: what it may use beside its own; addresses
    plain, or prefixes of more than one. leads: those that other clients of its network are told to reach by it.
    dynamic: most machines behind it that get addresses of the network's dynamic ranges.
    """

    schema: int = 2
    playground: str
    workspace: str
    network: str
    network_id: str
    id: str
    mac: str
    addresses: tuple[str, ...]
    index: int = 0
    labels: dict[str, str] = {}
    router: str = ""
    aliases: tuple[str, ...] = ()
    lease_s: int | None = None
    options: tuple[tuple[int, bytes], ...] = ()
    boot: Boot | None = None
    options6: tuple[tuple[int, bytes], ...] = ()
    allowed_addresses: tuple[str, ...] = ()
    allowed_macs: tuple[str, ...] = ()
    leads: tuple[str, ...] = ()
    dynamic: int = 0


class PolicyRecord(_Record, frozen=True, kw_only=True, tag="policy"):
    """One policy of a playground, or of the site (SITE_POLICIES).

    name: as in the file; of one that has none there `~` and a hash of its body, so that it is the same policy wherever
    it stands. Where policies and rules were written is said by the accepted files alone, which a change of lines does
    not make others.
    """

    schema: int = 2
    playground: str
    name: str
    body: PackedPolicy


class PoliciesRecord(_Record, frozen=True, kw_only=True, tag="policies"):
    """The change that wrote or deleted policies last, committed with the last of them: a host that has converged to its
    revision has them all, also those that are gone. playground: as in PolicyRecord."""

    schema: int = 2
    playground: str
    change: str


class BindingRecord(_Record, frozen=True, kw_only=True, tag="binding"):
    """Where a port is: the value of `claim/active/PORT`, so that only one host can ever be active.

    At rest source == active and target is None. In a move, source and target are both set and active says who carries
    the traffic; generation grows with every change of active, and a late report of an older one is dropped. leased: the
    addresses that the client held when it came to its active host: it asks again only when it renews. learned: IPv6
    addresses that it formed itself beside the port's own, claimed for it. routers: MACs of virtual routers, which other
    ports may have too and this one was the last to speak from. copied: the move under way is its hypervisor's.
    """

    port: str
    playground: str
    workspace: str
    active: str
    source: str
    target: str | None = None
    generation: int = 1
    phase: Phase = "bound"
    copied: bool = False
    leased: tuple[str, ...] = ()
    learned: tuple[str, ...] = ()
    routers: tuple[str, ...] = ()


class ClaimRecord(_Record, frozen=True, kw_only=True, tag="claim"):
    """A key that can be created once (address, MAC, VNI). owner: the port's or network's id. change: who took it;
    LEARNED where no file names it.

    previous: the port that had it until it went over to the owner, which waits until no host holds it for that one.
    """

    owner: str
    playground: str
    change: str
    previous: str = ""


class Block(msgspec.Struct, frozen=True):
    """Addresses that one host gives to machines behind a port, claimed one by one. host: who gives them, while the
    port's binding is of the generation `stay`; while closing it is to give none any more, and nobody else does until it
    has said what it gave. longest_s: the longest lease that it gives. silent_utc_s: since when it is closing and not
    heard, 0.0 while it is."""

    first: str
    last: str
    host: str
    stay: int
    longest_s: int
    closing: bool = False
    silent_utc_s: float = 0.0


class DynamicRecord(_Record, frozen=True, kw_only=True, tag="dynamic"):
    """What machines that no one declared have of a port: addresses and MACs that may be used there, claimed for it.

    leases: what a host gave before in blocks that are another's now, or will be.
    """

    playground: str
    network_id: str
    port: str
    blocks: tuple[Block, ...] = ()
    machines: tuple[str, ...] = ()
    leases: tuple[Lease, ...] = ()


class PlaygroundRecord(_Record, frozen=True, kw_only=True, tag="playground"):
    """The root pointer of one playground: the accepted file, whole, with those that it includes. state "removing" is
    rolled forward to nothing.

    files: all of them, as `pack_files` makes it; up to schema 2, text is the file itself, and more those included.
    """

    schema: int = 3
    name: str
    file: str
    files: bytes = b""
    text: str = ""
    more: bytes = b""
    change: str
    generation: int = 1
    state: Literal["present", "removing"] = "present"

    def accepted(self) -> tuple[str, Files]:
        """The file's text, and the included files by the pattern that matched them. Raises zlib.error or
        msgspec.DecodeError for what `pack_files` never made."""
        if self.files:
            return unpack_files(self.files)
        return self.text, _files.decode(zlib.decompress(self.more)) if self.more else {}


class SiteRecord(_Record, frozen=True, kw_only=True, tag="site"):
    """The accepted file of the site's policies. files: as `pack_files` makes it. change: of the policies' last change.

    own: a digest of the policies of the file that the controller was started with, when it was last looked at; "" when
    it had none.
    """

    schema: int = 3
    file: str
    files: bytes
    change: str
    own: str = ""


class ChangeRecord(_Record, frozen=True, kw_only=True, tag="change"):
    """A change that is taking its claims. One that its writer never finished is swept with all its claims."""

    id: str
    playground: str
    started_utc_s: float


class MigrationRecord(_Record, frozen=True, kw_only=True, tag="migration"):
    """A workspace's move, driven by the controller. state: see `playground.workspaces.migration`.

    by_hand: somebody asked for it, and may have gone against the file's `host:`. led: by whom. came: the number by
    which it is at the source. manner: how it is to be made. to: of one that the source's hypervisor makes, how it
    reaches the target's; folder: where that has what it makes for guests; is_one_kernel: its disks are the very same
    files there. called_off: that hypervisor is told to stop; it alone knows whether it still can.

    phases: states with the time (UTC, s) at which each began. gap_utc_s: when the longest silence began; losses: when
    packets were sent that got lost, and how many in a row.
    """

    playground: str
    workspace: str
    source: str
    target: str
    state: str
    generation: int
    started_utc_s: float
    deadline_utc_s: float
    by_hand: bool = True
    led: Led = ""
    came: int = 0
    manner: Manner = PLAIN
    to: str = ""
    folder: str = ""
    is_one_kernel: bool = False
    called_off: bool = False
    cause: str = ""
    gap_ms: float | None = None
    lost: int | None = None
    duplicated: int | None = None
    pause_ms: float | None = None
    phases: tuple[tuple[str, float], ...] = ()
    gap_utc_s: float | None = None
    losses: tuple[tuple[float, int], ...] = ()
    finished_utc_s: float | None = None

    @property
    def promise(self) -> str:
        """What became of `manner.max_gap_ms`: kept, broken or unknown; "" where there was none, or nothing moved."""
        if not self.manner.max_gap_ms or self.state != "settled" or self.finished_utc_s is None:
            return ""
        if self.gap_ms is None:
            return "unknown"
        return "kept" if self.gap_ms <= self.manner.max_gap_ms else "broken"


class ObservedPort(_Record, frozen=True, kw_only=True, tag="observed-port"):
    """What a host says of a port it carries. programmed: forwarding | gated | waiting | failed. leased: addresses
    acknowledged. routers: MACs of virtual routers that spoke there while the binding named another port, or none, and
    when they did so last (seconds since the epoch, by the host's clock)."""

    port: str
    host: str
    generation: int
    programmed: str
    cause: str = ""
    leased: tuple[str, ...] = ()
    routers: dict[str, float] = {}


class Copied(msgspec.Struct, frozen=True):
    """How the copying of a workspace stands: running, paused (it stands still, about to go on at the target), done or
    failed. move: the move that it is for. done: of its memory, 0 to 1."""

    move: int
    state: Literal["running", "paused", "done", "failed"]
    cause: str = ""
    done: float = 0.0
    pause_ms: float | None = None


class ObservedLeases(_Record, frozen=True, kw_only=True, tag="observed-leases"):
    """What a host gave to machines behind a port, or declared unusable; what has ended is left out."""

    port: str
    host: str
    leases: tuple[Lease, ...] = ()


class ObservedWorkspace(_Record, frozen=True, kw_only=True, tag="observed-workspace"):
    """What a host says of a workspace. state: preparing | prepared | announced | running | suspended | saved | stopped
    | failed | leaving. "announced": the machine itself says that it runs here, and its hypervisor has not yet.

    generation: the workspace's own, or the move's while it arrives. pause_ms: how long it stood still when it arrived.
    copied: of the one that leaves by its hypervisor, how that stands. reboots: how many had been asked for when it was
    made. ended: how often it has ended by itself here, and why it did last.
    """

    playground: str
    workspace: str
    host: str
    generation: int
    state: str
    cause: str = ""
    pause_ms: float | None = None
    copied: Copied | None = None
    reboots: int = 0
    ended: int = 0
    ended_cause: str = ""


class Stranger(msgspec.Struct, frozen=True):
    """A port's MAC that announced itself where it does not belong. port: whose it is, by id. at: the port where that
    was, by id; "" where it came in by the tunnel."""

    port: str
    mac: str
    at: str
    since_utc_s: float


class ObservedHost(_Record, frozen=True, kw_only=True, tag="observed-host"):
    """What a host says of itself. applied: the store revision that its data plane has converged to; served: that by
    which its responder answers, with all that it gave before said. repaired: drift found and mended since the agent
    started, by kind of object. cannot_police: why it can enforce no policy, "" when it can. strangers: whom it has not
    believed lately."""

    host: str
    version: str
    applied: int = 0
    served: int = 0
    cannot_police: str = ""
    repaired: dict[str, int] = {}
    problems: tuple[str, ...] = ()
    strangers: tuple[Stranger, ...] = ()


class ProbeRecord(_Record, frozen=True, kw_only=True, tag="probe"):
    """The last probe of a playground: what `status` shows as probed, with its age. pairs: those that were tried;
    unobserved: those that could not be."""

    playground: str
    at_utc_s: float
    pairs: int
    mismatches: int
    unobserved: int = 0
    failed: tuple[str, ...] = ()


class EventRecord(_Record, frozen=True, kw_only=True, tag="event"):
    """Something that happened, for people. id grows by one; object: like `workspace atlas/worker-1`; what: its kind."""

    id: int
    at_utc_s: float
    what: str
    object: str
    text: str


Record = (
    HostRecord
    | AliveRecord
    | DrainRecord
    | NetworkRecord
    | WorkspaceRecord
    | PortRecord
    | PolicyRecord
    | PoliciesRecord
    | BindingRecord
    | ClaimRecord
    | DynamicRecord
    | PlaygroundRecord
    | SiteRecord
    | ChangeRecord
    | MigrationRecord
    | ObservedPort
    | ObservedLeases
    | ObservedWorkspace
    | ObservedHost
    | ProbeRecord
    | EventRecord
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
_accepted: msgspec.json.Decoder[tuple[str, Files]] = msgspec.json.Decoder(tuple[str, Files])
_files: msgspec.json.Decoder[Files] = msgspec.json.Decoder(Files)


def pack_files(text: str, included: Files) -> bytes:
    """A file's text and those that it includes. Compressed: policies say much alike, and a record has to fit one
    commit."""
    return zlib.compress(_encoder.encode((text, included)))


def unpack_files(packed: bytes) -> tuple[str, Files]:
    """What `pack_files` was given. Raises zlib.error or msgspec.DecodeError for what it never made."""
    return _accepted.decode(zlib.decompress(packed))


class _Version(msgspec.Struct):
    schema: int = 0


def encode(record: Record) -> bytes:
    """JSON bytes of a record, fields in declaration order."""
    return _encoder.encode(record)


def decode(value: bytes) -> Record:
    """The record in `value`. Raises RecordTooNew for a newer schema, msgspec.ValidationError for what is no record."""
    version = msgspec.json.decode(value, type=_Version).schema
    if version > SCHEMA:
        raise RecordTooNew(
            f"a record has schema {version}, this version reads up to {SCHEMA}; upgrade this process first"
        )
    return _decoder.decode(value)


def key_of(record: Record) -> str:
    """The one key under which a record stands. ClaimRecords have no key of their own: see the `*_claim` functions."""
    match record:
        case HostRecord():
            return f"host/{record.name}"
        case AliveRecord():
            return f"alive/{record.host}"
        case DrainRecord():
            return f"drain/{record.host}"
        case NetworkRecord():
            return f"network/{record.playground}/{record.name}"
        case WorkspaceRecord():
            return f"workspace/{record.playground}/{record.name}"
        case PortRecord():
            return f"port/{record.playground}/{record.workspace}/{record.network}"
        case PolicyRecord():
            return policy_key(record.playground, record.name)
        case PoliciesRecord():
            return f"policies/{record.playground}"
        case BindingRecord():
            return f"claim/active/{record.port}"
        case DynamicRecord():
            return f"dynamic/{record.playground}/{record.port}"
        case PlaygroundRecord():
            return f"playground/{record.name}"
        case SiteRecord():
            return SITE_KEY
        case ChangeRecord():
            return f"change/{record.id}"
        case MigrationRecord():
            return f"migration/{record.playground}/{record.workspace}"
        case ObservedPort():
            return f"observed/port/{record.port}/{record.host}"
        case ObservedLeases():
            return f"observed/leases/{record.port}/{record.host}"
        case ObservedWorkspace():
            return f"observed/workspace/{record.playground}/{record.workspace}/{record.host}"
        case ObservedHost():
            return f"observed/host/{record.host}"
        case ProbeRecord():
            return f"probe/{record.playground}"
        case EventRecord():
            return f"event/{record.id:012d}"
        case ClaimRecord():
            raise TypeError("a claim's key is the thing claimed, not the record's")


def policy_key(playground: str, name: str) -> str:
    """Key of a policy; playground: SITE_POLICIES for the site's."""
    return f"policy/{playground}/{name}"


def address_claim(network_id: str, address_hex: str) -> str:
    """Key that claims an address in a network; hex: 8 digits for IPv4, 32 for IPv6."""
    return f"claim/addr/{network_id}/{address_hex}"


def mac_claim(network_id: str, mac: str) -> str:
    """Key that claims a MAC in a network."""
    return f"claim/mac/{network_id}/{mac.replace(':', '')}"


def vni_claim(vni: int) -> str:
    """Key that claims a VNI in the site."""
    return f"claim/vni/{vni}"


@functools.lru_cache(maxsize=65536)
def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def network_id(playground: str, network: str) -> str:
    """12 hex digits, a function of the names: a network made anew finds its devices."""
    return _digest("network", playground, network)[:12]


def playground_id(playground: str) -> str:
    """12 hex digits, a function of the name."""
    return _digest("playground", playground)[:12]


def workspace_id(playground: str, workspace: str) -> str:
    """12 hex digits, a function of the names."""
    return _digest("workspace", playground, workspace)[:12]


def port_id(playground: str, workspace: str, network: str) -> str:
    """12 hex digits, a function of the names."""
    return _digest("port", playground, workspace, network)[:12]
