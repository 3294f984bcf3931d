"""Pure. Label selectors and address blocks of Kubernetes documents, held to the API server's rules.

Rules: apimachinery's `metav1/validation` and `util/validation`; Kubernetes' `pkg/apis/networking/validation`.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network

from policies.importers.kubernetes.fields import At, MisfitError
from policies.importers.kubernetes.objects import LabelSelector
from policies.model import BlockPeer
from policies.selector import Operator, Term

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_DNS_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_DNS_LABEL}(\.{_DNS_LABEL})*")
_MAX_NAME, _MAX_SUBDOMAIN = 63, 253
_CIDR = re.compile(r"[0-9A-Fa-f:.]+/(0|[1-9][0-9]{0,2})")
_OPERATORS = {
    "In": Operator.IN,
    "NotIn": Operator.NOT_IN,
    "Exists": Operator.HAS,
    "DoesNotExist": Operator.HAS_NOT,
}


def label_selector(at: At) -> LabelSelector:
    """Terms in the order written. A missing selector is the empty one, which selects everything.

    Refused: unknown fields and operators, bad keys and values, In or NotIn without values, Exists or DoesNotExist with.
    """
    known = at.fields(("matchLabels", "matchExpressions"))
    terms = []
    if "matchLabels" in known:
        for key, value in labels(known["matchLabels"]).items():
            terms.append(Term(key, Operator.IN, frozenset([value])))
    if "matchExpressions" in known:
        terms.extend(_expression(item) for item in known["matchExpressions"].items())
    return tuple(terms)


def labels(at: At) -> dict[str, str]:
    """The labels of an object; a missing mapping has none, and a null value is the empty one."""
    found = at.texts()
    for key, value in found.items():
        _key(at, key)
        _value(at, value)
    return found


def object_name(at: At, *, is_namespace: bool = False) -> str:
    """A DNS subdomain (RFC 1123) of lower-case labels; a namespace's is one label."""
    name = at.text()
    if not _SUBDOMAIN.fullmatch(name) or len(name) > _MAX_SUBDOMAIN or (is_namespace and not _is_label(name)):
        raise MisfitError(at, f"{name[:80]!r} is no name; allowed: lower-case letters, digits and inner hyphens")
    return name


def _is_label(name: str) -> bool:
    return "." not in name and len(name) <= _MAX_NAME


def block(at: At) -> BlockPeer:
    """An `ipBlock`. Bits behind the prefix are taken off; exceptions have to lie inside and be smaller."""
    known = at.fields(("cidr", "except"))
    if "cidr" not in known:
        raise MisfitError(at, "cidr is missing")
    whole = cidr(known["cidr"])
    excepted = []
    for item in known["except"].items() if "except" in known else ():
        part = cidr(item)
        if not _is_strictly_inside(part, whole):
            raise MisfitError(
                item, f"{item.value} is no part of {known['cidr'].value}; an exception is a strict subset"
            )
        excepted.append(part)
    return BlockPeer(whole, tuple(excepted))


def cidr(at: At) -> IPv4Network | IPv6Network:
    """A prefix in CIDR notation."""
    text = at.text()
    try:
        if not _CIDR.fullmatch(text):
            raise ValueError
        network = ip_network(text, strict=False)
    except ValueError:
        raise MisfitError(at, f"{text[:60]!r} is no address prefix; write it as 10.0.0.0/8 or fd00::/8") from None
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped and network.prefixlen >= 96:
        raise MisfitError(at, f"{text[:60]!r} is IPv4 written as IPv6; write it as IPv4")
    return network


def _is_strictly_inside(part: IPv4Network | IPv6Network, whole: IPv4Network | IPv6Network) -> bool:
    return (
        part.version == whole.version and part.prefixlen > whole.prefixlen and part.subnet_of(whole)  # type: ignore[arg-type]
    )


def _expression(at: At) -> Term:
    known = at.fields(("key", "operator", "values"))
    for needed in ("key", "operator"):
        if needed not in known:
            raise MisfitError(at, f"{needed} is missing")
    key = _key(known["key"], known["key"].text())
    operator = _OPERATORS[known["operator"].word(_OPERATORS)]
    values = known["values"].items() if "values" in known else []
    if operator in (Operator.IN, Operator.NOT_IN):
        if not values:
            raise MisfitError(at, f"{known['operator'].value} needs at least one value")
        texts = [value.value if value.value == "" else value.text() for value in values]
        return Term(key, operator, frozenset(_value(at, text) for text in texts))
    if values:
        raise MisfitError(known["values"], f"{known['operator'].value} takes no values")
    return Term(key, operator)


def _key(at: At, key: str) -> str:
    """A qualified name: an optional DNS subdomain and `/`, then at most 63 letters, digits and inner `-_.`."""
    prefix, slash, name = key.rpartition("/")
    if (
        not _NAME.fullmatch(name)
        or len(name) > _MAX_NAME
        or (slash and (not _SUBDOMAIN.fullmatch(prefix) or len(prefix) > _MAX_SUBDOMAIN))
    ):
        raise MisfitError(at, f"{key[:80]!r} is no label key; allowed: [PREFIX/]NAME of letters, digits and inner -_.")
    return key


def _value(at: At, value: str) -> str:
    if value and (not _NAME.fullmatch(value) or len(value) > _MAX_NAME):
        raise MisfitError(at, f"{value[:80]!r} is no label value; allowed: 63 letters, digits and inner -_.")
    return value
