"""One emulated site with hypervisors for all tests of virtual machines; skipped, with the reason, where none can be."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "site"))

from guest_image import FOLDER, build, why_not
from site_lab import Site, emulated
from vm_lab import Machines

from playground import doctor, sandbox


@pytest.fixture(scope="session")
def image() -> tuple[Path, Path]:
    """Kernel and initial RAM disk; kept from run to run."""
    if reason := why_not():
        pytest.skip(reason)
    try:
        return build(FOLDER)
    except subprocess.CalledProcessError as error:
        pytest.skip(
            f"the guest's kernel is not there, and can't be got: {error}; python tests/vm/guest_image.py gets it"
        )


@pytest.fixture(scope="module")
def machines(image: tuple[Path, Path]) -> Iterator[Machines]:
    """Three hosts, each with a libvirtd."""
    if reason := doctor.why_no_sandbox():
        pytest.skip(f"a site needs namespaces: {reason}")
    if importlib.util.find_spec("libvirt") is None:
        pytest.skip("libvirt-python is not installed")
    with emulated("metal", 3) as site:
        try:
            provide(site)
        except sandbox.SandboxError as error:
            pytest.skip(str(error))
        yield Machines(site, *image)


def provide(site: Site) -> None:
    with patch.dict(os.environ, site.own_environment):
        sandbox.provide_hypervisors(site.info)
