"""Two ask at once for what excludes each other: one wins, the other is told or comes second, and nothing is half.

The second asks after each effect of the first, and at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from doubled_site import Site, play
from test_crash_doubled import EDITED, LAB, text_of

from playground.controller.controller import Unknown
from playground.controller.moves import Refused
from playground.spec.problem import SpecErrors

SAMPLE = 50
"""Of the moments at which the second may ask, every so manieth is tried each time, and all in `make test-long`."""

OTHER = LAB.replace("  b: {", "  d: {")
QUIET_S = 4.0

Verb = Callable[[Any], Awaitable[Any]]


def up(text: str) -> Verb:
    return lambda c: c.up("lab.yaml", text)


def down(c: Any) -> Awaitable[Any]:
    return c.down("lab")  # type: ignore[no-any-return]


def move(target: str) -> Verb:
    return lambda c: c.moves.request(c.workspace("lab/a"), target, measure=False)


def stop(c: Any) -> Awaitable[Any]:
    return c.ask("lab/a", "stop")  # type: ignore[no-any-return]


def abort(c: Any) -> Awaitable[Any]:
    return c.moves.abort(c.workspace("lab/a"))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Answer:
    """What somebody was told. refusal: "" for done."""

    refusal: str = ""

    @property
    def is_done(self) -> bool:
        return not self.refusal


async def told(site: Site, verb: Verb) -> Answer:
    try:
        await site.ask(verb)
        return Answer()
    except (Refused, Unknown, SpecErrors) as error:
        return Answer(str(error) or type(error).__name__)


Claim = Callable[[Site, Answer, Answer], None]
"""What must be so in the end."""


def host_of(site: Site) -> str | None:
    return getattr(site.items().get("workspace/lab/a"), "host", None)


def one_file(site: Site, first: Answer, second: Answer) -> None:
    assert first.is_done and second.is_done
    assert text_of(site) in (EDITED, OTHER)


def file_or_nothing(site: Site, first: Answer, second: Answer) -> None:
    assert first.is_done
    assert text_of(site) in (None, EDITED) and (second.is_done or text_of(site) == EDITED)


def edited_and_somewhere(site: Site, first: Answer, second: Answer) -> None:
    """The edit is accepted whatever moves; the move is over, there or called off, or was refused with its reason."""
    assert text_of(site) == EDITED and host_of(site) in ("n1", "n2", "n3")
    assert first.is_done or second.is_done


def moved_once(site: Site, first: Answer, second: Answer) -> None:
    assert first.is_done and host_of(site) == "n3"
    assert "is being moved to n3" in second.refusal or "is on n3 already" in second.refusal, second


def moved_to_either(site: Site, first: Answer, second: Answer) -> None:
    assert first.is_done and host_of(site) == ("n2" if second.is_done else "n3")
    assert second.is_done or "is being moved to n3" in second.refusal or "not running on n3" in second.refusal, second


def gone(site: Site, first: Answer, second: Answer) -> None:
    assert text_of(site) is None and site.records("lab") == []


def moved_or_stopped(site: Site, first: Answer, second: Answer) -> None:
    desired = getattr(site.items()["workspace/lab/a"], "desired", "")
    assert first.is_done and host_of(site) in ("n1", "n3")
    assert desired == ("stopped" if second.is_done else "running"), second


def moved_or_called_off(site: Site, first: Answer, second: Answer) -> None:
    assert first.is_done and host_of(site) == ("n1" if second.is_done else "n3"), second


CASES: dict[str, tuple[Verb, Verb, Claim]] = {
    "two files": (up(EDITED), up(OTHER), one_file),
    "file and removal": (up(EDITED), down, file_or_nothing),
    "removal and file": (down, up(EDITED), file_or_nothing),
    "file and move": (up(EDITED), move("n3"), edited_and_somewhere),
    "move and file": (move("n3"), up(EDITED), edited_and_somewhere),
    "a move twice": (move("n3"), move("n3"), moved_once),
    "two moves": (move("n3"), move("n2"), moved_to_either),
    "move and removal": (move("n3"), down, gone),
    "move and stop": (move("n3"), stop, moved_or_stopped),
    "move and abort": (move("n3"), abort, moved_or_called_off),
}


async def contest(site: Site, first: Verb, second: Verb, after: int) -> tuple[Answer, Answer, int]:
    """Both answers, and how many effects there were until all was quiet. after: effects of the first before the second
    asks."""
    begun = asyncio.Event()

    def look() -> None:
        if len(site.effects.done) >= after:
            begun.set()

    site.effects.begin(None)
    site.effects.on_effect.append(look)
    earlier = asyncio.create_task(told(site, first))
    if after:
        waiting = asyncio.create_task(asyncio.sleep(10.0))
        await asyncio.wait([asyncio.create_task(begun.wait()), waiting], return_when=asyncio.FIRST_COMPLETED)
    answers = await asyncio.gather(earlier, asyncio.create_task(told(site, second)))
    await asyncio.sleep(QUIET_S)
    return *answers, len(site.effects.done)


def check(name: str, after: int, folder: Path, patch: pytest.MonkeyPatch) -> int:
    first, second, claim = CASES[name]

    async def scene(site: Site) -> int:
        await site.ask(up(LAB))
        await site.converged("lab")
        await asyncio.sleep(5.0)
        answers = await contest(site, first, second, after)
        if text_of(site) is None:
            await site.removed("lab")
        else:
            await site.converged("lab")
        claim(site, answers[0], answers[1])
        desired = getattr(site.items().get("workspace/lab/a"), "desired", "running")
        if desired == "running":
            site.assert_nothing_is_twice()
        return answers[2]

    for file in folder.iterdir():
        file.unlink()
    with patch.context() as patched:
        return play(folder, patched, scene)


@pytest.mark.parametrize("every", [SAMPLE, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", CASES)
def test_whoever_asks_when_one_wins_and_nothing_is_half(
    name: str, every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    effects = check(name, 0, tmp_path, monkeypatch)
    wrong = []
    for after in range(1 if every == 1 else every // 2, effects, every):
        try:
            check(name, after, tmp_path, monkeypatch)
        except AssertionError as error:
            wrong.append(f"after {after}: {str(error)[:500]}")
    assert not wrong, "\n".join(wrong)
