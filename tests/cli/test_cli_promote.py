"""A staged policy is promoted: what it would have done, what that opens and cuts, and its file edited."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_lab import FakeController, Play, Row

LAB = """\
name: lab
networks: {n: {subnets: [10.0.0.0/24]}}
workspaces: {a: {networks: n}, b: {networks: n}}
policies:
  - {name: open, subject: a, ingress: [{from: b}]}
  - {name: ssh, subject: a, ingress: [{from: b, ports: tcp/22}], mode: stage, replaces: open}
"""
AFTER = LAB.replace("  - {name: open, subject: a, ingress: [{from: b}]}\n", "").replace(
    "{name: ssh, subject: a, ingress: [{from: b, ports: tcp/22}], mode: stage, replaces: open}",
    "{name: open, subject: a, ingress: [{from: b, ports: tcp/22}]}",
)


@pytest.fixture
def lab(run_dir: Path) -> Path:
    file = run_dir.parent / "lab.yaml"
    file.write_text(LAB)
    return file


def a_row(**changes: object) -> Row:
    row: Row = {"playground": "lab", "tier": "owner", "policies": ["ssh"], "direction": "ingress", "staged": True}
    return row | {"rule": 0, "verdict": "deny", "packets": 3, "bytes": 90} | changes


def a_verdict(**changes: object) -> Row:
    return a_row(**{"at": 5.0, "from": "b", "to": "a", "port": "tcp/80", "host": "n1", **changes})


def hosts_have(controller: FakeController, counters: list[Row], verdicts: list[Row]) -> None:
    controller.answers["GET policy/counters"] = {"counters": counters, "unobserved": []}
    controller.answers["GET policy/log"] = {"verdicts": verdicts, "last": "", "lost": 0, "missed": []}


def test_a_promotion_shows_its_evidence_and_edits_the_file(lab: Path, controller: FakeController, play: Play) -> None:
    others = [a_row(staged=False), a_row(policies=["x"]), a_row(tier="admin")]
    hosts_have(
        controller,
        [a_row(), a_row(rule=1, verdict="allow", packets=7), *others],
        [a_verdict(), a_verdict(at=6.0), a_verdict(verdict="allow", port="tcp/22"), a_verdict(staged=False)],
    )
    ran = play("policy", "promote", str(lab), "ssh")
    assert (ran.code, lab.read_text()) == (0, AFTER)
    assert ran.out.splitlines() == [
        "ssh replaces open: since it was put in force it would have allowed 7, denied 3",
        "of those that were logged, it would have denied:",
        "FROM  TO  PORT    TIMES",
        "b     a   tcp/80  2",
        "connections: 0 opened, 1 cut",
        "  - b  a  tcp/1-21, tcp/23-65535, udp, sctp, icmp",
        f"{lab}: open says what ssh said; `playground up {lab}` puts it in force",
    ]


def test_programs_are_told_the_same_and_a_dry_run_writes_nothing(
    lab: Path, controller: FakeController, play: Play
) -> None:
    hosts_have(controller, [a_row()], [a_verdict()])
    ran = play("policy", "promote", str(lab), "ssh", "--dry-run", "--json")
    told = json.loads(ran.out)
    assert (ran.code, lab.read_text(), told["written"]) == (0, LAB, False)
    assert (told["policy"], told["name"], told["replaces"]) == ("ssh", "open", "open")
    assert told["evidence"]["counters"] == [a_row()]
    assert told["evidence"]["refused"] == [
        {"playground": "lab", "from": "b", "to": "a", "port": "tcp/80", "times": 1, "last": 5.0}
    ]
    assert [one["file"] for one in told["files"]] == [str(lab)] and "+  - {name: open" in told["files"][0]["diff"]
    assert told["connections"]["changed"][0]["cut"]
    assert "+  - {name: open" in play("policy", "promote", str(lab), "ssh", "--dry-run").out


def test_without_a_controller_it_is_said_that_nothing_is_known(lab: Path, play: Play) -> None:
    ran = play("policy", "promote", str(lab), "ssh")
    assert (ran.code, lab.read_text()) == (0, AFTER)
    assert "nothing is known of its verdicts" in ran.out


@pytest.mark.parametrize(
    ("more", "name", "said"),
    [
        ("", "shs", "there is no policy shs; did you mean ssh?"),
        ("", "open", "is enforced already"),
        (
            "tests: [{from: b, to: a, port: tcp/80, expect: allow}]\n",
            "ssh",
            ":7:9: tests[0]: expected allow, but tcp/80 from b to a",
        ),
    ],
)
def test_what_is_refused_writes_nothing(more: str, name: str, said: str, lab: Path, play: Play) -> None:
    lab.write_text(LAB + more)
    ran = play("policy", "promote", str(lab), name)
    assert (ran.code, lab.read_text()) == (1, LAB + more)
    assert said in ran.err
    assert play("policy", "promote", "-", name).code == 2


def test_line_ends_and_rights_of_a_file_stay(lab: Path, play: Play) -> None:
    lab.write_bytes(LAB.replace("\n", "\r\n").encode())
    lab.chmod(0o640)
    assert play("policy", "promote", str(lab), "ssh").code == 0
    assert lab.read_bytes() == AFTER.replace("\n", "\r\n").encode()
    assert lab.stat().st_mode & 0o777 == 0o640
    assert sorted(one.name for one in lab.parent.glob(".*promoted")) == []


def test_a_policy_of_an_included_file_is_edited_there(lab: Path, play: Play) -> None:
    head, policies = LAB.split("policies:\n")
    lab.write_text(head + "include: more.yaml\n")
    more = lab.parent / "more.yaml"
    more.write_text("policies:\n" + policies)
    assert play("policy", "promote", str(lab), "ssh").code == 0
    assert more.read_text() == "policies:\n" + AFTER.split("policies:\n")[1]
    assert lab.read_text() == head + "include: more.yaml\n"


def test_a_staged_policy_of_a_site_is_promoted_too(lab: Path, controller: FakeController, play: Play) -> None:
    site = lab.parent / "site.yaml"
    site.write_text("name: s\npolicies:\n  - {name: p, mode: stage, priority: 3, subject: a=b, ingress: []}\n")
    hosts_have(controller, [a_row(policies=["p"], tier="admin")], [])
    ran = play("policy", "promote", str(site), "p")
    assert ran.code == 0 and "denied 3" in ran.out and "`playground site apply" in ran.out
    assert site.read_text() == "name: s\npolicies:\n  - {name: p, priority: 3, subject: a=b, ingress: []}\n"
