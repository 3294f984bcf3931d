"""What our packing made and our parsing reads, as an independent implementation of netlink reads it."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from overlay_lab import NET, OTHER_NET, Lab, a_port, a_remote, mac, port_id
from pyroute2 import IPRoute

from overlay import ops as do
from overlay.kernel.apply import DataPlane
from overlay.state import Gate, HostState, Leg, Network, NetworkId
from overlay.topology import LegEnd, Link, Neighbour, ObservedState, PortFlags, Tables, lay_out
from overlay.tunnels.vxlan import Tunnel

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("permitted")]

_T = TypeVar("_T")
UP, PERMANENT, ROUTER, STOLEN, EGRESS_REDIRECT, INGRESS = 0x1, 0x80, 0x80, 4, 1, 0xFFFFFFF2
ADOPTED, STRAY = 12, 13
FLAGS = {
    "learning": "LEARNING",
    "unicast_flood": "UNICAST_FLOOD",
    "multicast_flood": "MCAST_FLOOD",
    "broadcast_flood": "BCAST_FLOOD",
    "neigh_suppress": "NEIGH_SUPPRESS",
    "isolated": "ISOLATED",
    "hairpin": "MODE",
}


class Site:
    """One host with everything that a data plane can have, in two networks."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.plane: DataPlane = lab.host(1)
        for number in (10, 11):
            lab.guest(1, number)
        for number in (ADOPTED, STRAY):
            lab.guest(1, number, in_host=True)
        vteps = frozenset({lab.vtep(2), lab.vtep(3)})
        self.full = Network(
            NET,
            vni=4711,
            mtu=1430,
            ports={
                port_id(10): a_port(10),
                port_id(11): a_port(11, gate=Gate.CLOSED),
                port_id(ADOPTED): a_port(ADOPTED, adopt=True),
            },
            remotes={mac(n): a_remote(n, lab.vtep(2 + n % 2)) for n in range(20, 40)},
            vteps=vteps,
            leg=Leg("service1", ("10.0.0.1/24", "fd00::1/64")),
            chase={mac(30): lab.vtep(3), mac(31): lab.vtep(2)},
        )
        bare = Network(OTHER_NET, vni=16_777_215, mtu=1430)
        outcome = self.plane.converge(HostState(lab.vtep(1), {NET: self.full, OTHER_NET: bare}))
        assert outcome.is_clean, outcome.errors

    def read(self, namespace: str, work: Callable[[Any], _T]) -> _T:
        def inside() -> _T:
            with IPRoute() as kernel:
                return work(kernel)

        return self.lab.inside(namespace, inside)


@pytest.fixture(scope="module", params=["192.0.2.", "2001:db8::"], ids=["underlay4", "underlay6"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    lab = Lab(tmp_path_factory.mktemp("netns"), request.param)
    try:
        yield Site(lab)
    finally:
        lab.close()


def test_pyroute2_reads_what_we_observe(site: Site) -> None:
    ours = site.plane.observe()
    theirs = ObservedState(
        links=site.read("dp1", links),
        tables=site.read("dp1", tables),
        host_ports=frozenset(n for n in site.read("h1", names).values() if n.startswith("pg")),
        services={"service1": site.read("service1", leg_ends)},
    )
    assert theirs.links == ours.links
    assert theirs.tables == ours.tables
    assert theirs == ours
    full = ours.tables[NET]
    assert (len(full.tunnel), len(full.floods), len(full.chases)) == (20, 2, 2), "all of it is there to be compared"
    assert len(full.forwarding) == 23 and len(full.neighbours) == 72
    assert ours.host_ports == {f"pg{port_id(STRAY)}"}


def test_pyroute2_reads_what_we_wanted(site: Site) -> None:
    seen = site.read("dp1", links)
    wanted = lay_out(site.full, site.lab.vtep(1), present=seen)
    assert site.read("dp1", tables)[NET] == wanted.tables
    assert seen[f"br{NET}"] == wanted.bridge
    assert seen[f"vx{NET}"] == wanted.tunnel
    assert seen[f"lg{NET}"] == wanted.leg_link
    for name, port in wanted.ports.items():  # whose kind is not ours to want, and an adopted one's MTU is its owner's
        assert replace(seen[name], kind="", mtu=port.mtu if port.adopted else seen[name].mtu) == port
    assert wanted.leg is not None and site.read("service1", leg_ends)[f"sv{NET}"] == wanted.leg[2]


@pytest.mark.parametrize("flag", FLAGS)
def test_each_flag_of_a_bridge_port_is_the_one_that_we_mean(site: Site, flag: str) -> None:
    alone = PortFlags(**{field: field == flag for field in FLAGS})
    assert site.plane.apply([do.SetFlags(f"vx{OTHER_NET}", alone)]) == []
    assert site.read("dp1", links)[f"vx{OTHER_NET}"].flags == alone
    assert site.plane.observe().links[f"vx{OTHER_NET}"].flags == alone


def test_checksums_over_ipv6_are_left_out_and_over_ipv4_as_the_kernel_has_them(site: Site) -> None:
    is_v6 = ":" in site.lab.underlay

    def read(kernel: Any) -> tuple[int, int, int]:
        (vxlan,) = (link for link in kernel.get_links() if link.get("ifname") == f"vx{NET}")
        options = vxlan.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
        return tuple(options.get_attr(f"IFLA_VXLAN_UDP_{kind}") for kind in ("CSUM", "ZERO_CSUM6_TX", "ZERO_CSUM6_RX"))

    assert site.read("dp1", read) == (1, int(is_v6), int(is_v6))


def test_iproute2_and_pyroute2_read_the_chase_filters_as_we_wrote_them(site: Site) -> None:
    """pyroute2 (0.9) reads a u32 filter's words 4 bytes too early, so those are read by tc(8)."""

    def actions(kernel: Any) -> list[tuple[str, int, int, str]]:
        by_index = names(kernel)
        (index,) = kernel.link_lookup(ifname=f"vx{NET}")
        found = []
        for one in kernel.get_filters(index=index, parent=INGRESS):
            if acts := one.get_nested("TCA_OPTIONS", "TCA_U32_ACT"):
                act = acts.get_attr("TCA_ACT_PRIO_1")
                parms = act.get_nested("TCA_ACT_OPTIONS", "TCA_MIRRED_PARMS")
                target = by_index[parms["ifindex"]]
                found.append((act.get_attr("TCA_ACT_KIND"), parms["eaction"], parms["action"], target))
        return found

    assert site.read("dp1", actions) == [("mirred", EGRESS_REDIRECT, STOLEN, f"vx{NET}")] * 2
    said = site.lab.run("dp1", f"tc filter show dev vx{NET} ingress").stdout
    words = re.findall(r"match (\w+)/(\w+) at (-?\d+)", said)
    assert sorted(words) == [
        ("0000001e", "ffffffff", "-12"),
        ("0000001f", "ffffffff", "-12"),
        ("00005254", "0000ffff", "-16"),
        ("00005254", "0000ffff", "-16"),
    ]


def names(kernel: Any) -> dict[int, str]:
    return {link["index"]: link.get_attr("IFLA_IFNAME") for link in kernel.get_links()}


def links(kernel: Any) -> dict[str, Link]:
    by_index = names(kernel)
    found = (link for link in kernel.get_links() if link.get_attr("IFLA_IFNAME") != "lo")
    return {link.get_attr("IFLA_IFNAME"): one_link(link, by_index) for link in found}


def one_link(link: Any, by_index: dict[int, str]) -> Link:
    kind = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
    options = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    flags = tunnel = None
    if link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_KIND") == "bridge":
        values = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")
        flags = PortFlags(**{field: bool(values.get_attr(f"IFLA_BRPORT_{name}")) for field, name in FLAGS.items()})
    if kind == "vxlan":
        tunnel = Tunnel(
            vni=options.get_attr("IFLA_VXLAN_ID"),
            local=options.get_attr("IFLA_VXLAN_LOCAL") or options.get_attr("IFLA_VXLAN_LOCAL6"),
            port=options.get_attr("IFLA_VXLAN_PORT"),
            learning=bool(options.get_attr("IFLA_VXLAN_LEARNING")),
        )
    return Link(
        kind=kind,
        up=bool(link["flags"] & UP),
        mtu=link.get_attr("IFLA_MTU"),
        master=by_index.get(link.get_attr("IFLA_MASTER"), ""),
        flags=flags,
        quiet=link.get_nested("IFLA_AF_SPEC", "AF_INET6", "IFLA_INET6_ADDR_GEN_MODE") == 1,
        adopted=(link.get_attr("IFLA_IFALIAS") or "").startswith("playground adopted"),
        snooping=kind == "bridge" and bool(options.get_attr("IFLA_BR_MCAST_SNOOPING")),
        tunnel=tunnel,
    )


def tables(kernel: Any) -> dict[NetworkId, Tables]:
    by_index = names(kernel)
    found: dict[NetworkId, Tables] = {}
    fdb = list(kernel.fdb("dump"))
    around = [n for family in (socket.AF_INET, socket.AF_INET6) for n in kernel.get_neighbours(family=family)]
    for network in (NET, OTHER_NET):
        forwarding: dict[str, str] = {}
        tunnel: dict[str, str] = {}
        floods: set[str] = set()
        for entry in fdb:
            hardware, device = entry.get_attr("NDA_LLADDR"), by_index[entry["ifindex"]]
            if by_index.get(entry.get_attr("NDA_MASTER")) == f"br{network}":
                if not entry["state"] & PERMANENT:
                    forwarding[hardware] = device
            elif device == f"vx{network}" and (vtep := entry.get_attr("NDA_DST")) is not None:
                if hardware == "00:00:00:00:00:00":
                    floods.add(vtep)
                else:
                    tunnel[hardware] = vtep
        neighbours = {
            entry.get_attr("NDA_DST"): Neighbour(entry.get_attr("NDA_LLADDR"), bool(entry["flags"] & ROUTER))
            for entry in around
            if by_index[entry["ifindex"]] == f"br{network}" and entry["state"] & PERMANENT
        }
        chases = frozenset({mac(30), mac(31)}) if network == NET else frozenset()  # a test of their own
        found[network] = Tables(forwarding, tunnel, frozenset(floods), neighbours, chases)
    return found


def leg_ends(kernel: Any) -> dict[str, LegEnd]:
    addresses: dict[int, set[str]] = {}
    for one in kernel.get_addr():
        local = one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS")
        addresses.setdefault(one["index"], set()).add(f"{local}/{one['prefixlen']}")
    return {
        link.get_attr("IFLA_IFNAME"): LegEnd(
            link.get_attr("IFLA_ADDRESS"),
            link.get_attr("IFLA_MTU"),
            bool(link["flags"] & UP),
            frozenset(addresses.get(link["index"], ())),
        )
        for link in kernel.get_links()
        if link.get_attr("IFLA_IFNAME") != "lo"
    }
