"""A staged policy takes the place of what it replaces: in the text, with its comments, or not at all."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from playground.spec import PlaygroundSpec, load_playground
from playground.spec.promote import NotPromotable, Promotion, promote
from policies.model import Mode

HEAD = """\
name: lab   # ours
networks: {n: {subnets: [10.0.0.0/24]}}
workspaces: {a: {networks: n}, b: {networks: n}}
"""


def load(texts: Mapping[str, str]) -> PlaygroundSpec:
    included = {pattern: [(pattern, texts[pattern])] for pattern in texts if pattern != "lab.yaml"}
    return load_playground(texts["lab.yaml"], "lab.yaml", included)


def promoted(name: str, text: str, **others: str) -> Promotion:
    texts = {"lab.yaml": HEAD + text, **{f"{file}.yaml": one for file, one in others.items()}}
    found = load(texts).connectivity
    return promote(name, found.policies, found.places, texts, lambda edited: load(edited).connectivity.policies)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            """\
policies:
  # what was
  - name: listens      # to all
    subject: a
    ingress:
      - {from: b}

  # what will be
  - name: to-ssh
    mode: stage        # for a week
    subject: a
    ingress: [{from: b, ports: tcp/22}]
    replaces: listens

# and the rest
tests: []
""",
            """\
policies:
  # what was

  # what will be
  - name: listens
    subject: a
    ingress: [{from: b, ports: tcp/22}]

# and the rest
tests: []
""",
        ),
        (
            """\
policies:
- mode: stage
  replaces: 'listens'
  subject: a
  ingress: []
- name: listens
  subject: a
  egress: []
groups: {all: role=x}
""",
            """\
policies:
- name: listens
  subject: a
  ingress: []
groups: {all: role=x}
""",
        ),
        (
            "policies:\n  - {name: new, subject: a, ingress: [], mode: stage, replaces: old}\n"
            "  - {name: old, subject: a, egress: []}\n",
            "policies:\n  - {name: old, subject: a, ingress: []}\n",
        ),
        (
            'policies:\n  - {mode: "stage", replaces: old, subject: a, ingress: []}\n'
            "  - {name: old, subject: a, egress: []}\n  - {subject: b, ingress: []}  # last\n",
            "policies:\n  - {name: old, subject: a, ingress: []}\n  - {subject: b, ingress: []}  # last\n",
        ),
    ],
)
def test_it_takes_the_place_and_the_name_of_what_it_replaces(before: str, after: str) -> None:
    name = next(one.name for one in load({"lab.yaml": HEAD + before}).connectivity.policies if one.mode is Mode.STAGE)
    found = promoted(name, before)
    assert found.texts == {"lab.yaml": HEAD + after}
    assert found.replaced is not None and found.name == found.replaced.name


def test_one_that_replaces_nothing_is_enforced_where_it_stands() -> None:
    text = (
        "policies: [{name: p, subject: a, mode: stage, ingress: []}, {name: q, mode: stage, subject: b, egress: []}]\n"
    )
    found = promoted("p", text)
    assert (found.name, found.replaced) == ("p", None)
    assert found.texts == {"lab.yaml": HEAD + text.replace("subject: a, mode: stage, ", "subject: a, ")}


def test_policies_of_two_files_are_edited_in_both_and_no_other_file_is() -> None:
    found = promoted(
        "new",
        "include: [one.yaml, two.yaml, three.yaml]\n",
        one="policies:\n- {name: new, mode: stage, replaces: old, subject: a, ingress: []}\n",
        two="policies:\n- {name: old, subject: a, egress: []}\n- {subject: b, ingress: []}\n",
        three="groups: {x: y=z}\n",
    )
    assert found.texts == {
        "one.yaml": "policies:\n- {name: old, subject: a, ingress: []}\n",
        "two.yaml": "policies:\n- {subject: b, ingress: []}\n",
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("old", "old (lab.yaml:5) is enforced already: it has mode enforce, not stage"),
        ("nwe", "there is no policy nwe; did you mean new?"),
        ("zzzzz", "there is no policy zzzzz; staged are: new"),
    ],
)
def test_only_what_is_staged_can_be_promoted(name: str, said: str) -> None:
    text = "policies:\n- {name: old, subject: a, egress: []}\n- {name: new, mode: stage, subject: a, ingress: []}\n"
    with pytest.raises(NotPromotable) as caught:
        promoted(name, text)
    assert str(caught.value) == said
    with pytest.raises(NotPromotable, match="no policy here is staged"):
        promoted("x", "policies: []\n")


@pytest.mark.parametrize(
    "text",
    [
        "policies: [{name: o, subject: a, egress: []}, {name: n, mode: stage, replaces: o, subject: a, ingress: []}]\n",
        "x-mode: &m {mode: stage, replaces: o}\n"
        "policies:\n- {name: o, subject: a, egress: []}\n- {<<: *m, name: n, subject: a, ingress: []}\n",
        "x-p: &p {name: n, mode: stage, replaces: o, subject: a, ingress: []}\n"
        "policies:\n- {name: o, subject: a, egress: []}\n- *p\n",
        "policies:\n- {name: o, subject: a, egress: &e []}\n"
        "- {name: n, mode: stage, replaces: o, subject: a, ingress: *e}\n",
    ],
)
def test_what_can_not_be_edited_without_loss_is_left_to_people(text: str) -> None:
    with pytest.raises(NotPromotable, match=r"lab.yaml:\d+: this is written in a way .* by hand"):
        promoted("n", text)
