"""Pure. Kubernetes texts → a Cluster: documents, lists of them, which kinds count, and each object once.

Refused (a finding, so that all come at once): texts that speak of an apiVersion but can't be read, wrong policies and
workloads, policies of an API version that is not read, and objects that stand twice and differ. Skipped: other texts,
documents and kinds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from policies.importers.kubernetes.documents import TextError, documents
from policies.importers.kubernetes.fields import At, MisfitError
from policies.importers.kubernetes.findings import Finding, Gravity
from policies.importers.kubernetes.objects import Cluster, Namespace, PolicyObject, Workload
from policies.importers.kubernetes.reading import POLICY_KINDS, policy_object
from policies.importers.kubernetes.workloads import WORKLOAD_KINDS, name_of, namespace, namespace_of, workload
from policies.model import Origin

_POLICY_VERSIONS = {
    "NetworkPolicy": "networking.k8s.io/v1",
    "AdminNetworkPolicy": "policy.networking.k8s.io/v1alpha1",
    "BaselineAdminNetworkPolicy": "policy.networking.k8s.io/v1alpha1",
    "ClusterNetworkPolicy": "policy.networking.k8s.io/v1alpha2",
}
_POLICY_GROUPS = ("networking.k8s.io", "policy.networking.k8s.io", "extensions")
_WORKLOAD_GROUPS = {
    "Pod": ("",),
    "ReplicationController": ("",),
    "Job": ("batch",),
    "CronJob": ("batch",),
    "VirtualMachine": ("kubevirt.io",),
    "VirtualMachineInstance": ("kubevirt.io",),
}
_APPS = ("apps", "extensions")
_MAX_NESTING = 8
"""Of lists in lists."""

_WORD = re.compile(r"[\w./-]{1,253}", re.ASCII)
_Object = PolicyObject | Namespace | Workload


def read_cluster(files: Iterable[tuple[str, str | bytes]]) -> Cluster:
    """What all texts say together; each comes with its name. Never raises: what is wrong is in `findings`."""
    found: dict[tuple[str, str, str], _Object] = {}
    findings: list[Finding] = []
    for file, text in files:
        _File(file, found, findings).read(text)
    objects = list(found.values())
    return Cluster(
        policies=tuple(one for one in objects if isinstance(one, PolicyObject)),
        namespaces=tuple(one for one in objects if isinstance(one, Namespace)),
        workloads=tuple(one for one in objects if isinstance(one, Workload)),
        findings=tuple(findings),
    )


class _File:
    """Reads one text into what was found before."""

    def __init__(self, file: str, found: dict[tuple[str, str, str], _Object], findings: list[Finding]) -> None:
        self._file = file
        self._found = found
        self._findings = findings

    def read(self, text: str | bytes) -> None:
        try:
            read = documents(text)
        except TextError as error:
            # what never says apiVersion is nobody's policy: a chart's values, a template of something else
            speaks = "apiVersion" in text if isinstance(text, str) else b"apiVersion" in text
            self._say(error.line, str(error), Gravity.REFUSED if speaks else Gravity.SKIPPED)
            return
        for document in read:
            self._document(At(document.value, document.line, ""))

    def _say(self, line: int, message: str, gravity: Gravity = Gravity.REFUSED) -> None:
        self._findings.append(Finding(Origin(self._file, line), message, gravity))

    def _document(self, at: At, of: tuple[str, str] | None = None, depth: int = 0) -> None:
        """One object, or a list of them. of: apiVersion and kind of the list's items, which may leave them out."""
        if not isinstance(at.value, dict):
            self._say(at.line, "the document is no Kubernetes object; skipped", Gravity.SKIPPED)
            return
        version, kind = at.value.get("apiVersion"), at.value.get("kind")
        if version is None and kind is None and of:
            version, kind = of
        if not (
            isinstance(version, str) and isinstance(kind, str) and _WORD.fullmatch(version) and _WORD.fullmatch(kind)
        ):
            self._say(at.line, "the document has no apiVersion and kind; skipped", Gravity.SKIPPED)
        elif not kind.endswith("List") or "items" not in at.value:
            self._object(at, version, kind)
        elif depth >= _MAX_NESTING:
            self._say(at.line, f"lists are nested deeper than {_MAX_NESTING}")
        else:
            inner = None if kind == "List" else (version, kind.removesuffix("List"))
            try:
                items = at.field("items").items()
            except MisfitError as error:
                self._say(error.line, f"{kind}: {error}")
                return
            for item in items:
                self._document(item, inner, depth + 1)

    def _object(self, at: At, version: str, kind: str) -> None:
        group = version.rpartition("/")[0]
        origin = Origin(self._file, at.line)
        try:
            match kind:
                case _ if kind in POLICY_KINDS and group in _POLICY_GROUPS:
                    if version != _POLICY_VERSIONS[kind]:
                        message = f"{kind} of {version} is not read; write it as {_POLICY_VERSIONS[kind]}"
                        self._say(at.line, message)
                        return
                    self._keep(self._policy(at, kind, origin))
                case "Namespace" if group == "":
                    self._keep(namespace(at, origin))
                case _ if kind in WORKLOAD_KINDS and group in _WORKLOAD_GROUPS.get(kind, _APPS):
                    doubts: list[MisfitError] = []
                    self._keep(workload(at, kind, origin, doubts))
                    for doubt in doubts:
                        self._say(doubt.line, f"{_title(at, kind)}: {doubt}; the port is passed over", Gravity.NOTED)
                case _:
                    self._say(at.line, f"{kind} of {version} says nothing of policies; skipped", Gravity.SKIPPED)
        except MisfitError as error:
            self._say(error.line, f"{_title(at, kind)}: {error}")

    def _policy(self, at: At, kind: str, origin: Origin) -> PolicyObject:
        read = policy_object(at, kind, namespace_of(at) if kind == "NetworkPolicy" else "", name_of(at), origin)
        spec = at.field("spec").fields()
        for direction, rules in (("ingress", read.ingress), ("egress", read.egress)):
            if rules is None and direction in spec and spec[direction].value:
                message = f"{read.title}: its {direction} rules say nothing, since policyTypes leaves them out"
                self._say(spec[direction].line, message, Gravity.NOTED)
        return read

    def _keep(self, one: _Object) -> None:
        key = _identity(one)
        first = self._found.setdefault(key, one)
        if first != one:
            kind, space, name = key
            title = f"{kind} {space}/{name}" if space else f"{kind} {name}"
            self._say(one.origin.line, f"{title} stands here a second time, and differs from {first.origin}; keep one")


def _identity(one: _Object) -> tuple[str, str, str]:
    if isinstance(one, Namespace):
        return "Namespace", "", one.name
    return one.kind, one.namespace, one.name


def _title(at: At, kind: str) -> str:
    """For a message about an object that may be wrong in its very name."""
    metadata = at.value.get("metadata")
    words = [metadata.get(key) for key in ("namespace", "name")] if isinstance(metadata, dict) else []
    named = "/".join(word for word in words if isinstance(word, str) and _WORD.fullmatch(word))
    return f"{kind} {named}" if named else kind
