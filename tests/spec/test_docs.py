"""docs/files.md is true: its blocks are read as it says, and every key that is read has its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from playground.spec import SpecErrors, load_playground, load_site, models
from playground.spec.models import Shape

PAGE = Path(__file__).parents[2] / "docs" / "files.md"
BLOCKS = re.findall(r"^```yaml( refused)?( site)?\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", PAGE.read_text(), re.M | re.S)


@pytest.mark.parametrize(("refused", "site", "text", "problems"), BLOCKS)
def test_a_block_is_read_as_the_page_says(refused: str, site: str, text: str, problems: str) -> None:
    load = load_site if site else load_playground
    if not refused:
        load(text, "lab.yaml")
        return
    with pytest.raises(SpecErrors) as caught:
        load(text, "site.yaml" if site else "lab.yaml")
    assert f"{caught.value}\n" == problems


def test_the_page_has_all_its_blocks() -> None:
    assert len(BLOCKS) == PAGE.read_text().count("```yaml") == 10


SHAPES = [shape for shape in vars(models).values() if isinstance(shape, type) and issubclass(shape, Shape)]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_key_is_on_the_page_also_those_to_come(shape: type[Shape]) -> None:
    page = PAGE.read_text()
    for key in {*shape.keys(), *shape.not_yet}:
        assert re.search(rf"[`.]{re.escape(key)}\b|^ *{re.escape(key)}:", page, re.M), f"{shape.__name__}: {key}"
