"""Questions against scapy, and answers to them."""

from __future__ import annotations

import pytest
from dhcp_cases import MAC, SERVER_MAC, a_port, a_scope4, a_scope_ra
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from dhcp import ask, frame

FORMED = "fd00:20::ff:fe00:5"


def test_scapy_reads_the_question_for_an_address_that_the_client_is_to_form() -> None:
    prefixes = (("fd00:20::/64", True), ("fd00:21::/64", False), ("fd00:22::/56", True))
    (expected, question), *others = ask.questions(a_port(ra=a_scope_ra(prefixes=prefixes))).items()
    assert (expected, others) == (FORMED, [])
    read = Ether(question)
    assert (read.src, read.dst) == (SERVER_MAC, MAC)
    assert (read[IPv6].src, read[IPv6].dst, read[IPv6].hlim) == ("fe80::1", FORMED, 255)
    assert (read[ICMPv6ND_NS].tgt, read[ICMPv6NDOptSrcLLAddr].lladdr) == (FORMED, SERVER_MAC)
    del read[ICMPv6ND_NS].cksum
    assert bytes(read) == question


def test_scapy_reads_the_question_for_the_address_that_dhcp_gives() -> None:
    ((expected, question),) = ask.questions(a_port(a_scope4())).items()
    read = Ether(question)
    assert (expected, read.src, read.dst) == ("10.20.0.5", SERVER_MAC, MAC)
    assert (read[ARP].op, read[ARP].hwsrc, read[ARP].psrc, read[ARP].pdst) == (1, SERVER_MAC, "10.20.0.1", expected)


def test_what_a_port_does_not_give_is_not_asked_for() -> None:
    assert ask.questions(a_port()) == {}


@pytest.mark.parametrize(
    ("reply", "is_one"),
    [
        (Ether(src=MAC) / ARP(op=2, hwsrc=MAC, psrc="10.20.0.5"), True),
        (Ether(src=MAC) / ARP(op=1, hwsrc=MAC, psrc="10.20.0.5"), False),
        (Ether(src=SERVER_MAC) / ARP(op=2, hwsrc=MAC, psrc="10.20.0.5"), False),
        (Ether(src=MAC, type=0x0800) / ARP(op=2, hwsrc=MAC, psrc="10.20.0.5"), False),
        (Ether(src=MAC) / ARP(op=2, hwsrc=MAC, psrc="10.20.0.5", plen=16), False),
    ],
)
def test_an_answer_is_an_arp_reply_of_the_frame_s_own_source(reply: Ether, is_one: bool) -> None:
    expected = (frame.mac(MAC), bytes((10, 20, 0, 5))) if is_one else None
    assert frame.parse_arp_reply(bytes(reply)) == expected
    assert frame.parse_arp_reply(bytes(reply)[:41]) is None


def test_questions_become_rare_while_nobody_answers() -> None:
    assert [ask.after_s(asked) for asked in (0, 1, 7, 8, 9, 13, 14, 15, 10**9)] == [0.5, 0.5, 0.5, 1, 2, 32, 64, 64, 64]
