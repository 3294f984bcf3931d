"""What all tests share: golden files, the right to make namespaces, and a count of what was skipped and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files anew instead of comparing")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, Path], None]:
    """Compares a text with a file, or writes the file under --update-golden."""

    def compare(text: str, path: Path) -> None:
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert text == path.read_text(), f"{path.name} differs; run pytest --update-golden, and read the diff"

    return compare


@cache
def why_no_namespaces() -> str:
    """One sentence, empty where namespaces can be made (as root, or in a user namespace); tried once a run."""
    from playground import doctor

    return doctor.why_no_sandbox()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked `system` is skipped, with the reason, where namespaces are forbidden."""
    if item.get_closest_marker("system") and (reason := why_no_namespaces()):
        pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests were skipped, by reason: a suite that skips is never mistaken for one that passed."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    if reasons:
        terminalreporter.section(f"{reasons.total()} skipped")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:5}  {reason}")
