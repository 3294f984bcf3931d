"""Fuzzes every door for as long as one likes: `python tests/fuzz/long.py --seconds 600 [--door NAME]`.

Guided by coverage where atheris is installed (`pip install atheris`), else by hypothesis alone. What breaks a claim is
shrunk, kept in tests/fuzz/corpus/DOOR, from where the suite tries it ever after, and ends the run with 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

MEMORY_MIB = 2048
AT_ONCE = 25
"""Examples between two looks at the clock."""


def main() -> int:
    """0 when every door held."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=600.0, help="for all doors together")
    options.add_argument("--door", action="append", help="only this one; may be repeated")
    options.add_argument("--plain", action="store_true", help="without atheris, even where it is installed")
    asked = options.parse_args()
    is_guided = not asked.plain and importlib.util.find_spec("atheris") is not None
    known = _doors(is_guided)
    doors = asked.door or known
    share_s = asked.seconds / len(doors)
    print(f"{'atheris' if is_guided else 'hypothesis alone'}, {share_s:.0f} s a door", flush=True)
    failed = 0
    for door in doors:
        pid = os.fork()  # libFuzzer never returns, and what one door has grown is no other's
        if pid == 0:
            os._exit(_fuzz(door, share_s, is_guided))
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        print(f"{door}: {'held' if code == 0 else f'broke (exit {code})'}", flush=True)
        failed += code != 0
    return 1 if failed else 0


def _doors(is_guided: bool) -> list[str]:
    """All of them. With atheris everything behind them is imported here, and counts its branches from then on: what was
    imported before would not."""
    if not is_guided:
        from targets import TARGETS

        return list(TARGETS)
    import atheris

    with atheris.instrument_imports(include=["playground", "overlay", "policies", "ruamel", "dhcp"]):
        from targets import TARGETS

        for door in TARGETS:
            _warm(door)
    return list(TARGETS)


def _fuzz(door: str, seconds: float, is_guided: bool) -> int:
    logging.disable(logging.ERROR)
    _warm(door)
    limit = MEMORY_MIB << 20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    return _guided(door, seconds) if is_guided else _plain(door, seconds)


def _warm(door: str) -> None:
    from targets import TARGETS

    for path in TARGETS[door].kept():
        TARGETS[door].check(TARGETS[door].from_file(path.read_bytes()))


def _checked(door: str, examples: int) -> tuple[Any, list[Any]]:
    """A hypothesis test of the door, and the last input that broke it: the shrunk one, since that is tried last."""
    from hypothesis import HealthCheck, given, settings
    from targets import TARGETS

    target, broke = TARGETS[door], []

    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
    )
    @given(target.inputs)
    def check(value: Any) -> None:
        try:
            target.check(value)
        except BaseException:
            broke[:] = [value]
            raise

    return check, broke


def _keep(door: str, broke: list[Any], error: BaseException) -> int:
    import traceback

    from targets import TARGETS

    traceback.print_exception(error)
    if broke:
        print(f"kept as {TARGETS[door].keep(broke[0])}", flush=True)
    return 1


def _plain(door: str, seconds: float) -> int:
    end_s, tried = time.monotonic() + seconds, 0
    while time.monotonic() < end_s:
        check, broke = _checked(door, AT_ONCE)
        try:
            check()
        except Exception as error:
            return _keep(door, broke, error)
        tried += AT_ONCE
    print(f"{door}: {tried} inputs", flush=True)
    return 0


def _guided(door: str, seconds: float) -> int:
    import atheris

    check, broke = _checked(door, 1)

    def one(data: bytes) -> None:
        try:
            check.hypothesis.fuzz_one_input(data)
        except Exception as error:
            _keep(door, broke, error)
            raise

    with tempfile.TemporaryDirectory() as found:
        words = [
            "fuzz",
            f"-max_total_time={seconds:.0f}",
            "-timeout=120",
            "-max_len=8192",
            f"-artifact_prefix={found}/",
        ]
        atheris.Setup([*words, "-verbosity=0", "-print_final_stats=1", found], one)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
