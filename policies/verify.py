"""Pure. How the kernel's tables differ from what they should be, a sentence for each object. Mends nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policies.compile.tables import Chain, Part, Ruleset, SetShape, joined


def differences(found: Ruleset, wanted: Ruleset) -> Iterator[str]:
    """found: as `policies.kernel.readback.found_ruleset` reads it, in which a rule that is not known is none of these.

    By table, then chains, sets, elements, counters; each by name.
    """
    for table in sorted(found.keys() | wanted.keys()):
        name = " ".join(table)
        if table not in found:
            yield f"table {name} is missing"
        elif table not in wanted:
            yield f"table {name} should not be there"
        else:
            yield from (f"table {name}: {text}" for text in _within(joined(found[table]), joined(wanted[table])))


def _within(found: Part, wanted: Part) -> Iterator[str]:
    yield from _strangers("chain", found.chains, wanted.chains)
    for name in sorted(found.chains.keys() & wanted.chains.keys()):
        yield from (f"chain {name}: {text}" for text in _in_chain(found.chains[name], wanted.chains[name]))
    yield from _strangers("set", found.sets, wanted.sets)
    for name in sorted(found.sets.keys() & wanted.sets.keys()):
        if found.sets[name] != wanted.sets[name]:
            yield f"set {name} is of another type"
        elif name in found.elements or not _is_filled_by_packets(wanted.sets[name]):
            yield from _in_set(name, found.elements.get(name, {}), wanted.elements.get(name, {}))
    counters = [dict.fromkeys(part.counters) for part in (found, wanted)]
    yield from _strangers("counter", *counters)


def _strangers(kind: str, found: Mapping[str, object], wanted: Mapping[str, object]) -> Iterator[str]:
    for name in sorted(found.keys() ^ wanted.keys()):
        yield f"{kind} {name} is missing" if name in wanted else f"{kind} {name} should not be there"


def _in_chain(found: Chain, wanted: Chain) -> Iterator[str]:
    if found.hook != wanted.hook:
        yield f"it is hooked as {found.hook or 'nothing'!r}, and should be as {wanted.hook or 'nothing'!r}"
    if found.rules == wanted.rules:
        return
    if len(found.rules) != len(wanted.rules):
        yield f"it has {len(found.rules)} rules, and should have {len(wanted.rules)}"
    for number, rule in enumerate(wanted.rules, 1):
        if found.rules[number - 1 : number] != (rule,):
            yield f"rule {number} is not {rule!r}"
            return  # those after it are shifted, as likely as not


def _in_set(name: str, found: Mapping[str, str], wanted: Mapping[str, str]) -> Iterator[str]:
    for key in sorted(found.keys() | wanted.keys()):
        if key not in found:
            yield f"set {name}: element {key} is missing"
        elif key not in wanted:
            yield f"set {name}: element {key} should not be there"
        elif found[key] != wanted[key]:
            yield f"set {name}: element {key} is {found[key]}, and should be {wanted[key]}"


def _is_filled_by_packets(shape: SetShape) -> bool:
    return "dynamic" in shape.text
