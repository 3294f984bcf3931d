"""What the policies of every example become on every host, as nft text: a changed line is a change of what is enforced.

`pytest --update-golden tests/policies/test_golden_rules.py` writes the files anew. The kernel is asked whether it takes
each of them, with the guard of the ports that it speaks of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filter_lab import Namespace

from overlay.state import bridge_device
from playground.admit.policies import policy_records
from playground.agent.enforcing import Enforcing
from playground.derive import Setting, derive_whole
from playground.derive.rules import POLICY
from playground.records import SITE_POLICIES, PolicyRecord
from playground.spec import load_site
from policies.compile.changes import as_text, difference
from policies.compile.tables import Ruleset, whole
from policies.compile.ways import STATIC
from policies.kernel.memory import MemoryEnforcement
from tests.derive.test_golden_hosts import hosts, views

EXAMPLES = Path(__file__).parents[2] / "examples"
GOLDEN = Path(__file__).parent / "golden" / "examples"
SHARED: Ruleset = {POLICY: {"static": STATIC}}
FILES = sorted(
    path
    for path in (*EXAMPLES.glob("*.yaml"), *EXAMPLES.glob("policies/*.yaml"))
    if "\npolicies:" in path.read_text() or "\ninclude:" in path.read_text()
    if not path.name.endswith(".site.yaml")
)


def rulesets(path: Path) -> dict[str, Ruleset]:
    """By host, what its agent would put in force; only of hosts that have a port."""
    site = path.with_suffix(".site.yaml")
    of_site: dict[str, PolicyRecord] = {}
    if site.exists():
        of_site, _ = policy_records(SITE_POLICIES, load_site(site.read_text(), site.name).policies, {}, [])
    found = {}
    for host, view in views(path, of_site.values()).items():
        derived = derive_whole(view, Setting(host, hosts()[host].underlay, "internal"))
        door = MemoryEnforcement()
        enforcing = Enforcing(door)
        enforcing.want(derived.rules)
        bridges = {bridge_device(network): number for number, network in enumerate(derived.state.networks, 1)}
        enforcing.watch(dict.fromkeys(derived.rules.guards, 1), bridges)
        if derived.rules.guards:
            found[host] = door.in_force
    return found


def said(ruleset: Ruleset) -> str:
    """What a host has beside what all playgrounds share: by kind and name, rules in their order."""
    lines = as_text(difference(SHARED, {POLICY: ruleset.get(POLICY, {})})).splitlines()
    return "\n".join(sorted(lines, key=lambda line: line.split()[:5])) + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_policies_of_an_example_are_these_rules_on_every_host(
    path: Path, golden: Callable[[str, Path], None]
) -> None:
    text = "".join(f"# {host}\n{said(ruleset)}\n" for host, ruleset in rulesets(path).items())
    assert "add element" in text
    golden(text, GOLDEN / f"{path.stem}.nft")


def test_what_all_playgrounds_share_is_this(golden: Callable[[str, Path], None]) -> None:
    golden(whole(SHARED), GOLDEN.parent / "shared.nft")


@pytest.fixture(scope="module")
def space() -> Iterator[Namespace]:
    made = Namespace()
    yield made
    made.close()


@pytest.mark.system
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_kernel_takes_them(path: Path, space: Namespace) -> None:
    for ruleset in rulesets(path).values():
        text = whole(ruleset)
        devices = {word.strip('"') for line in text.splitlines() if " device " in line for word in line.split('"')[1:2]}
        space.run("ip -batch -", "\n".join(f"link add {device} type bridge" for device in sorted(devices)))
        space.run("nft --check --file -", text)
        space.run("ip -batch -", "\n".join(f"link delete {device}" for device in sorted(devices)))
