"""Owns what this machine could pass as `--underlay`: its addresses by device, with their MTU. Reads only.

By pyroute2, which is quick to read and slow to import: the doctor is asked now and then, an agent runs for ever
(docs/decisions/0003-netlink.md). Before packages are installed there is nothing to say.
"""

from __future__ import annotations

import ipaddress

from playground.doctor.check import Check


def checks() -> list[Check]:
    """One line of what to pass; none where pyroute2 is not installed, or the kernel lists nothing."""
    try:
        from pyroute2 import IPRoute, NetlinkError
    except ImportError:
        return []
    try:
        with IPRoute() as kernel:
            links = {link["index"]: (link.get("ifname"), link.get("mtu")) for link in kernel.get_links()}
            addresses = [(found["index"], found.get("local") or found.get("address")) for found in kernel.get_addr()]
    except (NetlinkError, OSError):
        return []
    found = [
        (ipaddress.ip_address(text), *links[index]) for index, text in addresses if index in links and text is not None
    ]
    usable = sorted(
        (one for one in found if not (one[0].is_loopback or one[0].is_link_local)),
        key=lambda one: (one[0].version, one[0]),
    )
    said = ", ".join(f"{address} ({device}, MTU {mtu})" for address, device, mtu in usable)
    detail = f"for --underlay: {said}" if said else "no device has an address; an agent needs one to give as --underlay"
    return [Check("underlay", True, detail, is_optional=True)]
