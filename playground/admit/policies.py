"""Pure. The records of what files say of connectivity. Knows neither what is stored nor whom policies select."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from playground.records import LARGEST, PolicyRecord, encode
from playground.spec import Place, Problem
from policies.codec import PackedPolicy, pack
from policies.model import Origin, Policy


def policy_records(
    playground: str, policies: Iterable[Policy], places: Mapping[Origin, Place], problems: list[Problem]
) -> tuple[dict[str, PolicyRecord], dict[str, Policy]]:
    """The records by name, in the file's order, and by the same names the policies as written, with their places.

    One that the file gives no name is named by what it says, and equal ones are counted: where it stands does not make
    it another.
    """
    found: dict[str, PolicyRecord] = {}
    written: dict[str, Policy] = {}
    for policy in policies:
        body = pack(policy)
        name = policy.name
        if ":" in name:  # its place
            name = _unnamed(body, found)
        written[name] = policy
        record = found[name] = PolicyRecord(playground=playground, name=name, body=body)
        if (size := len(encode(record))) > LARGEST:
            place = places.get(policy.origin, Place(policy.origin.file, policy.origin.line, 1))
            message = f"the policy takes {size} bytes with its groups spelt out; {LARGEST} are allowed: make it several"
            problems.append(Problem.at(place, message))
    return found, written


def _unnamed(body: PackedPolicy, taken: Mapping[str, PolicyRecord]) -> str:
    digest = hashlib.sha256(msgspec.json.encode(body)).hexdigest()[:12]
    name, number = f"~{digest}", 1
    while name in taken:
        number += 1
        name = f"~{digest}.{number}"
    return name
