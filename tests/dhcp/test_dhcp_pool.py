"""Clients that nobody declared: what each message gets from a pool, what is written down first, what a crash leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
from dhcp_cases import MAC_BYTES, OTHER, SERVER, a_pool, a_request

from dhcp.decide import Act
from dhcp.io.journal import SLACK, Journal, of_pool
from dhcp.leases import State
from dhcp.message import Message
from dhcp.options import Code, MessageType
from dhcp.pool import Answered, Pool
from dhcp.reason import Reason
from dhcp.render import Reply

D, R = MessageType.DISCOVER, MessageType.REQUEST
WANTS, SERVER_ID = int(Code.REQUESTED_ADDRESS), int(Code.SERVER_ID)
FIRST = b"\x0a\x14\0\x64"


def ask(pool: Pool, request: Message, port: str = "p", now_s: float = 1.0, is_unicast: bool = False) -> Answered:
    return pool.answer(port, request, request.chaddr, now_s, is_unicast)


def outcome(answered: Answered) -> Act | Reason:
    return answered.reply.act if isinstance(answered.reply, Reply) else answered.reply


def bound(pool: Pool, **fields: object) -> bytes:
    """The address after DISCOVER and REQUEST."""
    offer = ask(pool, a_request(D, **fields)).reply
    assert isinstance(offer, Reply)
    ack = ask(pool, a_request(R, {WANTS: offer.address, SERVER_ID: SERVER}, **fields))
    assert outcome(ack) is Act.ACK
    return offer.address


def test_an_offer_is_only_a_promise_and_an_ack_has_to_be_written_down() -> None:
    pool = Pool(a_pool())
    offer = ask(pool, a_request(D))
    assert (outcome(offer), offer.keep) == (Act.OFFER, None)
    ack = ask(pool, a_request(R, {WANTS: FIRST, SERVER_ID: SERVER}))
    assert ack.keep is not None
    assert (ack.keep.address.to_bytes(4, "big"), ack.keep.state, ack.keep.until_s) == (FIRST, State.LEASED, 601.0)


@pytest.mark.parametrize(
    ("request_", "is_unicast", "expected"),
    [
        (a_request(R, {WANTS: FIRST, SERVER_ID: OTHER}), False, Reason.OTHER_SERVER),
        (a_request(R, {WANTS: FIRST}), False, Act.ACK),  # free and ours: as good as an offer
        (a_request(R, {WANTS: OTHER}), False, Act.NAK),
        (a_request(R, {WANTS: b"\x0a\x14\0\x69"}), False, Reason.UNKNOWN_CLIENT),  # another host's
        (a_request(R, ciaddr=FIRST), True, Act.ACK),
        (a_request(R, ciaddr=b"\x0a\x14\0\x69"), True, Reason.UNKNOWN_CLIENT),
        (a_request(R, ciaddr=b"\x0a\x14\0\x69"), False, Reason.UNKNOWN_CLIENT),
        (a_request(R), False, Reason.NO_ADDRESS_NAMED),
        (a_request(MessageType.INFORM, ciaddr=OTHER), False, Act.ACK_INFORM),
        (a_request(MessageType.DECLINE, {WANTS: FIRST}), False, Reason.FOREIGN_ADDRESS),
        (a_request(MessageType.RELEASE, ciaddr=FIRST), True, Reason.FOREIGN_ADDRESS),
    ],
)
def test_a_client_that_nobody_knows_gets(request_: Message, is_unicast: bool, expected: Act | Reason) -> None:
    assert outcome(ask(Pool(a_pool()), request_, is_unicast=is_unicast)) is expected


def test_another_client_is_not_given_what_one_has() -> None:
    pool = Pool(a_pool())
    assert bound(pool) == FIRST
    second = b"\2\0\0\0\0\x77"
    assert bound(pool, chaddr=second) != FIRST
    assert outcome(ask(pool, a_request(R, {WANTS: FIRST}, chaddr=second))) is Act.NAK
    assert outcome(ask(pool, a_request(MessageType.RELEASE, ciaddr=FIRST, chaddr=second))) is Reason.FOREIGN_ADDRESS
    forged = a_request(MessageType.DECLINE, {WANTS: FIRST}, chaddr=second)
    assert outcome(ask(pool, forged)) is Reason.FOREIGN_ADDRESS


def test_a_pool_that_is_empty_is_silent_and_says_why() -> None:
    pool = Pool(a_pool(limit=9))
    macs = [bytes((2, 0, 0, 0, 1, number)) for number in range(5)]
    assert [outcome(ask(pool, a_request(D, chaddr=mac))) for mac in macs] == [*[Act.OFFER] * 4, Reason.POOL_EMPTY]


def test_a_relay_is_answered_by_its_address_and_what_it_said_is_repeated_last() -> None:
    pool = Pool(a_pool())
    relayed = a_request(D, {Code.RELAY_AGENT: b"\1\2\3\4"}, giaddr=OTHER, hops=1)
    reply = pool.answer("p", relayed, b"\2\0\0\0\0\x99", 1.0, True).reply
    assert isinstance(reply, Reply)
    assert (reply.to_mac, reply.destination, reply.port) == (b"\2\0\0\0\0\x99", OTHER, 67)
    assert reply.payload.rstrip(b"\0").endswith(b"\x52\4\1\2\3\4\xff")


def test_a_frame_that_says_another_hardware_address_than_its_own_is_not_answered() -> None:
    assert Pool(a_pool()).answer("p", a_request(D), OTHER + b"\0\0", 1.0, False).reply is Reason.FOREIGN_MAC


def test_another_servers_client_is_not_waited_for() -> None:
    pool = Pool(a_pool(ours=(("10.20.0.100", "10.20.0.100"),)))
    ask(pool, a_request(D))
    ask(pool, a_request(R, {WANTS: FIRST, SERVER_ID: OTHER}))
    assert outcome(ask(pool, a_request(D, chaddr=b"\2\0\0\0\0\x77"))) is Act.OFFER


@pytest.mark.parametrize("changes", [{"ours": (("10.20.0.9", "10.20.0.1"),)}, {"ours": (("x", "10.20.0.1"),)}])
def test_a_pool_that_can_not_be_is_refused_and_the_one_before_stays(changes: dict[str, object]) -> None:
    pool = Pool(a_pool())
    with pytest.raises(ValueError):
        pool.set(a_pool(**changes))
    assert bound(pool) == FIRST


def journal_of(folder: Path, *pools: tuple[str, Pool]) -> Journal:
    made = Journal(folder / "leases")
    made.append([(name, lease) for name, pool in pools for lease in pool.leases])
    return made


def test_leases_are_read_back_by_pool(tmp_path: Path) -> None:
    one, two = Pool(a_pool()), Pool(a_pool())
    bound(one)
    bound(two, chaddr=b"\2\0\0\0\0\x77")
    journal_of(tmp_path, ("one", one), ("two", two)).close()
    found = Journal(tmp_path / "leases").read()
    assert list(of_pool(found, "one")) == list(one.leases)
    assert list(of_pool(found, "two")) == list(two.leases)


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_that_a_crash_cut_off_was_never_acknowledged(tmp_path: Path, cut: int) -> None:
    pool = Pool(a_pool())
    bound(pool)
    journal = journal_of(tmp_path, ("p", pool), ("p", pool))
    journal.close()
    path = tmp_path / "leases"
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path)
    assert list(of_pool(again.read(), "p")) == list(pool.leases)
    again.append([("q", lease) for lease in pool.leases])
    again.close()
    assert list(of_pool(Journal(path).read(), "q")) == list(pool.leases)


def test_a_line_that_was_changed_is_left_out(tmp_path: Path) -> None:
    pool = Pool(a_pool())
    bound(pool)
    journal_of(tmp_path, ("p", pool)).close()
    path = tmp_path / "leases"
    path.write_bytes(path.read_bytes().replace(b"leased", b"leasde"))
    assert Journal(path).read() == {}


def test_a_long_file_is_written_anew_and_says_the_same(tmp_path: Path) -> None:
    pool = Pool(a_pool())
    bound(pool)
    journal = Journal(tmp_path / "leases")
    (lease,) = pool.leases
    journal.append([("p", lease)] * (SLACK + 3))
    assert journal.is_long(1)
    journal.rewrite([("p", lease)])
    assert not journal.is_long(1)
    journal.append([("p", lease._replace(until_s=9.0))])
    journal.close()
    assert (tmp_path / "leases").read_bytes().count(b"\n") == 2
    assert list(of_pool(Journal(tmp_path / "leases").read(), "p")) == [lease._replace(until_s=9.0)]


def test_a_full_disk_is_an_error_and_nothing_half(tmp_path: Path) -> None:
    pool = Pool(a_pool())
    bound(pool)
    with pytest.raises(OSError):
        Journal(Path("/dev/full")).append([("p", lease) for lease in pool.leases])


def test_clients_are_known_by_their_hardware_address_where_they_say_no_identifier() -> None:
    pool = Pool(a_pool())
    assert bound(pool) == FIRST
    identified = a_request(D, {Code.CLIENT_ID: b"\1" + MAC_BYTES})
    reply = ask(pool, identified).reply
    assert isinstance(reply, Reply)
    assert reply.address != FIRST


def test_a_port_that_shouts_is_heard_only_so_often() -> None:
    pool = Pool(a_pool(per_s=2, limit=9))
    asked = [outcome(ask(pool, a_request(D, chaddr=bytes((2, 0, 0, 0, 1, n % 3))), now_s=1.0)) for n in range(10)]
    assert asked == [*[Act.OFFER] * 8, Reason.TOO_MANY, Reason.TOO_MANY]
    assert outcome(ask(pool, a_request(D), now_s=1.5)) is Act.OFFER
