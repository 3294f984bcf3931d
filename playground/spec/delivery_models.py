"""Pure. The shape of `dhcp` and `boot`: what clients are told beyond addresses. `delivery` reads what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from dhcp import catalogue, catalogue6
from dhcp.catalogue import ARCHITECTURES, Option
from playground.spec import names
from playground.spec.base import Listed, Shape, described

OTHER = "other"
"""Key of `boot.file` for architectures that have no line of their own."""


def _lease(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"read {described(value)}; write seconds, or a number with s, m, h or d, as 1h")
    return names.seconds(value)


Lease = Annotated[int, BeforeValidator(_lease, json_schema_input_type=int | str)]


def _options_schema(options: Sequence[Option], kinds: Mapping[str, tuple[str, object]]) -> dict[str, Any]:
    """Every option by its name, and any by its number."""
    typed = {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": False}
    typed["properties"] = {kind: {"description": words} for kind, (words, _) in kinds.items()}
    by_name = {
        option.name: {"description": f"option {option.code}: {kinds[option.kind][0]}"}
        for option in sorted(options, key=lambda option: option.code)
    }
    return {
        "type": "object",
        "properties": by_name,
        "patternProperties": {"^[0-9]{1,5}$": {"anyOf": [{"not": {"type": "object"}}, typed]}},
        "additionalProperties": False,
    }


Options = Annotated[dict[str, Any], WithJsonSchema(_options_schema(catalogue.OPTIONS, catalogue.KINDS))]
Options6 = Annotated[dict[str, Any], WithJsonSchema(_options_schema(catalogue6.OPTIONS, catalogue6.KINDS))]


class DhcpShape(Shape):
    """`dhcp` of a network, a workspace or a NIC."""

    lease_time: Lease | None = Field(default=None, description="seconds, or 90s, 30m, 1h, 1d; at least 60 s")
    options: Options = Field(default={}, description="what clients are told, by the option's name or number")
    options6: Options6 = Field(default={}, description="the same by DHCPv6")


class NetworkDhcpShape(DhcpShape):
    """`dhcp` of a network."""

    dynamic: Listed = Field(
        default=[], description="ranges FIRST-LAST for machines behind NICs that allow such, which no one declared"
    )


class BootShape(Shape):
    """`boot` of a network or a workspace."""

    server: str | None = Field(default=None, description="IPv4 address of the TFTP server")
    server6: str | None = Field(default=None, description="its IPv6 address")
    file: str | dict[str, str] | None = Field(
        default=None, description=f"its name or URL; or one each for {', '.join(ARCHITECTURES)}, {OTHER}"
    )
    ipxe: str | None = Field(default=None, description="what iPXE itself is given: a script's name or URL")
    parameters: Listed = Field(default=[], description="what goes with the URL that a DHCPv6 client boots")
