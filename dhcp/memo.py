"""Pure. Answers that were given before, for messages that differ in nothing that an answer depends on.

A client's DISCOVER of today is that of yesterday but for its transaction and how long it has tried; so is our answer,
but for the transaction. Whole frames are compared, so nothing is read in them: what the parsers and the tables said of
the first holds for all (they are the tests' oracle). Whoever keeps answers forgets them when they depend on more.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

MOST: Final = 8
"""Frames of one client that are kept: it has a handful of messages, and gains nothing by inventing more."""

_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_ONES: Final = 0xFFFF

_T = TypeVar("_T")


_Known = tuple[_T, bytes, int, bytes, bytes]
"""An answer to be given again: what it means, its frame before the UDP checksum, that checksum's sum without the
transaction, the frame between that and the transaction, and after it. No NamedTuple: those unpack slowly."""


class Memo(Generic[_T]):
    """Of one client."""

    __slots__ = ("_known", "_once")

    def __init__(self) -> None:
        self._known: Final[dict[bytes, _Known[_T]]] = {}
        self._once: Final[set[int]] = set()
        """Hashes of frames that were answered once: most clients never ask the same again, and cost nothing more."""

    def find(self, asked: bytes) -> tuple[_T, bytes] | None:
        """What an answer means and its frame, where one was given to a frame like this."""
        if not self._known:
            return None
        if asked[12:14] == _IPV4:
            known = self._known.get(_asked4(asked))
            xid = asked[46:50]
        else:
            known = self._known.get(_asked6(asked))
            xid = asked[63:66]
        if known is None:
            return None
        what, before, summed, between, after = known
        # 2**16 is 1 modulo 65535, so the transaction counts as the number that it is, wherever it is even aligned
        total = _ONES - ((summed + int.from_bytes(xid, "big")) % _ONES or _ONES) or _ONES
        return what, b"".join((before, total.to_bytes(2, "big"), between, xid, after))

    def keep(self, asked: bytes, answer: bytes, what: _T) -> None:
        """That this frame was answered by that one; it counts from the second time on. Neither has IP options or
        extension headers."""
        if asked[12:14] == _IPV4 and asked[14] == 0x45:
            key, total, xid = _asked4(asked), 40, slice(46, 50)
        elif asked[12:14] == _IPV6:
            key, total, xid = _asked6(asked), 60, slice(63, 66)
        else:
            return
        if (number := hash(key)) not in self._once:
            if len(self._once) >= MOST:
                self._once.clear()
            self._once.add(number)
            return
        summed = _ONES - int.from_bytes(answer[total : total + 2], "big") - int.from_bytes(answer[xid], "big")
        if len(self._known) >= MOST:
            self._known.clear()
        between = answer[total + 2 : xid.start]
        self._known[key] = (what, answer[:total], summed % _ONES, between, answer[xid.stop :])

    def forget(self) -> None:
        """All of them."""
        self._known.clear()


def _asked4(frame: bytes) -> bytes:
    """All of a frame but IPv4's identification and checksum, UDP's checksum, and DHCP's `xid` and `secs`."""
    return frame[:18] + frame[20:24] + frame[26:40] + frame[42:46] + frame[52:]


def _asked6(frame: bytes) -> bytes:
    """All of a frame but IPv6's flow label, UDP's checksum, and DHCPv6's transaction."""
    return frame[:15] + frame[18:60] + frame[62:63] + frame[66:]
