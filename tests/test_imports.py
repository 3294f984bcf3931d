"""Who may import whom, as a table with the reason for each line; the sources are read, not run."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FORBIDDEN: list[tuple[str, str, str]] = [
    ("overlay", "playground", "frames know nothing of people"),
    ("overlay", "dhcp", "each of the three is usable alone"),
    ("overlay", "policies", "forwarding and filtering are two doors to the kernel"),
    ("dhcp", "overlay", "answers know nothing of where addresses come from"),
    ("dhcp", "policies", "each of the three is usable alone"),
    ("dhcp", "playground", "answers know nothing of people"),
    ("policies", "overlay", "policy knows nothing of hosts and tunnels"),
    ("policies", "dhcp", "each of the three is usable alone"),
    ("policies", "playground", "policy knows nothing of people"),
    ("playground/spec", "playground/store", "a file is read without a site"),
    ("playground/spec", "playground/controller", "a file is read without a site"),
    ("playground/store", "playground/records", "the store knows keys and bytes, not what they mean"),
    ("playground/agent", "playground/controller", "an agent runs where no controller is installed"),
    ("playground/agent", "playground/store", "the store is the controller's; an agent has its view"),
    ("playground/agent", "fastapi", "an agent dials out and serves nothing"),
    ("playground/agent", "pydantic", "an agent's memory is every host's memory"),
    ("playground/agent", "pyroute2", "an agent's memory is every host's memory"),
    ("playground/responder", "playground/agent", "the responder outlives its agent"),
    ("playground/responder", "pyroute2", "the responder stays small"),
    ("playground/responder", "pydantic", "the responder stays small"),
    ("playground/responder", "fastapi", "the responder stays small"),
    ("playground/derive", "playground/agent", "deriving is pure; the agent calls it"),
    ("playground/derive", "playground/controller", "deriving is the host's"),
    ("playground/controller", "playground/agent", "a controller talks to agents, it is none"),
    ("playground/controller", "overlay/kernel", "a controller touches no kernel"),
    ("playground/cli", "playground/agent/agent", "the command line talks to the API"),
]

PURE: list[str] = [
    "overlay/state.py",
    "overlay/pools.py",
    "overlay/mac.py",
    "overlay/mtu.py",
    "overlay/diff.py",
    "overlay/dns/answer.py",
    "overlay/dns/cache.py",
    "overlay/dns/clients.py",
    "overlay/dns/history.py",
    "overlay/dns/message.py",
    "overlay/dns/record.py",
    "overlay/dns/zone.py",
    "dhcp/message.py",
    "dhcp/options.py",
    "dhcp/scope.py",
    "dhcp/catalogue.py",
    "dhcp/decide.py",
    "dhcp/history.py",
    "dhcp/leases.py",
    "dhcp/memo.py",
    "dhcp/pool.py",
    "dhcp/render.py",
    "dhcp/server.py",
    "dhcp/ra.py",
    "dhcp/v6.py",
    "dhcp/decide6.py",
    "dhcp/server6.py",
    "policies/bitset.py",
    "policies/codec.py",
    "policies/compile/changes.py",
    "policies/compile/judges.py",
    "policies/compile/match.py",
    "policies/compile/numbers.py",
    "policies/compile/playground.py",
    "policies/compile/tables.py",
    "policies/connections.py",
    "policies/kernel/bytecode.py",
    "policies/kernel/elements.py",
    "policies/kernel/fields.py",
    "policies/kernel/readback.py",
    "policies/difference.py",
    "policies/ends.py",
    "policies/evaluate.py",
    "policies/expect.py",
    "policies/explain.py",
    "policies/flows.py",
    "policies/guard/__init__.py",
    "policies/guard/parts.py",
    "policies/guard/reason.py",
    "policies/guard/rules.py",
    "policies/guard/station.py",
    "policies/identity.py",
    "policies/ir.py",
    "policies/ir_json.py",
    "policies/lint.py",
    "policies/model.py",
    "policies/interpret.py",
    "policies/ports.py",
    "policies/prove.py",
    "policies/reach.py",
    "policies/renumber.py",
    "policies/resolve.py",
    "policies/selector.py",
    "policies/verdicts.py",
    "policies/verify.py",
    "policies/world.py",
    "policies/importers/kubernetes/block_yaml.py",
    "policies/importers/kubernetes/documents.py",
    "policies/importers/kubernetes/export.py",
    "policies/importers/kubernetes/fields.py",
    "policies/importers/kubernetes/findings.py",
    "policies/importers/kubernetes/lower.py",
    "policies/importers/kubernetes/notation.py",
    "policies/importers/kubernetes/objects.py",
    "policies/importers/kubernetes/pods.py",
    "policies/importers/kubernetes/ports.py",
    "policies/importers/kubernetes/reading.py",
    "policies/importers/kubernetes/resources.py",
    "policies/importers/kubernetes/selecting.py",
    "policies/importers/kubernetes/wording.py",
    "policies/importers/kubernetes/workloads.py",
    "playground/questions.py",
    "playground/records.py",
    "playground/admit/__init__.py",
    "playground/admit/admission.py",
    "playground/admit/assign.py",
    "playground/admit/known.py",
    "playground/admit/policies.py",
    "playground/admit/standing.py",
    "playground/plan.py",
    "playground/policy_words.py",
    "playground/placement.py",
    "playground/view.py",
    "playground/derive/__init__.py",
    "playground/derive/guests.py",
    "playground/derive/networks.py",
    "playground/derive/services.py",
    "playground/controller/status.py",
    "playground/controller/trying.py",
    "playground/workspaces/migration.py",
]

IMPURE = {"asyncio", "os", "random", "secrets", "socket", "subprocess", "threading", "time", "pyroute2", "sqlite3"}
"""What a pure module has no use for: time, randomness and ids are arguments."""

SINGLE = {"pyroute2", "scapy", "dnslib", "libvirt"}
"""A module uses at most one of these, so that each can be replaced in one place."""


def sources(folder: str) -> list[Path]:
    path = ROOT / folder
    return [path] if path.suffix else sorted(p for p in [*path.rglob("*.py"), path.with_suffix(".py")] if p.exists())


def imported(path: Path) -> Iterator[str]:
    """Modules that a source imports at any level, as slashed paths; type-checking imports count too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.replace(".", "/") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.replace(".", "/")
            yield from (f"{node.module.replace('.', '/')}/{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("package", "other", "reason"), FORBIDDEN)
def test_a_package_does_not_import_what_the_house_forbids(package: str, other: str, reason: str) -> None:
    found = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name in imported(path)
        if name == other or name.startswith(other + "/")
    ]
    assert not found, f"{reason}: {found}"


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_imports_nothing_impure(module: str) -> None:
    path = ROOT / module
    found = {name.partition("/")[0] for name in imported(path)} & IMPURE
    assert not found


@pytest.mark.parametrize("folder", ["overlay", "dhcp", "policies", "playground"])
def test_a_module_uses_at_most_one_of_the_big_libraries(folder: str) -> None:
    for path in sources(folder):
        used = {name.partition("/")[0] for name in imported(path)} & SINGLE
        assert len(used) <= 1, f"{path}: {used}"


@pytest.mark.parametrize("folder", ["overlay", "dhcp", "policies", "playground"])
def test_every_module_says_what_it_owns(folder: str) -> None:
    for path in sources(folder):
        assert ast.get_docstring(ast.parse(path.read_text())) or path.stat().st_size == 0, f"{path} has no docstring"


def test_no_two_test_files_have_one_name() -> None:
    """pytest would take the second for the first, and run neither."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert {name: count for name, count in names.items() if count > 1} == {}
