"""What accepted playground files mean."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from overlay.pools import Span, address_text
from playground.inventory import ANY, Neighbours
from playground.spec import PlaygroundSpec, Selector, load_playground, load_site
from playground.spec.delivery import NOTHING, Delivery

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(text: str) -> PlaygroundSpec:
    return load_playground(textwrap.dedent(text), "lab.yaml")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_accepted(path: Path) -> None:
    text = path.read_text()
    spec = load_site(text, path.name) if "\nhosts:" in text else load_playground(text, path.name)
    assert spec.text == text


def test_the_small_grid_is_what_its_file_says() -> None:
    spec = load_playground((EXAMPLES / "atlas.yaml").read_text(), "atlas.yaml")
    assert list(spec.workspaces) == ["head", "worker-0", "worker-1", "worker-2", "worker-3", "mirror"]
    grid, public = spec.networks["grid"], spec.networks["public"]
    assert [subnet.text for subnet in grid.subnets] == ["10.20.0.0/24", "fd00:20::/64"]
    assert [subnet.gateway_text for subnet in grid.subnets] == ["10.20.0.1", "fd00:20::1"]
    assert [address_text(4, pool.span.first) for pool in grid.subnets[0].pools] == ["10.20.0.100"]
    assert [address_text(4, span.first) for span in grid.exclude] == ["10.20.0.150"]
    assert public.subnets[0].pools[0].span.size == 253
    assert public.subnets[1].pools == ()
    assert (grid.delivery, public.delivery) == (Delivery(3600), NOTHING)
    assert spec.workspaces["worker-3"].labels == {"role": "worker"}
    assert [nic.network for nic in spec.workspaces["head"].nics] == ["grid", "public"]
    assert (grid.place.line, grid.place.column, grid.place.path) == (5, 3, "networks.grid")


def test_short_forms_mean_the_long_ones() -> None:
    short = load(
        """\
        name: lab
        networks: {grid: {subnets: 10.0.0.0/24, pools: 10.0.0.9, exclude: 10.0.0.10, gateway: 10.0.0.254}}
        workspaces:
          a: {networks: grid}
          b: {networks: {network: grid, address: 10.0.0.5}}
        """
    )
    long = load(
        """\
        name: lab
        networks:
          grid:
            subnets: [10.0.0.0/24]
            pools: [10.0.0.9-10.0.0.9]
            exclude: ["10.0.0.10/32"]
            gateway: [10.0.0.254]
            dhcp: {lease_time: null, options: {}}
        workspaces:
          a: {networks: [{network: grid, labels: {}, addresses: null, mac: null}], scale: null, host: null, labels: ~}
          b: {networks: [{network: grid, addresses: [10.0.0.5]}], driver: netns}
        """
    )
    assert shape(short) == shape(long)


def shape(spec: PlaygroundSpec) -> object:
    """All but places."""
    return (
        [
            (n.name, n.exclude, n.delivery, [(s.text, s.gateway, [p.span for p in s.pools]) for s in n.subnets])
            for n in spec.networks.values()
        ],
        [
            (w.name, w.labels, w.host, w.driver, w.cpus, w.memory_mib, [(n.network, n.address, n.mac) for n in w.nics])
            for w in spec.workspaces.values()
        ],
    )


def test_a_subnet_that_no_pool_names_keeps_its_default_pool() -> None:
    spec = load(
        """\
        name: lab
        networks:
          grid: {subnets: [10.0.0.0/24, 10.0.1.0/29], pools: [10.0.0.10-10.0.0.19], gateway: 10.0.1.3}
        """
    )
    first, second = spec.networks["grid"].subnets
    assert [pool.span.size for pool in first.pools] == [10]
    assert first.gateway_text == "10.0.0.1"
    assert [pool.span for pool in second.pools] == [Span(0x0A000101, 0x0A000102), Span(0x0A000104, 0x0A000106)]


def test_x_keys_and_anchors_are_free() -> None:
    spec = load(
        """\
        name: lab
        x-net: &net {dhcp: {lease_time: 30m, x-why: short leases}}
        networks:
          grid: {<<: *net, subnets: 10.0.0.0/24}
          dmz: {<<: *net, subnets: 10.1.0.0/24, dhcp: {lease_time: 90}}
        workspaces:
          x-ray: {networks: [grid]}
        """
    )
    assert {name: network.delivery.lease_s for name, network in spec.networks.items()} == {"grid": 1800, "dmz": 90}
    assert list(spec.workspaces) == ["x-ray"]


def test_hosts_capacity_drivers_and_macs_are_read() -> None:
    spec = load(
        """\
        name: lab
        networks: {grid: {subnets: 10.0.0.0/24}}
        workspaces:
          a: {networks: grid, host: n1, cpus: 2, memory: 1.5GiB}
          b: {networks: [{network: grid, mac: 5254.00AB.CDEF, labels: {side: in}}], host: "room in (a, b), !has(gpu)"}
          c: {networks: grid, driver: external, cpus: 0.25}
          d: {networks: grid, scale: 0, labels: {app: db}}
          e:
            networks: grid
            requires: [kvm, "gpu in (a, b)"]
            placement: {strategy: pack, affinity: app=db, prefer: {anti_affinity: "!has(app)"}}
        """
    )
    a, b, c, e = spec.workspaces.values()
    assert (a.host, a.cpus, a.memory_mib) == ("n1", 2.0, 1536)
    assert isinstance(b.host, Selector) and b.host.matches({"room": "b"})
    assert (b.nics[0].mac, b.nics[0].labels) == ("52:54:00:ab:cd:ef", {"side": "in"})
    assert (c.driver, c.cpus) == ("external", 0.25)
    assert (a.requires, a.neighbours) == ((), ANY)
    assert e.requires == ("kvm", "gpu in (a, b)")
    assert e.neighbours == Neighbours("pack", "app=db", "", "", "!has(app)")


def test_a_long_name_inside_the_limit_is_accepted() -> None:
    name = "w" * 63
    assert (
        name
        in load(
            f"name: lab\nnetworks: {{g: {{subnets: 10.0.0.0/24}}}}\nworkspaces: {{{name}: {{networks: g}}}}\n"
        ).workspaces
    )
