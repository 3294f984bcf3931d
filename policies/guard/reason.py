"""Pure. The words for every frame that the guard drops, the same in counters, tests and docs."""

from __future__ import annotations

from enum import Enum


class Reason(Enum):
    """Why a frame does not pass. Its counter has the name in lower case."""

    SPOOFED_MAC = "the Ethernet source is not the sender's"
    SPOOFED_ADDRESS = "the IP source is not the sender's, or does not belong to its MAC"
    SERVICE_MAC = "the Ethernet source is that of the service leg, which only the host itself sends from"
    SPOOFED_ARP = "ARP or RARP that tells of a pair of MAC and address that is not the sender's"
    SPOOFED_ND = "neighbour discovery for an address or a MAC that is not the sender's, or in a form that no host needs"
    DHCP = "DHCP or DHCPv6: it is answered at the port, and crosses no bridge"
    ROUTER_DISCOVERY = "a router solicitation, advertisement or redirect: answered at the port, crosses no bridge"
    TAGS = "a VLAN tag, of any kind and number"
    ETHERTYPE = "neither IPv4, IPv6, ARP nor RARP"
    RESERVED_MULTICAST = "to a group address of bridges (spanning tree, pause, LACP, EAPOL, LLDP, registration)"
    SOURCE_ROUTING = "an IPv4 option other than a router alert, or an IPv6 routing header"
    HIDDEN_HEADERS = "fragments, extension headers or lengths that hide what is carried"
    GROUP_TO_ONE = "a group MAC with a single host's address"
    FLOOD = "more broadcasts and multicasts than a port may send"
    OTHER_MAC = "on its way to a port whose MAC is another"
    OTHER_ADDRESS = "on its way to a port whose addresses are others"

    UNJUDGED = "no policy has judged it, though somebody polices its network: the rules are not in force"

    @property
    def counter(self) -> str:
        """The name of the kernel's counter."""
        return self.name.lower()
