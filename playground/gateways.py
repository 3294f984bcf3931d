"""Pure. How gateways stand among records: a gateway is placed, bound, reported and removed as a workspace is.

Its records are a workspace's, with a name that no workspace can have (`@NAME`) and the driver `nat`; a leg of it is a
port. So whatever holds for ports (claims, bindings, generations, where peers find them) holds for a gateway's legs.
"""

from __future__ import annotations

DRIVER = "nat"
"""Of a gateway that translates addresses; what a host offers that can carry one."""

_MARK = "@"


def workspace_name(gateway: str) -> str:
    """The name that a gateway's records have."""
    return _MARK + gateway


def gateway_name(workspace: str) -> str | None:
    """The gateway whose records have this name; None when it is a workspace's own."""
    return workspace.removeprefix(_MARK) if workspace.startswith(_MARK) else None


def object_name(workspace: str) -> str:
    """`gateway wan` or `workspace worker-0`, for people."""
    gateway = gateway_name(workspace)
    return f"workspace {workspace}" if gateway is None else f"gateway {gateway}"
