"""What cloud-init is told: as text, as a volume that others read, and as cloud-init itself understands it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dhcp.scope import PortScope, Scope4, Scope6, ScopeRa
from playground.machine import Machine, Seed
from playground.workspaces.drivers.api import DriverError, Guest, Nic
from playground.workspaces.drivers.libvirt.images import Images
from playground.workspaces.drivers.libvirt.seed import network_config, seed_files

GOLDEN = Path(__file__).parent / "golden" / "seed"

USER_DATA = "#cloud-config\npackages: [nginx]\n"
NICS = tuple(Nic(f"{n:012x}", f"pg{n:012x}", f"02:00:00:00:00:0{n}", 1450 - n, n) for n in range(3))
SEED = Seed(USER_DATA)
GUEST = Guest("7a010e8d8fc8", "atlas", "web-0", "web-0", NICS, 1, 512, Machine(seed=SEED))

TOLD = {
    NICS[0].port: PortScope(
        mac=NICS[0].mac,
        server_mac="02:00:00:00:00:fe",
        v4=Scope4(
            "10.20.0.9",
            24,
            "10.20.0.1",
            router="10.20.0.254",
            dns=("10.20.0.1",),
            search=("grid.atlas.internal", "atlas.internal"),
            routes=(("0.0.0.0/0", "10.20.0.254"), ("10.99.0.0/16", "10.20.0.7"), ("169.254.169.254/32", "0.0.0.0")),
        ),
        ra=ScopeRa("fe80::1", prefixes=(("fd00:20::/64", True),), rdnss=("fd00:20::1",), dnssl=("atlas.internal",)),
    ),
    NICS[1].port: PortScope(
        mac=NICS[1].mac,
        server_mac="02:00:00:00:00:fe",
        v4=Scope4("10.30.0.9", 16, "10.30.0.1", dns=("10.30.0.1",), options=((6, bytes([10, 30, 0, 53, 9, 9, 9, 9])),)),
        ra=ScopeRa("fe80::1", prefixes=(("fd00:30::/64", False),), managed=True),
        v6=Scope6(("fd00:30::9",), "fe80::1"),
    ),
}
"""The third is not known."""


def test_the_seed_is_as_written(golden: Callable[[str, Path], None]) -> None:
    for name, content in seed_files(GUEST, SEED, USER_DATA.encode(), TOLD).items():
        golden(content.decode(), GOLDEN / f"{name}.txt")


def test_a_seed_that_asks_writes_no_addresses_out() -> None:
    ethernets = network_config(NICS, TOLD, is_static=False)["ethernets"]
    assert isinstance(ethernets, dict)
    assert [(one["dhcp4"], one["dhcp6"], one["accept-ra"]) for one in ethernets.values()] == [
        (True, False, True),
        (True, True, True),
        (True, False, False),
    ]
    assert not any("addresses" in one or "routes" in one for one in ethernets.values())


def test_the_identity_is_the_workspaces_whatever_else_changes() -> None:
    files = [seed_files(guest, SEED, b"", TOLD) for guest in (GUEST, replace(GUEST, memory_mib=1024, nics=NICS[:1]))]
    assert files[0]["meta-data"] == files[1]["meta-data"]
    other = seed_files(replace(GUEST, id="7a010e8d8fc9"), SEED, b"", TOLD)
    assert json.loads(other["meta-data"])["instance-id"] != json.loads(files[0]["meta-data"])["instance-id"]


@pytest.mark.skipif(shutil.which("xorriso") is None, reason="xorriso is not installed")
def test_a_volume_is_read_by_another_program(tmp_path: Path) -> None:
    pytest.importorskip("pycdlib", reason="pycdlib is not installed")
    volume = Images(tmp_path).seed(GUEST, TOLD)
    found = tmp_path / "found"
    command = ["xorriso", "-osirrox", "on", "-indev", volume, "-pvd_info", "-extract", "/", str(found)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Volume Id    : 'cidata'".lower() in (done.stdout + done.stderr).lower()
    assert {path.name: path.read_bytes() for path in found.iterdir()} == seed_files(
        GUEST, SEED, USER_DATA.encode(), TOLD
    )


def test_user_data_of_the_host_is_read_and_missed_by_its_name(tmp_path: Path) -> None:
    pytest.importorskip("pycdlib", reason="pycdlib is not installed")
    images = Images(tmp_path / "images")
    mine = tmp_path / "user-data"
    guest = replace(GUEST, machine=Machine(seed=Seed(user_data_file=str(mine))))
    with pytest.raises(DriverError, match=f"the user-data {mine}: No such file"):
        images.seed(guest, TOLD)
    mine.write_text("#!/bin/sh\necho told by the host\n")
    assert b"told by the host" in Path(images.seed(guest, TOLD)).read_bytes()
    assert images.seed(replace(GUEST, machine=Machine()), TOLD) == ""
    images.remove(GUEST.id)
    assert list((tmp_path / "images").iterdir()) == []


def cloud_init() -> tuple[list[str], dict[str, str]] | None:
    """How cloud-init's own program is run here: installed, or unpacked where CLOUD_INIT_PYTHON and its path say."""
    if python := os.environ.get("CLOUD_INIT_PYTHON"):
        return [python, "-m", "cloudinit.cmd.main"], {"PYTHONPATH": os.environ["CLOUD_INIT_PATH"]}
    return (["cloud-init"], {}) if shutil.which("cloud-init") else None


def judged(tmp_path: Path, kind: str) -> Path:
    """Our network-config as cloud-init writes it for this kind of system."""
    program = cloud_init()
    if program is None:
        pytest.skip("cloud-init is not installed")
    config = tmp_path / "network-config"
    config.write_bytes(seed_files(GUEST, SEED, b"", TOLD)["network-config"])
    named = [word for nic in NICS for word in ("-m", f"eth{nic.index},{nic.mac}")]
    words = [
        "devel",
        "net-convert",
        "--network-data",
        str(config),
        "--kind",
        "yaml",
        "--directory",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(
        [*program[0], *words, *named, "--output-kind", kind, "--distro", "debian"],
        capture_output=True,
        text=True,
        env=program[1] or None,
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / "out"


def test_cloud_init_makes_of_it_what_was_meant(tmp_path: Path) -> None:
    units = judged(tmp_path, "networkd") / "etc/systemd/network"
    first = (units / "10-cloud-init-eth0.network").read_text()
    for line in (
        "MACAddress=02:00:00:00:00:00",
        "Address=10.20.0.9/24",
        "Address=fd00:20::ff:fe00:0/64",
        "DNS=10.20.0.1 fd00:20::1",
        "Domains=grid.atlas.internal atlas.internal",
        "MTUBytes=1450",
        "DHCP=no",
        "Gateway=10.20.0.254",
        "Destination=10.99.0.0/16",
        "Gateway=10.20.0.7",
        "Destination=169.254.169.254/32",
    ):
        assert line in first, first
    second = (units / "10-cloud-init-eth1.network").read_text()
    assert "DNS=10.30.0.53 9.9.9.9" in second and "Address=fd00:30::9/64" in second
    assert "DHCP=ipv4" in (units / "10-cloud-init-eth2.network").read_text()


def test_cloud_inits_schema_takes_what_stands_for_no_user_data(tmp_path: Path) -> None:
    program = cloud_init()
    if program is None:
        pytest.skip("cloud-init is not installed")
    for number, user_data in enumerate((b"", USER_DATA.encode())):
        file = tmp_path / f"user-data-{number}"
        file.write_bytes(seed_files(GUEST, SEED, user_data, TOLD)["user-data"])
        words = ["schema", "--config-file", str(file)]
        done = subprocess.run([*program[0], *words], capture_output=True, text=True, env=program[1] or None)
        assert done.returncode == 0 and "Valid" in done.stdout, done.stdout + done.stderr
