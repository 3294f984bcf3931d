"""What a host remembers of what it was shown: whole changes only, however the agent died."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from playground.agent import cache as cache_module
from playground.agent.cache import Cache
from playground.records import HostRecord
from playground.view import View, playground_scope
from playground.wire import Changed, Complete, Enter, Leave, Viewed
from tests.derive.test_derive import GRID, a_binding, a_port

ATLAS = playground_scope("atlas")
START = [
    Enter("site", 1, [HostRecord(name="n1", site="lab", underlay="192.0.2.11")]),
    Enter(ATLAS, 1, [GRID, a_port(0, GRID), a_binding(a_port(0, GRID), "n1")]),
    Complete(1),
]
CHANGES: list[list[Enter | Changed | Leave | Complete]] = [
    [Changed(ATLAS, 2, [a_port(1, GRID), a_binding(a_port(1, GRID), "n2")], []), Complete(2)],
    [Changed(ATLAS, 3, [], [f"claim/active/{a_port(0, GRID).id}"]), Enter("host/n1", 3, []), Complete(3)],
    [Leave(ATLAS), Complete(4)],
    [Enter(ATLAS, 5, [GRID]), Complete(5)],
]


def a_view(*parts: list[Enter | Changed | Leave | Complete]) -> View:
    view = View()
    for part in ([*START], *parts):
        for message in part:
            view.take(message)
    return view


def held(view: View) -> dict[str, dict[str, Viewed]]:
    return {name: dict(scope.records) for name, scope in view.scopes.items()}


def written(path: Path, changes: int) -> None:
    cache = Cache(path)
    cache.replace(a_view(), "internal", ["192.0.2.53"])
    for change in CHANGES[:changes]:
        assert cache.add(change)
    cache.close()


def test_what_was_said_is_remembered_beside_the_whole_view(tmp_path: Path) -> None:
    written(tmp_path / "view", len(CHANGES))
    found = Cache(tmp_path / "view").read()
    assert found is not None
    assert held(found.view) == held(a_view(*CHANGES))
    assert (found.view.revision, found.view.complete) == (5, True)
    assert (found.domain, found.resolvers) == ("internal", ("192.0.2.53",))


def test_cut_off_at_any_byte_it_holds_whole_changes_only(tmp_path: Path) -> None:
    """An agent may die in the middle of a line; what it had not finished counts as never said."""
    path = tmp_path / "view"
    cache = Cache(path)
    cache.replace(a_view(), "internal", [])
    ends = [path.stat().st_size]
    for change in CHANGES:
        assert cache.add(change)
        ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for size in range(ends[0], len(whole)):
        path.write_bytes(whole[:size])
        found = Cache(path).read()
        assert found is not None
        # without its line's end, a last line may already be whole
        finished = [n for n, end in enumerate(ends) if end <= size + 1]
        assert held(found.view) == held(a_view(*CHANGES[: finished[-1]]))


@pytest.mark.parametrize("text", [b"", b"{", b"[]\n", b"\0" * 80, b"{}\n"])
def test_what_is_no_cache_is_said_to_be_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "view").write_bytes(text)
    with pytest.raises(msgspec.DecodeError):
        Cache(tmp_path / "view").read()


def test_without_a_file_nothing_is_remembered(tmp_path: Path) -> None:
    assert Cache(tmp_path / "view").read() is None


def test_garbage_behind_the_view_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "view"
    written(path, 1)
    clean = path.read_bytes()
    noise = random.Random(7)
    for _ in range(200):
        path.write_bytes(clean + noise.randbytes(noise.randrange(200)))
        found = Cache(path).read()
        assert found is not None and held(found.view) == held(a_view(CHANGES[0]))


def test_lines_that_outgrow_the_view_ask_for_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "SMALLEST", 100)
    cache = Cache(tmp_path / "view")
    assert not cache.add([Complete(1)]), "there is no view yet"
    cache.replace(a_view(), "internal", [])
    count = 0
    while cache.add(CHANGES[0]):
        count += 1
    assert 1 < count < 20
    cache.replace(a_view(CHANGES[0]), "internal", [])
    assert cache.add(CHANGES[1])


def test_a_vouch_costs_a_line_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "view")
    cache.replace(a_view(), "internal", [])
    size = cache.path.stat().st_size
    assert cache.vouch() and cache.path.stat().st_size == size
    monkeypatch.setattr(cache_module, "VOUCH_S", 0.0)
    assert cache.vouch() and cache.path.stat().st_size > size


def test_a_disk_that_takes_no_more_is_said_so_and_nothing_is_taken_for_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path / "view")
    cache.replace(a_view(), "internal", [])
    assert cache._file is not None
    cache._file.close()
    cache._file = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115
    with pytest.raises(OSError, match="No space"):
        cache.add(CHANGES[0])
    assert not cache.add(CHANGES[0]), "a whole view is needed after a torn line"
