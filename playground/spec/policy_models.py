"""Pure. The shape of what files say of connectivity: groups, policies of both kinds of file, tests, gateways.

Knows nothing of whom words name; that is `peers` and `policies`. What would open more than a reader of the file expects
(an empty list of peers or ports, a key without a value) is refused here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field

from playground.spec.base import Listed, Shape, as_list, described
from playground.spec.problem import suggestion
from policies.model import Action, Mode, OnDeny, Tier

_OWN_FILE = "the playground's own file, which includes this one"
_SITES = "a site file's policies; a playground's only allow"

FORMS = "write a selector as role=worker, a name, @world, a CIDR, or a mapping"
"""Of peers, for messages."""


def one_of(what: str, words: type[Enum] | tuple[str, ...]) -> Any:
    """A text that is one of the words."""
    allowed = words if isinstance(words, tuple) else tuple(str(word.value) for word in words)

    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"unknown {what} {value[:60]!r}{suggestion(value, allowed)}")
        return value

    return Annotated[str, AfterValidator(check), Field(json_schema_extra={"enum": list(allowed)})]


def _refusing(empty: str, nothing: str) -> Callable[[Any], Any]:
    """A list, or one item; a null or `[]` that one might take for everything is refused. empty: "" allows `[]`."""

    def check(value: Any) -> Any:
        if value is None:
            raise ValueError(f"read nothing; {nothing}")
        if value == [] and empty:
            raise ValueError(f"the list is empty; {empty}")
        return as_list(value)

    return check


def _as_peer(value: object) -> object:
    if isinstance(value, str):
        return {"select": value}
    if not isinstance(value, dict):
        raise ValueError(f"read {described(value)}; {FORMS}")
    return value


def _as_ports(value: object) -> object:
    if isinstance(value, str):
        return value
    hint = f"tcp/{value}" if isinstance(value, int) and not isinstance(value, bool) else "tcp/22"
    raise ValueError(f"read {described(value)}; write ports with their protocol, as {hint}")


def _as_rule(value: object) -> object:
    if value is None:
        raise ValueError("read nothing; write {} for everything from everybody, or take the line out")
    return value


class PeerShape(Shape):
    """Who is at the other end: one of the forms. A text is short for `{select: TEXT}`."""

    select: str | None = Field(default=None, description="a selector, a group, a workspace, @world, @services, a CIDR…")
    playground: str | None = Field(default=None, description="look in this playground instead")
    same: str | None = Field(default=None, description="a label: those with the subject's own value of it")
    cidr: str | None = Field(default=None, description="a part of the world")
    except_: Listed = Field(default=[], alias="except", description="CIDRs inside, left out")


Peer = Annotated[PeerShape, BeforeValidator(_as_peer, json_schema_input_type=str | PeerShape)]
PortsWord = Annotated[str, BeforeValidator(_as_ports, json_schema_input_type=str)]
Ports = Annotated[
    list[PortsWord] | None,
    BeforeValidator(
        _refusing("name ports, or leave the key out for everything", "name ports, or leave the key out for everything"),
        json_schema_input_type=str | list[str],
    ),
    Field(description="tcp/22, udp/5000-5100, sctp, icmp, icmp/echo; absent: everything"),
]
_ANYBODY = "name a peer, or leave the key out for everybody"
Peers = Annotated[
    list[Peer] | None,
    BeforeValidator(_refusing(_ANYBODY, _ANYBODY), json_schema_input_type=str | PeerShape | list[str | PeerShape]),
]


class RuleShape(Shape):
    """A line of a policy, in either direction."""

    not_null = frozenset({"ports", "from", "to"})
    ports: Ports = None


class IngressShape(RuleShape):
    """What may come in."""

    elsewhere: ClassVar[Mapping[str, str]] = {"to": "a rule of egress", "action": _SITES}
    from_: Peers = Field(default=None, alias="from", description="who may begin it; absent: everybody")


class EgressShape(RuleShape):
    """What may go out."""

    elsewhere: ClassVar[Mapping[str, str]] = {"from": "a rule of ingress", "action": _SITES}
    to: Peers = Field(default=None, description="to whom; absent: everybody")


class SiteIngressShape(RuleShape):
    """What is said of what comes in; the order counts."""

    elsewhere: ClassVar[Mapping[str, str]] = {"to": "a rule of egress"}
    action: one_of("action", Action) = Field(description="allow, deny, or pass to the next tier")  # type: ignore[valid-type]
    from_: Peers = Field(default=None, alias="from", description="who begins it; absent: everybody")


class SiteEgressShape(RuleShape):
    """What is said of what goes out; the order counts."""

    elsewhere: ClassVar[Mapping[str, str]] = {"from": "a rule of ingress"}
    action: one_of("action", Action) = Field(description="allow, deny, or pass to the next tier")  # type: ignore[valid-type]
    to: Peers = Field(default=None, description="to whom; absent: everybody")


_CLOSES = "write [] to close this direction, or leave the key out to leave it alone"
_as_rules = BeforeValidator(_refusing("", _CLOSES))

Ingress = Annotated[list[Annotated[IngressShape, BeforeValidator(_as_rule)]] | None, _as_rules]
Egress = Annotated[list[Annotated[EgressShape, BeforeValidator(_as_rule)]] | None, _as_rules]
SiteIngress = Annotated[list[Annotated[SiteIngressShape, BeforeValidator(_as_rule)]] | None, _as_rules]
SiteEgress = Annotated[list[Annotated[SiteEgressShape, BeforeValidator(_as_rule)]] | None, _as_rules]


class EntryShape(Shape):
    """A policy, in either kind of file."""

    not_null = frozenset({"ingress", "egress"})
    name: str | None = Field(default=None, description="a DNS label; default: its file and line")
    subject: Listed = Field(description="whom it is about: selectors, groups or workspaces", min_length=1)
    mode: one_of("mode", Mode) = Field(default="enforce", description="enforce, log or stage")  # type: ignore[valid-type]
    replaces: str | None = Field(default=None, description="the policy that this staged one is to replace")
    established: one_of("word", ("keep",)) | None = Field(  # type: ignore[valid-type]
        default=None, description="keep: spare running connections when they are no longer allowed"
    )
    on_deny: one_of("word", OnDeny) = Field(default="drop", description="drop or reject")  # type: ignore[valid-type]


class PolicyShape(EntryShape):
    """A policy of a playground: it allows; what it selects and doesn't allow is closed."""

    elsewhere: ClassVar[Mapping[str, str]] = dict.fromkeys(("tier", "priority"), "a site file's policies")
    ingress: Ingress = Field(default=None, description="what may come in; []: nothing; absent: left alone")
    egress: Egress = Field(default=None, description="what may go out; []: nothing; absent: left alone")


class SitePolicyShape(EntryShape):
    """A policy of the site: before the playgrounds' own (admin), or after them (baseline)."""

    tier: one_of("tier", ("admin", "baseline")) = Field(  # type: ignore[valid-type]
        default=Tier.ADMIN.value, description="admin or baseline"
    )
    priority: int = Field(ge=0, le=65535, description="lower is judged first")
    ingress: SiteIngress = Field(default=None, description="rules in order")
    egress: SiteEgress = Field(default=None, description="rules in order")


class ExpectationShape(Shape):
    """A line of `tests:`."""

    elsewhere: ClassVar[Mapping[str, str]] = {"ports": "policies; a test has port"}
    from_: Peer = Field(alias="from", description="who begins it")
    to: Peer = Field(description="to whom")
    port: PortsWord | None = Field(default=None, description="as tcp/22; absent: everything")
    expect: one_of("expectation", ("allow", "deny")) = Field(description="allow: all of it; deny: none of it")  # type: ignore[valid-type]


class GatewayShape(Shape):
    """Where networks meet the world."""

    not_yet = frozenset({"address", "addresses", "snat", "forward"})
    kind: one_of("kind", ("nat", "bridge")) = Field(  # type: ignore[valid-type]
        description="nat: only the inside begins connections; bridge: the outside may too"
    )
    networks: Listed = Field(description="networks that reach the world through it", min_length=1)
    host: str | None = Field(default=None, description="a host's name, or a selector over host labels")


Policies = list[PolicyShape]
Tests = list[ExpectationShape]
Groups = Annotated[dict[str, str], Field(description="NAME: selector")]


class IncludedShape(Shape):
    """A file that a playground's file includes."""

    elsewhere: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("name", "networks", "workspaces", "gateways", "include"), _OWN_FILE
    )
    groups: Groups = Field(default={})
    policies: Policies = Field(default=[])
    tests: Tests = Field(default=[])
