from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from namespace_lab import SCRIPTS

from playground.workspaces import echoes
from playground.workspaces.stream import Tally

MS = 1_000_000
COUNTS = ("sent", "received", "lost", "duplicated", "reordered", "gap_ms")
STREAM = (sys.executable, "-I", "-S", str(SCRIPTS / "stream.py"))


def a_tally(numbers: list[int], planned: int = 10, sent: int | None = 10) -> dict[str, Any]:
    """Arrivals a millisecond apart, then the end marker."""
    tally = Tally()
    for at, number in enumerate(numbers):
        tally.arrive(number, planned, number * MS, at * MS)
    tally.end(sent, planned * MS, len(numbers) * MS)
    return tally.result()


def test_a_whole_stream_lost_nothing() -> None:
    result = a_tally(list(range(10)))
    assert {key: result[key] for key in COUNTS} == dict(zip(COUNTS, (10, 10, 0, 0, 0, 1.0), strict=True))
    assert result["losses"] == []


def test_losses_are_told_with_their_time_by_the_senders_rate() -> None:
    tally = Tally()
    for number in (0, 1, 2, 6, 7, 9):
        tally.arrive(number, 10, number * MS, 1000 * MS + number * MS)
    tally.end(10, 10 * MS, 1010 * MS)
    assert tally.losses() == [(1003 * MS, 3), (1008 * MS, 1)]
    assert tally.result()["losses"] == [[1.003, 3], [1.008, 1]] and tally.result()["gap_utc_s"] == 1.002


def test_unanswered_requests_are_told_with_the_time_at_which_they_were_sent() -> None:
    tally = echoes.Tally()
    for number in range(8):
        tally.send(number * MS)
        if number not in (3, 4, 7):
            tally.arrive(number, number * MS)
    tally.arrive(5, 8 * MS)
    tally.end(9 * MS)
    assert tally.losses() == [(3 * MS, 2), (7 * MS, 1)]
    told = tally.result(utc_ns=1000 * MS)
    assert (told["sent"], told["lost"], told["duplicated"]) == (8, 3, 1)
    assert (told["gap_ms"], told["gap_utc_s"], told["losses"]) == (3.0, 1.002, [[1.003, 2], [1.007, 1]])


def test_a_stream_that_never_resumes_counts_as_lost_to_its_end() -> None:
    tally = Tally()
    tally.arrive(0, 1000, 0, 0)
    tally.end(1000, 1000 * MS, 1000 * MS)
    assert (tally.result()["lost"], tally.result()["gap_ms"]) == (999, 1000.0)


def test_without_an_end_marker_the_plan_is_what_was_sent() -> None:
    assert a_tally([0, 1, 2], planned=50, sent=None)["lost"] == 47


def test_a_stream_that_began_unheard_has_a_gap_before_it() -> None:
    tally = Tally()
    tally.arrive(200, 1000, 200 * MS, 5 * MS)
    assert tally.result()["gap_ms"] == 200.0


def test_only_the_first_end_marker_counts() -> None:
    tally = Tally()
    tally.arrive(0, 1, 0, 0)
    tally.end(1, 0, 1 * MS)
    tally.end(7, 0, 500 * MS)
    assert [tally.result()[key] for key in COUNTS] == [1, 1, 0, 0, 0, 1.0]


@settings(max_examples=50)
@given(st.lists(st.integers(0, 3000), max_size=80))
def test_counts_agree_with_a_dumb_count(numbers: list[int]) -> None:
    result = a_tally(numbers, planned=3001, sent=3001)
    highest, reordered, seen = -1, 0, set[int]()
    for number in numbers:
        if number not in seen and number < highest:
            reordered += 1
        seen.add(number)
        highest = max(highest, number)
    assert result["received"] == len(seen)
    assert result["duplicated"] == len(numbers) - len(seen)
    assert result["lost"] == 3001 - len(seen)
    assert result["reordered"] == reordered


def receiver(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A receiver on any port, and that port."""
    argv = [*STREAM, *arguments, "--port", "0"]
    started = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    return started, started.stderr.readline().split()[1]


def send(*arguments: str) -> dict[str, float]:
    done = subprocess.run([*STREAM, *arguments], check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_both_ends_agree_over_loopback(address: str) -> None:
    heard, port = receiver("receive")
    sent = send("send", "--to", address, "--port", port, "--seconds", "0.2")
    result = json.loads(heard.communicate()[0])
    assert sent["sent"] == result["sent"] == result["received"] == 200
    assert result["gap_ms"] < 1 + sent["late_ms"] + 50


def test_a_receiver_that_hears_nothing_ends_and_says_so() -> None:
    heard, _ = receiver("receive", "--patience", "0.1")
    assert json.loads(heard.communicate()[0])["received"] == 0


def test_a_receiver_that_is_asked_to_end_prints_what_it_has() -> None:
    heard, _ = receiver("receive")
    heard.send_signal(signal.SIGTERM)
    assert json.loads(heard.communicate(timeout=5)[0])["received"] == 0


def test_a_transfer_arrives_intact_and_a_cut_one_is_not() -> None:
    heard, port = receiver("tcp-receive")
    sent = send("tcp-send", "--to", "127.0.0.1", "--port", port, "--seconds", "0.2", "--mbps", "200")
    result = json.loads(heard.communicate()[0])
    assert result["intact"] and result["bytes"] == sent["bytes"] > 0
    assert sent["mbps"] < 260

    heard, port = receiver("tcp-receive")
    argv = [*STREAM, "tcp-send", "--to", "127.0.0.1", "--port", port, "--seconds", "9", "--mbps", "50"]
    cut = subprocess.Popen(argv)
    with pytest.raises(subprocess.TimeoutExpired):
        cut.wait(0.2)
    cut.kill()
    cut.wait()
    assert json.loads(heard.communicate()[0])["intact"] is False
