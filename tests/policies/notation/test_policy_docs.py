"""docs/policies.md is true: its files are read, their tests hold, and its commands say what the page says they say."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from playground.cli.main import main

PAGE = Path(__file__).parents[3] / "docs" / "policies.md"
BLOCK = re.compile(r"^```(yaml|text)( \w+)?\n(.*?)^```\n", re.M | re.S)
FILES = {"": "lab.yaml", " refused": "lab.yaml", " new": "new.yaml", " site": "campus.yaml"}


def test_the_page_says_what_is_so(
    golden: Callable[[str, Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    base = ""
    wrong = []

    def run(line: str) -> str:
        main(shlex.split(line)[1:])
        said = capsys.readouterr()
        return f"$ {line}\n{said.out}{said.err}"

    def shown(block: re.Match[str]) -> str:
        nonlocal base
        kind, mark, text = block[1], block[2] or "", block[3]
        if mark == " base":
            base = text
        elif kind == "yaml":
            Path(FILES[mark]).write_text(text if mark == " site" else base + text)
            words = ["--site-file", "campus.yaml"] if mark == " site" else [FILES[mark]]
            code = main(["policy", "check", *words])
            if (code == 0) == (mark == " refused"):
                wrong.append(f"{text}\n{capsys.readouterr().out}")
            capsys.readouterr()
        elif text.startswith("$ "):
            text = "".join(run(line[2:]) for line in text.splitlines() if line.startswith("$ "))
        return f"```{kind}{mark}\n{text}```\n"

    page = BLOCK.sub(shown, PAGE.read_text())
    assert not wrong
    golden(page, PAGE)


def test_all_blocks_are_looked_at() -> None:
    text = PAGE.read_text()
    assert len(BLOCK.findall(text)) * 2 == text.count("```")
