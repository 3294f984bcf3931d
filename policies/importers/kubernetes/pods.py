"""Pure. Workloads → the pods that stand for them, under the name that people know them by.

A pod with a controlling owner counts as its owner, and so on up as far as there are documents. A workload is shown by
its pods where there are any, else by its own document's template, else by what it owns (a replica set, a job).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from policies.importers.kubernetes.findings import Finding, Gravity
from policies.importers.kubernetes.objects import ContainerPort, Workload

_Key = tuple[str, str, str]
"""(namespace, kind, name)."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a workload. workspace: NAMESPACE/NAME of the workload."""

    workspace: str
    namespace: str
    labels: Mapping[str, str]
    ports: frozenset[ContainerPort]
    is_on_host_network: bool


def pods_of(workloads: Iterable[Workload]) -> tuple[list[Pod], list[Finding]]:
    """Pods by workspace; those of one workload that don't differ are one. And what is to be said of names."""
    known: dict[_Key, Workload] = {(one.namespace, one.kind, one.name): one for one in workloads}
    members: dict[_Key, list[Workload]] = defaultdict(list)
    for one in known.values():
        members[_top(one, known)].append(one)
    pods: list[Pod] = []
    findings: list[Finding] = []
    by_name: dict[str, list[_Key]] = defaultdict(list)
    for key in members:
        by_name[f"{key[0]}/{key[2]}"].append(key)
    for name, keys in sorted(by_name.items()):
        for key in sorted(keys):
            shown = _shown(members[key], key)
            workspace = name if len(keys) == 1 else f"{name}[{key[1]}]"
            distinct = {
                (frozenset(one.labels.items()), one.ports, one.is_on_host_network): Pod(
                    workspace, one.namespace, one.labels, one.ports, one.is_on_host_network
                )
                for one in reversed(shown)
            }
            pods.extend(reversed(distinct.values()))
            first = shown[0].origin
            if len(keys) > 1:
                kinds = ", ".join(kind for _, kind, _ in sorted(keys))
                message = f"{name} is the name of several workloads ({kinds}); this one is listed as {workspace}"
                findings.append(Finding(first, message, Gravity.NOTED))
            if len(distinct) > 1:
                message = f"pods of {workspace} differ ({len(distinct)} kinds); they are listed as one workload"
                findings.append(Finding(first, message, Gravity.NOTED))
    return pods, findings


def _top(one: Workload, known: Mapping[_Key, Workload]) -> _Key:
    """The owner's owner's … key. Owners that go round in a circle end where the circle closes."""
    at: _Key = (one.namespace, one.kind, one.name)
    seen: set[_Key] = set()
    while at not in seen:
        seen.add(at)
        owner = known[at].owner if at in known else _unwritten_owner(at, one, known)
        if owner is None:
            return at
        at = (one.namespace, *owner)
    return min(seen)


def _unwritten_owner(at: _Key, one: Workload, known: Mapping[_Key, Workload]) -> tuple[str, str] | None:
    """The owner of an owner that has no document, where a name leaves no doubt and the owner has a document.

    A Deployment names its replica sets NAME-HASH, and writes HASH on their pods; a machine names its instance alike.
    """
    space, kind, name = at
    digest = one.labels.get("pod-template-hash", "")
    if kind == "ReplicaSet" and digest and name.endswith(f"-{digest}"):
        above = ("Deployment", name.removesuffix(f"-{digest}"))
    elif kind == "VirtualMachineInstance":
        above = ("VirtualMachine", name)
    else:
        return None
    return above if (space, *above) in known else None


def _shown(members: list[Workload], key: _Key) -> list[Workload]:
    return (
        [one for one in members if one.kind == "Pod"]
        or [one for one in members if (one.namespace, one.kind, one.name) == key]
        or members
    )
