"""How a host stands in a URI. Pure."""

from __future__ import annotations


def host_text(host: str) -> str:
    """A name or an address, an IPv6 one in brackets, so that its colons don't begin a port (RFC 3986 §3.2.2)."""
    return f"[{host}]" if ":" in host else host
