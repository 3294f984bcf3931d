"""`policy …`: what files mean, for people, programs, editors and CI; without a controller."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_lab import Play

from playground.cli import listing
from policies.ports import EVERYTHING, Ports, Protocol

LAB = """\
name: lab
networks: {grid: {subnets: [10.20.0.0/24]}, public: {subnets: [10.21.0.0/24]}}
gateways: {wan: {kind: nat, networks: [public]}}
workspaces:
  head: {labels: {role: head}, networks: [grid, public]}
  worker: {scale: 11, labels: {role: worker}, networks: [grid]}
  mirror: {networks: [public]}
groups: {heads: role=head}
policies:
  - name: workers-reach-only-the-head
    subject: worker
    egress: [{to: heads, ports: [tcp/22, udp/5000-5100, icmp]}]
  - name: mirror-has-only-outgoing-wan
    subject: mirror
    ingress: []
    egress: [{to: "@world"}]
tests:
  - {from: worker, to: heads, port: tcp/22, expect: allow}
"""

CLUSTER = """\
apiVersion: v1
kind: PodList
items:
- {metadata: {name: web, namespace: shop, labels: {app: web}}}
- {metadata: {name: db, namespace: shop, labels: {app: db}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]
"""

TIER = """\
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: no-telnet}
spec:
  priority: 5
  subject: {namespaces: {}}
  ingress: [{action: Deny, from: [{namespaces: {}}], ports: [{portNumber: {protocol: TCP, port: 23}}]}]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lab.yaml").write_text(LAB)
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "shop.yaml").write_text(CLUSTER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_connections_are_a_table_in_the_order_in_which_people_count(folder: Path, play: Play) -> None:
    ran = play("policy", "connections", "lab.yaml")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].split() == ["FROM", "TO", "PORTS"]
    assert [line.split()[1] for line in lines if line.startswith("head ")] == [
        *(f"worker-{number}" for number in range(11)),
        "@world",
    ]
    assert lines[-1].split(None, 2) == ["worker-10", "head", "tcp/22, udp/5000-5100, icmp"]


def test_connections_as_json_are_what_others_rely_on(folder: Path, play: Play) -> None:
    found = json.loads(play("policy", "connections", "lab.yaml", "--json").out)
    assert {"from": "mirror", "to": "@world", "connections": "all"} in found
    assert {
        "from": "worker-3",
        "to": "head",
        "connections": [
            {"protocol": "TCP", "ports": [[22, 22]]},
            {"protocol": "UDP", "ports": [[5000, 5100]]},
            {"protocol": "ICMP", "ports": [[0, 255]]},
        ],
    } in found
    assert len(found) == 11 + 11 + 2


@pytest.mark.parametrize(
    ("words", "pairs"),
    [
        (["--from", "head", "--to", "worker-1"], [("head", "worker-1")]),
        (["--from", "heads", "--to", "@world"], [("head", "@world")]),
        (["--to", "@world"], [("head", "@world"), ("mirror", "@world")]),
        (["--source", "role=worker, index in (2,10)"], [("worker-2", "head"), ("worker-10", "head")]),
        (["--from", "worker", "--port", "tcp/80"], []),
        (["--from", "worker-0", "--port", "tcp/20-30"], [("worker-0", "head")]),
    ],
)
def test_connections_are_filtered_by_ends_and_ports(
    words: list[str], pairs: list[tuple[str, str]], folder: Path, play: Play
) -> None:
    ran = play("policy", "connections", "lab.yaml", "--json", *words)
    assert [(one["from"], one["to"]) for one in json.loads(ran.out)] == pairs


def test_a_filter_on_ports_lists_only_these(folder: Path, play: Play) -> None:
    ran = play("policy", "connections", "lab.yaml", "--from", "worker-0", "--port", "tcp/20-30", "--json")
    assert json.loads(ran.out)[0]["connections"] == [{"protocol": "TCP", "ports": [[22, 22]]}]


def test_connections_as_csv_have_a_line_for_each_range(folder: Path, play: Play) -> None:
    out = play("policy", "connections", "lab.yaml", "--csv", "--to", "head", "--from", "worker-0").out
    assert list(csv.reader(io.StringIO(out))) == [
        ["from", "to", "protocol", "first", "last"],
        ["worker-0", "head", "TCP", "22", "22"],
        ["worker-0", "head", "UDP", "5000", "5100"],
        ["worker-0", "head", "ICMP", "0", "255"],
    ]
    out = play("policy", "connections", "lab.yaml", "--csv", "--from", "mirror").out
    assert out.splitlines()[1:] == ["mirror,@world,all,,"]


def test_connections_as_a_graph(folder: Path, play: Play) -> None:
    out = play("policy", "connections", "lab.yaml", "--dot", "--from", "role=worker, index=0").out
    assert out == (
        'digraph connections {\n  node [shape=box];\n  "worker-0" -> "head" [label="tcp/22, udp/5000-5100, icmp"];\n}\n'
    )


def test_nothing_is_an_empty_list_and_a_word_on_stderr(folder: Path, play: Play) -> None:
    words = ["policy", "connections", "lab.yaml", "--from", "worker", "--to", "mirror"]
    assert json.loads(play(*words, "--json").out) == []
    ran = play(*words)
    assert (ran.code, ran.out, ran.err) == (0, "", "playground: no connections\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["connections", "lab.yaml", "--from", "wroker"],
            "'wroker' is no group and no workspace; did you mean worker?",
        ),
        (["connections", "lab.yaml", "--to", "192.0.2.7"], "192.0.2.7 is not listed among connections"),
        (["connections", "lab.yaml", "--port", "22"], "write them with their protocol, as tcp/22"),
        (["connections", "none.yaml"], "none.yaml: no such file or directory"),
        (["connections", "kubernetes:none"], "none: no such file or directory; name a file or folder of manifests"),
        (["connections", "kubernetes:manifests", "--source", "web"], "there is no workload web"),
        (["connections", "kubernetes:manifests", "--site-file", "x"], "leave --site-file out"),
        (["explain", "lab.yaml", "haed", "worker-0", "tcp/22"], "did you mean head?"),
        (["explain", "lab.yaml", "head", "worker-0", "tpc/22"], "unknown protocol 'tpc'; did you mean tcp?"),
        (["export", "--to", "kubernetes", "lab.yaml"], "lab.yaml:12: policy workers-reach-only-the-head: Kubernetes"),
        (["import", "--from", "kubernetes", "manifests", "-o", "lab.yaml"], "was not written by an import"),
    ],
)
def test_what_can_not_be_answered_is_said_with_the_remedy(
    words: list[str], said: str, folder: Path, play: Play
) -> None:
    ran = play("policy", *words)
    assert (ran.code, ran.out) == (1, "")
    assert said in ran.err


def test_kubernetes_is_answered_directly(folder: Path, play: Play) -> None:
    (folder / "manifests" / "notes.txt").write_text("hello")
    ran = play("policy", "connections", "--from", "kubernetes", "manifests", "--json")
    assert json.loads(ran.out) == json.loads(play("policy", "connections", "kubernetes:manifests", "--json").out)
    assert [(one["from"], one["to"]) for one in json.loads(ran.out)] == [
        ("shop/web", "shop/db"),
        ("shop/web", "@world"),
        ("@world", "shop/web"),
    ]
    assert json.loads(ran.out)[0]["connections"] == [{"protocol": "TCP", "ports": [[5432, 5432]]}]
    assert "notes.txt: warning: no .yaml, .yml, .json; skipped" in ran.err
    ran = play("policy", "connections", "--from", "kubernetes", "manifests", "--source", "shop/web", "--to", "@world")
    assert ran.out.splitlines()[1].split() == ["shop/web", "@world", "everything"]


def test_kubernetes_is_imported_and_means_the_same(folder: Path, play: Play) -> None:
    ran = play("policy", "import", "--from", "kubernetes", "manifests", "-o", "shop.yaml")
    assert (ran.code, ran.out, ran.err) == (0, "", "playground: wrote shop.yaml\n")
    assert play("policy", "check", "shop.yaml").code == 0
    lines = play("policy", "connections", "shop.yaml", "--from", "shop-web", "--to", "shop-db").out.splitlines()
    assert lines[1].split() == ["shop-web", "shop-db", "tcp/5432"]
    again = play("policy", "import", "--from", "kubernetes", "manifests", "-o", "shop.yaml")
    assert again.code == 0
    assert play("policy", "import", "--from", "kubernetes", "manifests", "-o", "-", "--name", "x").out.startswith(
        "# Imp"
    )


def test_tiers_of_kubernetes_go_into_a_sites_file(folder: Path, play: Play) -> None:
    (folder / "manifests" / "tier.yaml").write_text(TIER)
    ran = play("policy", "import", "--from", "kubernetes", "manifests", "-o", "shop.yaml")
    assert ran.err.splitlines() == ["playground: wrote shop.yaml", "playground: wrote shop.site.yaml"]
    words = ["policy", "explain", "shop.yaml", "shop-db", "shop-web", "tcp/23", "--json"]
    assert json.loads(play(*words).out)["decided_by"]["tier"] == "owner"
    words = [
        "policy",
        "explain",
        "shop.yaml",
        "shop-web",
        "shop-db",
        "tcp/23",
        "--site-file",
        "shop.site.yaml",
        "--json",
    ]
    found = json.loads(play(*words).out)
    assert (found["verdict"], found["decided_by"]["tier"], found["decided_by"]["policy"]) == (
        "deny",
        "admin",
        "no-telnet",
    )
    refused = play("policy", "import", "--from", "kubernetes", "manifests", "-o", "-")
    assert (refused.code, refused.out) == (1, "")


def test_explain_is_a_walk_to_the_line_that_decides(folder: Path, play: Play) -> None:
    ran = play("policy", "explain", "lab.yaml", "worker-0", "head", "tcp/80")
    assert ran.code == 0
    assert "workers-reach-only-the-head (lab.yaml:10)" in ran.out
    assert ran.out.splitlines()[-1] == "tcp/80 from worker-0 to head is denied."
    found = json.loads(play("policy", "explain", "lab.yaml", "worker-0", "head", "tcp/22", "--json").out)
    assert found.keys() == {"verdict", "decided_by", "steps"}
    assert found["verdict"] == "allow"


def test_diff_is_what_is_opened_and_cut(folder: Path, play: Play) -> None:
    (folder / "new.yaml").write_text(LAB.replace("tcp/22, udp", "tcp/23, udp").replace("scale: 11", "scale: 1"))
    (folder / "old.yaml").write_text(LAB.replace("scale: 11", "scale: 1"))
    ran = play("policy", "diff", "old.yaml", "new.yaml")
    assert [line.split() for line in ran.out.splitlines()[1:]] == [
        ["+", "worker-0", "head", "tcp/23"],
        ["-", "worker-0", "head", "tcp/22"],
    ]
    assert json.loads(play("policy", "diff", "old.yaml", "new.yaml", "--json").out) == [
        {
            "from": "worker-0",
            "to": "head",
            "opened": [{"protocol": "TCP", "ports": [[23, 23]]}],
            "cut": [{"protocol": "TCP", "ports": [[22, 22]]}],
        }
    ]
    same = play("policy", "diff", "lab.yaml", "lab.yaml")
    assert (same.code, same.out) == (0, "no difference in who may talk to whom\n")
    assert play("policy", "diff", "lab.yaml", "lab.yaml", "--json").out == "[]\n"
    assert play("policy", "diff", "kubernetes:manifests", "kubernetes:manifests").code == 0


def test_export_says_what_kubernetes_can_say(folder: Path, play: Play) -> None:
    (folder / "lab.yaml").write_text(LAB.replace(", icmp]", "]"))
    ran = play("policy", "export", "--to", "kubernetes", "lab.yaml", "--with-pods")
    assert (ran.code, ran.err) == (0, "")
    (folder / "back.yaml").write_text(ran.out)
    found = play("policy", "connections", "kubernetes:back.yaml", "--source", "lab/worker-3").out.splitlines()
    assert found[1].split(None, 2) == ["lab/worker-3", "lab/head", "tcp/22, udp/5000-5100"]


def test_check_is_lines_for_editors_and_a_code_for_ci(folder: Path, play: Play) -> None:
    ran = play("policy", "check", "lab.yaml")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "playground: 2 policies, 1 test, 0 errors, 0 warnings\n"
    (folder / "lab.yaml").write_text(LAB.replace("{to: heads, ports", "{to: role=x, ports"))
    ran = play("policy", "check", "lab.yaml")
    assert ran.code == 1
    assert ran.out.startswith("lab.yaml:12:14: warning: ") and "and so for 10 more pairs [test-failed]" in ran.out
    found = json.loads(play("policy", "check", "lab.yaml", "--json").out)
    assert found.keys() == {"ok", "policies", "tests", "findings"}
    assert ran.out.splitlines() == [
        f"{one['file']}:{one['line']}:{one['column']}: {one['severity']}: {one['message']} [{one['code']}]"
        for one in found["findings"]
    ]


def test_check_tells_a_failing_test_at_its_line(folder: Path, play: Play) -> None:
    (folder / "lab.yaml").write_text(LAB.replace("tcp/22, expect: allow", "tcp/22, expect: deny").replace("11", "1"))
    ran = play("policy", "check", "lab.yaml")
    assert (ran.code, ran.out) == (
        1,
        "lab.yaml:18:5: error: expected deny, but tcp/22 from worker-0 to head is allowed by "
        "workers-reach-only-the-head (lab.yaml:12) [test-failed]\n",
    )


def test_check_tells_every_files_problems_at_once(folder: Path, play: Play) -> None:
    (folder / "a.yaml").write_text("name: a\npolices: []\n")
    (folder / "site.yaml").write_text("name: s\npolicies: [{priority: 1, subject: web, egress: []}]\n")
    ran = play("policy", "check", "a.yaml", "lab.yaml", "--site-file", "site.yaml")
    assert ran.code == 1
    assert [line.partition(": ")[0] for line in ran.out.splitlines()] == ["a.yaml:2:1", "site.yaml:2:35"]
    assert all(line.endswith("[refused]") for line in ran.out.splitlines())
    twice = play("policy", "check", "lab.yaml", "lab.yaml")
    assert (twice.code, twice.out) == (1, "")
    assert "both say that they are lab" in twice.err


OVERLAP = """\
name: s
policies:
- {priority: 1, subject: "has(role)", egress: [{action: deny, to: "@world"}]}
- {priority: 1, subject: "role=head", egress: [{action: allow, to: "@world"}]}
"""


@pytest.mark.parametrize("words", [["connections", "lab.yaml"], ["explain", "lab.yaml", "head", "@world", "tcp/1"]])
def test_equal_priorities_on_one_workspace_are_refused(words: list[str], folder: Path, play: Play) -> None:
    (folder / "site.yaml").write_text(OVERLAP)
    ran = play("policy", *words, "--site-file", "site.yaml")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("site.yaml:4: ")
    checked = play("policy", "check", "lab.yaml", "--site-file", "site.yaml")
    assert checked.code == 1
    assert "site.yaml:4:3: error: " in checked.out and "[equal-priority]" in checked.out


def test_included_files_are_read_and_named(folder: Path, play: Play) -> None:
    (folder / "more").mkdir()
    (folder / "more" / "a.yaml").write_text("policies:\n- {subject: head, ingress: [{from: role=none}]}\n")
    (folder / "lab.yaml").write_text(LAB + "include: ['more/*.yaml', 'm*/a.yaml']\n")
    ran = play("policy", "check", "lab.yaml")
    said = "more/a.yaml:2:3: warning: policy more/a.yaml:2, ingress rule 1: role=none selects no workspace"
    assert ran.out.count(said) == 1
    (folder / "lab.yaml").write_text(LAB + "include: ['*.yaml']\n")
    ran = play("policy", "check", "lab.yaml")
    assert ran.out == (
        "lab.yaml:19:11: error: include[0]: '*.yaml' matches no file; paths are relative to this file [refused]\n"
    )
    (folder / "lab.yaml").write_text(LAB + "include: [/etc/*.yaml]\n")
    assert "write a path relative to this file" in play("policy", "check", "lab.yaml").err


@pytest.mark.parametrize("pattern", [".", "./", "..", "more/"])
def test_a_folder_is_no_file_to_include(folder: Path, play: Play, pattern: str) -> None:
    (folder / "more").mkdir()
    (folder / "lab.yaml").write_text(LAB + f"include: [{pattern}]\n")
    assert f"include[0]: '{pattern}' matches no file" in play("policy", "check", "lab.yaml").out


def test_names_are_ordered_as_people_count() -> None:
    names = ["@world", "worker-10", "10.0.0.0-10.0.0.255", "worker-2", "9", "²", "a", "worker"]
    ordered = ["a", "worker", "worker-2", "worker-10", "²", "9", "@world", "10.0.0.0-10.0.0.255"]
    assert sorted(names, key=listing.counted) == ordered


def test_json_of_no_and_of_many_lines_is_json() -> None:
    found = [("a", "b", EVERYTHING), ('"', "b", Ports.of(Protocol.SCTP, 7))]
    assert json.loads("".join(listing.as_json([]))) == []
    assert json.loads("".join(listing.as_json(found)))[1]["connections"] == [{"protocol": "SCTP", "ports": [[7, 7]]}]


def test_policy_commands_import_neither_client_nor_server(folder: Path) -> None:
    slow = ["http.client", "fastapi", "msgspec", "asyncio", "pyroute2"]
    script = (
        "import sys; from playground.cli.main import main; assert main(['policy', 'connections', 'lab.yaml']) == 0;"
        f"print([name for name in {slow} if name in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=folder)
    assert (ran.returncode, ran.stderr) == (0, "[]\n")
