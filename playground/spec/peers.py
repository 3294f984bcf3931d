"""Pure. Whom the words of a file mean: selectors, names, `@…`, CIDRs and mappings, as peers. Knows no policies."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from playground.spec.policy_models import PeerShape
from playground.spec.problem import suggestion
from policies.model import (
    BlockPeer,
    EndpointPeer,
    GatewayPeer,
    HostPeer,
    Peer,
    SamePeer,
    ServicesPeer,
    Tier,
    WorldPeer,
)
from policies.selector import Operator, Selector, Term, is_label_key, is_selector, parse_selector

Network = IPv4Network | IPv6Network

DECLARED = "workspace:"
"""Label of every endpoint: its workspace's name in the file, which the instances of a scaled one share.

No file can write it: a label's key has no colon. So a bare word costs one identity, however many instances it means.
"""

_AT = ("@world", "@services", "@host", "@gateway/NAME")
_MAX_SUGGESTIONS = 20
"""Unknown words that are compared with all known ones; a near miss is dear to find among thousands."""


class PeerError(ValueError):
    """A peer is wrong. path: the keys below the peer at which it is."""

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path = path


@dataclass(slots=True)
class Words:
    """What words mean in one set of files.

    playground: whose files they are; "" for a site's, where words of one playground mean nothing. groups: None stands
    for one that has problems. workspaces: names as declared, with the number of instances, None for one that is not
    scaled. subnets: what is managed, as (prefix, network).
    """

    playground: str = ""
    groups: Mapping[str, Selector | None] = field(default_factory=dict)
    workspaces: Mapping[str, int | None] = field(default_factory=dict)
    gateways: Collection[str] = ()
    subnets: tuple[tuple[Network, str], ...] = ()
    _known: dict[str, Selector] = field(default_factory=dict)
    _unknown: int = 0

    @property
    def scope(self) -> frozenset[str] | None:
        """The playgrounds in which selectors look."""
        return frozenset({self.playground}) if self.playground else None

    def peer(self, shape: PeerShape, tier: Tier | None) -> Peer:
        """A peer of a policy of this tier, or, without one, of a test. Raises PeerError."""
        keys = {key for key, name in shape.keys().items() if name in shape.model_fields_set}
        match keys:
            case _ if keys == {"select"} and shape.select is not None:
                return self._text(shape.select, tier)
            case _ if keys == {"cidr"} or keys == {"cidr", "except"}:
                return self._block(shape.cidr or "", shape.except_)
            case _ if keys == {"same"}:
                return self._same(shape.same or "", tier)
            case _ if keys == {"playground", "select"}:
                return EndpointPeer(_elsewhere(shape.select or ""), frozenset({shape.playground or ""}))
        forms = "{cidr, except}, {playground, select}, {same: LABEL}"
        raise PeerError(f"read a mapping with {', '.join(sorted(keys)) or 'no key'}; write one of {forms}, or a text")

    def endpoints(self, text: str) -> EndpointPeer:
        """A subject. Raises PeerError."""
        if text.startswith("@") or _is_address(text):
            raise PeerError(f"{text!r} is no workspace; a subject is a selector, a group or a workspace")
        return EndpointPeer(self.selector(text), self.scope)

    def everybody(self) -> tuple[Peer, ...]:
        """What an absent `from` or `to` means: all but `@services`, which have to be named."""
        return (
            EndpointPeer(parse_selector("*"), None),
            WorldPeer(),
            HostPeer(),
            *(GatewayPeer(name) for name in sorted(self.gateways)),
        )

    def selector(self, text: str) -> Selector:
        """A selector, or the word for one. Raises PeerError."""
        known = self._known.get(text)
        if known is None:
            known = self._known[text] = _parsed(text) if is_selector(text) else self._word(text.strip())
        return known

    def _word(self, word: str) -> Selector:
        if not self.playground:
            raise PeerError(
                f"{word[:60]!r} is a word of one playground, and a site's policies are about all; "
                f"write a selector, as workspace={word[:60] or 'NAME'}"
            )
        if word in self.groups:
            return self.groups[word] or Selector(word, ())
        if word in self.workspaces:
            return Selector(word, (Term(DECLARED, Operator.IN, frozenset({word})),))
        declared, dash, index = word.rpartition("-")
        scale = self.workspaces.get(declared) if dash else None
        if scale is not None and index.isascii() and index.isdecimal() and str(int(index)) == index:
            if int(index) < scale:
                return Selector(word, (Term("workspace", Operator.IN, frozenset({word})),))
            last = f"{declared}-0 to {declared}-{scale - 1}" if scale else "none"
            raise PeerError(f"there is no {word}; the instances of {declared} are {last}")
        hint = self.hint(word, (*self.groups, *self.workspaces), "; the file has neither")
        raise PeerError(f"{word[:60]!r} is no group and no workspace{hint}")

    def hint(self, word: str, known: Collection[str], otherwise: str) -> str:
        """What may have been meant, for the first unknown words; otherwise: where nothing is known at all."""
        if not known:
            return otherwise
        self._unknown += 1
        return suggestion(word, known) if self._unknown <= _MAX_SUGGESTIONS else ""

    def _text(self, text: str, tier: Tier | None) -> Peer:
        if text.startswith("@"):
            return self._at(text, tier)
        if _is_address(text):
            return self._block(text, ())
        return EndpointPeer(self.selector(text), self.scope)

    def _at(self, text: str, tier: Tier | None) -> Peer:
        match text:
            case "@world":
                return WorldPeer()
            case "@host":
                return HostPeer()
            case "@services" if tier in (None, Tier.ADMIN):
                return ServicesPeer()
            case "@services":
                raise PeerError("@services are always reachable; only a site's admin tier may say otherwise")
        name = text.removeprefix("@gateway/")
        if name == text:
            raise PeerError(f"unknown word {text[:60]!r}{suggestion(text, _AT)}")
        if self.playground and name not in self.gateways:
            hint = self.hint(name, self.gateways, "; the file has no gateways")
            raise PeerError(f"there is no gateway {name[:60]!r}{hint}")
        return GatewayPeer(name)

    def _same(self, label: str, tier: Tier | None) -> Peer:
        if tier is None:
            raise PeerError("same has no meaning in a test, where nobody is the subject; name both ends")
        if not is_label_key(label):
            raise PeerError(f"{label[:80]!r} is no label; write one, as {{same: team}}", "same")
        return SamePeer(label)

    def _block(self, text: str, excepted: Iterable[str]) -> Peer:
        cidr = _cidr(text)
        for subnet, network in self.subnets:
            if cidr.version == subnet.version and cidr.subnet_of(subnet):  # type: ignore[arg-type]
                raise PeerError(
                    f"{text} lies in {subnet} of network {network}, and a CIDR never matches workspaces; "
                    f"write a selector, as network={network}"
                )
        holes = []
        for index, hole in enumerate(excepted):
            try:
                left_out = _cidr(hole)
            except PeerError as error:
                raise PeerError(str(error), "except", index) from None
            if left_out.version != cidr.version or not left_out.subnet_of(cidr):  # type: ignore[arg-type]
                raise PeerError(f"{hole} lies not in {cidr}; leave it out", "except", index)
            holes.append(left_out)
        return BlockPeer(cidr, tuple(holes))


def _parsed(text: str) -> Selector:
    try:
        return parse_selector(text)
    except ValueError as error:
        raise PeerError(str(error)) from None


def _elsewhere(text: str) -> Selector:
    """A selector over another playground, whose names this file doesn't know."""
    if not is_selector(text):
        raise PeerError(
            f"{text[:60]!r} is a name, and those of other playgrounds are not known here; "
            f"write a selector, as workspace={text[:60] or 'NAME'}",
            "select",
        )
    try:
        return parse_selector(text)
    except ValueError as error:
        raise PeerError(str(error), "select") from None


def _is_address(text: str) -> bool:
    """No name of a group or workspace has one of these signs, no address is without."""
    return not is_selector(text) and any(sign in text for sign in ".:/")


def _cidr(text: str) -> Network:
    parse: Callable[[str], Network] = ipaddress.ip_network
    try:
        return parse(text.strip())
    except ValueError as error:
        if "has host bits" in str(error):
            raise PeerError(
                f"{text} has host bits set; write {ipaddress.ip_network(text.strip(), strict=False)}"
            ) from None
        raise PeerError(f"{text[:60]!r} is no CIDR; write one as 192.0.2.0/24 or 2001:db8::/32") from None
