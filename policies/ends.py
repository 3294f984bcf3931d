"""Pure. Ends of a connection as people name them, and what they are: endpoints, addresses of the world, services."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv6Address, ip_address

from policies.bitset import numbers
from policies.connections import WORLD, names
from policies.ir import FIRST_IDENTITY, HOST, IR, SERVICES
from policies.model import Scene
from policies.reach import Workspace
from policies.world import Span, do_meet


@dataclass(frozen=True, slots=True)
class WorkspaceEnd:
    """A workspace, by any of its ports; or, where networks is given, only by those on these."""

    workspace: Workspace
    networks: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class WorldEnd:
    """A part of the world, or, where spans is None, all of it. What is said of it holds for each of its addresses."""

    text: str = WORLD
    spans: tuple[Span, ...] | None = None

    @classmethod
    def at(cls, address: IPv4Address | IPv6Address) -> WorldEnd:
        """One address."""
        return cls(str(address), ((address.version, int(address), int(address)),))


@dataclass(frozen=True, slots=True)
class SpecialEnd:
    """`@services`, `@host` or `@gateway/NAME`, as named; of whichever workspace is at the other end."""

    name: str


End = WorkspaceEnd | WorldEnd | SpecialEnd


class UnknownEnd(ValueError):
    """A text names no end; says what is there."""


def parse_end(scene: Scene, text: str) -> End:
    """NAME, PLAYGROUND/NAME, an address, `@world`, `@services`, `@host` or `@gateway/NAME`.

    An address that an endpoint has is that workspace on that network, any other is the world's. Raises UnknownEnd.
    """
    if text == WORLD:
        return WorldEnd()
    gateways = sorted({f"@gateway/{gateway.name}" for gateway in scene.gateways})
    if text in ("@services", "@host", *gateways):
        return SpecialEnd(text)
    called = names(scene)
    found = [key for key, name in called.items() if text in (name, key[1], f"{key[0]}/{key[1]}")]
    if len(found) == 1:
        return WorkspaceEnd(found[0])
    if found:
        raise UnknownEnd(
            f"{text} is in several playgrounds; name one: {', '.join(sorted(called[key] for key in found))}"
        )
    try:
        address = ip_address(text)
    except ValueError:
        known = [*called.values(), WORLD, "@services", "@host", *gateways]
        near = get_close_matches(text, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UnknownEnd(
            f"{text!r} is no workspace, no address and none of {WORLD}, {', '.join(known[len(called) + 1 :])}{hint}"
        ) from None
    owners = [one for one in scene.endpoints if str(address) in one.addresses]
    if len({one.playground for one in owners}) > 1:
        raise UnknownEnd(f"{text} is in several playgrounds: {', '.join(sorted({one.playground for one in owners}))}")
    if owners:
        return WorkspaceEnd((owners[0].playground, owners[0].workspace), frozenset(one.network for one in owners))
    return WorldEnd.at(address)


def end_text(scene: Scene, end: End) -> str:
    """What an end is called in messages."""
    match end:
        case WorkspaceEnd(workspace):
            return names(scene).get(workspace, "/".join(workspace))
        case WorldEnd(text) | SpecialEnd(text):
            return text


@dataclass(frozen=True, slots=True)
class Port:
    """One of a workspace's ports, as the end that it is."""

    network: str
    end: int


def ports_of(ir: IR, end: WorkspaceEnd) -> list[Port]:
    """By network; several on one network if the workspace has ports there that policies tell apart."""
    playground, workspace = end.workspace
    return sorted(
        (
            Port(network, number)
            for number, identity in enumerate(ir.identities, FIRST_IDENTITY)
            if identity.playground == playground
            for network in {network for name, network in identity.members if name == workspace}
            if end.networks is None or network in end.networks
        ),
        key=lambda port: (port.network, port.end),
    )


def ends_outside(ir: IR, end: WorldEnd | SpecialEnd, playground: str) -> list[int]:
    """The ends that an outside end means for a workspace of a playground; empty: it owns that address itself."""
    match end:
        case SpecialEnd("@services"):
            return [SERVICES]
        case SpecialEnd("@host"):
            return [HOST]
        case SpecialEnd(name):
            wanted = playground, name.removeprefix("@gateway/")
            return [ir.first_gateway + ir.gateways.index(wanted)] if wanted in ir.gateways else []
        case WorldEnd(_, spans):
            cells = numbers(ir.world(playground))
            return [cell for cell in cells if spans is None or do_meet(ir.cells[cell - ir.first_cell], spans)]
