"""Pure. Who tells senders that policies have refused their packets: a pair of devices beside each policed bridge.

Policies can't answer where they judge: of bridged packets the kernel sends only TCP's resets from there. So a packet
whose sender is to be told goes on, marked as REFUSED and its destination's MAC TURNED. On its way out of the bridge the
guard diverts it into one end of the pair. At the other end it is answered: a `reject` of the netdev family swaps the
packet's own MACs and addresses, so the answer comes from where the packet went, as clients expect and guards allow. It
is back at the near end then, and leaves by the bridge for whoever sent: a port here, or by the tunnel another host.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from policies.compile.marks import REFUSED, TURNED
from policies.compile.tables import Chain, Part

CHAIN: Final = "answer"

UNANSWERED: Final = f"meta mark {REFUSED} drop"

RULES: Final = (
    TURNED,
    "meta l4proto tcp reject with tcp reset",
    # What a closed port says, and clients know best: ECONNREFUSED at once, as TCP's.
    "meta l4proto udp reject with icmpx port-unreachable",
    # SCTP gives up for this one alone (RFC 9260 §10).
    "meta protocol ip meta l4proto sctp reject with icmp prot-unreachable",
    # The truth (RFC 1812 §5.2.7.1, RFC 4443 §3.1).
    "reject with icmpx admin-prohibited",
)

_FIRST_INDEX: Final = 0x40000000
"""Interface indexes from here on are the pairs'; the kernel counts its own up from 1."""

_HOOK: Final = 'type filter hook ingress device "{}" priority -300; policy drop;'


class Pair(NamedTuple):
    """The devices beside one bridge. All of it follows from the bridge's index, so a pair that was taken away comes
    back as what rules already speak of."""

    near: str
    near_index: int
    far: str
    far_index: int


def pair_of(bridge: int) -> Pair:
    """bridge: its interface index."""
    index = _FIRST_INDEX + 2 * bridge
    return Pair(f"rj{bridge:x}a", index, f"rj{bridge:x}b", index + 1)


def diverted(bridge: int) -> str:
    """The rule for what goes out by a device of a bridge."""
    return f"meta mark {REFUSED} fwd to {pair_of(bridge).near_index}"


@lru_cache(maxsize=4096)
def part_of(bridge: int) -> Part:
    """What the pair of a bridge needs in the guard's table."""
    pair = pair_of(bridge)
    return Part(
        {
            f"from_{pair.far}": Chain((f"goto {CHAIN}",), _HOOK.format(pair.far)),
            # What the kernel itself may say on the pair is to groups.
            f"from_{pair.near}": Chain((f"@ll,7,1 0 fwd to {bridge}",), _HOOK.format(pair.near)),
        }
    )
