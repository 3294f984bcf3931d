"""docs/hosts.md is true: its blocks are run as they stand, on a machine of the test's own, and leave it as it was."""

from __future__ import annotations

import hosts_page
import pytest
from hosts_lab import ROOT, Machine

PAGE = hosts_page.read((ROOT / "docs/hosts.md").read_text())

LOOKS = HOSTS_MADE, IN_USE, HOSTS_FREE, ALL_GONE = 1, 4, len(PAGE.steps) - 1, len(PAGE.steps)
"""After which steps a snapshot is taken."""


@pytest.mark.system
def test_the_pages_blocks_run_and_leave_the_machine_as_it_was(machine: Machine) -> None:
    for name, text in PAGE.files.items():
        (machine.work / name).write_text(text)
    script = [machine.look(0)]
    for number, step in enumerate(PAGE.steps, 1):
        script += [f"echo '--- step {number}'", step]
        script += [machine.look(number)] if number in LOOKS else []
    done = machine.run(*script)
    said = f"{done.stdout}\n{done.stderr}{machine.logs()}"
    assert done.returncode == 0, said
    assert done.stdout.count("all as modelled") == 2, said
    assert "settled" in done.stdout, said
    in_use = machine.shot(IN_USE)
    assert {"playground-n1", "playground-n1-atlas", "playground-n2"} <= in_use["networks"].keys(), "it was real"
    assert machine.shot(HOSTS_FREE) == machine.shot(HOSTS_MADE)
    assert machine.shot(ALL_GONE) == machine.shot(0)
