"""Pure. What a logged or counted verdict is: whose rule spoke, and of which packet. Knows neither kernel nor names.

A compiler gives each rule that it logs or counts an id; the table from ids to judgements stays with whoever reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from policies.model import Direction, Tier

LOG_GROUP = 1
"""The NFLOG group that all rules of ours log to."""

_VERSION, _REPLY = "v1", " reply"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A rule's word. playground: whose traffic is judged; direction: whose side judged, the source's (egress) or the
    destination's.

    policies: one, or, where traffic was refused as no rule of theirs allows it, all that close the subject. rule: from
    1 in the policy's direction; 0 for such a refusal. is_staged: it was not enforced.
    """

    playground: str
    tier: Tier
    policies: tuple[str, ...]
    direction: Direction
    rule: int
    is_allowed: bool
    is_staged: bool = False

    @property
    def id(self) -> str:
        """12 hex digits: the same for equal judgements, everywhere and always."""
        words = (
            self.playground,
            self.tier.value,
            *self.policies,
            self.direction.value,
            str(self.rule),
            str(self.is_allowed),
            str(self.is_staged),
        )
        return blake2b("\0".join(words).encode(), digest_size=6).hexdigest()


def judgement_text(one: Judgement) -> str:
    """`policy shut, ingress rule 1`, for people."""
    said = f"{one.direction.value} rule {one.rule}" if one.rule else f"{one.direction.value}: no rule allows it"
    return f"{'policy' if len(one.policies) == 1 else 'policies'} {', '.join(one.policies)}, {said}"


Judgements = Mapping[str, Judgement]
"""By id."""


def log_prefix(id: str, is_reply: bool = False) -> str:
    """What a rule logs under; the kernel takes 127 bytes at most (linux/netfilter/nf_log.h).

    is_reply: of packets that go against the direction in which their flow began (nft: `ct direction reply`).
    """
    return f"{_VERSION} {id}{_REPLY * is_reply}"


def read_prefix(prefix: str) -> tuple[str, bool]:
    """The id in what a rule logged under, and whether of a reply; the id is "" if it is no rule of ours."""
    version, _, id = prefix.partition(" ")
    return (id.removesuffix(_REPLY), id.endswith(_REPLY)) if version == _VERSION else ("", False)


@dataclass(frozen=True, slots=True)
class LoggedPacket:
    """A packet that a rule logged, by the direction in which its flow began.

    utc_s: when it was read, seconds. id: of the judgement, "" if it is none of ours. protocol: the IP protocol's
    number. source, destination: addresses, "" where the packet ends before. ports: (source, destination), None where
    there are none. icmp_type: of the packet, None for others.
    """

    utc_s: float
    id: str
    protocol: int
    source: str
    destination: str
    ports: tuple[int, int] | None = None
    icmp_type: int | None = None
