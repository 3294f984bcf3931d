"""The words of the Kubernetes documentation, a case for each sentence.

Pages: kubernetes.io "Network Policies", the API reference of NetworkPolicy v1, and the API of policy.networking.k8s.io.
"""

from __future__ import annotations

import pytest
from kubernetes_verdicts import connects

from policies.importers.kubernetes.findings import Finding
from policies.importers.kubernetes.lower import lower
from policies.importers.kubernetes.resources import read_cluster
from policies.model import Scene
from policies.ports import Protocol

PODS = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: front}}
---
apiVersion: v1
kind: Namespace
metadata: {name: bank, labels: {team: back}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec:
  containers:
  - {name: c, ports: [{name: http, containerPort: 9090}, {name: dns, containerPort: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Pod
metadata: {name: bare, namespace: shop}
spec: {containers: [{name: c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: teller, namespace: bank, labels: {app: web}}
spec: {containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: node-agent, namespace: shop, labels: {app: web}}
spec: {hostNetwork: true, containers: [{name: c}]}
"""

WEB, DB, BARE, TELLER, AGENT = "shop/web", "shop/db", "shop/bare", "bank/teller", "shop/node-agent"


def np(spec: str, name: str = "one") -> str:
    return f"""
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: shop}}
spec: {spec}
"""


def tier(kind: str, spec: str, name: str = "one") -> str:
    version = "v1alpha2" if kind == "ClusterNetworkPolicy" else "v1alpha1"
    return f"""
---
apiVersion: policy.networking.k8s.io/{version}
kind: {kind}
metadata: {{name: {name}}}
spec: {spec}
"""


def anp(spec: str, name: str = "one") -> str:
    return tier("AdminNetworkPolicy", spec, name)


def cnp(spec: str, name: str = "one") -> str:
    return tier("ClusterNetworkPolicy", spec, name)


def scene(policies: str) -> tuple[Scene, tuple[Finding, ...]]:
    return lower(read_cluster([("cluster.yaml", PODS + policies)]))


def passes(policies: str, source: str, target: str, port: str) -> bool:
    read, _ = scene(policies)
    endpoints = {one.workspace: one for one in read.endpoints}
    word, _, number = port.partition("/")
    protocol = Protocol(word.upper())
    return connects(read, endpoints.get(source, source), endpoints.get(target, target), protocol, int(number or 0))


ALL = "{subject: {namespaces: {}}"

CASES: list[tuple[str, str, str, str, str, bool]] = [
    # (sentence, policies, from, to, port, whether it passes)
    ("by default, a pod is non-isolated: all outbound connections are allowed", "", WEB, "192.0.2.1", "tcp/1", True),
    ("by default, a pod is non-isolated: all inbound connections are allowed", "", "192.0.2.1", WEB, "icmp/8", True),
    ("an empty podSelector selects all pods in the namespace", np("{podSelector: {}}"), TELLER, BARE, "tcp/1", False),
    ("a policy is of its own namespace alone", np("{podSelector: {}}"), WEB, TELLER, "tcp/1", True),
    ("a missing podSelector is the empty one", np("{policyTypes: [Ingress]}"), TELLER, BARE, "tcp/1", False),
    ("a policy without a spec isolates for ingress", np(""), TELLER, BARE, "tcp/1", False),
    ("without policyTypes, Ingress is always set", np("{podSelector: {}, egress: [{}]}"), TELLER, WEB, "tcp/1", False),
    ("without policyTypes, Egress is set if there are egress rules",
     np("{podSelector: {}, ingress: [{}], egress: [{ports: [{port: 1}]}]}"), WEB, TELLER, "tcp/2", False),
    ("without policyTypes, empty egress rules don't isolate",
     np("{podSelector: {}, egress: []}"), WEB, TELLER, "tcp/1", True),
    ("without policyTypes, null egress rules don't isolate",
     np("{podSelector: {}, egress: null}"), WEB, TELLER, "tcp/1", True),
    ("empty policyTypes are missing ones", np("{podSelector: {}, policyTypes: []}"), TELLER, WEB, "tcp/1", False),
    ("policyTypes Egress alone leaves ingress open",
     np("{podSelector: {}, policyTypes: [Egress]}"), TELLER, WEB, "tcp/1", True),
    ("policyTypes Egress alone closes egress",
     np("{podSelector: {}, policyTypes: [Egress]}"), WEB, TELLER, "tcp/1", False),
    ("rules of a direction that policyTypes leaves out say nothing",
     np("{podSelector: {}, policyTypes: [Ingress], ingress: [{}], egress: [{ports: [{port: 1}]}]}"),
     WEB, TELLER, "tcp/2", True),
    ("policyTypes Ingress without rules denies all ingress",
     np("{podSelector: {}, policyTypes: [Ingress]}"), "10.0.0.1", WEB, "tcp/1", False),
    ("an empty ingress rule allows all", np("{podSelector: {}, ingress: [{}]}"), "10.0.0.1", WEB, "icmp/8", True),
    ("a null ingress rule is an empty one", np("{podSelector: {}, ingress: [null]}"), TELLER, WEB, "sctp/1", True),
    ("empty from matches all sources", np("{podSelector: {}, ingress: [{from: []}]}"), "10.0.0.1", WEB, "tcp/1", True),
    ("null from matches all sources", np("{podSelector: {}, ingress: [{from: null}]}"), TELLER, WEB, "tcp/1", True),
    ("empty ports match all traffic", np("{podSelector: {}, ingress: [{ports: []}]}"), TELLER, WEB, "icmp/8", True),
    ("null ports match all traffic", np("{podSelector: {}, ingress: [{ports: null}]}"), TELLER, WEB, "other/0", True),
    ("replies aside, both ends must allow: egress closed",
     np("{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}"), WEB, DB, "tcp/1", False),
    ("policies do not conflict; they are additive",
     np("{podSelector: {}}") + np("{podSelector: {}, ingress: [{ports: [{port: 5}]}]}", "two"),
     TELLER, WEB, "tcp/5", True),
    # peers
    ("podSelector selects pods in the policy's namespace",
     np("{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}"), WEB, DB, "tcp/1", True),
    ("podSelector selects no pods of another namespace",
     np("{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}"),
     TELLER, DB, "tcp/1", False),
    ("podSelector selects nothing outside the cluster",
     np("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}"), "10.0.0.1", DB, "tcp/1", False),
    ("namespaceSelector selects all pods of namespaces",
     np("{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: back}}}]}]}"),
     TELLER, DB, "tcp/1", True),
    ("an empty namespaceSelector selects all namespaces",
     np("{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}"), TELLER, DB, "tcp/1", True),
    ("a null namespaceSelector is a missing one",
     np("{podSelector: {}, ingress: [{from: [{namespaceSelector: null, podSelector: {}}]}]}"),
     TELLER, DB, "tcp/1", False),
    ("both selectors in one peer are ANDed",
     np("{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: back}}, podSelector: "
        "{matchLabels: {app: db}}}]}]}"), TELLER, DB, "tcp/1", False),
    ("both selectors in two peers are ORed",
     np("{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: back}}}, {podSelector: "
        "{matchLabels: {app: db}}}]}]}"), TELLER, WEB, "tcp/1", True),
    ("both selectors in two peers are ORed, the second in the policy's namespace",
     np("{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: back}}}, {podSelector: "
        "{matchLabels: {app: db}}}]}]}"), DB, WEB, "tcp/1", True),
    ("kubernetes.io/metadata.name is set on all namespaces",
     np("{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: "
        "{kubernetes.io/metadata.name: bank}}}]}]}"),
     TELLER, DB, "tcp/1", True),
    ("ipBlock selects a range", np("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}"),
     "10.9.9.9", DB, "tcp/1", True),
    ("except is left out of an ipBlock",
     np("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}]}]}"),
     "10.9.9.9", DB, "tcp/1", False),
    ("an ipBlock matches only what no workload owns",
     np("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}"), TELLER, DB, "tcp/1", False),
    ("an ipBlock is of its own family",
     np("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}"), "fd00::1", DB, "tcp/1", False),
    # expressions
    ("In matches one of the values",
     np("{podSelector: {matchExpressions: [{key: app, operator: In, values: [web, db]}]}}"),
     TELLER, DB, "tcp/1", False),
    ("In doesn't match a missing key",
     np("{podSelector: {matchExpressions: [{key: app, operator: In, values: [web, db]}]}}"),
     TELLER, BARE, "tcp/1", True),
    ("NotIn matches a missing key",
     np("{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}"),
     TELLER, BARE, "tcp/1", False),
    ("NotIn doesn't match its values",
     np("{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}"), TELLER, WEB, "tcp/1", True),
    ("Exists matches any value",
     np("{podSelector: {matchExpressions: [{key: app, operator: Exists}]}}"), TELLER, WEB, "tcp/1", False),
    ("DoesNotExist matches a missing key",
     np("{podSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}}"), TELLER, BARE, "tcp/1", False),
    ("matchLabels and matchExpressions are ANDed",
     np("{podSelector: {matchLabels: {app: web}, matchExpressions: [{key: tier, operator: DoesNotExist}]}}"),
     TELLER, WEB, "tcp/1", True),
    # ports
    ("protocol defaults to TCP",
     np("{podSelector: {}, ingress: [{ports: [{port: 53}]}]}"), TELLER, DB, "udp/53", False),
    ("without port, all ports of the protocol",
     np("{podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}"), TELLER, DB, "udp/65535", True),
    ("without port, no other protocol",
     np("{podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}"), TELLER, DB, "tcp/1", False),
    ("an empty port is all of TCP", np("{podSelector: {}, ingress: [{ports: [{}]}]}"), TELLER, DB, "tcp/7", True),
    ("a port list says nothing of ICMP",
     np("{podSelector: {}, ingress: [{ports: [{}, {protocol: UDP}, {protocol: SCTP}]}]}"), TELLER, DB, "icmp/8", False),
    ("SCTP", np("{podSelector: {}, ingress: [{ports: [{protocol: SCTP, port: 7}]}]}"), TELLER, DB, "sctp/7", True),
    ("endPort is included",
     np("{podSelector: {}, ingress: [{ports: [{port: 7, endPort: 9}]}]}"), TELLER, DB, "tcp/9", True),
    ("endPort ends", np("{podSelector: {}, ingress: [{ports: [{port: 7, endPort: 9}]}]}"), TELLER, DB, "tcp/10", False),
    ("a named port is the destination's",
     np("{podSelector: {}, ingress: [{ports: [{port: http}]}]}"), TELLER, WEB, "tcp/8080", True),
    ("a named port is each destination's own",
     np("{podSelector: {}, ingress: [{ports: [{port: http}]}]}"), TELLER, DB, "tcp/8080", False),
    ("a destination without the name has no such port, and is isolated",
     np("{podSelector: {}, ingress: [{ports: [{port: http}]}]}"), TELLER, BARE, "tcp/8080", False),
    ("a named port has its protocol",
     np("{podSelector: {}, ingress: [{ports: [{port: dns}]}]}"), TELLER, DB, "tcp/53", False),
    ("a named port with its protocol",
     np("{podSelector: {}, ingress: [{ports: [{port: dns, protocol: UDP}]}]}"), TELLER, DB, "udp/53", True),
    ("a named port of egress is the peer's",
     np("{podSelector: {}, ingress: [{}], egress: [{ports: [{port: http}]}]}"), WEB, TELLER, "tcp/80", True),
    ("a named port of egress isn't the source's",
     np("{podSelector: {}, ingress: [{}], egress: [{ports: [{port: http}]}]}"), WEB, TELLER, "tcp/8080", False),
    ("the world names no ports",
     np("{podSelector: {}, egress: [{ports: [{port: http}]}]}"), WEB, "10.0.0.1", "tcp/8080", False),
    # host network
    ("selectors don't select hostNetwork pods as subjects", np("{podSelector: {}}"), TELLER, AGENT, "tcp/1", True),
    ("selectors don't select hostNetwork pods as peers",
     np("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}"), AGENT, WEB, "tcp/1", False),
    ("a rule without peers takes hostNetwork pods too",
     np("{podSelector: {}, ingress: [{ports: [{port: 1}]}]}"), AGENT, WEB, "tcp/1", True),
    ("host-networked pods are not included in tier subjects",
     anp(ALL + ", priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}"), TELLER, AGENT, "tcp/1", True),
    ("host-networked pods are not included in tier peers",
     anp(ALL + ", priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}"), AGENT, TELLER, "tcp/1", True),
    # tiers
    ("an admin Deny is before any NetworkPolicy",
     anp(ALL + ", priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]"
         "}]}") + np("{podSelector: {}, ingress: [{}]}"),
     TELLER, WEB, "tcp/1", False),
    ("users can't block what an admin allows",
     anp(ALL + ", priority: 1, ingress: [{action: Allow, from: [{namespaces: {}}]}]}") + np("{podSelector: {}}"),
     TELLER, WEB, "tcp/1", True),
    ("an admin Allow of ingress doesn't speak for egress at the other end",
     anp(ALL + ", priority: 1, ingress: [{action: Allow, from: [{namespaces: {}}]}]}")
     + np("{podSelector: {}, policyTypes: [Egress]}"), WEB, TELLER, "tcp/1", False),
    ("what a tier doesn't match goes on to NetworkPolicies",
     anp(ALL + ", priority: 1, ingress: [{action: Allow, from: [{namespaces: {}}], ports: "
         "[{portNumber: {protocol: TCP, port: 1}}]}]}") + np("{podSelector: {}}"), TELLER, WEB, "tcp/2", False),
    ("lower priority values have higher precedence",
     anp(ALL + ", priority: 2, ingress: [{action: Deny, from: [{namespaces: {}}]}]}")
     + anp(ALL + ", priority: 1, ingress: [{action: Allow, from: [{namespaces: {}}]}]}", "two"),
     TELLER, WEB, "tcp/1", True),
    ("the rule at the top has the highest precedence",
     anp(ALL + ", priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]"
         "}, {action: Allow, from: [{namespaces: {}}]}]}"),
     TELLER, WEB, "tcp/1", False),
    ("Pass skips the rest of its tier, to NetworkPolicies",
     anp(ALL + ", priority: 1, ingress: [{action: Pass, from: [{namespaces: {}}]}]}")
     + anp(ALL + ", priority: 2, ingress: [{action: Deny, from: [{namespaces: {}}]}]}", "two")
     + np("{podSelector: {}, ingress: [{}]}"), TELLER, WEB, "tcp/1", True),
    ("Pass without NetworkPolicies goes on to the baseline",
     anp(ALL + ", priority: 1, ingress: [{action: Pass, from: [{namespaces: {}}]}]}")
     + tier("BaselineAdminNetworkPolicy", ALL + ", ingress: [{action: Deny, from: [{namespaces: {}}]}]}", "default"),
     WEB, TELLER, "tcp/1", False),
    ("a NetworkPolicy overrides the baseline",
     np("{podSelector: {}, ingress: [{}]}")
     + tier("BaselineAdminNetworkPolicy", ALL + ", ingress: [{action: Deny, from: [{namespaces: {}}]}]}", "default"),
     TELLER, WEB, "tcp/1", True),
    ("a policy without ingress rules doesn't affect ingress",
     anp(ALL + ", priority: 1, ingress: [], egress: [{action: Deny, to: [{namespaces: {}}]}]}"),
     "10.0.0.1", WEB, "tcp/1", True),
    ("tier peers don't match the world",
     anp(ALL + ", priority: 1, egress: [{action: Deny, to: [{namespaces: {}}]}]}"), WEB, "10.0.0.1", "tcp/1", True),
    ("networks select peers by CIDR",
     anp(ALL + ", priority: 1, egress: [{action: Deny, to: [{networks: [10.0.0.0/8, 'fd00::/8']}]}]}"),
     WEB, "fd00::1", "tcp/1", False),
    ("ports that are not set don't filter: ICMP too",
     anp(ALL + ", priority: 1, egress: [{action: Deny, to: [{networks: [10.0.0.0/8]}]}]}"),
     WEB, "10.0.0.1", "icmp/8", False),
    ("pods: both selectors have to match",
     anp("{priority: 1, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}}, "
         "ingress: [{action: Deny, from: [{namespaces: {}}]}]}"), TELLER, WEB, "tcp/1", True),
    ("a named port of a tier is in any protocol",
     anp(ALL + ", priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}], ports: [{namedPort: dns}]}]}"),
     TELLER, DB, "udp/53", False),
    ("a port range is inclusive",
     anp(ALL + ", priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]"
         ", ports: [{portRange: {start: 5, end: 9}}]}]}"),
     TELLER, DB, "tcp/9", False),
    ("ClusterNetworkPolicy Accept in the Admin tier",
     cnp(ALL + ", tier: Admin, priority: 1, ingress: [{action: Accept, from: [{namespaces: {}}]}]}")
     + np("{podSelector: {}}"),
     TELLER, WEB, "tcp/1", True),
    ("ClusterNetworkPolicy Deny in the Baseline tier is overridden",
     cnp(ALL + ", tier: Baseline, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}")
     + np("{podSelector: {}, ingress: [{}]}"), TELLER, WEB, "tcp/1", True),
    ("ClusterNetworkPolicy Deny in the Baseline tier, not overridden",
     cnp(ALL + ", tier: Baseline, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}]}]}"),
     TELLER, WEB, "tcp/1", False),
    ("ClusterNetworkPolicy protocols: a number",
     cnp(ALL + ", tier: Admin, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: "
         "[{udp: {destinationPort: {number: 53}}}]}]}"), TELLER, DB, "udp/53", False),
    ("ClusterNetworkPolicy protocols: a range",
     cnp(ALL + ", tier: Admin, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: "
         "[{tcp: {destinationPort: {range: {start: 1, end: 9}}}}]}]}"), TELLER, DB, "tcp/10", True),
    ("ClusterNetworkPolicy protocols: a name",
     cnp(ALL + ", tier: Admin, priority: 1, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: "
         "[{destinationNamedPort: http}]}]}"), TELLER, DB, "tcp/9090", False),
    ("ClusterNetworkPolicy pods: a missing namespaceSelector selects all namespaces",
     cnp("{tier: Admin, priority: 1, subject: {pods: {podSelector: {matchLabels: {app: web}}}}, "
         "ingress: [{action: Deny, from: [{namespaces: {}}]}]}"), WEB, TELLER, "tcp/1", False),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "policies", "source", "target", "port", "expected"), CASES)
def test_a_sentence_holds(sentence: str, policies: str, source: str, target: str, port: str, expected: bool) -> None:
    assert passes(policies, source, target, port) is expected, sentence


def test_peers_that_no_document_tells_are_left_out_by_name() -> None:
    _, findings = scene(anp(ALL + ", priority: 1, egress: [{action: Deny, to: [{nodes: {}}]}]}"))
    assert [one.message for one in findings if one.gravity.value == "left out"] == [
        "AdminNetworkPolicy one: a peer of nodes can't be told from documents; left out of its rule"
    ]
