"""Pure. The ports of rules: the shapes that the three policy APIs write them in, held to their rules."""

from __future__ import annotations

import re

from policies.importers.kubernetes.fields import At, MisfitError
from policies.importers.kubernetes.objects import AllPorts, NamedPort, NumberedPorts, PortMatch
from policies.ports import Protocol

PROTOCOLS = ("TCP", "UDP", "SCTP")
_LAST = 65535
_MAX_PORT_NAME = 15
_PORT_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def network_policy_port(at: At) -> PortMatch:
    """`{protocol, port, endPort}` of networking.k8s.io/v1. Without protocol TCP, without port all ports of it."""
    known = at.fields(("protocol", "port", "endPort"))
    protocol = _protocol(known.get("protocol"))
    if "port" not in known:
        if "endPort" in known:
            raise MisfitError(known["endPort"], "endPort needs a port before it")
        return AllPorts(protocol)
    port = known["port"]
    if isinstance(port.value, str):
        if "endPort" in known:
            raise MisfitError(known["endPort"], "endPort can't follow a named port")
        return NamedPort(port_name(port), protocol)
    first = port.whole(1, _LAST)
    last = known["endPort"].whole(1, _LAST) if "endPort" in known else first
    if last < first:
        raise MisfitError(known["endPort"], f"endPort {last} is less than port {first}")
    return NumberedPorts(protocol, first, last)


def admin_port(at: At) -> PortMatch:
    """`{portNumber | namedPort | portRange}` of policy.networking.k8s.io/v1alpha1."""
    kind, value = one_of(at, ("portNumber", "namedPort", "portRange"))
    if kind == "namedPort":
        return NamedPort(port_name(value), None)
    if kind == "portNumber":
        known = value.fields(("protocol", "port"))
        number = _needed(value, known, "port").whole(1, _LAST)
        return NumberedPorts(_protocol(known.get("protocol")), number, number)
    known = value.fields(("protocol", "start", "end"))
    return _range(value, known, _protocol(known.get("protocol")), may_be_one=True)


def cluster_protocol(at: At) -> PortMatch:
    """`{tcp | udp | sctp: {destinationPort: {number | range}}}` or `{destinationNamedPort}` of v1alpha2.

    A protocol needs a property (MinProperties=1), so all of its ports are written as the range 1-65535.
    """
    kind, value = one_of(at, ("tcp", "udp", "sctp", "destinationNamedPort"))
    if kind == "destinationNamedPort":
        return NamedPort(port_name(value), None)
    protocol = Protocol(kind.upper())
    _, port = one_of(value, ("destinationPort",))
    kind, value = one_of(port, ("number", "range"))
    if kind == "number":
        number = value.whole(1, _LAST)
        return NumberedPorts(protocol, number, number)
    return _range(value, value.fields(("start", "end")), protocol, may_be_one=False)


def one_of(at: At, allowed: tuple[str, ...]) -> tuple[str, At]:
    """The one field of a union that is set. Raises MisfitError if none or several are."""
    known = at.fields(allowed)
    if len(known) != 1:
        read = f"read {', '.join(known)}" if known else "read none"
        raise MisfitError(at, f"{read}; write exactly one of {', '.join(allowed)}")
    return next(iter(known.items()))


def port_name(at: At) -> str:
    """An IANA service name (RFC 6335 §5.1) in lower case: at most 15 letters, digits, inner hyphens; one letter."""
    name = at.text()
    if len(name) > _MAX_PORT_NAME or not _PORT_NAME.fullmatch(name) or name.replace("-", "").isdigit():
        raise MisfitError(
            at,
            f"{name[:60]!r} is no port name; allowed: up to {_MAX_PORT_NAME} of a-z, 0-9 and single inner hyphens, "
            "with at least one letter (a number is written without quotes)",
        )
    return name


def _range(at: At, known: dict[str, At], protocol: Protocol, *, may_be_one: bool) -> NumberedPorts:
    first = _needed(at, known, "start").whole(1, _LAST)
    last = _needed(at, known, "end").whole(1, _LAST)
    if last < first or (last == first and not may_be_one):
        raise MisfitError(known["end"], f"end {last} is not greater than start {first}")
    return NumberedPorts(protocol, first, last)


def _needed(at: At, known: dict[str, At], key: str) -> At:
    if key not in known:
        raise MisfitError(at, f"{key} is missing")
    return known[key]


def _protocol(at: At | None) -> Protocol:
    return Protocol.TCP if at is None else Protocol(at.word(PROTOCOLS))
