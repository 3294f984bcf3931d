"""What is remembered of a port, and that it stays little."""

from __future__ import annotations

from dhcp_cases import ADDRESS, MAC_BYTES, OTHER, a_request

from dhcp import decide6, v6
from dhcp.decide import Act
from dhcp.history import EXCHANGES, History
from dhcp.options import Code, MessageType
from dhcp.reason import Reason


def test_exchanges_are_counted_and_the_last_ones_kept() -> None:
    history = History(0.0)
    for second in range(EXCHANGES + 5):
        history.note(float(second), Act.OFFER, MAC_BYTES, a_request(MessageType.DISCOVER), ADDRESS)
    assert history.counts == {Act.OFFER: EXCHANGES + 5}
    assert [exchange.at_utc_s for exchange in history.exchanges] == [float(s) for s in range(5, EXCHANGES + 5)]
    assert history.exchanges[-1][1:] == ("DISCOVER", MAC_BYTES, ADDRESS, Act.OFFER)


def test_the_address_that_was_asked_for_is_kept_where_none_was_given() -> None:
    history = History(0.0)
    history.note(1.0, Act.NAK, MAC_BYTES, a_request(MessageType.REQUEST, {Code.REQUESTED_ADDRESS: OTHER}))
    assert history.exchanges[-1].address == OTHER


def test_what_can_not_be_read_is_kept_with_its_reason() -> None:
    history = History(0.0)
    history.note(1.0, Reason.MALFORMED_OPTIONS, MAC_BYTES, None)
    assert history.exchanges[-1].outcome is Reason.MALFORMED_OPTIONS
    assert history.client is None


def test_a_client_is_described_by_what_it_said_last_and_never_by_more_than_fits() -> None:
    history = History(0.0)
    said = {Code.CLIENT_ID: b"\1" * 255, Code.VENDOR_CLASS: b"udhcp 1.36", Code.HOSTNAME: b"\xffx"}
    history.note(1.0, Act.OFFER, MAC_BYTES, a_request(MessageType.DISCOVER, said))
    history.note(2.0, Reason.FOREIGN_MAC, OTHER, a_request(MessageType.DISCOVER))
    client = history.client
    assert client is not None
    assert (client.seen_utc_s, client.client_id, client.vendor) == (1.0, b"\1" * 64, "udhcp 1.36")
    assert client.hostname == "\ufffdx"


def test_a_client_of_both_protocols_is_described_by_what_it_says_in_the_older_one() -> None:
    history = History(0.0)
    solicit = v6.Message(v6.Kind.SOLICIT, b"\1\2\3", ((int(v6.Code.CLIENT_ID), b"\0\4" + bytes(16)),))
    history.note6(1.0, decide6.Act.ADVERTISE, MAC_BYTES, solicit, bytes(15) + b"\1")
    assert history.client is not None and history.duid == b"\0\4" + bytes(16)
    assert history.exchanges[-1][1:] == ("SOLICIT", MAC_BYTES, bytes(15) + b"\1", decide6.Act.ADVERTISE)
    history.note(2.0, Act.OFFER, MAC_BYTES, a_request(MessageType.DISCOVER, {Code.CLIENT_ID: b"\1"}))
    history.note6(3.0, decide6.Act.REPLY, MAC_BYTES, solicit)
    assert history.client is not None
    assert (history.client.client_id, history.client.seen_utc_s) == (b"\1", 3.0)
