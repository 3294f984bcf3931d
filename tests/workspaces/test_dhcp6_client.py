"""The DHCPv6 client inside namespace workspaces, against our own server and against what no server would say."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhcp import v6
from dhcp.scope import PortScope, Scope6
from dhcp.server6 import Bound, Reply
from dhcp.v6 import Code, Kind, Message
from playground.workspaces.guest.dhcp6 import BOUND, IDLE, Client

MAC = "02:00:00:00:00:05"
FIRST, SECOND = (bytes.fromhex("fd000020" + "0" * 23 + digit) for digit in "56")


def a_server(*addresses: str, lease_s: int = 1000) -> Bound:
    told = Scope6(
        addresses or ("fd00:20::5",), "fe80::1", lease_s, dns=("fd00:20::1",), search=("grid.lab.internal", "x.y")
    )
    return Bound(PortScope(MAC, "02:70:67:00:00:01", v6=told))


def a_client() -> Client:
    numbers = itertools.count(1)
    return Client(bytes.fromhex(MAC.replace(":", "")), lambda size: next(numbers).to_bytes(size, "big"))


def kinds(client: Client, server: Bound | None, until_s: float, now_s: float = 0.0) -> Iterator[tuple[float, str]]:
    """What the client says, and when; each message is answered at once where there is a server."""
    while (at_s := max(client.due_s(), now_s)) <= until_s:
        message = client.said(at_s)
        if message is None:
            continue
        yield at_s, Kind(message[0]).name
        request = v6.parse(message)
        assert isinstance(request, Message)
        answer = server.answer(request) if server is not None else None
        if isinstance(answer, Reply):
            client.hear(answer.payload, at_s)


def bound(server: Bound) -> Client:
    client = a_client()
    client.heed(True, True, 0.0)
    assert list(kinds(client, server, 0.0)) == [(0.0, "SOLICIT")]
    assert client.state == BOUND
    return client


def test_a_client_is_bound_by_two_messages_once_routers_say_that_there_are_addresses() -> None:
    client = a_client()
    assert client.due_s() == float("inf")
    client = bound(a_server())
    assert client.addresses == {FIRST: (1000.0, 1000.0)}
    assert client.told == (("fd00:20::1",), ("grid.lab.internal", "x.y"))


def test_a_server_without_rapid_commit_is_asked_by_four() -> None:
    server, client = a_server(), a_client()
    client.heed(True, False, 0.0)
    solicit = v6.parse(client.said(0.0) or b"")
    assert isinstance(solicit, Message)
    slow = solicit._replace(options=tuple(one for one in solicit.options if one[0] != Code.RAPID_COMMIT))
    answer = server.answer(slow)
    assert isinstance(answer, Reply)
    client.hear(answer.payload, 0.1)
    assert list(kinds(client, server, 0.2, 0.1)) == [(0.1, "REQUEST")]
    assert client.state == BOUND


def test_what_is_leased_is_renewed_after_half_and_rebound_after_four_fifths_of_it() -> None:
    server = a_server()
    client = bound(server)
    assert list(kinds(client, server, 1100.0)) == [(500.0, "RENEW"), (1000.0, "RENEW")]
    said = list(kinds(client, None, 1999.0))
    assert said[0] == (1500.0, "RENEW")
    assert next(at for at, kind in said if kind == "REBIND") == 1800.0
    assert client.addresses
    assert next(kinds(client, None, 2010.0)) == (2000.0, "SOLICIT")
    assert not client.addresses


def test_a_client_that_is_asked_to_renew_takes_the_new_address_and_leaves_the_old_one() -> None:
    client = bound(a_server())
    client.renew(10.0)
    assert list(kinds(client, a_server("fd00:20::6"), 10.0)) == [(10.0, "RENEW")]
    assert client.addresses == {SECOND: (1010.0, 1010.0)}


def test_an_address_that_another_has_is_declined_and_asked_for_again() -> None:
    server = a_server()
    client = bound(server)
    client.decline(FIRST, 10.0)
    assert not client.addresses
    assert list(itertools.islice(kinds(client, server, 20.0, 10.0), 2)) == [(10.0, "DECLINE"), (10.0, "SOLICIT")]


def test_a_client_that_is_not_answered_asks_ever_more_slowly() -> None:
    client = a_client()
    client.heed(True, True, 0.0)
    times = [at_s for at_s, kind in kinds(client, None, 60.0) if kind == "SOLICIT"]
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert 0.9 <= pauses[0] <= 1.1 and all(7.2 <= pause <= 8.8 for pause in pauses[3:])


def test_a_client_asks_for_other_things_alone_where_there_are_no_addresses() -> None:
    client = a_client()
    client.heed(False, True, 0.0)
    assert list(kinds(client, a_server(), 100.0)) == [(0.0, "INFORMATION_REQUEST")]
    assert (client.told[0], client.addresses) == (("fd00:20::1",), {})


def test_a_client_lets_go_when_routers_say_that_there_are_no_addresses_any_more() -> None:
    client = bound(a_server())
    client.heed(False, False, 10.0)
    assert (client.state, client.addresses, client.told) == (IDLE, {}, ((), ()))
    assert client.due_s() == float("inf")


@pytest.mark.parametrize("spoilt", ["transaction", "client", "server", "kind", "truncated"])
def test_what_is_not_for_it_is_not_heard(spoilt: str) -> None:
    server, client = a_server(), a_client()
    client.heed(True, True, 0.0)
    request = v6.parse(client.said(0.0) or b"")
    assert isinstance(request, Message)
    answer = server.answer(request)
    assert isinstance(answer, Reply)
    read = v6.parse(answer.payload)
    assert isinstance(read, Message)
    without = {"client": Code.CLIENT_ID, "server": Code.SERVER_ID}.get(spoilt)
    other = read._replace(options=tuple(one for one in read.options if one[0] != without))
    message = v6.encode(other)
    match spoilt:
        case "transaction":
            message = message[:1] + b"\xff\xff\xff" + message[4:]
        case "kind":
            message = bytes((Kind.RECONFIGURE,)) + message[1:]
        case "truncated":
            message = message[:3]
    client.hear(message, 0.1)
    assert not client.addresses


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_no_bytes_upset_a_client_or_give_it_an_address_for_ever_after(data: st.DataObject) -> None:
    """What a server says, changed anywhere: the client goes on, and asks again in bounded time."""
    server, client, now_s = a_server(), a_client(), 0.0
    client.heed(True, True, 0.0)
    for _ in range(6):
        now_s = max(now_s, min(client.due_s(), now_s + 2000.0))
        message = client.said(now_s)
        request = v6.parse(message or b"")
        answer = server.answer(request) if isinstance(request, Message) else None
        payload = bytearray(answer.payload if isinstance(answer, Reply) else b"")
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, max(len(payload) - 1, 0)))
            payload[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        client.hear(bytes(payload), now_s)
    assert client.due_s() <= now_s + 2**32
