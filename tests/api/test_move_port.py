"""The shell script of docs/api.md against a controller elsewhere: over TCP, with a token."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from api_lab import Doors, within

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


@pytest.mark.parametrize(("token", "said"), [("sesame", "no port pgffffffffffff"), ("wrong", "a token is needed")])
def test_it_comes_in_by_its_token_and_a_refusal_ends_it_with_its_reason(tmp_path: Path, token: str, said: str) -> None:
    for program in ("curl", "jq"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    script = tmp_path / "move-port"
    (text,) = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    script.write_text(text)

    async def claim(made: Doors) -> None:
        made.open_tcp()
        server = "http://{}:{}".format(*made.tcp.getsockname())
        environment = os.environ | {"PLAYGROUND_SERVER": server, "PLAYGROUND_TOKEN": token}
        words = ["sh", str(script), "pgffffffffffff", "h1", "touch", str(tmp_path / "moved")]
        done = await asyncio.to_thread(
            subprocess.run, words, env=environment, capture_output=True, text=True, timeout=30
        )
        assert done.returncode != 0 and said in done.stdout + done.stderr, (done.stdout, done.stderr)
        assert not (tmp_path / "moved").exists()

    within(tmp_path, claim)
