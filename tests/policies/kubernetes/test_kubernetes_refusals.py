"""What an API server would refuse is refused, at its line; the rest of a tree is skipped with a word."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes_clusters import Object, clusters, text

from policies.importers.kubernetes.documents import MAX_DEPTH, TextError, documents
from policies.importers.kubernetes.findings import Gravity, KubernetesError
from policies.importers.kubernetes.lower import lower
from policies.importers.kubernetes.resources import read_cluster


def refusal(document: str) -> str:
    """All refusals of a document, as one text."""
    with pytest.raises(KubernetesError) as caught:
        lower(read_cluster([("it.yaml", document)]))
    return str(caught.value)


def np(rest: str) -> str:
    return f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: one}}\nspec:\n  {rest}\n"


def tier(kind: str, spec: str, name: str = "one") -> str:
    version = "v1alpha2" if kind == "ClusterNetworkPolicy" else "v1alpha1"
    return f"apiVersion: policy.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"


PEER = "podSelector: {}, ingress: [{from: [%s]}]"
PORT = "podSelector: {}, ingress: [{ports: [%s]}]"
CASES = [
    ("podselector: {}", "unknown field; did you mean podSelector?"),
    ("{podSelector: {}, policyTypes: [ingress]}", "read 'ingress'; allowed: Ingress, Egress"),
    ("{podSelector: {}, policyTypes: [Ingress, Egress, Egress]}", "at most 2"),
    ("{podSelector: []}", "read a list where a mapping should be"),
    ("{podSelector: {matchlabels: {}}}", "did you mean matchLabels?"),
    ("{podSelector: {matchLabels: {a: 1}}}", "read the number 1 where a text should be; write it in quotes"),
    ("{podSelector: {matchLabels: {a: yes}}}", "read the truth value true where a text should be"),
    ("{podSelector: {matchLabels: {'a b': x}}}", "'a b' is no label key"),
    ("{podSelector: {matchLabels: {a: -x}}}", "'-x' is no label value"),
    ("{podSelector: {matchExpressions: [{key: a, operator: in, values: [b]}]}}", "allowed: In, NotIn, Exists"),
    ("{podSelector: {matchExpressions: [{key: a, operator: In}]}}", "In needs at least one value"),
    ("{podSelector: {matchExpressions: [{key: a, operator: NotIn, values: []}]}}", "NotIn needs at least one value"),
    ("{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}", "Exists takes no values"),
    ("{podSelector: {matchExpressions: [{operator: Exists}]}}", "key is missing"),
    ("{%s}" % (PEER % "{}"), "the peer is nobody"),
    ("{%s}" % (PEER % "null"), "the peer is nobody"),
    ("{%s}" % (PEER % "{podSelector: null}"), "the peer is nobody"),
    ("{%s}" % (PEER % "{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}"), "ipBlock can't be joined"),
    ("{%s}" % (PEER % "{ipBlock: {}}"), "cidr is missing"),
    ("{%s}" % (PEER % "{ipBlock: {cidr: 10.0.0.0}}"), "'10.0.0.0' is no address prefix"),
    ("{%s}" % (PEER % "{ipBlock: {cidr: 10.0.0.0/255.0.0.0}}"), "is no address prefix"),
    ("{%s}" % (PEER % "{ipBlock: {cidr: 10.0.0.0/33}}"), "is no address prefix"),
    ("{%s}" % (PEER % "{ipBlock: {cidr: '::ffff:10.0.0.0/120'}}"), "write it as IPv4"),
    ("{%s}" % (PEER % "{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}"), "11.0.0.0/16 is no part of 10.0.0.0/8"),
    ("{%s}" % (PEER % "{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}"), "an exception is a strict subset"),
    ("{%s}" % (PEER % "{ipBlock: {cidr: 10.0.0.0/8, except: ['fd00::/64']}}"), "an exception is a strict subset"),
    ("{%s}" % (PORT % "{protocol: tcp}"), "read 'tcp'; allowed: TCP, UDP, SCTP"),
    ("{%s}" % (PORT % "{protocol: ICMP}"), "read 'ICMP'; allowed: TCP, UDP, SCTP"),
    ("{%s}" % (PORT % "{port: 0}"), "0 is out of range; allowed: 1-65535"),
    ("{%s}" % (PORT % "{port: 65536}"), "out of range"),
    ("{%s}" % (PORT % "{port: 80.0}"), "where a whole number should be"),
    ("{%s}" % (PORT % "{port: true}"), "where a whole number should be"),
    ("{%s}" % (PORT % "{port: '80'}"), "'80' is no port name"),
    ("{%s}" % (PORT % "{port: a-name-too-long-x}"), "is no port name; allowed: up to 15"),
    ("{%s}" % (PORT % "{port: HTTP}"), "'HTTP' is no port name"),
    ("{%s}" % (PORT % "{port: a--b}"), "'a--b' is no port name"),
    ("{%s}" % (PORT % "{port: 80, endPort: 79}"), "endPort 79 is less than port 80"),
    ("{%s}" % (PORT % "{port: http, endPort: 80}"), "endPort can't follow a named port"),
    ("{%s}" % (PORT % "{endPort: 80}"), "endPort needs a port"),
    ("{podSelector: {}, ingress: {}}", "read a mapping where a list should be"),
    ("{podSelector: {}, ingress: [{to: []}]}", "spec.ingress[0].to: unknown field"),
]


@pytest.mark.parametrize(("spec", "message"), CASES)
def test_a_wrong_network_policy_is_refused_with_its_place(spec: str, message: str) -> None:
    said = refusal(np(spec))
    assert message in said
    assert said.startswith("it.yaml:5: NetworkPolicy one: spec")


ALL = "{priority: 1, subject: {namespaces: {}}, %s}"
CLUSTER = "{tier: Admin, priority: 1, subject: {namespaces: {}}, %s}"
FROM = "from: [{namespaces: {}}]"
TIERS = [
    ("AdminNetworkPolicy", "{subject: {namespaces: {}}}", "priority is missing"),
    ("AdminNetworkPolicy", "{priority: 1001, subject: {namespaces: {}}}", "allowed: 0-1000"),
    ("AdminNetworkPolicy", "{priority: 1, subject: {}}", "read none; write exactly one of namespaces, pods"),
    ("AdminNetworkPolicy", "{priority: 1, subject: {namespaces: {}, pods: {}}}", "write exactly one of"),
    ("AdminNetworkPolicy", "{priority: 1, subject: {pods: {podSelector: {}}}}", "namespaceSelector is missing"),
    ("AdminNetworkPolicy", ALL % "ingress: [{action: Accept, from: [{namespaces: {}}]}]", "allowed: Allow, Deny, Pass"),
    ("AdminNetworkPolicy", ALL % "ingress: [{from: [{namespaces: {}}]}]", "action is missing"),
    ("AdminNetworkPolicy", ALL % "ingress: [{action: Deny}]", "from is missing"),
    ("AdminNetworkPolicy", ALL % "ingress: [{action: Deny, from: []}]", "at least 1 is needed"),
    ("AdminNetworkPolicy", ALL % "ingress: [{action: Deny, from: [{}]}]", "read none"),
    ("AdminNetworkPolicy", ALL % "ingress: [{action: Deny, from: [{networks: [10.0.0.0/8]}]}]", "unknown field"),
    ("AdminNetworkPolicy", ALL % f"ingress: [{{action: Deny, {FROM}, ports: []}}]", "at least 1 is needed"),
    ("AdminNetworkPolicy", ALL % f"ingress: [{{action: Deny, {FROM}, ports: [{{port: 80}}]}}]", "unknown field"),
    ("AdminNetworkPolicy", ALL % f"ingress: [{{action: Deny, {FROM}, ports: [{{portRange: {{start: 9, end: 8}}}}]}}]",
     "end 8 is not greater than start 9"),
    ("AdminNetworkPolicy", ALL % "egress: [{action: Deny, to: [{networks: [10.0.0.0/8]}], ports: [{namedPort: http}]}]",
     "named ports belong to pods"),
    ("AdminNetworkPolicy", ALL % "egress: [{action: Deny, to: [{domainNames: [a.org]}]}]", "can only be accepted"),
    ("AdminNetworkPolicy", ALL % f"ingress: [{', '.join(['{action: Deny, ' + FROM + '}'] * 101)}]", "at most 100"),
    ("BaselineAdminNetworkPolicy", "{subject: {namespaces: {}}}", "named 'default'"),
    ("ClusterNetworkPolicy", "{priority: 1, subject: {namespaces: {}}}", "tier is missing"),
    ("ClusterNetworkPolicy", "{tier: admin, priority: 1, subject: {namespaces: {}}}", "allowed: Admin, Baseline"),
    ("ClusterNetworkPolicy", CLUSTER % "ingress: [{action: Allow, from: [{namespaces: {}}]}]", "allowed: Accept, Deny"),
    ("ClusterNetworkPolicy", CLUSTER % f"ingress: [{{action: Deny, {FROM}, ports: []}}]", "unknown field"),
    ("ClusterNetworkPolicy", CLUSTER % f"ingress: [{{action: Deny, {FROM}, protocols: [{{tcp: {{}}}}]}}]", "read none"),
    ("ClusterNetworkPolicy", CLUSTER % f"ingress: [{', '.join(['{action: Deny, ' + FROM + '}'] * 26)}]", "at most 25"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spec", "message"), TIERS)
def test_a_wrong_policy_of_the_tiers_is_refused_with_its_place(kind: str, spec: str, message: str) -> None:
    said = refusal(tier(kind, spec))
    assert message in said
    assert said.startswith(f"it.yaml:4: {kind} one: spec")


def test_the_baseline_policy_passes_nothing_on() -> None:
    spec = "{subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {}}]}]}"
    assert "allowed: Allow, Deny" in refusal(tier("BaselineAdminNetworkPolicy", spec, "default"))


POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n---\n"


def test_equal_priorities_on_one_pod_are_refused() -> None:
    one = tier("AdminNetworkPolicy", ALL % f"ingress: [{{action: Deny, {FROM}}}]")
    two = one.replace("name: one", "name: two")
    said = refusal(f"{POD}{one}---\n{two}")
    assert "AdminNetworkPolicy two and AdminNetworkPolicy one (it.yaml:5) have the same priority 1" in said


def test_equal_priorities_on_no_common_pod_are_no_matter() -> None:
    one = tier("AdminNetworkPolicy", ALL % f"ingress: [{{action: Deny, {FROM}}}]")
    two = tier("AdminNetworkPolicy", ALL % "egress: [{action: Deny, to: [{namespaces: {}}]}]", "two")
    lower(read_cluster([("it.yaml", f"{POD}{one}---\n{two}")]))


def test_all_refusals_come_at_once_in_order() -> None:
    documents = "---\n".join([np("{policyTypes: [x]}"), np("{ingress: x}"), np("{egress: x}")])
    assert [line.partition(": ")[0] for line in refusal(documents).split("\n")] == [
        "it.yaml:5",
        "it.yaml:11",
        "it.yaml:17",
    ]


def test_a_policy_that_stands_twice_and_differs_is_refused() -> None:
    said = refusal(f"{np('podSelector: {}')}---\n{np('egress: [{}]')}")
    assert said == (
        "it.yaml:7: NetworkPolicy default/one stands here a second time, and differs from it.yaml:1; keep one"
    )


def test_a_policy_that_stands_twice_alike_is_one() -> None:
    scene, _ = lower(read_cluster([("a.yaml", np("podSelector: {}")), ("b.yaml", "\n" + np("podSelector: {}"))]))
    assert len(scene.policies) == 1


def test_a_policy_of_an_older_api_is_refused_by_name() -> None:
    said = refusal(np("podSelector: {}").replace("networking.k8s.io/v1", "extensions/v1beta1"))
    assert "NetworkPolicy of extensions/v1beta1 is not read; write it as networking.k8s.io/v1" in said


@pytest.mark.parametrize(
    ("document", "gravity"),
    [
        ("apiVersion: v1\nkind: Service\n", Gravity.SKIPPED),
        ("apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\n", Gravity.SKIPPED),
        ("apiVersion: batch.volcano.sh/v1alpha1\nkind: Job\n", Gravity.SKIPPED),
        ("a: 1\n", Gravity.SKIPPED),
        ("- 1\n", Gravity.SKIPPED),
        ("just words\n", Gravity.SKIPPED),
        ("{{ .Values.x }}\n:\n", Gravity.SKIPPED),
        ("apiVersion: {{ x }\n", Gravity.REFUSED),
        ("apiVersion: v1\nkind: Pod\nkind: Pod\n", Gravity.REFUSED),
        ("apiVersion: v1\nkind: Pod\n", Gravity.REFUSED),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: A}\n", Gravity.REFUSED),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b.c}\n", Gravity.REFUSED),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {b: '-'}}\n", Gravity.REFUSED),
    ],
)
def test_each_text_is_said_to_be_skipped_or_refused(document: str, gravity: Gravity) -> None:
    assert [one.gravity for one in read_cluster([("x", document)]).findings] == [gravity]


def test_empty_documents_are_passed_over_in_silence() -> None:
    assert read_cluster([("x", "---\n---\n# nothing\n---\n"), ("y", ""), ("z", b"\xef\xbb\xbf")]).findings == ()


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(TextError, match="more than"):
        documents("\n".join(lines))


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, '{"a":' * 100_000, "- " * 5000])
def test_depth_is_a_limit_and_no_crash(text: str) -> None:
    with pytest.raises(TextError):
        documents(text)


def test_depth_of_json_is_limited_too() -> None:
    with pytest.raises(TextError, match=f"deeper than {MAX_DEPTH}"):
        documents('{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH)


@pytest.mark.parametrize("text", ["\ud800", b"\xff", "a: !!python/name:os.system x", "\x01", '"\\U7fffffff"'])
def test_what_no_document_can_hold_is_refused(text: str | bytes) -> None:
    with pytest.raises(TextError):
        documents(text)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="{}[]:,-&*!|>'\"\n \tapiVersonkdPNtwl%<#?@01~", max_size=60) | st.text() | st.binary())
def test_any_text_is_read_or_refused_as_declared(text: str | bytes) -> None:
    read_cluster([("x", text)])


JUNK: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 70000) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=30, deadline=None)
@given(clusters(), st.data())
def test_any_misfit_in_an_object_is_read_or_refused_as_declared(objects: list[Object], data: st.DataObject) -> None:
    at: object = objects
    while isinstance(at, dict | list) and at:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if data.draw(st.integers(0, 3)) == 0 or not isinstance(at[key], dict | list):  # type: ignore[index]
            at[key] = data.draw(JUNK)  # type: ignore[index]
            break
        at = at[key]  # type: ignore[index]
    with contextlib.suppress(KubernetesError):
        lower(read_cluster([("cluster.json", text(objects))]))
