"""What a virtual machine is made of beside its NICs: words that file, record and driver share. No behaviour."""

from __future__ import annotations

from dataclasses import dataclass

MOST_GRACE_S = 3600.0
"""The longest time, in seconds, that a workspace may be given to end when it is asked to."""


@dataclass(frozen=True, slots=True)
class Disk:
    """path: an image on the host, absolute; "" for a copy-on-write one of its own over `base`. size_mib: of an image
    that is to be made, 0 for its base's. format: raw or qcow2, "" where nobody says."""

    path: str = ""
    base: str = ""
    size_mib: int = 0
    format: str = ""

    @property
    def kind(self) -> str:
        """Its format: as it is said, by the name of its file, or what images of our own are."""
        return self.format or ("raw" if self.path.endswith((".raw", ".img")) else "qcow2")


@dataclass(frozen=True, slots=True)
class Seed:
    """What cloud-init is told. user_data: its text, or user_data_file: a file on the host with it, absolute; both empty
    for none. network: static (addresses are written out) or dhcp."""

    user_data: str = ""
    user_data_file: str = ""
    network: str = "static"


@dataclass(frozen=True, slots=True)
class Machine:
    """type: as lxc; "" is kvm or qemu, whichever is fastest on its host. model: the hypervisor's machine type (pc,
    q35); cpu: its CPU model. kernel, initrd, cmdline: what is booted, where no disk is. disks in order. extra: XML that
    is merged into the domain's. seed: for cloud-init, None where it has none."""

    type: str = ""
    arch: str = ""
    model: str = ""
    cpu: str = ""
    kernel: str = ""
    initrd: str = ""
    cmdline: str = ""
    disks: tuple[Disk, ...] = ()
    extra: str = ""
    seed: Seed | None = None


PLAIN = Machine()
