"""Site files: what they mean, and what is refused."""

from __future__ import annotations

import textwrap

import pytest

from playground.inventory import Share
from playground.spec import SiteSpec, SpecErrors, load_site


def load(text: str) -> SiteSpec:
    return load_site(textwrap.dedent(text), "site.yaml")


def refusals(text: str) -> list[str]:
    with pytest.raises(SpecErrors) as caught:
        load(text)
    return [str(problem).removeprefix("site.yaml:") for problem in caught.value.problems]


def test_a_site_is_what_its_file_says() -> None:
    site = load(
        """\
        name: campus
        resolvers: [192.0.2.53, "2001:DB8::53"]
        hosts:
          n1: {underlay: 192.0.2.11, labels: {room: a}, capacity: {cpus: 8, memory: 32GiB}}
          n2: {underlay: 192.0.2.12}
        links: []
        policies: []
        """
    )
    assert (site.name, site.domain, site.resolvers) == ("campus", "internal", ("192.0.2.53", "2001:db8::53"))
    n1, n2 = site.hosts.values()
    assert (n1.underlay, n1.labels, n1.cpus, n1.memory_mib) == ("192.0.2.11", {"room": "a"}, 8.0, 32768)
    assert (n2.labels, n2.cpus, n2.memory_mib) == ({}, None, None)


def test_a_host_keeps_and_gives_what_its_site_says_unless_it_says_so_itself() -> None:
    site = load(
        """\
        name: campus
        capacity: {reserve: {cpus: 1, memory: 2GiB}, overcommit: {cpus: 4}}
        hosts:
          n1: {underlay: 192.0.2.11}
          n3: {underlay: 192.0.2.13, capacity: {reserve: {cpus: 0}}}
          n2: {underlay: 192.0.2.12, capacity: {cpus: 8, reserve: {cpus: 2.5}, overcommit: {cpus: 1, memory: 1.5}}}
        """
    )
    assert [host.share for host in site.hosts.values()] == [
        Share(1, 2048, 4, 1),
        Share(0, 2048, 4, 1),
        Share(2.5, 2048, 1, 1.5),
    ]
    assert refusals(
        """\
        name: campus
        capacity: {reserve: {cpus: -1, disk: 1GiB}, overcommit: {memory: 0}}
        hosts:
          n1: {underlay: 192.0.2.11, capacity: {cpus: 2, memory: 1GiB, reserve: {cpus: 2, memory: 2GiB}}}
          n2: {underlay: 192.0.2.12, capacity: {overcommit: {cpus: 1001}}}
        """
    ) == [
        "2:28: capacity.reserve.cpus: read the number -1; it has to be greater than or equal to 0",
        "2:32: capacity.reserve.disk: unknown key 'disk'; allowed: cpus, memory",
        "2:66: capacity.overcommit.memory: read the number 0; it has to be greater than 0",
        "4:47: hosts.n1.capacity.cpus: of 2 cpus 2 are reserved, which leaves none for workspaces",
        "4:58: hosts.n1.capacity.memory: of 1024 MiB 2048 are reserved, which leaves none for workspaces",
        "5:60: hosts.n2.capacity.overcommit.cpus: read the number 1001; it has to be less than or equal to 1000",
    ]


def test_one_machine_needs_no_file() -> None:
    assert SiteSpec(name="local").domain == "internal"


def test_what_is_wrong_with_a_site_is_told_at_once() -> None:
    assert refusals(
        """\
        name: campus
        domain: Example.org
        resolvers: [dns]
        hosts:
          n1: {underlay: 192.0.2.11, capacity: {cores: 8, memory: 32GB}}
          n_2: {underlay: 192.0.2.12, labels: {index: x}}
          n3: {underlay: 192.0.2.12}
          n4: {underlay: "2001:db8::1"}
          n5: {underlay: 192.0.2.15/24}
          n6: {labels: {room: a}}
        links: [x]
        policies: [x]
        rooms: []
        """
    ) == [
        "2:9: domain: 'Example' can't be a DNS label; write lower-case letters, digits and inner hyphens, as 'example'",
        "3:13: resolvers[0]: 'dns' is no IP address; write one as 10.20.0.5 or fd00:20::5",
        "5:41: hosts.n1.capacity.cores: unknown key 'cores'; allowed: cpus, memory, overcommit, reserve",
        "5:59: hosts.n1.capacity.memory: read '32GB'; write a size with its unit MiB, GiB or TiB, as 512MiB or 1.5GiB",
        "6:3: hosts.n_2: 'n_2' can't be a DNS label; write lower-case letters, digits and inner hyphens, as 'n-2'",
        "6:40: hosts.n_2.labels.index: the label index is built in; choose another name",
        "7:18: hosts.n3.underlay: 192.0.2.12 is the underlay of n_2 too; choose another",
        "8:18: hosts.n4.underlay: 2001:db8::1 is IPv6, but the underlay of n_2 is IPv4; "
        "give all hosts of a site one family",
        "9:18: hosts.n5.underlay: '192.0.2.15/24' is no IP address; write one as 10.20.0.5 or fd00:20::5",
        "10:3: hosts.n6: underlay is missing; it is needed here",
        "11:8: links: links are not built yet; leave them out: hosts reach each other plainly",
        "12:12: policies[0]: read 'x'; allowed: a mapping",
        "13:1: rooms: unknown key 'rooms'; allowed: capacity, domain, hosts, links, name, policies, resolvers",
    ]


def test_a_domain_leaves_room_for_the_longest_names() -> None:
    assert load(f"name: s\ndomain: {'a' * 61}\n").domain == "a" * 61
    [line] = refusals(f"name: s\ndomain: {'a' * 62}\n")
    assert "62 characters; 61 leave room" in line
