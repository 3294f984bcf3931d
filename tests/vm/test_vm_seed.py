"""What a machine reads on the volume for cloud-init, by its own kernel."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
from vm_lab import Machines

from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.vm]

USER_DATA = "#cloud-config\nhostname: réal\n"


@pytest.mark.parametrize("model", ["pc", pytest.param("q35", marks=pytest.mark.long)])
def test_a_machine_reads_its_seed(model: str, machines: Machines) -> None:
    pytest.importorskip("pycdlib", reason="pycdlib is not installed")
    machine = machines.machine("web", host="n1", cloud_init={"user_data": USER_DATA})
    booted = machine["machine"]
    assert isinstance(booted, dict)
    machine["machine"] = booted | {"model": model, "cmdline": f"{booted['cmdline']} seed"}
    machines.up("seeds", {"web": machine})
    try:
        machines.booted("seeds", "web", "n1")
        said = eventually(lambda: machines.said("seeds", "web", "n1"), 10)
        assert re.search(r"VOLUME cidata *\.", said), said
        files = dict(re.findall(r"SEED (\S+) (\w{64})", said))
        assert files["user-data"] == hashlib.sha256(USER_DATA.encode()).hexdigest()
        assert files.keys() == {"user-data", "meta-data", "network-config"}
        address = machines.site.address("seeds", "web.grid")
        (seed,) = (machines.site.state / machines.site.name / "hosts" / "n1" / "libvirt" / "images").glob("*/seed.iso")
        content = seed.read_bytes()
        assert f'"{address}/24"'.encode() in content and json.dumps("web").encode() in content
    finally:
        machines.site.down("seeds")
    assert not seed.exists()
