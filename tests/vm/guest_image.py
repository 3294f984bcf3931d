"""A virtual machine's kernel and initial RAM disk, made of the distribution's kernel and busybox: a DHCP client, a web
server, a shell on the serial line. Made once, in a folder that outlives the run.

Tests have no way to its archive from their namespaces: `python tests/vm/guest_image.py` makes it before them.

Its kernel command line knows `hostname=NAME`, what it asks DHCP for a name with, `dirty=MIB`, memory that it writes
again and again, and `seed`: then it tells what lies on its CD-ROM.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ("linux-image-cloud-amd64", "linux-image-virtual")
"""Debian's and Ubuntu's kernel for virtual machines."""

CMDLINE = (
    "console=ttyS0 panic=-1 quiet mitigations=off nokaslr random.trust_cpu=on edd=off no_timer_check tsc=reliable "
    "lpj=4000000 cryptomgr.notests 8250.nr_uarts=1 nosmp noreplace-smp audit=0 selinux=0 apparmor=0"
)
"""What is left out of it makes TCG boot a third longer."""

MODULES = (
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "drivers/block/virtio_blk",
)
"""In the order in which they need each other."""

SEED_MODULES = (
    "drivers/scsi/scsi_common",
    "drivers/scsi/scsi_mod",
    "drivers/scsi/virtio_scsi",
    "drivers/ata/libata",
    "drivers/ata/ata_piix",
    "drivers/cdrom/cdrom",
    "drivers/scsi/sr_mod",
    "fs/isofs/isofs",
)
"""What a CD-ROM is read by; loaded where `seed` stands on the command line."""

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in {modules}; do insmod /modules/$module.ko; done
for word in $(cat /proc/cmdline); do
    case $word in hostname=*) hostname ${{word#*=}};; dirty=*) dirty=${{word#*=}};; seed) seed=yes;; esac
done
if [ -n "$seed" ]; then
    for module in {seed_modules}; do insmod /modules/$module.ko; done
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ -e /dev/sr0 ] && break; usleep 100000; done
    mount -t iso9660 -o ro /dev/sr0 /seed
    echo "VOLUME $(dd if=/dev/sr0 bs=8 skip=4101 count=4 2>/dev/null)."
    for file in /seed/*; do echo "SEED ${{file##*/}} $(sha256sum < $file)"; done
fi
ip link set lo up
for i in 1 2 3 4 5 6 7 8 9 10; do [ -e /sys/class/net/eth0 ] && break; usleep 100000; done
ip link set eth0 up
echo STARTED
udhcpc -i eth0 -f -t 20 -T 1 -A 1 -x hostname:$(hostname) -s /client &
httpd -p 80 -h /www
(while true; do nc -l -p 7 -e cat; done) &
if [ -n "$dirty" ]; then
    mkdir /big; mount -t tmpfs -o size=${{dirty}}m tmpfs /big
    (while true; do dd if=/dev/urandom of=/big/x bs=1M count=$dirty 2>/dev/null; done) &
fi
while true; do setsid sh -c 'exec sh </dev/ttyS0 >/dev/ttyS0 2>&1'; done
"""

CLIENT = """#!/bin/busybox sh
case $1 in
    deconfig) ip addr flush dev $interface;;
    bound|renew)
        ip addr replace $ip/$mask dev $interface
        [ -n "$router" ] && ip route replace default via $router
        [ -n "$mtu" ] && ip link set $interface mtu $mtu
        echo "BOUND $ip $mtu $lease";;
esac
"""


FOLDER = Path(tempfile.gettempdir()) / f"playground-guest-{os.geteuid()}"


def why_not() -> str:
    """Why it can't be made here; empty when it can."""
    for program, package in (("busybox", "busybox"), ("cpio", "cpio"), ("dpkg-deb", "dpkg"), ("apt-get", "apt")):
        if shutil.which(program) is None:
            return f"{program} is missing (Debian package {package})"
    return "" if os.uname().machine == "x86_64" else "the guest's kernel is for x86_64"


def build(folder: Path) -> tuple[Path, Path]:
    """Kernel and initial RAM disk. Raises CalledProcessError or FileNotFoundError where the archive can't be reached or
    has none."""
    kernel, initrd = folder / "vmlinuz", folder / f"initrd-{_digest()}.gz"
    if kernel.exists() and initrd.exists():
        return kernel, initrd
    folder.mkdir(parents=True, exist_ok=True)
    unpacked = _unpacked_kernel(folder)
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    for directory in ("bin", "dev", "proc", "sys", "www", "modules", "seed"):
        (root / directory).mkdir(parents=True)
    busybox = str(shutil.which("busybox"))
    shutil.copy(busybox, root / "bin/busybox")
    for library in _libraries(busybox):
        (root / library.relative_to("/").parent).mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library.relative_to("/"))
    names = {
        "modules": _copy_modules(unpacked, root / "modules", MODULES),
        "seed_modules": _copy_modules(unpacked, root / "modules", SEED_MODULES),
    }
    (root / "www/index.html").write_text("here\n")
    for path, text in (("init", INIT.format_map(names)), ("client", CLIENT)):
        (root / path).write_text(text)
        (root / path).chmod(0o755)
    packed = f"cd {root} && find . | cpio -o -H newc -R 0:0 2>/dev/null | gzip -1 > {initrd}.part"
    subprocess.run(["sh", "-c", packed], check=True)
    shutil.copy(next((unpacked / "boot").glob("vmlinuz-*")), f"{kernel}.part")
    for path in (kernel, initrd):
        Path(f"{path}.part").rename(path)
    shutil.rmtree(root)
    shutil.rmtree(unpacked)
    return kernel, initrd


def _libraries(program: str) -> list[Path]:
    """What a program is linked with; none where it is linked statically."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True)
    words = (word for line in said.stdout.splitlines() for word in line.split())
    return [Path(word) for word in words if word.startswith("/")] if said.returncode == 0 else []


def _digest() -> str:
    """Of what the initial RAM disk is made of, as far as that is written here: another one is made where it changes."""
    return hashlib.sha256(repr((INIT, CLIENT, MODULES, SEED_MODULES)).encode()).hexdigest()[:8]


def _copy_modules(unpacked: Path, into: Path, modules: Sequence[str]) -> str:
    """Copies the modules that are not built into the kernel; returns their names in order."""
    (tree,) = [path for lib in ("lib", "usr/lib") for path in (unpacked / lib / "modules").glob("*")]
    built_in = (tree / "modules.builtin").read_text()
    separate = [module for module in modules if f"kernel/{module}.ko\n" not in built_in]
    for module in separate:
        (source,) = (tree / "kernel").glob(f"{module}.ko*")
        raw = source.read_bytes()
        (into / f"{source.stem.removesuffix('.ko')}.ko").write_bytes(
            lzma.decompress(raw) if source.suffix == ".xz" else raw
        )
    return " ".join(module.rpartition("/")[2] for module in separate)


def _unpacked_kernel(folder: Path) -> Path:
    """The kernel's package and, where they have one of their own, its modules'; unpacked and not installed."""
    wanted = next((found for package in PACKAGES if (found := _depends(package, "linux-image-"))), None)
    if wanted is None:
        raise FileNotFoundError(f"no package of a kernel in this machine's archive: {', '.join(PACKAGES)}")
    modules = _depends(wanted[0], "linux-modules-")
    subprocess.run(["apt-get", "download", "-q", *wanted, *modules], cwd=folder, check=True, capture_output=True)
    unpacked = folder / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    for archive in folder.glob("linux-*.deb"):
        subprocess.run(["dpkg-deb", "-x", archive, unpacked], check=True)
        archive.unlink()
    return unpacked


def _depends(package: str, prefix: str) -> list[str]:
    """Which packages of that name it depends on; none where it is not known."""
    said = subprocess.run(["apt-cache", "depends", package], capture_output=True, text=True)
    words = (line.split() for line in said.stdout.splitlines())
    return [found[1] for found in words if found[0] == "Depends:" and found[1].startswith(prefix)]


if __name__ == "__main__":
    if reason := why_not():
        sys.exit(f"no virtual machines can be tested: {reason}")
    build(FOLDER)
