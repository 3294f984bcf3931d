"""Pure. The words for every frame that is not answered, the same in counters, tests and docs."""

from __future__ import annotations

from enum import Enum


class Reason(Enum):
    """Why there is no answer. A value, never an exception: what a guest sends can't be our error."""

    __hash__ = object.__hash__  # Enum hashes its name, in Python; this is done for each frame

    UNKNOWN_PORT = "the frame came from a device without a scope"
    NOT_FOR_US = "the frame is no DHCP message to a server and no router solicitation"
    TRUNCATED = "the message is shorter than its fixed fields say"
    NOT_DHCP = "the magic cookie or the message type is missing (plain BOOTP)"
    NOT_A_REQUEST = "op is not BOOTREQUEST"
    NOT_ETHERNET = "hardware type is not Ethernet"
    MALFORMED_OPTIONS = "an option runs past its field or has an impossible length"
    FOREIGN_MAC = "the client's hardware address is not the port's"
    NO_SCOPE = "nothing of this protocol is served at the port"
    UNEXPECTED_TYPE = "a message type that clients don't send to a server that is not a relay's"
    OTHER_SERVER = "the client chose or addresses another server"
    NO_ADDRESS_NAMED = "a request names no address"
    FOREIGN_ADDRESS = "the client declines or releases an address that is not the port's"
    DECLINED = "the client says that its address is in use by another"
    RELEASED = "the client gave its address back"
    QUARANTINED = "the client said a short while ago that another uses its address"
    POOL_EMPTY = "the client would get an address, and there is none for it"
    TOO_MANY = "more messages from clients that nobody declared than their port may send"
    CUT_OFF = "the host has been without a controller for so long that others may give the address"
    UNKNOWN_CLIENT = "nothing is known of the client, and another may know it"
    RELAY_LOOP = "the message went through too many relays, or came back to us"
    NOT_KEPT = "the lease could not be written down, so it was not given"
    NO_IDENTIFIER = "a DHCPv6 message without a valid identifier of its client, or of the server that it is for"
    TO_ONE = "a DHCPv6 message that is for all servers, sent to one alone"
    TOO_LARGE = "the answer to a DHCPv6 message would not fit a packet"
    BAD_CHECKSUM = "ICMPv6 checksum is wrong"
    BAD_SOLICITATION = "a router solicitation that RFC 4861 section 6.1.1 wants discarded"
    NOT_SENT = "the device is gone, down or full"
