"""examples/policies: each file is accepted, its own tests hold, and there is nothing that it cannot have meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from playground.cli.main import main

EXAMPLES = Path(__file__).parents[3] / "examples" / "policies"
FILES = sorted(path for path in EXAMPLES.glob("*.yaml") if not path.name.endswith(".site.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_does_what_it_says(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = path.with_suffix(".site.yaml")
    words = ["--site-file", str(site)] if site.exists() else []
    code = main(["policy", "check", str(path), *words, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (code, found["findings"]) == (0, [])
    assert found["tests"] >= 1 and found["policies"] >= 1


def test_every_example_says_first_what_it_is_for() -> None:
    for path in EXAMPLES.rglob("*.yaml"):
        if path.parent == EXAMPLES:
            assert path.read_text().startswith("# "), path.name
