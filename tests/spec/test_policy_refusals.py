"""Every refusal of groups, policies, tests and gateways, whole lines. § marks the place in the text."""

from __future__ import annotations

import pytest
from test_refusals import marked, refusals

from playground.spec import SpecErrors, load_playground, load_site
from playground.spec import load as load_module

HEAD = """\
name: lab
networks: {grid: {subnets: [10.0.0.0/24, "fd00::/64"]}, dmz: {subnets: [10.1.0.0/24]}}
gateways: {wan: {kind: nat, networks: [dmz]}}
workspaces: {head: {networks: grid}, worker: {networks: [grid, dmz], scale: 3}, idle: {networks: grid, scale: 0}}
groups: {heads: role=head}
"""
SELECTOR = "allowed: a=b, a!=b, a in (x,y), a notin (x,y), has(a), !has(a), joined by commas, or * alone"
ICMP = (
    "allowed: echo, echo-reply, parameter-problem, redirect, router-advertisement, router-solicitation, "
    "time-exceeded, timestamp, timestamp-reply, unreachable"
)


def lines(places: list[str], expected: list[str]) -> list[str]:
    return [f"{place}: {line}" for place, line in zip(places, expected, strict=True)]


RULE = "policies[0].egress[0]"
PEERS = {
    "§wroker": "to: 'wroker' is no group and no workspace; did you mean worker?",
    "§worker-3": "to: there is no worker-3; the instances of worker are worker-0 to worker-2",
    "§worker-00": "to: 'worker-00' is no group and no workspace; did you mean worker?",
    "§idle-0": "to: there is no idle-0; the instances of idle are none",
    "§''": "to: '' is no group and no workspace; allowed: head, heads, idle, worker",
    "§'role=='": f"to: 'role==' is no selector: read '=' where a label's value should be; {SELECTOR}",
    "§'@word'": "to: unknown word '@word'; did you mean @world?",
    "§'@gateway/lan'": "to: there is no gateway 'lan'; did you mean wan?",
    "§'@services'": "to: @services are always reachable; only a site's admin tier may say otherwise",
    "§10.0.0.7": "to: 10.0.0.7 lies in 10.0.0.0/24 of network grid, and a CIDR never matches workspaces; "
    "write a selector, as network=grid",
    "§'fd00::/96'": "to: fd00::/96 lies in fd00::/64 of network grid, and a CIDR never matches workspaces; "
    "write a selector, as network=grid",
    "§192.0.2.7/24": "to: 192.0.2.7/24 has host bits set; write 192.0.2.0/24",
    "§192.0.2.0/33": "to: '192.0.2.0/33' is no CIDR; write one as 192.0.2.0/24 or 2001:db8::/32",
    "§5": "to: read the number 5; write a selector as role=worker, a name, @world, a CIDR, or a mapping",
    "[§null]": "to[0]: read nothing; write a selector as role=worker, a name, @world, a CIDR, or a mapping",
    "§null": "to: read nothing; name a peer, or leave the key out for everybody",
    "§[]": "to: the list is empty; name a peer, or leave the key out for everybody",
    "§{}": "to: read a mapping with no key; "
    "write one of {cidr, except}, {playground, select}, {same: LABEL}, or a text",
    "[§{same: a, cidr: 192.0.2.0/24}]": "to[0]: read a mapping with cidr, same; "
    "write one of {cidr, except}, {playground, select}, {same: LABEL}, or a text",
    "{same: §'a b'}": "to.same: 'a b' is no label; write one, as {same: team}",
    "{cidr: 192.0.2.0/24, except: [192.0.2.9/32, §198.51.100.0/24]}": "to.except[1]: 198.51.100.0/24 lies not in "
    "192.0.2.0/24; leave it out",
    "{cidr: 192.0.2.0/24, except: §x}": "to.except: 'x' is no CIDR; write one as 192.0.2.0/24 or 2001:db8::/32",
    "{playground: other, select: §web}": "to.select: 'web' is a name, "
    "and those of other playgrounds are not known here; write a selector, as workspace=web",
    "{§cdir: x}": "to.cdir: unknown key 'cdir'; did you mean cidr?",
}


@pytest.mark.parametrize("body", PEERS)
def test_a_peer_is_refused(body: str) -> None:
    text, places = marked(f"{HEAD}policies: [{{subject: head, egress: [{{to: {body}}}]}}]\n")
    assert refusals(text) == lines(places, [f"{RULE}.{PEERS[body]}"])


PORTS = {
    "§tpc/22": "ports: unknown protocol 'tpc'; did you mean tcp?",
    "§TCP/22": "ports: unknown protocol 'TCP'; did you mean tcp?",
    "[tcp/22, §22]": "ports[1]: read the number 22; write ports with their protocol, as tcp/22",
    "§'22-25'": "ports: unknown protocol '22-25'; write them with their protocol, as tcp/22-25",
    "§tcp/": "ports: read 'tcp/'; write tcp/PORT, tcp/FIRST-LAST, or tcp for all of its ports",
    "§tcp/ssh": "ports: read 'tcp/ssh'; write tcp/PORT, tcp/FIRST-LAST, or tcp for all of its ports",
    "§udp/9-5": "ports: 'udp/9-5' is reversed; write udp/5-9",
    "§sctp/0": "ports: 'sctp/0' is out of range; sctp has 1 to 65535",
    "§udp/1-65536": "ports: 'udp/1-65536' is out of range; udp has 1 to 65535",
    "§icmp/256": "ports: 'icmp/256' is out of range; icmp has 0 to 255",
    "§icmp/pong": f"ports: unknown kind of ICMP 'pong'; {ICMP}",
    "§[]": "ports: the list is empty; name ports, or leave the key out for everything",
    "§null": "ports: read nothing; name ports, or leave the key out for everything",
}


@pytest.mark.parametrize("body", PORTS)
def test_ports_are_refused(body: str) -> None:
    text, places = marked(f"{HEAD}policies: [{{subject: head, egress: [{{to: heads, ports: {body}}}]}}]\n")
    assert refusals(text) == lines(places, [f"{RULE}.{PORTS[body]}"])


CLOSE = "read nothing; write [] to close this direction, or leave the key out to leave it alone"
POLICIES = {
    "§{subject: head}": "policies[0]: neither ingress nor egress stands here; write [] to close one, or rules",
    "§{ingress: []}": "policies[0]: subject is missing; it is needed here",
    "{§subject: [], ingress: []}": "policies[0].subject: the list is empty; name at least one",
    "{subject: §'@world', ingress: []}": "policies[0].subject: '@world' is no workspace; "
    "a subject is a selector, a group or a workspace",
    "{subject: [head, §hed], ingress: []}": "policies[0].subject[1]: 'hed' is no group and no workspace; "
    "did you mean head?",
    "{subject: head, ingress: §null}": f"policies[0].ingress: {CLOSE}",
    "{subject: head, egress: §~}": f"policies[0].egress: {CLOSE}",
    "{subject: head, ingress: §heads}": "policies[0].ingress: read 'heads'; allowed: a mapping",
    "{subject: head, ingress: [§null]}": "policies[0].ingress[0]: read nothing; "
    "write {} for everything from everybody, or take the line out",
    "{subject: head, ingress: [{§to: heads}]}": "policies[0].ingress[0].to: to belongs into a rule of egress",
    "{subject: head, egress: [{§from: heads}]}": "policies[0].egress[0].from: from belongs into a rule of ingress",
    "{subject: head, egress: [{§action: deny}]}": "policies[0].egress[0].action: action belongs into "
    "a site file's policies; a playground's only allow",
    "{subject: head, egress: [], §priority: 3}": "policies[0].priority: priority belongs into a site file's policies",
    "{subject: head, egress: [], mode: §dry}": "policies[0].mode: unknown mode 'dry'; allowed: enforce, log, stage",
    "{subject: head, egress: [], on_deny: §rejct}": "policies[0].on_deny: unknown word 'rejct'; did you mean reject?",
    "{subject: head, egress: [], established: §kept}": "policies[0].established: unknown word 'kept'; "
    "did you mean keep?",
    "{subject: head, egress: [], name: §My_1}": "policies[0].name: 'My_1' can't be a DNS label; "
    "write lower-case letters, digits and inner hyphens, as 'my-1'",
    "{subject: head, egress: [], §replaces: x}, {subject: head, egress: [], name: x}": "policies[0].replaces: "
    "only a staged policy replaces; write mode: stage",
    "{subject: head, egress: [], mode: stage, replaces: §ab}": "policies[0].replaces: there is no policy 'ab'",
    "{subject: head, egress: [], mode: stage, replaces: §x, name: x}": "policies[0].replaces: x can't replace itself; "
    "name the policy that it is to replace",
}


@pytest.mark.parametrize("body", POLICIES)
def test_a_policy_is_refused(body: str) -> None:
    text, places = marked(f"{HEAD}policies: [{body}]\n")
    assert refusals(text) == lines(places, [POLICIES[body]])


def test_names_are_used_once_and_a_staged_policy_is_not_replaced() -> None:
    text, places = marked(
        HEAD
        + """\
policies:
- {name: a, subject: head, ingress: []}
- {name: §a, subject: head, egress: []}
- {name: b, subject: head, egress: [], mode: stage}
- {name: c, subject: head, egress: [], mode: stage, replaces: §b}
- {name: d, subject: head, egress: [], mode: stage, replaces: §aa}
"""
    )
    assert refusals(text) == lines(
        places,
        [
            "policies[1].name: the policy a is in lab.yaml:7 too; rename one",
            "policies[3].replaces: b is staged itself; name a policy that is in force",
            "policies[4].replaces: there is no policy 'aa'; did you mean a?",
        ],
    )


GROUPS = {
    "{§head: role=x}": "groups.head: a workspace is named head too, and they share one name space; rename one",
    "{§worker-1: role=x}": "groups.worker-1: a workspace is named worker-1 too, and they share one name space; "
    "rename one",
    "{a: §worker}": "groups.a: 'worker' is no selector; a group is one over labels, as role=worker",
    "{a: §''}": "groups.a: '' is no selector; a group is one over labels, as role=worker",
    "{a: §[x=y]}": "groups.a: read a list; allowed: a text",
    "{§A_b: x=y}": "groups.A_b: 'A_b' can't be a DNS label; "
    "write lower-case letters, digits and inner hyphens, as 'a-b'",
}


@pytest.mark.parametrize("body", GROUPS)
def test_a_group_is_refused_and_its_word_is_known_all_the_same(body: str) -> None:
    name = body.split(":")[0].strip("{§")
    text, places = marked(HEAD.replace("{heads: role=head}", body) + f"policies: [{{subject: {name}, ingress: []}}]\n")
    assert refusals(text) == lines(places, [GROUPS[body]])


TESTS = {
    "{from: head, to: §wrker, expect: allow}": "tests[0].to: 'wrker' is no group and no workspace; "
    "did you mean worker?",
    "{from: §{same: team}, to: head, expect: deny}": "tests[0].from: same has no meaning in a test, "
    "where nobody is the subject; name both ends",
    "{from: head, to: worker, expect: §maybe}": "tests[0].expect: unknown expectation 'maybe'; allowed: allow, deny",
    "§{from: head, to: worker}": "tests[0]: expect is missing; it is needed here",
    "{from: head, to: worker, expect: deny, port: §tcp/0}": "tests[0].port: 'tcp/0' is out of range; "
    "tcp has 1 to 65535",
    "{from: head, to: worker, expect: deny, §ports: tcp/1}": "tests[0].ports: ports belongs into policies; "
    "a test has port",
}


@pytest.mark.parametrize("body", TESTS)
def test_a_test_is_refused(body: str) -> None:
    text, places = marked(f"{HEAD}tests: [{body}]\n")
    assert refusals(text) == lines(places, [TESTS[body]])


GATEWAYS = {
    "§wan: {networks: grid}": "gateways.wan: kind is missing; it is needed here",
    "wan: {kind: §peer, networks: grid}": "gateways.wan.kind: unknown kind 'peer'; allowed: bridge, nat",
    "wan: {kind: nat, networks: [§gird]}": "gateways.wan.networks[0]: unknown network 'gird'; did you mean grid?",
    "wan: {kind: nat, §networks: []}": "gateways.wan.networks: the list is empty; name at least one",
    "§W_1: {kind: nat, networks: grid}": "gateways.W_1: 'W_1' can't be a DNS label; "
    "write lower-case letters, digits and inner hyphens, as 'w-1'",
}


@pytest.mark.parametrize("body", GATEWAYS)
def test_a_gateway_is_refused(body: str) -> None:
    text, places = marked(f"{HEAD.partition('gateways')[0]}gateways: {{{body}}}\n")
    assert refusals(text) == lines(places, [GATEWAYS[body]])


SITE = {
    "§{subject: '*', egress: []}": "policies[0]: priority is missing; it is needed here",
    "{priority: §-1, subject: '*', egress: []}": "policies[0].priority: read the number -1; "
    "it has to be greater than or equal to 0",
    "{priority: 1, subject: §mirror, egress: []}": "policies[0].subject: 'mirror' is a word of one playground, "
    "and a site's policies are about all; write a selector, as workspace=mirror",
    "{priority: 1, subject: '*', egress: [§{to: '@world'}]}": "policies[0].egress[0]: action is missing; "
    "it is needed here",
    "{priority: 1, subject: '*', egress: [{action: §block}]}": "policies[0].egress[0].action: unknown action 'block'; "
    "allowed: allow, deny, pass",
    "{tier: §owner, priority: 1, subject: '*', egress: []}": "policies[0].tier: unknown tier 'owner'; "
    "allowed: admin, baseline",
    "{tier: baseline, priority: 1, subject: '*', egress: [{action: §pass}]}": "policies[0].egress[0].action: "
    "the baseline is the last tier, there is none to pass to; write allow or deny",
    "{tier: baseline, priority: 1, subject: '*', egress: [{action: deny, to: §'@services'}]}": "policies[0].egress[0]"
    ".to: @services are always reachable; only a site's admin tier may say otherwise",
    "{priority: 1, subject: 'a=b', egress: []}, §{priority: 1, subject: 'a = b', ingress: []}": "policies[1]: "
    "priority 1 of the admin tier is that of the policy in line 2 too, on the same subject, "
    "and no order would be told; choose another",
}


@pytest.mark.parametrize("body", SITE)
def test_a_policy_of_a_site_is_refused(body: str) -> None:
    text, places = marked(f"name: campus\npolicies: [{body}]\n")
    with pytest.raises(SpecErrors) as caught:
        load_site(text, "site.yaml")
    assert str(caught.value).splitlines() == [f"site.yaml:{line}" for line in lines(places, [SITE[body]])]


def included(text: str, **files: str) -> list[str]:
    """Problems of a file whose one pattern matches the files given."""
    found = [(f"{name}.yaml", body) for name, body in files.items()]
    try:
        load_playground(HEAD + text, "lab.yaml", {"*.yaml": found, "again.yaml": found[:1], "none.yaml": []})
    except SpecErrors as error:
        return str(error).splitlines()
    return []


def test_problems_of_included_files_name_them() -> None:
    assert included(
        "include: '*.yaml'\n",
        one="policies: [{subject: hed, ingress: []}]\ngroups: {heads: a=b}\n",
        two="name: x\nnetworks: {}\ninclude: [y]\n",
        three="policies: [\n",
    ) == [
        "one.yaml:1:22: policies[0].subject: 'hed' is no group and no workspace; did you mean head?",
        "one.yaml:2:10: groups.heads: the group heads is in lab.yaml:5 too; rename one",
        "three.yaml:2:1: not YAML: while parsing a flow node expected the node content, but found '<stream end>'",
        "two.yaml:1:1: name: name belongs into the playground's own file, which includes this one",
        "two.yaml:2:1: networks: networks belongs into the playground's own file, which includes this one",
        "two.yaml:3:1: include: include belongs into the playground's own file, which includes this one",
    ]


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    assert included("include: ['*.yaml', none.yaml]\n", one="groups: {a: b=c}\n") == [
        "lab.yaml:6:21: include[1]: 'none.yaml' matches no file; paths are relative to this file"
    ]
    assert included("include: [other.yaml]\n") == [
        "lab.yaml:6:11: include[0]: 'other.yaml' matches no file; paths are relative to this file"
    ]


def test_a_file_that_two_patterns_match_is_read_once() -> None:
    assert included("include: ['*.yaml', again.yaml]\n", one="groups: {a: b=c}\npolicies: []\n") == []


def test_a_thousand_files_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "MAX_INCLUDED", 1)
    assert included("include: '*.yaml'\n", one="groups: {}\n", two="groups: {}\n") == [
        "lab.yaml:6:10: include: more than 1 files are included; name fewer"
    ]


def test_files_are_not_larger_together_than_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "MAX_TOGETHER", 400)
    assert included("include: '*.yaml'\n", one="groups: {}\n", two="#" * 400) == [
        "lab.yaml:6:10: include: with two.yaml, the file and those that it includes have more than 400 bytes together: "
        "name fewer, or make it several playgrounds"
    ]


def test_what_is_included_is_kept_once_and_reads_the_same_again() -> None:
    found = {"*.yaml": [("a.yaml", b"groups: {a: b=c}\n"), ("b.yaml", "tests: []\n")], "a*": [("a.yaml", b"")]}
    spec = load_playground(HEAD + "include: ['*.yaml', a*]\n", "lab.yaml", found)
    kept = spec.connectivity.included
    assert kept == {"*.yaml": [("a.yaml", "groups: {a: b=c}\n"), ("b.yaml", "tests: []\n")], "a*": [("a.yaml", "")]}
    assert load_playground(spec.text, spec.file, kept) == spec


def test_files_can_not_be_included_where_none_can_be_read() -> None:
    assert refusals(HEAD + "include: [x.yaml]\n") == [
        "6:11: include[0]: the files that it includes were not sent along with it (`playground up` does that)"
    ]
