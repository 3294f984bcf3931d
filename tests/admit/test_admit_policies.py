"""Policies in admission: what is written follows what they say, never where they stand."""

from __future__ import annotations

import pytest

from playground import records as records_module
from playground.admit import Admission
from playground.admit import policies as policies_module
from playground.records import PlaygroundRecord, PolicyRecord, encode
from playground.spec import SpecErrors
from playground.view import policy_of
from policies.codec import moved
from policies.model import Origin
from tests.admit.grids import Site, a_file

OPEN = "  - {name: open, subject: worker, egress: [{to: heads, ports: tcp/22}]}\n"
SHUT = "  - {subject: role=idle, ingress: []}\n"


def a_lab(*policies: str, groups: str = "heads: role=head", above: str = "") -> str:
    return above + a_file(1) + f"groups: {{{groups}}}\npolicies:\n" + "".join(policies)


def written(admission: Admission) -> list[str]:
    """Names of the policies that are written."""
    return [record.name for record in admission.puts if isinstance(record, PolicyRecord)]


def told(admission: Admission) -> list[tuple[str, str, str]]:
    return [(step.action, step.object, step.detail) for step in admission.steps]


def policy_name(site: Site) -> str:
    return next(name for name in site.known().policies if name.startswith("~"))


def test_a_policy_is_stored_as_the_file_says_it() -> None:
    site = Site()
    admission = site.up(a_lab(OPEN))
    record = site.records["policy/lab/open"]
    assert isinstance(record, PolicyRecord)
    as_written = admission.written["open"]
    assert policy_of(record) == moved(as_written, Origin("policy/lab/open", 0))
    assert str(as_written.origin) == "lab.yaml:8"


def test_policies_are_written_before_what_they_are_about() -> None:
    kinds = [type(record).__name__ for record in Site().up(a_lab(OPEN, SHUT)).puts]
    assert kinds == ["PolicyRecord"] * 2 + ["NetworkRecord", "WorkspaceRecord", "PortRecord"]


def test_one_edited_policy_writes_one_record() -> None:
    site = Site()
    site.up(a_lab(OPEN, SHUT))
    admission = site.up(a_lab(OPEN.replace("22", "23"), SHUT))
    assert (written(admission), len(admission.puts), admission.deletes) == (["open"], 1, ())
    assert told(admission) == [("change", "policy open", "egress + to role=head: tcp/23 - to role=head: tcp/22")]


def test_moved_lines_write_no_policy() -> None:
    site = Site()
    site.up(a_lab(OPEN, SHUT))
    before = site.records["playground/lab"]
    admission = site.up(a_lab(SHUT, "# why\n", OPEN, above="# a comment\n\n"))
    assert (admission.puts, admission.deletes, admission.steps) == ((), (), ())
    assert [policy.origin.line for policy in admission.written.values()] == [10, 12]
    after = site.records["playground/lab"]
    assert isinstance(before, PlaygroundRecord) and isinstance(after, PlaygroundRecord)
    assert (after.change, after.generation) == (before.change, before.generation)


def test_another_meaning_of_a_group_is_another_policy() -> None:
    site = Site()
    site.up(a_lab(OPEN, SHUT))
    admission = site.up(a_lab(OPEN, SHUT, groups="heads: role=boss"))
    assert written(admission) == ["open"]


def test_a_policy_without_a_name_is_known_by_what_it_says() -> None:
    site = Site()
    first = site.up(a_lab(SHUT, SHUT))
    names = written(first)
    assert len(set(names)) == 2 and names[1] == f"{names[0]}.2"
    assert [step[:2] for step in told(first)[-2:]] == [("create", "policy lab.yaml:8"), ("create", "policy lab.yaml:9")]
    assert written(site.up(a_lab(OPEN, SHUT, SHUT))) == ["open"]
    assert [step[:2] for step in told(site.up(a_lab(OPEN, SHUT)))] == [("remove", f"policy {names[1]}")]


def test_a_policy_that_is_taken_out_goes() -> None:
    site = Site()
    site.up(a_lab(OPEN, SHUT))
    admission = site.up(a_lab(OPEN))
    assert [key.partition("~")[0] for key in admission.deletes] == ["policy/lab/"]
    assert told(admission)[0][2] == "subject role=idle, ingress closed"
    assert set(site.known().policies) == {"open"}


def test_a_removed_playground_takes_its_policies_along() -> None:
    from playground.admit import remove

    site = Site()
    site.up(a_lab(OPEN, SHUT))
    removal = remove(site.known())
    assert {f"policy/lab/{name}" for name in ("open", policy_name(site))} <= set(removal.deletes)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("ingress: []", "ingress: [], mode: log", "mode enforce → log"),
        ("ingress: []", "ingress: [], on_deny: reject", "on_deny drop → reject"),
        ("ingress: []", "egress: []", "ingress closed → left alone, egress left alone → closed"),
        ("ingress: []", "ingress: [{}]", "ingress closed → from anybody"),
        ("egress: [{to: '@world'}]", "egress: [{to: 192.0.2.0/24}]", "egress + to 192.0.2.0/24 - to @world"),
        ("egress: [{to: worker}, {to: '@host'}]", "egress: [{to: '@host'}, {to: worker}]", "egress in another order"),
    ],
)
def test_a_plan_says_what_of_a_policy_changes(before: str, after: str, said: str) -> None:
    site = Site()
    site.up(a_lab(f"  - {{name: x, subject: worker, {before}}}\n"))
    assert told(site.up(a_lab(f"  - {{name: x, subject: worker, {after}}}\n"))) == [("change", "policy x", said)]


def test_labels_of_ports_follow_the_file_and_restart_nothing() -> None:
    site = Site()
    site.up(a_file(1, more="  head: {networks: [grid]}\n"))
    admission = site.up(a_file(1, more="  head: {networks: [grid], labels: {role: head}}\n"))
    assert [type(record).__name__ for record in admission.puts] == ["WorkspaceRecord", "PortRecord"]
    assert told(admission) == [("change", "workspace head", "labels none → role=head")]
    assert site.known().workspaces["head"].generation == 1


@pytest.mark.long
def test_ten_thousand_policies_in_a_file_fit_a_commit() -> None:
    one = "  - {{name: p{}-{:08x}, subject: index={}, ingress: [{{from: '*', ports: tcp/{}}}]}}\n"
    admission = Site().up(a_lab(*(one.format(n, n * 7919, n % 97, n + 1) for n in range(10_000))))
    assert admission.root is not None
    assert len(encode(admission.root)) < records_module.LARGEST / 3
    assert len(written(admission)) == 10_000


def test_files_too_large_for_a_commit_are_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "LARGEST", 200)
    with pytest.raises(SpecErrors, match=r"lab.yaml:1:7: .* 200 are allowed: make it several playgrounds"):
        Site().up(a_lab(OPEN))


def test_a_policy_too_large_for_a_commit_is_refused_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies_module, "LARGEST", 200)
    site = Site()
    with pytest.raises(SpecErrors, match=r"lab.yaml:8:5: policies.0.: the policy takes .* 200 are allowed"):
        site.up(a_lab(OPEN))
    assert site.records == {}
