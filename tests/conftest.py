"""What all tests share: namespaces of this process's own, golden files, and a count of what was skipped and why."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("patient", deadline=None)  # how long an example takes is the machine's load
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files anew instead of comparing")


@cache
def why_no_namespaces() -> str:
    """One sentence, empty where namespaces can be made (as root, or in a user namespace); tried once a run."""
    from playground import doctor

    return doctor.why_no_sandbox()


@cache
def has_namespaces_of_its_own() -> bool:
    """Whether this process may have, and so has, network and mounts that nobody else changes."""
    return os.geteuid() == 0 and not why_no_namespaces()


def pytest_configure() -> None:
    """Network, mounts and /run of this process's own: neither the machine's nor another worker's are in reach."""
    if not has_namespaces_of_its_own():
        return
    from playground.sandbox import namespaces as ns

    ns.own_mounts()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - nsfs " in line:  # the name of somebody's namespace: it would come and go with them
            with suppress(OSError):  # a user namespace may not put away what it was born with
                ns.unmount(line.split()[4])
    ns.unshare(ns.CLONE_NEWNET)
    ns.mount("sysfs", "/sys", "sysfs", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)
    ns.mount("tmpfs", "/run", "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, "mode=755")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Shared out to workers, the long ones come first: the short ones even out who ends when."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.get_closest_marker("system") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked `system` is skipped, with the reason, where namespaces are forbidden."""
    if item.get_closest_marker("system") and (reason := why_no_namespaces()):
        pytest.skip(reason)


def in_reach() -> dict[str, set[str]]:
    """What a test could leave behind here: links, names of namespaces, folders of sites."""
    folders = {"links": "/sys/class/net", "namespaces": "/run/netns", "sites": "/run/playground"}
    return {what: {p.name for p in Path(path).glob("*")} for what, path in folders.items()}


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Tests make their own namespaces and folders, and leave nothing."""
    before = in_reach()
    yield
    assert not has_namespaces_of_its_own() or in_reach() == before


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, Path], None]:
    """Compares a text with a file, or writes the file under --update-golden."""

    def compare(text: str, path: Path) -> None:
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert text == path.read_text(), f"{path.name} differs; run pytest --update-golden, and read the diff"

    return compare


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests were skipped, by reason: a suite that skips is never mistaken for one that passed."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    if reasons:
        terminalreporter.section(f"{reasons.total()} skipped")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:5}  {reason}")
