"""Aliases, groups and records: the names that they give, and every refusal where it points."""

from __future__ import annotations

import pytest

from playground.spec import PlaygroundSpec, SpecErrors, load_playground

HEAD = """\
name: lab
networks:
  grid: {subnets: [10.0.0.0/24]}
  edge: {subnets: [10.1.0.0/24]}
"""


def load(rest: str) -> PlaygroundSpec:
    return load_playground(HEAD + rest, "lab.yaml")


def aliases(spec: PlaygroundSpec) -> dict[str, tuple[str, ...]]:
    return {f"{w.name}.{nic.network}": nic.aliases for w in spec.workspaces.values() for nic in w.nics}


def test_an_alias_of_a_workspace_is_a_name_in_the_playground_and_in_each_of_its_networks() -> None:
    spec = load("workspaces: {head: {aliases: www, networks: [grid, {network: edge, aliases: [out]}]}}\n")
    assert aliases(spec) == {
        "head.grid": ("www", "www.grid"),
        "head.edge": ("www", "www.edge", "out.edge"),
    }


def test_a_group_is_a_name_of_each_nic_that_its_selector_means() -> None:
    spec = load(
        "workspaces:\n  a: {networks: [grid, edge], labels: {role: web}}\n  b: {networks: [grid], scale: 2}\n"
        'groups: {web: role=web, inner: network=grid, first: "index in (0)"}\n'
    )
    assert aliases(spec) == {
        "a.grid": ("web", "inner", "web.grid", "inner.grid"),
        "a.edge": ("web", "web.edge"),
        "b-0.grid": ("inner", "first", "inner.grid", "first.grid"),
        "b-1.grid": ("inner", "inner.grid"),
    }


def test_instances_share_an_alias() -> None:
    spec = load("workspaces: {b: {networks: [grid], scale: 2, aliases: [all]}}\n")
    assert set(aliases(spec).values()) == {("all", "all.grid")}


def with_records(records: str, rest: str = "workspaces: {head: {networks: [grid], aliases: [www]}}\n") -> str:
    return (
        "name: lab\nnetworks:\n  edge: {subnets: [10.1.0.0/24]}\n"
        f"  grid:\n    subnets: [10.0.0.0/24]\n    dns:\n      records:\n        {records}\n{rest}"
    )


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ("m: {cname: head}", [("m.grid", "CNAME", "head.grid")]),
        ("m: {cname: www.grid}", [("m.grid", "CNAME", "www.grid")]),
        ("m: {cname: Mail.Example.org.}", [("m.grid", "CNAME", "mail.example.org.")]),
        ("m: {cname: n}\n        n: {cname: head}", [("m.grid", "CNAME", "n.grid"), ("n.grid", "CNAME", "head.grid")]),
        ("_sip._tcp: {srv: 0 5 5060 head}", [("_sip._tcp.grid", "SRV", "0 5 5060 head.grid")]),
        ("_sip._tcp: {srv: 0 0 0 .}", [("_sip._tcp.grid", "SRV", "0 0 0 .")]),
        ('"@": {txt: [one, "two; three"]}', [("grid", "TXT", "one"), ("grid", "TXT", "two; three")]),
        ("head: {txt: here}", [("head.grid", "TXT", "here")]),
    ],
)
def test_a_record_is_read_with_names_relative_to_the_playground(records: str, found: list[tuple[str, ...]]) -> None:
    spec = load_playground(with_records(records), "lab.yaml")
    assert [(one.name, one.type, one.data) for one in spec.networks["grid"].dns.records] == found


ALIASES = {
    "workspaces: {a: {networks: [grid], aliases: [A_b]}}": [
        "5:46: workspaces.a.aliases[0]: 'A_b' can't be a DNS label; "
        "write lower-case letters, digits and inner hyphens, as 'a-b'"
    ],
    "workspaces: {a: {networks: [grid], aliases: [b-1]}, b: {networks: [grid], scale: 2}}": [
        "5:46: workspaces.a.aliases[0]: a workspace is named b-1; choose another alias"
    ],
    "workspaces: {a: {networks: [grid], aliases: [b]}, b: {networks: [grid], scale: 2}}": [
        "5:46: workspaces.a.aliases[0]: a workspace is named b; choose another alias"
    ],
    "workspaces: {a: {networks: [grid], aliases: [web]}}\ngroups: {web: role=web}": [
        "5:46: workspaces.a.aliases[0]: a group is named web, which is a name of all its members; choose another alias"
    ],
    "workspaces: {a: {networks: [grid], aliases: [x]}, b: {networks: [{network: grid, aliases: [x]}]}}": [
        "5:92: workspaces.b.networks[0].aliases[0]: x is an alias of a already, workspaces.a.aliases[0] in line 5; "
        "for several write a group"
    ],
}


@pytest.mark.parametrize("rest", ALIASES)
def test_an_alias_that_means_something_else_is_refused(rest: str) -> None:
    assert refused(HEAD + rest) == ALIASES[rest]


def test_an_alias_in_one_network_may_be_another_s_in_another() -> None:
    load(
        "workspaces: {a: {networks: [{network: grid, aliases: [x]}]}, b: {networks: [{network: edge, aliases: [x]}]}}\n"
    )


RECORDS = {
    "m: {}": ["8:9: networks.grid.dns.records.m: m says nothing; write cname, srv or txt"],
    "m: {cname: nowhere}": [
        "8:20: networks.grid.dns.records.m.cname: there is no 'nowhere' in grid or the playground; allowed: "
        "head, m, www; names elsewhere end in a dot"
    ],
    "m: {cname: head, txt: x}": [
        "8:9: networks.grid.dns.records.m: m has a cname, and whatever has one has nothing else; leave one out"
    ],
    "www: {cname: head}": [
        "8:9: networks.grid.dns.records.www: www.grid is a name of head; a cname needs a name of its own"
    ],
    "head: {cname: www}": [
        "8:9: networks.grid.dns.records.head: head.grid is the workspace head; a cname needs a name of its own"
    ],
    '"@": {cname: head}': [
        "8:9: networks.grid.dns.records.@: the network's own name can't have a cname; give it to a name in it"
    ],
    "m: {cname: n}\n        n: {cname: m}": [
        "8:9: networks.grid.dns.records.m: the cname of m.grid leads back to it; let one of them name a workspace",
        "9:9: networks.grid.dns.records.n: the cname of n.grid leads back to it; let one of them name a workspace",
    ],
    "M: {txt: x}": [
        "8:9: networks.grid.dns.records.M: 'M' is no name; write DNS labels in lower case, as _sip._tcp, "
        "or @ for the network itself"
    ],
    "_sip._tcp: {srv: [0 5 66000 head]}": [
        "8:27: networks.grid.dns.records['_sip._tcp'].srv[0]: read '0 5 66000 head'; "
        "write PRIORITY WEIGHT PORT TARGET, as 0 5 5060 head"
    ],
    "m: {cname: a..b.}": [
        "8:20: networks.grid.dns.records.m.cname: 'a..b.' is no domain name; write DNS labels, as www.example.org."
    ],
    "m: {mx: head}": ["8:13: networks.grid.dns.records.m.mx: unknown key 'mx'; allowed: cname, srv, txt"],
    f"m: {{txt: {'x' * 4097}}}": ["8:18: networks.grid.dns.records.m.txt: the text has 4097 bytes; 4096 are allowed"],
}


@pytest.mark.parametrize("records", RECORDS)
def test_a_record_that_can_not_be_is_refused(records: str) -> None:
    assert refused(with_records(records)) == RECORDS[records]


TRANSFERS = {
    "10.0.0.300": "'10.0.0.300' is no address and no prefix; write one as 10.20.0.5 or 10.20.0.0/28",
    "10.1.0.9": "10.1.0.9 lies in no subnet of grid, where nobody else asks: 10.0.0.0/24",
}


@pytest.mark.parametrize("text", TRANSFERS)
def test_who_copies_names_is_in_the_network(text: str) -> None:
    file = f"name: lab\nnetworks:\n  grid: {{subnets: [10.0.0.0/24], dns: {{transfer: [{text}]}}}}\n"
    assert refused(file) == [f"3:51: networks.grid.dns.transfer[0]: {TRANSFERS[text]}"]


def refused(text: str) -> list[str]:
    with pytest.raises(SpecErrors) as caught:
        load_playground(text, "lab.yaml")
    return [str(problem).removeprefix("lab.yaml:") for problem in caught.value.problems]
