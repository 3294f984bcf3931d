"""Frames that are almost right, or almost wrong: whatever is heard of them may be, says a judge of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from frames import Case, attacks, rights
from guarded_lab import FAR, FAR_TOO, ME, NEAR, Lab, Station
from judge import wrong

pytestmark = pytest.mark.system

HEADERS = 110
"""Bytes of a frame that are worth a change."""


def mutated(draw: random.Random, seeds: list[bytes]) -> Iterator[bytes]:
    """For ever: one of the seeds with some bytes changed, copied from elsewhere or from another one, or cut off."""
    words = [
        seed[at : at + size] for seed in seeds for at, size in ((0, 6), (6, 6), (12, 2), (26, 4), (22, 16), (54, 8))
    ]
    while True:
        frame = bytearray(draw.choice(seeds))
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            at = draw.randrange(min(len(frame), HEADERS))
            match draw.randrange(7):
                case 0:
                    frame[at] = draw.randrange(256)
                case 1:
                    frame[at] ^= 1 << draw.randrange(8)
                case 2:
                    frame[at] = draw.choice((0, 1, 2, 4, 6, 17, 43, 44, 58, 60, 67, 68, 133, 134, 135, 136, 255))
                case 3:
                    word = draw.choice(words)
                    frame[at : at + len(word)] = word
                case 4:
                    frame[at:at] = draw.choice((b"\x81\0\0\0", b"\x88\xa8\0\7", draw.choice(words)))
                case 5:
                    del frame[at : at + draw.randrange(1, 9)]
                case _:
                    del frame[max(at, 14) :]
        if len(frame) >= 14:
            yield bytes(frame)


def heard_wrongly(lab: Lab, by: Station, count: int, seed: int) -> tuple[int, list[str]]:
    """(how many frames were heard, what should not have been)."""
    draw = random.Random(seed)
    cases = [Case(by, you, other) for you, other in ((NEAR, FAR), (FAR, NEAR)) if by not in (you, other)]
    cases = cases or [Case(by, ME, FAR_TOO)]
    seeds = [bytes(frame) for case in cases for frame in rights(case).values()] * 3
    seeds += [bytes(frame) for case in cases for _, frame in attacks(case).values()]
    frames, heard, bad = mutated(draw, seeds), 0, []
    for _ in range(count // 50):
        for _ in range(50):
            lab.say(by, next(frames))
        for station in lab.ends:
            if station != by:
                for frame in lab.hear(station, lab.fence(by, station)):
                    heard += 1
                    if reason := wrong(frame, by, station):
                        bad.append(f"{station.addresses[0]} heard {reason}: {frame[:120].hex()}")
    return heard, bad


def test_of_frames_that_are_almost_right_only_right_ones_are_heard(guarded: Lab) -> None:
    heard, bad = heard_wrongly(guarded, ME, 4000, 1)
    assert not bad, bad[:3]
    assert heard > 100


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_of_many_frames_only_right_ones_are_heard(guarded: Lab, seed: int) -> None:
    heard, bad = heard_wrongly(guarded, ME, 50000, 1000 + seed)
    assert not bad, bad[:3]
    assert heard > 1000


def test_the_judge_knows_an_attack_and_what_is_right(guarded: Lab) -> None:
    """Or its silence would mean nothing: without the guard it finds much, of the same frames."""
    guarded.a.unguard()
    guarded.b.unguard()
    try:
        _, bad = heard_wrongly(guarded, ME, 2000, 1)
        assert len(bad) > 500
    finally:
        guarded.guard()
    for case in (Case(ME, NEAR, FAR), Case(ME, FAR, NEAR)):
        assert not [name for name, frame in rights(case).items() if wrong(bytes(frame), ME, case.you)]
