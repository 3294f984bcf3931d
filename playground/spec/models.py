"""Pure. The shape of the files: keys, types, short forms, and which keys are designed but not built yet.

Knows nothing of what the values mean together; that is `network`, `workspace` and `site`. The JSON Schema is made from
here, so an editor and `load_*` agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from overlay.mac import parse_mac
from playground.spec import names


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _as_nic(value: object) -> object:
    return {"network": value} if isinstance(value, str) else value


def _lease(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"read {described(value)}; write seconds, or a number with s, m, h or d, as 1h")
    return names.seconds(value)


def _nothing_yet(what: str, instead: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value:
            raise ValueError(f"{what} are not built yet; {instead}")
        return value

    return check


def described(value: object) -> str:
    """What was read, for a message: short, and with its kind where the kind is the mistake."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the truth value {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "…")
        case list():
            return "a list"
        case _:
            return "a mapping"


class Shape(BaseModel):
    """A mapping of the file. Unknown keys are refused, `x-` keys left out, a key without a value counts as absent."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        json_schema_extra={"patternProperties": {"^x-": {}}},
    )
    not_yet: ClassVar[frozenset[str]] = frozenset()
    """Keys that the design names and this version refuses."""

    only_yet: ClassVar[bool] = False
    """Whether every other key is one that is not built yet, rather than a mistake."""

    elsewhere: ClassVar[Mapping[str, str]] = {}
    """Keys of the other kind of file, and where they belong."""

    @classmethod
    def keys(cls) -> dict[str, str]:
        """Key in the file → field."""
        return {field.alias or name: name for name, field in cls.model_fields.items()}

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, value: Any) -> Any:
        if value is None:
            return {}
        if not isinstance(value, dict):
            return value
        keys = cls.keys()
        return {
            key: item for key, item in value.items() if not key.startswith("x-") and not (item is None and key in keys)
        }


Listed = Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=str | list[str])]
"""A list of texts; one text is short for a list of one."""

Labels = dict[str, str]
Mac = Annotated[str, AfterValidator(parse_mac)]
Lease = Annotated[int, BeforeValidator(_lease, json_schema_input_type=int | str)]
Cpus = Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]


def _mebibytes(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError(f"read {described(value)}; write a size with its unit MiB, GiB or TiB, as 512MiB")
    return names.mebibytes(value)


Memory = Annotated[int, BeforeValidator(_mebibytes, json_schema_input_type=str)]


class DhcpOptionsShape(Shape):
    """`dhcp.options`: what clients are told beyond what the network itself says."""

    only_yet = True
    ntp_servers: Listed = Field(default=[], alias="ntp-servers", description="IPv4 addresses of time servers")


class DhcpShape(Shape):
    """`dhcp` of a network."""

    not_yet = frozenset({"dynamic"})
    lease_time: Lease = Field(default=3600, description="seconds, or 90s, 30m, 1h, 1d; at least 60 s")
    options: DhcpOptionsShape = DhcpOptionsShape()


class NetworkShape(Shape):
    """A network."""

    not_yet = frozenset({"ipv6", "boot", "mtu", "encryption"})
    subnets: Listed = Field(description="IPv4 prefixes and IPv6 /64s", min_length=1)
    pools: Listed = Field(default=[], description="ranges FIRST-LAST from which ports get IPv4 addresses")
    exclude: Listed = Field(default=[], description="addresses and ranges that no port gets unless fixed to it")
    gateway: Listed = Field(default=[], description="one address a subnet; default: its first")
    dhcp: DhcpShape = DhcpShape()


class NicShape(Shape):
    """A workspace's place on one network."""

    not_yet = frozenset({"bandwidth", "allow", "aliases", "default_route"})
    network: str
    labels: Labels = {}
    addresses: Listed = Field(default=[], description="a fixed IPv4 address")
    address: str | None = Field(default=None, description="short for addresses: [A]")
    mac: Mac | None = Field(default=None, description="a fixed MAC; default: derived from names")


Nic = Annotated[NicShape, BeforeValidator(_as_nic, json_schema_input_type=str | NicShape)]
Nics = Annotated[
    list[Nic],
    BeforeValidator(_as_list, json_schema_input_type=str | NicShape | list[str | NicShape]),
    Field(min_length=1),
]


class WorkspaceShape(Shape):
    """A workspace, or with `scale` several."""

    not_yet = frozenset(
        {"image", "disks", "requires", "arch", "depends_on", "context", "provides", "lease", "level"},
    )
    networks: Nics = Field(description="networks by name, or with labels, addresses and mac")
    scale: int | None = Field(default=None, ge=0, le=10_000, description="number of instances NAME-0, NAME-1, …")
    labels: Labels = {}
    host: str | None = Field(default=None, description="a host's name, or a selector over host labels")
    driver: str = Field(
        default="netns", description="netns or external", json_schema_extra={"enum": ["netns", "external"]}
    )
    cpus: Cpus | None = Field(default=None, description="taken of a host's declared capacity")
    memory: Memory | None = Field(default=None, description="taken of a host's declared capacity, as 512MiB")


class PlaygroundShape(Shape):
    """A playground file."""

    not_yet = frozenset({"gateways", "links", "include"})
    elsewhere = dict.fromkeys(
        ("hosts", "domain", "resolvers"), "a site's file, which `playground controller --site-file` reads"
    )
    name: str
    networks: dict[str, NetworkShape] = {}
    workspaces: dict[str, WorkspaceShape] = {}
    groups: Annotated[dict[str, Any], AfterValidator(_nothing_yet("groups", "leave them out"))] = {}
    policies: Annotated[list[Any], AfterValidator(_nothing_yet("policies", "leave them out: everything may pass"))] = []
    tests: Annotated[list[Any], AfterValidator(_nothing_yet("tests", "leave them out"))] = []


class CapacityShape(Shape):
    """What a host declares for workspaces; a key left out is no limit."""

    cpus: Cpus | None = None
    memory: Memory | None = Field(default=None, description="as 32GiB")


class HostShape(Shape):
    """A host of a site."""

    underlay: str = Field(description="the address of its tunnels")
    labels: Labels = {}
    capacity: CapacityShape = CapacityShape()


class SiteShape(Shape):
    """A site file."""

    elsewhere = dict.fromkeys(("networks", "workspaces", "groups"), "a playground's file, which `playground up` reads")
    name: str
    domain: str = Field(default="internal", description="what names end in")
    resolvers: Listed = Field(default=[], description="addresses of name servers for all other names")
    hosts: dict[str, HostShape] = {}
    links: Annotated[
        list[Any], AfterValidator(_nothing_yet("links", "leave them out: hosts reach each other plainly"))
    ] = []
    policies: Annotated[list[Any], AfterValidator(_nothing_yet("policies", "leave them out"))] = []
