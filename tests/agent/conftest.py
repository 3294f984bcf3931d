"""What the agent's tests share."""

from __future__ import annotations

import pytest

from playground.agent import agent


@pytest.fixture(autouse=True)
def short_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at by the clock is looked at often: these tests wait for it."""
    monkeypatch.setattr(agent, "PERIOD_S", 0.2)
    monkeypatch.setattr(agent, "RETRY_S", 0.1)
