"""The shared folder when something else has been at it. Needs no rights."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from namespace_lab import a_guest

from playground.workspaces.drivers.api import DriverError
from playground.workspaces.drivers.ledger import GUEST_FILE, Ledger, new_entry


@pytest.mark.parametrize("found", [b"", b'{"torn', b"\x00" * 300, b"[]", b"{}", b'{"schema": 1, "id": 7}'])
def test_an_entry_that_cant_be_read_costs_no_other_guest(
    tmp_path: Path, found: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(tmp_path)
    spoiled, whole = (new_entry(a_guest(number), "a") for number in (1, 2))
    for entry in (spoiled, whole):
        ledger.write(entry)
    (ledger.room(spoiled.id) / GUEST_FILE).write_bytes(found)
    with caplog.at_level(logging.WARNING):
        assert ledger.read_all() == [whole]
    assert spoiled.id in caplog.text
    with pytest.raises(DriverError, match="then remove its folder"):
        ledger.read(spoiled.id)
