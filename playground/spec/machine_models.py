"""Pure. The shape of what a virtual machine is made of. `machine` reads what it means."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from playground.machine import MOST_GRACE_S
from playground.spec import names
from playground.spec.base import Shape, described
from playground.spec.policy_models import one_of


def _mebibytes(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError(f"read {described(value)}; write a size with its unit MiB, GiB or TiB, as 512MiB")
    return names.mebibytes(value)


def _grace(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"read {described(value)}; write seconds, or a number with s, m or h, as 30s")
    seconds = names.seconds(value, "a workspace has", 0, int(MOST_GRACE_S))
    return float(seconds)


Grace = Annotated[float, BeforeValidator(_grace, json_schema_input_type=int | str)]

Memory = Annotated[int, BeforeValidator(_mebibytes, json_schema_input_type=str)]


class DiskShape(Shape):
    """A disk: an image that is there, or one of its own."""

    path: str | None = Field(default=None, description="an image on the host")
    base: str | None = Field(
        default=None, description="an image on the host that this one begins as; it stays as it is"
    )
    size: Memory | None = Field(default=None, description="of a new one, as 20GiB; default: its base's")
    format: one_of("format", ("raw", "qcow2")) | None = Field(  # type: ignore[valid-type]
        default=None, description="raw or qcow2; default: by the name of its file, of a new one qcow2"
    )


class CloudInitShape(Shape):
    """`cloud_init` of a workspace on a hypervisor."""

    user_data: str | None = Field(default=None, description="its text, as #cloud-config and YAML, or a script")
    user_data_file: str | None = Field(default=None, description="a file on the host with it, instead")
    network: one_of("way to addresses", ("static", "dhcp")) = Field(  # type: ignore[valid-type]
        default="static", description="whether its network-config writes addresses out, or has it ask"
    )


class MachineShape(Shape):
    """`machine` of a workspace on a hypervisor."""

    type: str | None = Field(
        default=None, description="kvm, qemu, lxc or xen; default: kvm, or qemu where that does not work"
    )
    model: str | None = Field(default=None, description="the hypervisor's machine type, as pc or q35")
    cpu: str | None = Field(
        default=None, description="the CPU model, as qemu64; equal on all hosts that it may move to"
    )
    kernel: str | None = Field(default=None, description="a kernel on the host, booted instead of a disk")
    initrd: str | None = Field(default=None, description="its initial RAM disk")
    cmdline: str | None = Field(default=None, description="its command line")
    xml: str | None = Field(default=None, description="libvirt XML: devices, or a domain to be merged")
