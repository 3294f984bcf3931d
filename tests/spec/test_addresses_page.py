"""docs/addresses-and-names.md is true: its files are read, and its table has every option."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from dhcp import catalogue6
from dhcp.catalogue import KINDS, OPTIONS, RESERVED, Option
from playground.spec import load_playground

PAGE = Path(__file__).parents[2] / "docs" / "addresses-and-names.md"
BLOCKS = re.findall(r"^```yaml\n(.*?)^```\n", PAGE.read_text(), re.M | re.S)


@pytest.mark.parametrize("text", BLOCKS)
def test_a_file_of_the_page_is_accepted(text: str) -> None:
    load_playground(text, "lab.yaml")


def table(options: Sequence[Option], kinds: Mapping[str, tuple[str, object]]) -> str:
    ordered = sorted(options, key=lambda option: option.code)
    lines = [f"| `{option.name}` | {option.code} | {kinds[option.kind][0]} |" for option in ordered]
    return "\n".join(["| option | number | value |", "|---|---|---|", *lines])


@pytest.mark.parametrize(
    ("mark", "wanted"),
    [("options", table(OPTIONS, KINDS)), ("options6", table(catalogue6.OPTIONS, catalogue6.KINDS))],
)
def test_the_table_has_every_option(request: pytest.FixtureRequest, mark: str, wanted: str) -> None:
    text = PAGE.read_text()
    before, begin, rest = text.partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition(f"<!-- /{mark} -->\n")
    whole = f"{before}{begin}{wanted}\n{end}{after}"
    if request.config.getoption("--update-golden"):
        PAGE.write_text(whole)
    assert PAGE.read_text() == whole


def test_the_page_has_every_type_and_every_number_that_can_not_be_set() -> None:
    text = PAGE.read_text()
    assert all(f"`{kind}`" in text for kind in KINDS | catalogue6.KINDS)
    told = re.search(r"^These can't be set: (.*?)\n\n", text, re.M | re.S)
    assert told is not None
    numbers = {int(word) for word in re.findall(r"\b\d+\b", told[1])} | {53, 54, 55, 56, 0, 255}
    assert numbers == set(RESERVED)
    told = re.search(r"^By DHCPv6 these can't be set: (.*?)\n\n", text, re.M | re.S)
    assert told is not None
    numbers = {int(word) for word in re.findall(r"(?<![a-zA-Z])\b\d+\b", told[1])}
    assert numbers == set(catalogue6.RESERVED)
