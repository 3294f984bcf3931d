"""Pure. What types of machines differ in, as far as files, placement and the agent have to know. Renders no XML."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Kind:
    """refused: keys of a workspace that it has no use for, and why. models: machine types that it knows, empty for
    whatever its hypervisor does. makes_ends: its hypervisor makes the ends of NICs itself, instead of opening taps.
    moves: live. saves: its memory can be a file."""

    refused: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    makes_ends: bool = False
    moves: bool = True
    saves: bool = True


_NO_IMAGE = "a container has no disks: its root is a directory, the path of the one entry of disks"
_NO_HARDWARE = "a container has no hardware of its own"
_NO_KERNEL = "a container runs on its host's kernel"

KINDS: Mapping[str, Kind] = {
    "kvm": Kind(),
    "qemu": Kind(),
    "lxc": Kind(
        refused={
            "image": _NO_IMAGE,
            "cloud_init": "a container has no volume for it; put its files into var/lib/cloud/seed/nocloud of its root",
            "machine.model": _NO_HARDWARE,
            "machine.cpu": _NO_HARDWARE,
            "machine.kernel": _NO_KERNEL,
            "machine.initrd": _NO_KERNEL,
            "machine.cmdline": _NO_KERNEL,
        },
        makes_ends=True,
        moves=False,
        saves=False,
    ),
    "xen": Kind(
        refused={"machine.cpu": "libvirt passes the host's processor on to Xen's guests"},
        models=("xenfv", "xenpv", "xenpvh"),
        makes_ends=True,
        moves=False,
    ),
}

NEVER: Mapping[str, str] = {
    "esx": "its NICs end in ESX's own switch, where no agent can guard them",
    "vmware": "its NICs end in VMware's own switch, where no agent can guard them",
}
"""Types that libvirt knows and we do not take, and why."""

USUAL = ("kvm", "qemu")
"""What a machine that says no type is of: the first of them that works."""


def kind(type: str) -> Kind:
    """Of a machine; as QEMU's for a type that is not in the table, as of libvirt's test driver."""
    return KINDS.get(type, KINDS["qemu"])


def why_not_run(type: str, types: Collection[str]) -> str | None:
    """Why a host whose hypervisor runs these types of machines runs none of that one; None when it does, or says none.
    type: "" for a usual one."""
    wanted = (type,) if type else USUAL
    if not types or any(one in types for one in wanted):
        return None
    return f"runs no machine of type {' or '.join(wanted)} (runs {', '.join(types)})"


def moves(types: Collection[str]) -> bool:
    """Whether a host whose hypervisor runs these types moves machines live."""
    return any(kind(type).moves for type in types) or not types
