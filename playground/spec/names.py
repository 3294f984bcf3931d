"""Pure. What names, labels, times and sizes in a file may look like. They raise ValueError with the remedy."""

from __future__ import annotations

import re

_DNS_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MIB = {"MiB": 1, "GiB": 1024, "TiB": 1024 * 1024}

MAX_LABEL = 63
"""Bytes of one DNS label (RFC 1035 §2.3.4)."""

MAX_DOMAIN = 253 - 3 * (MAX_LABEL + 1)
"""What workspace, network and playground leave of a name's 253 characters for the site's domain at worst."""

MIN_LEASE_S = 60
MAX_LEASE_S = 0xFFFF_FFFE
"""Option 51 has 32 bits, all ones meaning for ever (RFC 2131 §3.3)."""

BUILT_IN_LABELS = frozenset({"workspace", "network", "playground", "index"})
"""Labels that every NIC has by itself."""


def dns_label(text: str) -> str:
    """A lower-case DNS label (RFC 1123 §2.1)."""
    if len(text) > MAX_LABEL:
        raise ValueError(f"{text!r} has {len(text)} characters; a name may have {MAX_LABEL}, as a DNS label")
    if not _DNS_LABEL.fullmatch(text):
        fixed = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
        hint = f", as {fixed!r}" if fixed and fixed != text else ""
        raise ValueError(f"{text!r} can't be a DNS label; write lower-case letters, digits and inner hyphens{hint}")
    return text


def domain_name(text: str) -> str:
    """DNS labels joined by dots, of at most `MAX_DOMAIN` characters."""
    if len(text) > MAX_DOMAIN:
        raise ValueError(f"{text!r} has {len(text)} characters; {MAX_DOMAIN} leave room for the longest names in it")
    for label in text.split("."):
        dns_label(label)
    return text


def seconds(value: int | str, of: str = "a lease lasts", least_s: int = MIN_LEASE_S, most_s: int = MAX_LEASE_S) -> int:
    """Seconds: a number, or `90s`, `30m`, `1h`, `1d`. of: whose they are, for the error of those out of range."""
    if isinstance(value, str):
        found = re.fullmatch(r"(\d{1,10})([smhd])", value.strip())
        if not found:
            raise ValueError(f"read {value!r}; write seconds, or a number with s, m, h or d, as 1h")
        value = int(found[1]) * _SECONDS[found[2]]
    if not least_s <= value <= most_s:
        raise ValueError(f"{value} s is out of range; {of} from {least_s} s to {most_s} s")
    return value


def mebibytes(text: str) -> int:
    """MiB of a memory size: `512MiB`, `1.5GiB`, `1TiB`; whole MiB only."""
    found = re.fullmatch(r"(\d{1,9})(\.\d{1,3})?\s*(MiB|GiB|TiB)", text.strip())
    if not found:
        raise ValueError(f"read {text!r}; write a size with its unit MiB, GiB or TiB, as 512MiB or 1.5GiB")
    size = float(found[1] + (found[2] or "")) * _MIB[found[3]]
    if size < 1 or not size.is_integer():
        raise ValueError(f"{text!r} is no whole number of MiB; write at least 1MiB")
    return int(size)
