"""Whatever comes in by any door: no crash, declared errors only, bounded time and memory, and nothing changed that was
refused. Each door's claims stand with its target; `make fuzz` tries the same for longer."""

from __future__ import annotations

from typing import Any

import pytest
from fuzz_files import check_file, large
from fuzz_lab import CORPUS, Target, bounded
from hypothesis import HealthCheck, given, settings
from targets import TARGETS

EXAMPLES = {"file": 250, "api": 50, "agents": 40, "controllers": 25, "names": 300, "dhcp": 120, "dhcp6": 100}
"""For each door as many as cost about five seconds."""


@pytest.mark.parametrize("target", TARGETS.values(), ids=str)
def test_what_is_almost_right_does_no_harm(target: Target[Any]) -> None:
    @settings(
        max_examples=EXAMPLES[target.name],
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(target.inputs)
    def check(value: Any) -> None:
        target.check(value)

    check()


@pytest.mark.parametrize(
    ("name", "file"), [(path.parent.name, path.name) for path in sorted(CORPUS.glob("*/*"))], ids=lambda part: part
)
def test_what_once_did_harm_does_none_any_more(name: str, file: str) -> None:
    target = TARGETS[name]
    target.check(target.from_file((CORPUS / name / file).read_bytes()))


@pytest.mark.parametrize("what", list(large(1)))
def test_a_file_of_much_of_one_thing_costs_bounded_time_and_memory(what: str) -> None:
    with bounded(peak_mib=64):
        check_file(large(8 * 1024)[what])
