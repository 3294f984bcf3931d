"""Pure. Why names that a workspace asked for were not found: sentences, from what its host's responder remembers.

Knows no host and asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from overlay.dns.history import Outcome
from playground.responder.protocol import PortTold
from policies.guard.parts import QUESTIONS_PER_S

SHOWN: Final = 4
"""Questions that are named, the last ones."""
_COUNTED: Final = (Outcome.CROWDED, Outcome.SHED)
"""What says more of the client than of one name."""


def name_findings(told: PortTold, networks: Mapping[str, set[str]]) -> Iterator[str]:
    """networks: those that each workspace of the playground is on, by its name."""
    asked = {(one.name.lower(), one.kind): one for one in told.unanswered if Outcome[one.outcome] not in _COUNTED}
    for one in list(asked.values())[-SHOWN:]:
        outcome = Outcome[one.outcome]
        why = _why(one.name.lower(), told.origin, networks) if outcome is Outcome.NO_SUCH_NAME else ""
        if outcome is Outcome.NOT_FORWARDED:
            why = _why_not_forwarded(one.name.lower(), told.origin)
        yield f"it asked for {one.name} ({one.kind}): {why or outcome.value}"
    for outcome in _COUNTED:
        if number := told.unnamed.get(outcome.name):
            times = "one question" if number == 1 else f"{number} questions"
            yield f"{times} of it for names went unanswered: {outcome.value}"
    if told.stopped:
        times = "one question" if told.stopped == 1 else f"{told.stopped} questions"
        yield f"{times} of it for names went no further than its port, which asked more than {QUESTIONS_PER_S} a second"


def _why(name: str, origin: str, networks: Mapping[str, set[str]]) -> str:
    """Where a workspace is that was looked for on a network it is not on; empty for other names."""
    labels = name.removesuffix(f".{origin}").split(".")
    if len(labels) != 2 or labels[0] not in networks or labels[1] in networks[labels[0]]:
        return ""
    workspace, network = labels
    return f"{workspace} is not on {network}, but on {', '.join(sorted(networks[workspace]))}"


def _why_not_forwarded(name: str, origin: str) -> str:
    """A name of the site's domain, but not of this playground, is most likely another playground's."""
    domain = origin.partition(".")[2]
    if domain and name.endswith(f".{domain}"):
        return "other playgrounds' names are not seen, and it lies outside this one"
    return "it lies outside, and its network says `forward: false`, or the site has no resolvers"
