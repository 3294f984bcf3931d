"""A pool's table: what it gives, keeps, takes back; many clients with a moving clock, against a table that is a
list."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dhcp.decide import Standing
from dhcp.leases import DECLINED_S, GRACE_S, OFFER_S, Lease, Leases, State

FIRST = 100
MAC = b"\2\0\0\0\0\1"


def a_table(size: int = 4, limit: int = 3) -> Leases:
    return Leases([(FIRST, FIRST + size - 1)], limit, [(FIRST, FIRST + 2 * size - 1)])


def offered(table: Leases, client: bytes, port: str = "p", wish: int = 0, now_s: float = 1.0) -> int | None:
    lease = table.offer(port, client, MAC, wish, now_s)
    return None if lease is None else lease.address


def leased(table: Leases, client: bytes, port: str = "p", now_s: float = 1.0, lease_s: int = 60) -> int:
    address = offered(table, client, port, now_s=now_s)
    assert address is not None
    return table.grant(port, client, MAC, address, lease_s, now_s).address


def test_clients_get_addresses_of_their_own_and_keep_them() -> None:
    table = a_table()
    assert [leased(table, b"a"), leased(table, b"b"), leased(table, b"a")] == [FIRST, FIRST + 1, FIRST]


def test_a_wish_is_granted_where_it_is_free() -> None:
    table = a_table()
    assert offered(table, b"a", wish=FIRST + 2) == FIRST + 2
    assert offered(table, b"b", wish=FIRST + 2) == FIRST
    assert offered(table, b"c", wish=FIRST + 5) == FIRST + 1


def test_an_offer_that_nobody_takes_is_anothers_after_a_while() -> None:
    table = a_table(size=1)
    assert offered(table, b"a") == FIRST
    assert offered(table, b"b") is None
    assert offered(table, b"b", now_s=1 + OFFER_S) == FIRST


def test_a_lease_that_ran_out_is_given_back_to_its_client_first_and_to_others_last() -> None:
    table = a_table(size=3)
    assert [leased(table, name) for name in (b"a", b"b")] == [FIRST, FIRST + 1]
    assert offered(table, b"c", now_s=100) == FIRST + 2
    assert offered(table, b"a", now_s=100) == FIRST
    assert offered(table, b"d", now_s=100) == FIRST + 1


def test_one_port_can_not_starve_the_others() -> None:
    table = a_table(size=4, limit=3)
    assert [offered(table, bytes((number,))) for number in range(5)] == [FIRST, FIRST + 1, FIRST + 2, None, None]
    assert offered(table, b"x", port="q") == FIRST + 3


def test_declined_addresses_count_as_their_ports_and_rest() -> None:
    table = a_table(size=4, limit=2)
    for _ in range(2):
        table.decline(leased(table, b"a"), 1.0)
    assert offered(table, b"a") is None
    assert offered(table, b"b", port="q") == FIRST + 2
    assert table.standing("p", b"a", FIRST, 1.0) is Standing.FOREIGN
    assert offered(table, b"a", now_s=2 + DECLINED_S) is not None


def test_a_client_can_not_take_what_another_ports_client_has_by_its_identifier() -> None:
    table = a_table()
    address = leased(table, b"a")
    assert table.standing("q", b"a", address, 2.0) is Standing.FOREIGN
    assert offered(table, b"a", port="q") != address


@pytest.mark.parametrize(
    ("address", "standing"),
    [
        (FIRST, Standing.OWN),
        (FIRST + 1, Standing.FOREIGN),
        (FIRST + 2, Standing.FREE),
        (FIRST + 4, Standing.ELSEWHERE),
        (FIRST + 9, Standing.FOREIGN),
    ],
)
def test_an_address_stands_so(address: int, standing: Standing) -> None:
    table = a_table()
    leased(table, b"a"), leased(table, b"b")
    assert table.standing("p", b"a", address, 2.0) is standing


def test_a_port_that_has_its_share_is_told_so() -> None:
    table = a_table(limit=1)
    leased(table, b"a")
    assert table.standing("p", b"b", FIRST + 1, 2.0) is Standing.EXHAUSTED


def test_what_was_written_down_is_known_again() -> None:
    before, after = a_table(), a_table()
    address = leased(before, b"a")
    after.load(list(before))
    assert offered(after, b"a", now_s=2.0) == address
    assert offered(after, b"b", now_s=2.0) == FIRST + 1


def test_a_clock_that_goes_back_frees_nothing_and_ends_nothing() -> None:
    table = a_table(size=1)
    leased(table, b"a", now_s=1000.0)
    assert offered(table, b"b", now_s=1.0) is None
    assert offered(table, b"b", now_s=1059.0 + GRACE_S) is None
    assert offered(table, b"b", now_s=1061.0 + GRACE_S) == FIRST


def test_an_address_that_is_given_elsewhere_from_now_on_is_prolonged_only_for_who_has_it() -> None:
    table = a_table()
    address = leased(table, b"a")
    table.set([(FIRST + 1, FIRST + 3)], 3, [(FIRST, FIRST + 7)])
    assert table.standing("p", b"a", address, 2.0) is Standing.OWN
    assert table.standing("p", b"b", address, 2.0) is Standing.FOREIGN
    assert offered(table, b"a", now_s=2.0) == address
    assert table.standing("p", b"a", address, 70.0 + GRACE_S) is Standing.ELSEWHERE
    assert offered(table, b"a", now_s=70.0 + GRACE_S) == FIRST + 1


def test_an_address_out_of_the_range_is_not_prolonged() -> None:
    table = a_table()
    address = leased(table, b"a")
    table.set([(FIRST + 1, FIRST + 3)], 3)
    assert table.standing("p", b"a", address, 2.0) is Standing.FOREIGN
    assert offered(table, b"a", now_s=2.0) == FIRST + 1


def test_what_another_host_gave_is_known_here_and_never_shorter_than_before() -> None:
    table = Leases([(FIRST, FIRST)], 9, [(FIRST, FIRST + 3)])
    lease = Lease(FIRST + 2, "p", b"a", MAC, State.LEASED, 1.0, 61.0)
    table.take_over([lease])
    assert offered(table, b"a", now_s=2.0) == FIRST + 2
    assert table.grant("p", b"a", MAC, FIRST + 2, 600, 2.0).until_s == 602.0
    table.take_over([lease])
    assert table[FIRST + 2].until_s == 602.0


def test_an_address_that_comes_back_to_a_host_is_given_again() -> None:
    table = a_table(size=2)
    leased(table, b"a"), leased(table, b"b")
    table.set([(FIRST + 1, FIRST + 1)], 3)
    assert offered(table, b"c", now_s=900.0) == FIRST + 1
    table.set([(FIRST, FIRST + 1)], 3)
    assert offered(table, b"d", now_s=901.0) == FIRST


def test_renewing_without_end_costs_no_memory() -> None:
    table = a_table()
    for second in range(2000):
        leased(table, b"a", now_s=1.0 + second)
    assert len(table._ends) < 100


class Clients(RuleBasedStateMachine):
    """Clients of three ports that ask, take, renew, give back, decline, while time goes on and the process restarts."""

    @initialize(size=st.integers(1, 6), limit=st.integers(1, 4))
    def begin(self, size: int, limit: int) -> None:
        self.size, self.limit, self.now = size, limit, 1000.0
        self.table = a_table(size, limit)
        self.written: list[Lease] = []
        self.told: dict[int, tuple[str, bytes, float]] = {}
        """By address, which client was told last that it has it, and until when: the whole truth, kept simply."""

    ports, names = st.sampled_from("pqr"), st.sampled_from([b"a", b"b", b"c", b"d"])

    @rule(port=ports, client=names, wish=st.integers(0, 7), takes=st.booleans(), lease_s=st.integers(20, 200))
    def boots(self, port: str, client: bytes, wish: int, takes: bool, lease_s: int) -> None:
        lease = self.table.offer(port, client, MAC, FIRST + wish, self.now)
        if lease is not None and takes:
            self._take(port, client, lease.address, lease_s)

    def _take(self, port: str, client: bytes, address: int, lease_s: int) -> None:
        holder = self.told.get(address)
        is_over = holder is not None and holder[2] + GRACE_S <= self.now
        assert holder is None or holder[:2] == (port, client) or is_over, "two have one address"
        lease = self.table.grant(port, client, MAC, address, lease_s, self.now)
        self.written.append(lease)
        self.told[address] = (port, client, lease.until_s)

    @rule(port=ports, client=names, at=st.integers(-1, 13), lease_s=st.integers(20, 200))
    def asks_for_an_address(self, port: str, client: bytes, at: int, lease_s: int) -> None:
        standing = self.table.standing(port, client, FIRST + at, self.now)
        assert (standing in (Standing.OWN, Standing.FREE, Standing.EXHAUSTED)) <= (0 <= at < self.size)
        if standing in (Standing.OWN, Standing.FREE):
            self._take(port, client, FIRST + at, lease_s)

    @rule(port=ports, client=names, at=st.integers(0, 5), declines=st.booleans())
    def gives_back(self, port: str, client: bytes, at: int, declines: bool) -> None:
        address = FIRST + at
        if self.table.standing(port, client, address, self.now) is Standing.OWN:
            ended = (self.table.decline if declines else self.table.release)(address, self.now)
            self.written.append(ended)
            self.told.pop(address, None)

    @rule(seconds=st.sampled_from([-50.0, 1.0, 31.0, 150.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.now = max(self.now + seconds, self.now if seconds < 0 else 0)

    @rule()
    def restarts(self) -> None:
        self.table = a_table(self.size, self.limit)
        self.table.load(self.written)

    @invariant()
    def no_port_has_more_than_its_share(self) -> None:
        if hasattr(self, "table"):
            for port in "pqr":
                held = sum(1 for lease in self.table if lease.port == port and lease.kept_until_s > self.now)
                assert held == self.table.held(port, self.now) <= self.limit

    @invariant()
    def whoever_was_told_so_still_has_it(self) -> None:
        if hasattr(self, "table"):
            for address, (port, client, until_s) in self.told.items():
                if until_s > self.now:
                    assert self.table.standing(port, client, address, self.now) is Standing.OWN
                    assert self.table[address].state is State.LEASED


Clients.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestClients = Clients.TestCase
