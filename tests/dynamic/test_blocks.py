"""Blocks of one port: asked for early, given back, taken along by a move, taken back from a host that is silent."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from dhcp.leases import Lease, State
from overlay.pools import Span, parse_address
from playground.blocks import (
    DOUBT_S,
    FENCE_S,
    SIZE,
    SPARE,
    Around,
    addresses,
    claims_of,
    prefixes,
    spans_of,
    step,
    within,
)
from playground.records import Block, DynamicRecord, ObservedLeases, PortRecord

PORT = PortRecord(
    playground="lab",
    workspace="nest",
    network="grid",
    network_id="0" * 12,
    id="1" * 12,
    mac="02:00:00:00:00:01",
    addresses=("10.0.0.2",),
    dynamic=20,
)
RECORD = DynamicRecord(playground="lab", network_id="0" * 12, port=PORT.id)
RANGE = Span(parse_address("10.0.0.200")[1], parse_address("10.0.0.231")[1])
NOW = 1_000_000.0


def a_lease(at: int, until_s: float = NOW + 60, state: State = State.LEASED, client: bytes = b"c") -> Lease:
    return Lease(RANGE.first + at, "pg", client, bytes((2, 0, 0, 0, 9, at)), state, NOW - 60, until_s)


def around(**changes: Any) -> Around:
    given: dict[str, Any] = {
        "port": PORT,
        "ranges": (RANGE,),
        "lease_s": 60,
        "active": "n1",
        "stay": 1,
        "seen": {},
        "is_final": lambda host: True,
        "is_alive": lambda host: True,
        "is_free": lambda address: True,
        "may_have": lambda mac: True,
        "now_utc_s": NOW,
    }
    return Around(**(given | changes))


def said(*leases: Lease, host: str = "n1") -> dict[str, ObservedLeases]:
    return {host: ObservedLeases(port=PORT.id, host=host, leases=leases)}


def a_block(at: int = 0, host: str = "n1", size: int = SIZE, **changes: Any) -> Block:
    texts = [f"10.0.0.{200 + at}", f"10.0.0.{200 + at + size - 1}"]
    return replace(Block(*texts, host, 1, 60), **changes)


def test_a_port_begins_with_one_block_for_the_host_where_it_is() -> None:
    assert step(RECORD, around()).blocks == (a_block(),)
    assert step(RECORD, around(active=None)) == RECORD


def test_a_port_of_few_machines_gets_no_more_than_these() -> None:
    few = around(port=replace(PORT, dynamic=2))
    assert step(RECORD, few).blocks == (a_block(size=2),)


def test_more_is_asked_for_before_the_last_one_is_given() -> None:
    record = replace(RECORD, blocks=(a_block(),))
    enough = [a_lease(at) for at in range(SIZE - SPARE)]
    taken = addresses(record.blocks).__contains__
    free = around(seen=said(*enough), is_free=lambda address: not taken(address))
    assert step(record, free).blocks == record.blocks
    short = around(seen=said(*enough, a_lease(SIZE - 1)), is_free=lambda address: not taken(address))
    assert step(record, short).blocks == (a_block(), a_block(SIZE))


def test_a_port_that_has_all_it_may_have_gets_no_more() -> None:
    record = replace(RECORD, blocks=(a_block(),))
    full = around(port=replace(PORT, dynamic=8), seen=said(*(a_lease(at) for at in range(8))))
    assert step(record, full).blocks == record.blocks


def test_where_no_whole_block_is_left_what_is_left_is_given() -> None:
    left = {RANGE.first + at for at in (3, 4, 9)}
    found = step(RECORD, around(is_free=left.__contains__)).blocks
    assert found == (a_block(3, size=2), a_block(9, size=1))
    assert step(RECORD, around(is_free=lambda address: False)) == RECORD


def test_what_nobody_needs_is_given_back_once_its_host_gives_none_of_it() -> None:
    record = replace(RECORD, blocks=(a_block(), a_block(SIZE)))
    closing = step(record, around())
    assert closing.blocks == (a_block(), a_block(SIZE, closing=True))
    assert step(closing, around(is_final=lambda host: False)) == closing
    assert step(closing, around()).blocks == (a_block(),)


def test_what_was_given_before_its_host_heard_of_that_stays() -> None:
    closing = replace(RECORD, blocks=(a_block(), a_block(SIZE, closing=True)))
    after = step(closing, around(seen=said(a_lease(SIZE))))
    assert after.blocks == (a_block(), a_block(SIZE))


def test_a_move_takes_the_leases_along_and_the_blocks_once_the_old_host_is_done() -> None:
    record = replace(RECORD, blocks=(a_block(),), machines=("02:00:00:00:09:00",))
    lease = a_lease(0)
    moved = around(active="n2", seen=said(lease), is_final=lambda host: False)
    after = step(record, moved)
    assert after.blocks[0] == a_block(closing=True)
    assert after.blocks[1].host == "n2"
    assert after.leases == (lease,)
    assert after.machines == record.machines
    late = a_lease(1)
    done = step(after, around(active="n2", seen=said(lease, late)))
    assert done.blocks[0] == a_block(host="n2")
    assert done.leases == (lease, late)


def test_a_port_that_came_back_begins_anew_with_what_it_had_before() -> None:
    """The controller, or its host, may never have seen it away: what another host gave meanwhile is not known there."""
    record = replace(RECORD, blocks=(a_block(),))
    closing = step(record, around(stay=3, seen=said(a_lease(0))))
    assert closing.blocks[0] == a_block(closing=True)
    again = step(closing, around(stay=3, seen=said(a_lease(0))))
    assert again.blocks[0] == a_block(stay=3)
    assert again.leases == (a_lease(0),)


def test_a_lease_that_was_prolonged_where_the_port_is_now_is_not_told_any_more() -> None:
    lease = a_lease(0)
    record = replace(RECORD, blocks=(a_block(host="n2"),), leases=(lease,))
    inherited = step(record, around(active="n2", seen=said(lease, host="n2")))
    assert inherited.leases == (lease,)
    renewed = step(record, around(active="n2", seen=said(a_lease(0, NOW + 90), host="n2")))
    assert renewed.leases == ()


def test_a_host_that_is_silent_keeps_its_blocks_until_all_in_them_has_ended_for_sure() -> None:
    record = replace(RECORD, blocks=(a_block(), a_block(SIZE, "n2")))
    lost = {"active": "n2", "is_final": lambda host: host == "n2", "is_alive": lambda host: host == "n2"}
    closing = step(record, around(**lost))
    assert closing.blocks[0] == a_block(closing=True)
    silent = step(closing, around(**lost))
    assert silent.blocks[0] == a_block(closing=True, silent_utc_s=NOW)
    early = step(silent, around(**lost, now_utc_s=NOW + FENCE_S + 60)).blocks
    assert a_block(closing=True, silent_utc_s=NOW) in early
    over = step(silent, around(**lost, now_utc_s=NOW + FENCE_S + DOUBT_S + 91)).blocks
    assert over == (a_block(SIZE, "n2"),)


def test_a_host_that_is_heard_again_before_that_is_asked_first() -> None:
    silent = replace(RECORD, blocks=(a_block(closing=True, silent_utc_s=NOW), a_block(SIZE, "n2")))
    heard = around(active="n2", is_final=lambda host: host == "n2", now_utc_s=NOW + 2 * FENCE_S)
    assert step(silent, heard).blocks[0] == a_block(closing=True)


def test_a_range_that_changes_keeps_what_is_leased_until_it_ends() -> None:
    elsewhere = Span(RANGE.last + 1, RANGE.last + 16)
    record = replace(RECORD, blocks=(a_block(),))
    closing = step(record, around(ranges=(elsewhere,), seen=said(a_lease(0))))
    assert closing.blocks[0] == a_block(closing=True)
    assert step(closing, around(ranges=(elsewhere,), seen=said(a_lease(0)))).blocks[0] == a_block(closing=True)
    assert a_block(closing=True) not in step(closing, around(ranges=(elsewhere,))).blocks


def test_of_a_port_that_is_gone_nothing_stays() -> None:
    record = replace(RECORD, blocks=(a_block(),), machines=("02:00:00:00:09:00",), leases=(a_lease(0),))
    gone = around(port=None, active=None, seen=said(a_lease(0)))
    closing = step(record, gone)
    assert (closing.machines, closing.leases) == ((), ())
    assert step(closing, gone).blocks == ()


def test_machines_are_let_in_while_they_have_a_lease_and_nobody_else_has_their_mac() -> None:
    record = replace(RECORD, blocks=(a_block(),))
    leases = said(a_lease(0), a_lease(1), a_lease(2, state=State.DECLINED), a_lease(3, NOW - DOUBT_S - 31))
    assert step(record, around(seen=leases)).machines == ("02:00:00:00:09:00", "02:00:00:00:09:01")
    taken = around(seen=leases, may_have=lambda mac: mac.endswith("01"))
    assert step(record, taken).machines == ("02:00:00:00:09:01",)
    over = replace(record, machines=("02:00:00:00:09:00", "02:00:00:00:09:01"))
    assert step(over, around(seen=said(a_lease(1)))).machines == ("02:00:00:00:09:01",)


def test_a_lease_outside_of_the_ports_blocks_means_nothing() -> None:
    record = replace(RECORD, blocks=(a_block(),))
    assert step(record, around(seen=said(a_lease(20)))).machines == ()


def test_texts_and_spans_of_blocks_agree() -> None:
    assert spans_of(["10.0.0.200-10.0.0.231"]) == (RANGE,)
    assert spans_of(["10.0.0.7"]) == (Span(parse_address("10.0.0.7")[1], parse_address("10.0.0.7")[1]),)
    assert prefixes([a_block(), a_block(SIZE)]) == ("10.0.0.200/29", "10.0.0.208/29")
    assert prefixes([a_block(size=1)]) == ("10.0.0.200",)
    assert within([a_block()], [Span(RANGE.first + 4, RANGE.last)]) == (("10.0.0.204", "10.0.0.207"),)
    assert len(claims_of(replace(RECORD, blocks=(a_block(),), machines=("02:00:00:00:09:00",)))) == SIZE + 1
