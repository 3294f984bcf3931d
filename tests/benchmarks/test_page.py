"""The page of figures: written from results alone, with every row's script, and never by hand."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("bench_*.py"))


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("page")


def test_every_row_has_its_script_its_result_and_its_line(page: ModuleType) -> None:
    results, text = page.read(), page.PAGE.read_text()
    for row in page.ROWS:
        assert row.script in SCRIPTS
        assert page.result_name(row) in results
        assert f"| {row.work} |" in text


def test_every_script_has_a_row(page: ModuleType) -> None:
    assert {row.script for row in page.ROWS} == set(SCRIPTS)


def test_the_page_and_its_plots_are_what_the_results_say(page: ModuleType) -> None:
    results = page.read()
    assert page.render(page.PAGE.read_text(), results) == page.PAGE.read_text()
    for name, text in page.plots(results).items():
        assert (page.PLOTS / name).read_text() == text
        assert f"(performance/{name})" in page.PAGE.read_text()


def test_rendering_twice_changes_nothing_more(page: ModuleType) -> None:
    results = page.read()
    empty = re.sub(r"(<!-- \w+ -->\n).*?(<!-- end -->)", r"\1\2", page.PAGE.read_text(), flags=re.DOTALL)
    once = page.render(empty, results)
    assert page.render(once, results) == once


def test_a_figure_without_a_peer_says_so(page: ModuleType) -> None:
    results = page.read()
    ports, moves, store = results["ports"], results["moves"], results["store"]
    for size in ports["sizes"]:
        size["ovn"] = page.NO_PEER
        size["ratio_to_ovn"] = dict.fromkeys(size["ratio_to_ovn"], page.NO_PEER)
    ports["ovn_three_rules"] = ports["memory_ratio_to_three_rules"] = page.NO_PEER
    moves["frr"] = moves["repointed_ratio_to_frr"] = page.NO_PEER
    store.pop("etcd_put_to_event_ms", None)
    store["put_to_event_ratio_to_etcd"] = page.NO_PEER
    table = page.BLOCKS["figures"](results)
    for goal in ("≤ 0.3× OVN", "≤ 0.5× OVN", "≤ 0.3× FRR", "≤ 0.3× etcd"):
        line = next(line for line in table.splitlines() if goal in line)
        assert line.count(page.NO_PEER) == 2 and line.endswith("|  |")
    assert all("OVN" not in svg for svg in page.plots(results).values())


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_says_what_it_measures(script: str) -> None:
    told = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{script}.py"), "--help"], capture_output=True, text=True, check=True
    )
    assert f"benchmarks/{script}.py" in told.stdout


def test_statistics_are_those_of_the_samples(page: ModuleType) -> None:
    measure = importlib.import_module("measure")
    assert measure.of([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0, "n": 3}
    assert measure.ratio(1.0, 3.0) == 0.333
    assert measure.ratio(1.0, None) == measure.NO_PEER


def test_an_etcd_message_is_encoded_as_protobuf_says(page: ModuleType) -> None:
    etcd = importlib.import_module("etcd")
    assert etcd._field(1, b"ab") == b"\x0a\x02ab"
    assert etcd._field(2, b"x" * 300) == b"\x12\xac\x02" + b"x" * 300
