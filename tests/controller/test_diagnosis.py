"""Why a client has no address, in sentences: each cause by itself, and none where all is well."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dhcp.decide import LeaseKind
from dhcp.leases import Lease, State
from playground.controller.diagnosis import findings, machines
from playground.records import PortRecord
from playground.responder.protocol import Exchange, Leased, PoolClient, PortTold

NOW = 10_000.0
PORT = PortRecord(
    playground="lab",
    workspace="w",
    network="grid",
    network_id="g",
    id="000000000001",
    mac="02:00:00:00:00:01",
    addresses=("10.0.0.5",),
)
PORT6 = msgspec.structs.replace(PORT, addresses=("fd00::5",))


def told(counts: dict[str, int] | None = None, lease: Leased | None = None, **exchange: Any) -> PortTold:
    last = {"at_utc_s": NOW - 30, "what": "REQUEST", "mac": PORT.mac, "address": "", "outcome": "ACK"} | exchange
    exchanges = (Exchange(**last),) if counts else ()
    return PortTold(port=PORT.id, since_utc_s=NOW - 60, counts=counts or {}, exchanges=exchanges, lease=lease)


def a_lease(kind: LeaseKind, at_s: float = NOW - 600) -> Leased:
    until_s = at_s + 3600 if kind is LeaseKind.BOUND else None
    return Leased(
        port=PORT.id, address="10.0.0.5", mac=PORT.mac, at_utc_s=at_s, kind=kind, since_utc_s=at_s, until_utc_s=until_s
    )


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (told(),
         "no request was seen at its port in the 60 seconds since it is answered: no DHCP client runs there, or its "
         "NIC is down"),
        (told({"ACK": 1}, a_lease(LeaseKind.BOUND)), "it has 10.0.0.5: told or seen 10 minutes ago"),
        (told({"ACK": 1}, a_lease(LeaseKind.BOUND, NOW - 4000)),
         "its lease of 10.0.0.5 ran out 7 minutes ago: its client has not renewed it"),
        (told({"RELEASED": 1}, a_lease(LeaseKind.RELEASED)),
         "its client gave 10.0.0.5 back 10 minutes ago, and has not asked again"),
        (told({"FOREIGN_MAC": 3}, mac="02:99:00:00:00:01", outcome="FOREIGN_MAC"),
         "3 times a request came from another MAC (02:99:00:00:00:01) than the port's, 02:00:00:00:00:01"),
        (told({"MALFORMED_OPTIONS": 1}),
         "once what it sent was thrown away: an option runs past its field or has an impossible length"),
        (told({"NAK": 2}, address="10.9.9.9", outcome="NAK"),
         "2 times it asked for an address that is not its own, 10.9.9.9, and was refused"),
        (told({"OTHER_SERVER": 2}),
         "2 times it chose another DHCP server: there is one on its network, or it remembers one"),
        (told({"NOT_SENT": 2}), "2 times it was not answered: the device is gone, down or full"),
        (told({"POOL_EMPTY": 1}),
         "once it was not answered: the client would get an address, and there is none for it"),
        (told({"DECLINED": 1, "ACK": 1}, a_lease(LeaseKind.DECLINED)),
         "it declined 10.0.0.5: it believes that another has it, and is not answered for 30 s"),
        (told({"OFFER": 4}, a_lease(LeaseKind.OFFERED)),
         "it was offered 10.0.0.5 4 times and never asked for it: the offer does not reach it, or it refuses it"),
    ],
)  # fmt: skip
def test_what_was_seen_at_the_port_is_said(known: PortTold, said: str) -> None:
    assert findings(PORT, "forwarding", "", known, {}, NOW)[0] == said


@pytest.mark.parametrize(
    ("state", "cause", "problems", "said"),
    [
        ("unplaced", "waits for a host", {}, "its port is unplaced: waits for a host"),
        ("waiting", "", {}, "its port is waiting"),
        ("forwarding", "its client declined it", {}, "its client declined it"),
        ("forwarding", "", {"port/000000000001": "bad MTU"}, "its answers are not in effect: bad MTU"),
        ("forwarding", "", {"netns": "no socket"}, "no port of its host is answered: no socket"),
        ("forwarding", "", {},
         "nothing is answered at its port: its host has not been told of it yet, or asks nobody"),
    ],
)  # fmt: skip
def test_what_is_before_the_port_comes_first(state: str, cause: str, problems: dict[str, str], said: str) -> None:
    assert findings(PORT, state, cause, None, problems, NOW)[0] == said


def test_names_that_are_not_answered_are_said_at_the_end() -> None:
    problems = {"view/lab": "can't listen on port 53", "view/other": "x"}
    said = findings(PORT, "forwarding", "", told({"ACK": 1}, a_lease(LeaseKind.BOUND)), problems, NOW)
    assert said[1:] == ["names are not answered on its host: can't listen on port 53"]


def told6(counts: dict[str, int], *leases: Leased, is_given: bool = True) -> PortTold:
    return PortTold(
        port=PORT.id,
        since_utc_s=NOW - 60,
        counts6=counts,
        leases6=leases,
        given6=("fd00::5",) if is_given else (),
    )


def a_lease6(kind: LeaseKind, address: str = "fd00::5", at_s: float = NOW - 600) -> Leased:
    return msgspec.structs.replace(a_lease(kind, at_s), address=address)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (told6({}),
         "nothing of IPv6 was seen at its port in the 60 seconds since it is answered: IPv6 is off there, or its NIC"),
        (told6({"ADVERTISE_ROUTER": 1}),
         "no DHCPv6 message was seen at its port in the 60 seconds since it is answered: it does not heed the M flag "
         "of router advertisements, or runs no DHCPv6 client"),
        (told6({"ADVERTISE": 3}),
         "it was offered fd00::5 3 times and never asked for it: the offer does not reach it, or it refuses it"),
        (told6({"REPLY": 1}, a_lease6(LeaseKind.BOUND)), "it has fd00::5: told or seen 10 minutes ago"),
        (told6({"REPLY": 1}, a_lease6(LeaseKind.BOUND, at_s=NOW - 4000)),
         "its lease of fd00::5 ran out 7 minutes ago: its client has not renewed it"),
        (told6({}, a_lease6(LeaseKind.FORMED, at_s=NOW - 4000), is_given=False),
         "it has fd00::5: told or seen 67 minutes ago"),
        (told6({"REPLY_TAKEN_BACK": 1}, a_lease6(LeaseKind.RELEASED)),
         "its client gave fd00::5 back 10 minutes ago, and has not asked again"),
        (told6({"REPLY_TAKEN_BACK": 1}, a_lease6(LeaseKind.DECLINED)),
         "it declined fd00::5: it believes that another has it, and is not given it for 30 s"),
        (told6({"REPLY": 1}), "it was told much, but did not ask for addresses (an IA_NA): it is not given fd00::5"),
        (told6({"NO_IDENTIFIER": 2}),
         "2 times what it sent was thrown away: a DHCPv6 message without a valid identifier of its client, or of the "
         "server that it is for"),
        (told6({"REPLY_NOT_ON_LINK": 1}),
         "once it came back with an IPv6 address that is not its own and was told so"),
        (told6({"REPLY_USE_MULTICAST": 2}), "2 times it asked the server alone, and was told to ask all (ff02::1:2)"),
        (told6({"ADVERTISE_ROUTER": 1}, is_given=False),
         "it was told its prefix and has not formed fd00::5: its kernel does not heed router advertisements"),
        (told6({"BAD_CHECKSUM": 1}, is_given=False),
         "it has not formed fd00::5, and solicits no router: it does not heed router advertisements"),
        (told6({"ADVERTISE_ROUTER": 1}, a_lease6(LeaseKind.FORMED, "fd00::77"), is_given=False),
         "it has formed fd00::77 and not fd00::5: its identifier is random, not made of its MAC (EUI-64)"),
    ],
)  # fmt: skip
def test_what_was_seen_of_ipv6_is_said(known: PortTold, said: str) -> None:
    assert findings(PORT6, "forwarding", "", known, {}, NOW)[0] == said


def test_what_is_missing_is_said_before_what_is_there() -> None:
    port = msgspec.structs.replace(PORT, addresses=("10.0.0.5", "fd00::5"))
    known = msgspec.structs.replace(told6({"ADVERTISE": 1}), counts={"ACK": 1})
    said = findings(port, "forwarding", "", msgspec.structs.replace(known, lease=a_lease(LeaseKind.BOUND)), {}, NOW)
    assert [line[:18] for line in said] == ["it was offered fd0", "it has 10.0.0.5: t"]


def a_machine(number: int, until_s: float = NOW + 90) -> PoolClient:
    lease = Lease(0x0A0000C8 + number, "pg", b"c", bytes((2, 0, 0, 0, 9, number)), State.LEASED, NOW, until_s)
    return PoolClient(lease=lease)


@pytest.mark.parametrize(
    ("limit", "free", "said"),
    [
        (1, 9, "3 times a machine behind it got no address: 1 have one, and its NIC allows no more"),
        (4, 0, "3 times a machine behind it got no address: dhcp.dynamic of grid is used up: widen it"),
        (4, 9, "3 times a machine behind it got no address: those that its host has are taken; it gets more as soon as "
               "the controller is heard"),
    ],
)  # fmt: skip
def test_machines_that_no_one_declared_are_told_of(limit: int, free: int, said: str) -> None:
    port = msgspec.structs.replace(PORT, dynamic=limit)
    known = msgspec.structs.replace(told({"POOL_EMPTY": 3}), pool=(a_machine(0), a_machine(1, NOW - 1)))
    first = "a machine behind it, 02:00:00:00:09:00, has 10.0.0.200 for 90 seconds more"
    assert list(machines(port, known, free, NOW)) == [first, said]


def test_a_host_without_a_controller_for_too_long_is_told_of() -> None:
    (said,) = machines(PORT, told({"CUT_OFF": 1}), 9, NOW)
    assert said.startswith("once a machine behind it was not answered: the host has been without a controller")
