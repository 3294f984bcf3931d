"""Pools against a deliberately dumb set, and against netaddr's IPSet."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import netaddr
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.pools import Pool, Span, address_hex, address_text, merge, parse_address, subtract

bases = st.sampled_from([0, 4090, (1 << 24) - 3, 0xFD00 << 112])
small_spans = st.lists(
    st.builds(lambda first, length: Span(first, first + length), st.integers(0, 9000), st.integers(0, 600)), max_size=5
)


def members(spans: list[Span] | tuple[Span, ...]) -> set[int]:
    return {address for span in spans for address in range(span.first, span.last + 1)}


def shifted(spans: list[Span], base: int) -> list[Span]:
    return [Span(span.first + base, span.last + base) for span in spans]


@settings(deadline=None, max_examples=50)
@given(small_spans, small_spans)
def test_spans_minus_spans_are_the_set_difference(spans: list[Span], holes: list[Span]) -> None:
    left = subtract(spans, holes)
    assert members(left) == members(spans) - members(holes)
    assert all(a.last + 1 < b.first for a, b in pairwise(left))
    assert members(merge(spans)) == members(spans)


@settings(max_examples=60, deadline=None)
@given(
    bases,
    small_spans,
    small_spans,
    st.lists(st.tuples(st.sampled_from(["allocate", "take", "release"]), st.integers(0, 10000)), max_size=60),
)
def test_a_pool_behaves_as_a_set_of_free_addresses(
    base: int, spans: list[Span], holes: list[Span], verbs: list[tuple[str, int]]
) -> None:
    pool = Pool(shifted(spans, base), shifted(holes, base))
    everything = members(shifted(spans, base)) - members(shifted(holes, base))
    free = set(everything)
    assert pool.size == len(everything)
    for verb, number in verbs:
        address = base + number
        match verb:
            case "allocate":
                lowest = min(free, default=None)
                assert pool.lowest_free() == lowest
                assert pool.allocate() == lowest
                free.discard(lowest)  # type: ignore[arg-type]
            case "take":
                assert pool.take(address) == (address in free)
                free.discard(address)
            case "release":
                assert pool.release(address) == (address in everything - free)
                if address in everything:
                    free.add(address)
        assert pool.free == len(free)
        assert pool.is_free(address) == (address in free)
        assert (address in pool) == (address in everything)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=40), st.integers(20, 30))
def test_lowest_free_agrees_with_netaddr(taken: list[int], prefix_len: int) -> None:
    network = netaddr.IPNetwork(f"10.1.0.0/{prefix_len}")
    pool = Pool([Span(network.first, network.last)])
    peer = netaddr.IPSet(network)
    for offset in taken:
        address = netaddr.IPAddress(network.first + offset)
        assert pool.take(int(address)) == (address in peer)
        peer -= netaddr.IPSet([address])
    for _ in range(5):
        lowest = pool.allocate()
        assert lowest == (int(next(iter(peer))) if peer else None)
        if lowest is not None:
            peer -= netaddr.IPSet([netaddr.IPAddress(lowest)])


def test_a_pool_is_used_up_and_comes_back_over_chunk_borders() -> None:
    pool = Pool([Span(10, 10 + 3 * 4096)])
    assert [pool.allocate() for _ in range(pool.size)] == list(pool)
    assert pool.allocate() is None
    for address in (9000, 11, 4096 + 10):
        assert pool.release(address)
    assert [pool.allocate(), pool.allocate(), pool.allocate(), pool.allocate()] == [11, 4106, 9000, None]


def test_a_slash_64_costs_no_more_memory_than_what_was_touched() -> None:
    first = 0xFD00_0020 << 96
    tracemalloc.start()
    try:
        pool = Pool([Span(first, first + (1 << 64) - 1)], [Span(first, first)])
        assert [pool.allocate() for _ in range(100)] == [first + n for n in range(1, 101)]
        assert pool.take(first + (1 << 63))
        assert not pool.take(first + (1 << 63))
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_a_full_group_of_chunks_far_up_stays_cheap() -> None:
    """A summary indexed by chunk number would need 2^52 bits here."""
    pool = Pool([Span(0, (1 << 64) - 1)])
    high = (1 << 63) // 4096 * 4096
    assert all(pool.take(high + n) for n in range(4096))
    assert pool.lowest_free() == 0
    assert pool.release(high + 5)
    assert pool.is_free(high + 5)


def test_text_is_canonical_at_the_edge() -> None:
    assert parse_address("10.0.0.1") == (4, 0x0A000001)
    assert address_text(6, parse_address("FD00:0:0::0001")[1]) == "fd00::1"
    assert address_hex(4, 0x0A000001) == "0a000001"
    assert len(address_hex(6, 1)) == 32
    with pytest.raises(ValueError, match="zone"):
        parse_address("fe80::1%eth0")
    with pytest.raises(ValueError, match="no span"):
        Span(5, 4)
