"""Owns forwarding of single devices in the calling thread's network namespace. Decides nothing of who may forward.

IPv4 has had a switch for each device for ever; IPv6 has one since Linux 6.17 (`force_forwarding`) that, unlike
`forwarding`, leaves alone whether a device takes router advertisements.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

_ROOT = Path("/proc/sys/net")
_SWITCH = {4: "ipv4/conf/{}/forwarding", 6: "ipv6/conf/{}/force_forwarding"}
_ALL = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}


def is_open(version: int) -> bool:
    """Whether everything is forwarded in this IP version, by somebody's choice."""
    return _read(_ROOT / _ALL[version]) == "1"


def has_switch(version: int) -> bool:
    """Whether this kernel can forward for single devices in this IP version."""
    return _switch(version, "lo").exists()


def shut(version: int, devices: Collection[str]) -> set[str]:
    """Those of the devices that forward nothing that comes in by them."""
    if version == 6 and is_open(6):
        return set()
    return {device for device in devices if _read(_switch(version, device)) == "0"}


def open_(version: int, devices: Collection[str]) -> bool:
    """Turns forwarding on; whether everything that comes in by them is forwarded now. A device that went is passed
    over."""
    if version == 6 and is_open(6):
        return True
    switches = [_switch(version, device) for device in devices]
    for switch in switches:
        if _read(switch) == "0":
            switch.write_text("1")
    return all(_read(switch) != "0" and (switch.exists() or not _device(switch).exists()) for switch in switches)


def close(version: int, devices: Collection[str]) -> None:
    """Turns it off again, unless somebody has chosen meanwhile that everything is forwarded: a choice that needs no
    switch of IPv6's single devices."""
    if version == 6 or not is_open(version):
        for device in devices:
            if _read(_switch(version, device)) == "1":
                _switch(version, device).write_text("0")


def _switch(version: int, device: str) -> Path:
    return _ROOT / _SWITCH[version].format(device)


def _device(switch: Path) -> Path:
    return switch.parent


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
