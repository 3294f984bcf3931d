"""Every refusal of a playground file, whole lines: where it points, and what it says. § marks the place in the text."""

from __future__ import annotations

import textwrap

import pytest

from playground.spec import SpecErrors, load_playground

BASE = """\
name: lab
networks:
  grid: {subnets: [10.0.0.0/24]}
workspaces:
  head: {networks: [grid]}
"""


def refusals(text: str | bytes) -> list[str]:
    """All problems of a file as lines, or nothing when it is accepted."""
    try:
        load_playground(textwrap.dedent(text) if isinstance(text, str) else text, "lab.yaml")
    except SpecErrors as error:
        assert str(error) == "\n".join(str(problem) for problem in error.problems)
        return [str(problem).removeprefix("lab.yaml:") for problem in error.problems]
    return []


def with_network(body: str) -> str:
    """A file with one network; `body` is what follows its name, or begins with it."""
    return f"name: lab\nnetworks:\n  {body if 'grid:' in body else f'grid: {body}'}\n"


def with_workspace(body: str) -> str:
    """A file with one workspace; `body` is what follows its name, or begins with it."""
    head = body if "head:" in body else f"head: {body}"
    return f"name: lab\nnetworks:\n  grid: {{subnets: [10.0.0.0/24, 'fd00::/64']}}\nworkspaces:\n  {head}\n"


def marked(text: str) -> tuple[str, list[str]]:
    """The text without its § marks, and where they stood, as `line:column`."""
    places: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        parts = line.split("§")
        places += [f"{number}:{sum(map(len, parts[: at + 1])) + 1}" for at in range(len(parts) - 1)]
    return text.replace("§", ""), places


def test_a_plain_file_is_accepted() -> None:
    assert refusals(BASE) == []


NETWORKS = {
    "{subnets: [§10.0.0.5/24]}": ["networks.grid.subnets[0]: 10.0.0.5/24 has host bits set; write 10.0.0.0/24"],
    "{subnets: [§'fd00::1/64']}": ["networks.grid.subnets[0]: fd00::1/64 has host bits set; write fd00::/64"],
    "{subnets: [§'fd00::/56']}": [
        "networks.grid.subnets[0]: fd00::/56 is no /64; other IPv6 prefixes are not built yet: write a /64"
    ],
    "{subnets: [§10.0.0.0/31]}": ["networks.grid.subnets[0]: 10.0.0.0/31 has the wrong size; write a /8 to /30"],
    "{subnets: [§10.0.0.0]}": [
        "networks.grid.subnets[0]: '10.0.0.0' is no prefix; write an address, a slash and a length, as 10.20.0.0/24"
    ],
    "{subnets: [§10.0.0.0/99]}": [
        "networks.grid.subnets[0]: '10.0.0.0/99' is no prefix; write it as 10.20.0.0/24 or fd00:20::/64"
    ],
    "{subnets: [§127.0.0.0/24]}": [
        "networks.grid.subnets[0]: 127.0.0.0/24 can't be used: 127.0.0.0/8 is loopback; "
        "choose another prefix, as 10.20.0.0/24"
    ],
    "{subnets: [10.0.0.0/16, §10.0.9.0/24]}": [
        "networks.grid.subnets[1]: 10.0.9.0/24 overlaps networks.grid.subnets[0] 10.0.0.0/16; choose a disjoint prefix"
    ],
    "{§subnets: []}": ["networks.grid.subnets: the list is empty; name at least one"],
    "§grid: {}": ["networks.grid: subnets is missing; it is needed here"],
    "{subnets: 10.0.0.0/24, gateway: §10.0.1.1}": [
        "networks.grid.gateway: 10.0.1.1 lies in no subnet of grid: 10.0.0.0/24"
    ],
    "{subnets: 10.0.0.0/24, gateway: §10.0.0.255}": [
        "networks.grid.gateway: 10.0.0.255 is the broadcast address of 10.0.0.0/24; choose another, as 10.0.0.1"
    ],
    "{subnets: 'fd00::/64', gateway: §'fd00::'}": [
        "networks.grid.gateway: fd00:: is the network address of fd00::/64; choose another, as fd00::1"
    ],
    "{subnets: 10.0.0.0/24, gateway: [10.0.0.1, §10.0.0.2]}": [
        "networks.grid.gateway[1]: 10.0.0.2 is a second gateway of 10.0.0.0/24, after 10.0.0.1; keep one"
    ],
    "{subnets: 10.0.0.0/24, pools: §10.0.0.1-10.0.0.9}": [
        "networks.grid.pools: 10.0.0.1-10.0.0.9 contains 10.0.0.1, the gateway of 10.0.0.0/24; "
        "leave it out, as 10.0.0.2-10.0.0.9"
    ],
    "{subnets: 10.0.0.0/24, pools: §10.0.0.200-10.0.0.255}": [
        "networks.grid.pools: 10.0.0.200-10.0.0.255 contains 10.0.0.255, the broadcast address of 10.0.0.0/24; "
        "leave it out, as 10.0.0.200-10.0.0.254"
    ],
    "{subnets: 10.0.0.0/24, pools: [§10.0.1.1-10.0.1.9]}": [
        "networks.grid.pools[0]: 10.0.1.1-10.0.1.9 lies in no subnet of grid: 10.0.0.0/24"
    ],
    "{subnets: 10.0.0.0/24, pools: [§10.0.0.9-10.0.1.9]}": [
        "networks.grid.pools[0]: 10.0.0.9-10.0.1.9 reaches out of 10.0.0.0/24; end it inside"
    ],
    "{subnets: [10.0.0.0/24, 10.0.1.0/24], pools: [§10.0.0.9-10.0.1.9]}": [
        "networks.grid.pools[0]: 10.0.0.9-10.0.1.9 crosses from 10.0.0.0/24 into 10.0.1.0/24; write one range each"
    ],
    "{subnets: 10.0.0.0/24, pools: [§10.0.0.9-10.0.0.5]}": [
        "networks.grid.pools[0]: '10.0.0.9-10.0.0.5' is reversed; write 10.0.0.5-10.0.0.9"
    ],
    "{subnets: 10.0.0.0/24, pools: [10.0.0.5-10.0.0.9, §10.0.0.9]}": [
        "networks.grid.pools[1]: 10.0.0.9 overlaps networks.grid.pools[0] 10.0.0.5-10.0.0.9; join them"
    ],
    "{subnets: 10.0.0.0/24, pools: [§'10.0.0.5-fd00::5']}": [
        "networks.grid.pools[0]: '10.0.0.5-fd00::5' goes from IPv4 to IPv6; write both ends in one family"
    ],
    "{subnets: 10.0.0.0/24, pools: [§10.0.0.x]}": [
        "networks.grid.pools[0]: '10.0.0.x' is no IP address; write one as 10.20.0.5 or fd00:20::5"
    ],
    "{subnets: 'fd00::/64', pools: [§'fd00::5-fd00::9']}": [
        "networks.grid.pools[0]: fd00::5-fd00::9: grid has ipv6: slaac, by which each workspace makes its address of "
        "its MAC; write ipv6: dhcp or both, or leave the pool out"
    ],
    "{subnets: 'fd00::/64', ipv6: both, pools: [§'fd00::5-fd00::1:0:0:5']}": [
        "networks.grid.pools[0]: fd00::5-fd00::1:0:0:5 contains fd00::ff:fe00:0 and others that a client would "
        "make of its MAC; end it before, as fd00::1000-fd00::1fff"
    ],
    "{subnets: 'fd00::/64', ipv6: dhcp, pools: [§'fd00::-fd00::9']}": [
        "networks.grid.pools[0]: fd00::-fd00::9 contains fd00::1, the gateway of fd00::/64; leave it out, as fd00:: "
        "and fd00::2-fd00::9"
    ],
    "{subnets: 10.0.0.0/24, exclude: §10.1.0.0/30}": [
        "networks.grid.exclude: 10.1.0.0/30 lies in no subnet of grid: 10.0.0.0/24"
    ],
    "{subnets: 10.0.0.0/24, ipv6: §dhcp}": [
        "networks.grid.ipv6: grid has no IPv6 subnet; add a /64, or leave ipv6 out"
    ],
    "{subnets: 'fd00::/64', ipv6: §dhcpv6}": [
        "networks.grid.ipv6: unknown way to IPv6 addresses 'dhcpv6'; did you mean dhcp?"
    ],
    "{subnets: 10.0.0.0/24, dhcp: {lease_time: §59s}}": [
        "networks.grid.dhcp.lease_time: 59 s is out of range; a lease lasts from 60 s to 4294967294 s"
    ],
    "{subnets: 10.0.0.0/24, dhcp: {lease_time: §1w}}": [
        "networks.grid.dhcp.lease_time: read '1w'; write seconds, or a number with s, m, h or d, as 1h"
    ],
    "{subnets: 10.0.0.0/24, dhcp: {lease_time: §true}}": [
        "networks.grid.dhcp.lease_time: read the truth value true; write seconds, or a number with s, m, h or d, as 1h"
    ],
    "{subnets: 10.0.0.0/24, dhcp: {options: {ntp-servers: §'fd00::1'}}}": [
        "networks.grid.dhcp.options.ntp-servers: 'fd00::1' is no IPv4 address; write one as 10.20.0.5"
    ],
    "{subnets: 10.0.0.0/24, dhcp: {options: {§tftp: x}}}": [
        "networks.grid.dhcp.options.tftp: unknown option 'tftp'; write one by its number and a type, as "
        "224: {text: hello}"
    ],
    "{subnets: 10.0.0.0/24, dhcp: {options: {224: §hello}}}": [
        "networks.grid.dhcp.options.224: its type is not known here; write it with the value, as {text: hello}; types: "
        "text, address, addresses, pairs, routes, domain, domains, flag, u8, u16, u32, i32, u8s, u16s, seconds, hex"
    ],
    "{subnets: 10.0.0.0/24, dhcp: {options: {42: 10.0.0.5, §ntp-servers: 10.0.0.5}}}": [
        "networks.grid.dhcp.options.ntp-servers: option 42 stands here as 42 too; keep one"
    ],
    "{subnets: 10.0.0.0/24, dhcp: {options: {§interface-mtu: 1400}}}": [
        "networks.grid.dhcp.options.interface-mtu: option interface-mtu can't be set: the MTU follows from the tunnels"
    ],
    "{subnets: 10.0.0.0/24, §dhcp: {lease_time: 1h, options: {renewal-time: 2h}}}": [
        "networks.grid.dhcp: a lease of 3600 s would be renewed after 7200 s and rebound after 3150 s; write "
        "renewal-time < rebinding-time < lease_time"
    ],
    "{subnets: 10.0.0.0/24, boot: {file: §pxelinux.0}}": [
        "networks.grid.boot.file: 'pxelinux.0' is a file on a TFTP server; write boot.server, or a URL"
    ],
    "{subnets: 10.0.0.0/24, boot: {server: 10.0.0.9, file: {§efi-x86: a.efi}}}": [
        "networks.grid.boot.file.efi-x86: unknown architecture 'efi-x86'; did you mean efi-x64?"
    ],
    "{subnets: 10.0.0.0/24, boot: {server: §'fd00::9', file: a}}": [
        "networks.grid.boot.server: fd00::9: DHCPv4 clients boot from an IPv4 address; write one"
    ],
    "{subnets: 10.0.0.0/24, §boot: {server: 10.0.0.9}}": [
        "networks.grid.boot: names nothing to boot; write file, ipxe or both"
    ],
    "{subnets: 10.0.0.0/24, boot: {server: 10.0.0.9, ipxe: §'ü'}}": [
        "networks.grid.boot.ipxe: write 1 to 255 printable ASCII characters, a file's name or a URL"
    ],
    "{subnets: 10.0.0.0/24, dhcp: {options: {§ntp-server: x}}}": [
        "networks.grid.dhcp.options.ntp-server: unknown option 'ntp-server'; did you mean ntp-servers?"
    ],
    "{subnets: 10.0.0.0/24, dhcp: {dynamic: §{}}}": ["networks.grid.dhcp.dynamic: read a mapping; allowed: a text"],
    "{subnets: 10.0.0.0/24, dhcp: {dynamic: §10.0.0.1-10.0.0.9}}": [
        "networks.grid.dhcp.dynamic: 10.0.0.1-10.0.0.9 contains 10.0.0.1, the gateway of 10.0.0.0/24; leave it out, "
        "as 10.0.0.2-10.0.0.9"
    ],
    "{subnets: 10.0.0.0/24, pools: [10.0.0.50-10.0.0.99], dhcp: {dynamic: §10.0.0.90-10.0.0.120}}": [
        "networks.grid.dhcp.dynamic: 10.0.0.90-10.0.0.120 overlaps networks.grid.pools[0] 10.0.0.50-10.0.0.99; keep "
        "them apart"
    ],
    "{subnets: 10.0.0.0/24, dhcp: {dynamic: [10.0.0.9, §10.0.0.8/30]}}": [
        "networks.grid.dhcp.dynamic[1]: 10.0.0.8-10.0.0.11 overlaps networks.grid.dhcp.dynamic[0] 10.0.0.9; keep them "
        "apart"
    ],
    "{subnets: [10.0.0.0/24, 10.0.1.0/24], dhcp: {dynamic: [10.0.0.9, §10.0.1.9]}}": [
        "networks.grid.dhcp.dynamic[1]: 10.0.1.9 lies in 10.0.1.0/24, and the first range in 10.0.0.0/24; dynamic "
        "ranges in several subnets are not built yet: keep to one"
    ],
    "{subnets: [10.0.0.0/24, 'fd00::/64'], dhcp: {dynamic: §'fd00::9'}}": [
        "networks.grid.dhcp.dynamic: fd00::9: machines that no one declared get IPv4 addresses; leave it out"
    ],
    "{subnets: 10.0.0.0/24, dhcp: {dynamic: §10.0.9.9}}": [
        "networks.grid.dhcp.dynamic: 10.0.9.9 lies in no subnet of grid: 10.0.0.0/24"
    ],
    "§grid: {§subnet: 10.0.0.0/24}": [
        "networks.grid: subnets is missing; it is needed here",
        "networks.grid.subnet: unknown key 'subnet'; did you mean subnets?",
    ],
    "§10.0.0.0/24": ["networks.grid: read '10.0.0.0/24'; allowed: a mapping"],
    "{subnets: [§12]}": ['networks.grid.subnets[0]: read the number 12; allowed: a text, as "12"'],
}


@pytest.mark.parametrize("body", NETWORKS)
def test_a_network_is_refused(body: str) -> None:
    text, places = marked(with_network(body))
    assert refusals(text) == [f"{place}: {line}" for place, line in zip(places, NETWORKS[body], strict=True)]


NIC = "workspaces.head.networks[0]"
WORKSPACES = {
    "{§networks: []}": ["workspaces.head.networks: the list is empty; name at least one"],
    "§head:": ["workspaces.head: networks is missing; it is needed here"],
    "{networks: §gird}": ["workspaces.head.networks: unknown network 'gird'; did you mean grid?"],
    "{networks: [grid, §grid]}": [
        "workspaces.head.networks[1]: grid is named a second time, first in line 5; keep one"
    ],
    "{networks: grid, scale: §-1}": [
        "workspaces.head.scale: read the number -1; it has to be greater than or equal to 0"
    ],
    "{networks: grid, scale: §1000000}": [
        "workspaces.head.scale: read the number 1000000; it has to be less than or equal to 10000"
    ],
    "{networks: grid, scale: §2.5}": ["workspaces.head.scale: read the number 2.5; allowed: a whole number"],
    "{networks: grid, scale: §true}": ["workspaces.head.scale: read the truth value true; allowed: a whole number"],
    "{networks: {network: grid, address: §10.0.1.5}}": [
        "workspaces.head.networks.address: 10.0.1.5 lies in no subnet of grid: 10.0.0.0/24, fd00::/64"
    ],
    "{networks: {network: grid, address: §10.0.0.1}}": [
        "workspaces.head.networks.address: 10.0.0.1 is the gateway of 10.0.0.0/24; choose another, as 10.0.0.2"
    ],
    "{networks: {network: grid, address: §10.0.0.0}}": [
        "workspaces.head.networks.address: 10.0.0.0 is the network address of 10.0.0.0/24; choose another, as 10.0.0.2"
    ],
    "{networks: {network: grid, address: §10.0.0.255}}": [
        "workspaces.head.networks.address: 10.0.0.255 is the broadcast address of 10.0.0.0/24; "
        "choose another, as 10.0.0.2"
    ],
    "{networks: {network: grid, addresses: [§'fd00::5']}}": [
        "workspaces.head.networks.addresses[0]: fd00::5: grid has ipv6: slaac, by which each workspace makes its "
        "address of its MAC; write ipv6: dhcp or both there, or fix the MAC here"
    ],
    "{networks: {network: grid, addresses: [10.0.0.5, §10.0.0.6]}}": [
        "workspaces.head.networks.addresses[1]: 10.0.0.6 is a second IPv4 address on grid; "
        "more than one is not built yet: keep one"
    ],
    "{networks: {network: grid, §address: 10.0.0.5, addresses: [10.0.0.6]}}": [
        "workspaces.head.networks.address: address is short for addresses; write one of them"
    ],
    "{scale: 2, networks: {network: grid, address: §10.0.0.5}}": [
        "workspaces.head.networks.address: 10.0.0.5 is fixed, but the workspace has a scale; "
        "write it as a workspace of its own"
    ],
    "{scale: 1, networks: {network: grid, mac: §'52:54:00:00:00:01'}}": [
        "workspaces.head.networks.mac: 52:54:00:00:00:01 is fixed, but the workspace has a scale; "
        "write it as a workspace of its own"
    ],
    "{networks: {network: grid, mac: §'ff:ff:ff:ff:ff:ff'}}": [
        "workspaces.head.networks.mac: ff:ff:ff:ff:ff:ff can't be a port's: "
        "it is multicast, zero or the gateways' own; choose one as 52:54:00:…"
    ],
    "{networks: {network: grid, mac: §'00:00:00:00:00:00'}}": [
        "workspaces.head.networks.mac: 00:00:00:00:00:00 can't be a port's: "
        "it is multicast, zero or the gateways' own; choose one as 52:54:00:…"
    ],
    "{networks: {network: grid, mac: §5}}": [
        'workspaces.head.networks.mac: read the number 5; allowed: a text, as "5"'
    ],
    "{networks: {network: grid, mac: §'xy'}}": [
        "workspaces.head.networks.mac: 'xy' is no MAC; write six hex bytes, as 52:54:00:12:34:56"
    ],
    "{networks: {network: grid, address: 10.0.0.5, allow: {addresses: §10.0.0.5}}}": [
        "workspaces.head.networks.allow.addresses: 10.0.0.5 is a NIC's own address in line 5; "
        "leave it out, or choose another"
    ],
    "{networks: {network: grid, address: 10.0.0.5, allow: {addresses: §10.0.0.4/30}}}": [
        "workspaces.head.networks.allow.addresses: 10.0.0.4/30 contains 10.0.0.5, a NIC's own address in line 5; "
        "leave it out, or choose another"
    ],
    "{networks: {network: grid, allow: {addresses: [§10.0.0.1, §10.0.0.128/25, §10.0.0.0/20, §10.0.0.9/24]}}}": [
        "workspaces.head.networks.allow.addresses[0]: 10.0.0.1 is the gateway of 10.0.0.0/24; choose another",
        "workspaces.head.networks.allow.addresses[1]: 10.0.0.128/25 contains 10.0.0.255, "
        "the broadcast address of 10.0.0.0/24; leave that out",
        "workspaces.head.networks.allow.addresses[2]: 10.0.0.0/20 contains all of 10.0.0.0/24; allow a part of it",
        "workspaces.head.networks.allow.addresses[3]: 10.0.0.9/24 has host bits set; write 10.0.0.0/24",
    ],
    "{networks: {network: grid, allow: {addresses: [§224.0.0.5, 'fe80::7', §0.0.0.0/0, §20.0.0.0/8, §x]}}}": [
        "workspaces.head.networks.allow.addresses[0]: 224.0.0.5 can't be used: 224.0.0.0/4 is multicast; "
        "choose another",
        "workspaces.head.networks.allow.addresses[2]: 0.0.0.0/0 is too wide; write a /16 or longer",
        "workspaces.head.networks.allow.addresses[3]: 20.0.0.0/8 is too wide; write a /16 or longer",
        "workspaces.head.networks.allow.addresses[4]: 'x' is no address or prefix; "
        "write it as 10.20.0.250 or 10.99.0.0/16",
    ],
    "{networks: {network: grid, allow: {addresses: [§'fe80::/120', §'fe80:1::7', §'fe80::1', §'fe80::ff:fe00:7']}}}": [
        "workspaces.head.networks.allow.addresses[0]: fe80::/120 is more than one link-local address; "
        "write each that is needed",
        "workspaces.head.networks.allow.addresses[1]: fe80:1::7 is not in fe80::/64, where link-local addresses are; "
        "choose another",
        "workspaces.head.networks.allow.addresses[2]: fe80::1 is the gateways' own; choose another",
        "workspaces.head.networks.allow.addresses[3]: fe80::ff:fe00:7 could be made of some NIC's MAC; "
        "choose one without ff:fe in its midst",
    ],
    "{networks: {network: grid, allow: {addresses: [10.9.0.0/24, §10.9.0.7]}}}": [
        "workspaces.head.networks.allow.addresses[1]: 10.9.0.7 overlaps 10.9.0.0/24 of the same NIC; keep one"
    ],
    "{networks: {network: grid, mac: '52:54:00:00:00:01', allow: {macs: [§'52:54:00:00:00:01']}}}": [
        "workspaces.head.networks.allow.macs[0]: 52:54:00:00:00:01 is a NIC's own on grid in line 5; "
        "leave it out, or choose another"
    ],
    "{networks: {network: grid, allow: {macs: [§'02:70:67:00:00:01', §'01:00:5e:00:00:01']}}}": [
        "workspaces.head.networks.allow.macs[0]: 02:70:67:00:00:01 can't be allowed: "
        "it is multicast, zero or the gateways' own; leave it out",
        "workspaces.head.networks.allow.macs[1]: 01:00:5e:00:00:01 can't be allowed: "
        "it is multicast, zero or the gateways' own; leave it out",
    ],
    "{scale: 2, networks: {network: grid, allow: {macs: §'52:54:00:00:01:07'}}}": [
        "workspaces.head.networks.allow.macs: 52:54:00:00:01:07 would be allowed at each instance; "
        "one that moves from NIC to NIC has to be a virtual router's, 00:00:5e:00:01:… or 00:00:5e:00:02:…"
    ],
    "{networks: {network: grid, allow: {addresses: [10.0.0.9, 'fd09::/64'], route: §true}}}": [
        "workspaces.head.networks.allow.route: there is no IPv4 prefix outside of the network's subnets to lead to; "
        "leave it out"
    ],
    "{scale: 2, networks: {network: grid, allow: {addresses: 10.9.0.0/24, route: §true}}}": [
        "workspaces.head.networks.allow.route: each instance would lead to the same prefixes; "
        "write a workspace for the one that does"
    ],
    "{networks: {network: grid, allow: {§address: 10.0.0.9}}}": [
        "workspaces.head.networks.allow.address: unknown key 'address'; did you mean addresses?"
    ],
    "{networks: {network: grid, §bandwidth: {min: 1}}}": [
        "workspaces.head.networks.bandwidth: bandwidth is not built yet; "
        "leave it out (built: network, labels, addresses, address, mac, aliases, allow, dhcp, default_route)"
    ],
    "{networks: grid, §depends_on: [kvm]}": [
        "workspaces.head.depends_on: depends_on is not built yet; leave it out (built: networks, scale, labels, "
        "aliases, host, driver, requires, placement, cpus, memory, image, disks, arch, machine, "
        "cloud_init, grace, dhcp, boot)"
    ],
    "{networks: grid, requires: [kvm, §'k m', §'gpu in a', §'-x']}": [
        "workspaces.head.requires[1]: 'k m' is no selector: read 'm' after 'k'; "
        "allowed: a=b, a!=b, a in (x,y), a notin (x,y), has(a), !has(a), joined by commas, or * alone",
        "workspaces.head.requires[2]: 'gpu in a' is no selector: read 'a' where '(' should be; "
        "allowed: a=b, a!=b, a in (x,y), a notin (x,y), has(a), !has(a), joined by commas, or * alone",
        "workspaces.head.requires[3]: '-x' can't be what a host has; write a word, as kvm, or a selector, as gpu=a100",
    ],
    "{networks: grid, placement: {strategy: §spred, §afinity: a=b}}": [
        "workspaces.head.placement.strategy: unknown strategy 'spred'; did you mean spread?",
        "workspaces.head.placement.afinity: unknown key 'afinity'; did you mean affinity?",
    ],
    "{networks: grid, placement: {affinity: §db, prefer: {anti_affinity: §'a='}}}": [
        "workspaces.head.placement.affinity: 'db' is no selector over labels of workspaces; write one, as app=db",
        "workspaces.head.placement.prefer.anti_affinity: 'a=' is no selector: read nothing where a label's "
        "value should be; allowed: a=b, a!=b, a in (x,y), a notin (x,y), has(a), !has(a), joined by commas, or * alone",
    ],
    "{networks: grid, labels: {a: b}, placement: {affinity: §a=c, prefer: {affinity: a=b, anti_affinity: §has(z)}}}": [
        "workspaces.head.placement.affinity: a=c selects no workspace of this playground by its labels; give one such "
        "a label, or leave it out",
        "workspaces.head.placement.prefer.anti_affinity: has(z) selects no workspace of this playground by its labels; "
        "give one such a label, or leave it out",
    ],
    "{networks: grid, grace: §2h}": [
        "workspaces.head.grace: 7200 s is out of range; a workspace has from 0 s to 3600 s"
    ],
    "{networks: grid, grace: §true}": [
        "workspaces.head.grace: read the truth value true; write seconds, or a number with s, m or h, as 30s"
    ],
    "{networks: grid, driver: libvirt, disks: [§{base: /a, format: raw}]}": [
        "workspaces.head.disks[0]: a copy on write is qcow2; leave format out",
    ],
    "{networks: grid, driver: libvirt, disks: [{size: 1GiB, format: §vdi}]}": [
        "workspaces.head.disks[0].format: unknown format 'vdi'; allowed: qcow2, raw",
    ],
    "{networks: grid, driver: libvirt, image: /a, machine: {xml: §'<interface type=\"user\"/>'}}": [
        "workspaces.head.machine.xml: <interface> is not for XML: a NIC is one of networks"
    ],
    "{networks: grid, driver: libvirt, image: /a, machine: {xml: §§'<domain type=\"xen\"><name>x</name></domain>'}}": [
        "workspaces.head.machine.xml: <domain type=…>: leave its attributes out; machine.type says what runs it",
        "workspaces.head.machine.xml: <name> is not for XML: the workspace's name says it",
    ],
    "{networks: grid, driver: libvirt, image: /a, "
    "machine: {xml: §§<domain><vcpu/><devices><interface/></devices></domain>}}": [
        "workspaces.head.machine.xml: <vcpu> is not for XML: write cpus",
        "workspaces.head.machine.xml: <interface> is not for XML: a NIC is one of networks",
    ],
    "{networks: grid, §cloud_init: {}}": [
        "workspaces.head.cloud_init: cloud_init is for virtual machines; write driver: libvirt, or leave it out"
    ],
    "{networks: grid, driver: libvirt, image: /a, cloud_init: {user_data: §'packages: [nginx]'}}": [
        "workspaces.head.cloud_init.user_data: cloud-init tells by the first line what this is; begin with one of "
        "#cloud-config, #!, #include, #cloud-boothook, #part-handler, ## template:, MIME-Version:"
    ],
    "{networks: grid, driver: libvirt, image: /a, cloud_init: {user_data: §'#!/bin/sh', user_data_file: §a.txt}}": [
        "workspaces.head.cloud_init.user_data: user_data and user_data_file say the same thing: write one of them",
        "workspaces.head.cloud_init.user_data_file: 'a.txt' is no absolute path; write where it lies on the host, as "
        "/srv/images/debian.qcow2",
    ],
    "{networks: grid, driver: libvirt, image: /a, cloud_init: {user_data: '#cloud-config', network: §ask}}": [
        "workspaces.head.cloud_init.network: unknown way to addresses 'ask'; allowed: dhcp, static"
    ],
    "{networks: grid, §image: /srv/debian.qcow2}": [
        "workspaces.head.image: image is for virtual machines; write driver: libvirt, or leave it out"
    ],
    "{networks: grid, driver: libvirt, image: §debian.qcow2}": [
        "workspaces.head.image: 'debian.qcow2' is no absolute path; write where it lies on the host, as "
        "/srv/images/debian.qcow2"
    ],
    "{networks: grid, driver: libvirt, machine: {kernel: /boot/k, type: §hvm}}": [
        "workspaces.head.machine.type: 'hvm' is no type of machine; write kvm, qemu, lxc or xen, or leave it out"
    ],
    "{networks: grid, driver: libvirt, machine: {kernel: /boot/k, type: §esx}}": [
        "workspaces.head.machine.type: 'esx' is no type of machine: its NICs end in ESX's own switch, where no agent "
        "can guard them; write kvm, qemu, lxc or xen, or leave it out"
    ],
    "{networks: grid, driver: libvirt, §image: /srv/a, machine: {type: lxc, §kernel: /boot/k}}": [
        "workspaces.head.image: not for machine.type lxc: a container has no disks: its root is a directory, the path "
        "of the one entry of disks; leave it out",
        "workspaces.head.machine.kernel: not for machine.type lxc: a container runs on its host's kernel; leave it out",
    ],
    "{networks: grid, driver: libvirt, disks: [{path: /a}, §{size: 1GiB}], machine: {type: lxc}}": [
        "workspaces.head.disks[1]: not for machine.type lxc: write one disk, with only the path of its root"
    ],
    "{networks: grid, driver: libvirt, image: /a, machine: {type: xen, §model: q35, §cpu: qemu64}}": [
        "workspaces.head.machine.model: 'q35' is no machine type of xen; write xenfv or xenpv or xenpvh",
        "workspaces.head.machine.cpu: not for machine.type xen: libvirt passes the host's processor on to Xen's "
        "guests; leave it out",
    ],
    "{networks: grid, driver: libvirt, §machine: {initrd: /boot/i}, image: /srv/debian.qcow2}": [
        "workspaces.head.machine: initrd and cmdline go with a kernel; write it too, or leave them out"
    ],
    "{networks: grid, driver: libvirt, image: /srv/a.qcow2, machine: {xml: §<rng>}}": [
        "workspaces.head.machine.xml: this is no XML: mismatched tag: line 1, column 7"
    ],
    "{networks: grid, driver: libvirt, disks: [§{path: /srv/a.qcow2, base: /srv/b.qcow2}]}": [
        "workspaces.head.disks[0]: path is an image that is there; base and size are of one that is made: write either"
    ],
    "{networks: grid, driver: libvirt, scale: 2, disks: [§{path: /srv/a.qcow2}]}": [
        "workspaces.head.disks[0]: /srv/a.qcow2 would be written by all instances; write base, and each has a copy of "
        "its own"
    ],
    "{networks: grid, driver: §netsn}": ["workspaces.head.driver: unknown driver 'netsn'; did you mean netns?"],
    "{networks: grid, host: §'room=='}": [
        "workspaces.head.host: 'room==' is no selector: read '=' where a label's value should be; "
        "allowed: a=b, a!=b, a in (x,y), a notin (x,y), has(a), !has(a), joined by commas, or * alone"
    ],
    "{networks: grid, host: §Node_1}": [
        "workspaces.head.host: 'Node_1' can't be a DNS label; "
        "write lower-case letters, digits and inner hyphens, as 'node-1'"
    ],
    "{networks: grid, cpus: §0}": ["workspaces.head.cpus: read the number 0; it has to be greater than 0"],
    "{networks: grid, cpus: §.nan}": ["workspaces.head.cpus: read the number nan; it has to be a finite number"],
    "{networks: grid, memory: §512}": [
        "workspaces.head.memory: read the number 512; write a size with its unit MiB, GiB or TiB, as 512MiB"
    ],
    "{networks: grid, memory: §0.3MiB}": [
        "workspaces.head.memory: '0.3MiB' is no whole number of MiB; write at least 1MiB"
    ],
    "{networks: grid, labels: {role: §5}}": ['workspaces.head.labels.role: read the number 5; allowed: a text, as "5"'],
    "{networks: grid, labels: {§workspace: x}}": [
        "workspaces.head.labels.workspace: the label workspace is built in; choose another name"
    ],
    "{networks: grid, labels: {§a b: x}}": [
        "workspaces.head.labels['a b']: 'a b' is no label; write letters, digits and inner -_./, at most 63"
    ],
    "{networks: grid, labels: {a: §'x y'}}": [
        "workspaces.head.labels.a: 'x y' is no label's value; write letters, digits and inner -_./"
    ],
}


@pytest.mark.parametrize("body", WORKSPACES)
def test_a_workspace_is_refused(body: str) -> None:
    text, places = marked(with_workspace(body))
    assert refusals(text) == [f"{place}: {line}" for place, line in zip(places, WORKSPACES[body], strict=True)]


PAIRS = {
    "[10.0.0.9], role: one": "[§10.0.0.9], role: two",
    "[10.0.0.8/30], role: one": "[§10.0.0.8/31], role: one",
    "[10.9.0.0/24], role: one": "[§10.1.0.9], role: one",
}
SAID = {
    "[§10.0.0.9], role: two": (
        "10.0.0.9 is allowed at workspaces.a.networks[0].allow.addresses[0] in line 6 too, under other labels; "
        "give workspaces that share an address the same ones: it has one identity"
    ),
    "[§10.0.0.8/31], role: one": (
        "10.0.0.8/31 overlaps 10.0.0.8/30, workspaces.a.networks[0].allow.addresses[0] in line 6; "
        "write the same at both"
    ),
    "[§10.1.0.9], role: one": (
        "10.1.0.9 reaches into 10.1.0.0/24 of blue; allow addresses of grid, or some outside of all subnets"
    ),
}


def two(one: str, other: str) -> str:
    """A file with two NICs that allow something: `[ADDRESSES], role: LABEL`."""
    networks = "  grid: {subnets: [10.0.0.0/24, 'fd00::/64']}\n  blue: {subnets: [10.1.0.0/24]}\n"
    lines = []
    for name, said in (("a", one), ("b", other)):
        blocks, _, role = said.partition(", role: ")
        lines.append(
            f"  {name}: {{labels: {{r: {role}}}, networks: [{{network: grid, allow: {{addresses: {blocks}}}}}]}}\n"
        )
    return f"name: lab\nnetworks:\n{networks}workspaces:\n{''.join(lines)}"


@pytest.mark.parametrize("one", PAIRS)
def test_addresses_are_shared_by_equals_only(one: str) -> None:
    text, [place] = marked(two(one, PAIRS[one]))
    assert refusals(text) == [f"{place}: workspaces.b.networks[0].allow.addresses[0]: {SAID[PAIRS[one]]}"]


def test_a_pair_may_share_addresses() -> None:
    assert refusals(two("[10.0.0.9, 'fd00::9'], role: one", "[10.0.0.9, 'fd00::9'], role: one")) == []


def two_with(mac: str) -> tuple[str, list[str]]:
    """Two NICs that are allowed a MAC, the second one's marked."""
    return marked(
        two("[], role: one", "[], role: other")
        .replace("addresses: []", f"macs: ['{mac}']", 1)
        .replace("addresses: []", f"macs: [§'{mac}']", 1)
    )


def test_a_mac_at_two_nics_is_a_virtual_routers() -> None:
    text, [place] = two_with("52:54:00:00:01:07")
    assert refusals(text) == [
        f"{place}: workspaces.b.networks[0].allow.macs[0]: 52:54:00:00:01:07 is allowed in line 6 too; one that "
        "moves from NIC to NIC has to be a virtual router's, 00:00:5e:00:01:… or 00:00:5e:00:02:…"
    ]
    for mac in ("00:00:5e:00:01:07", "00:00:5e:00:02:ff"):
        text, _ = two_with(mac)
        assert refusals(text) == []


def test_names_are_dns_labels_with_their_scale() -> None:
    long = "w" * 62
    text = f"""\
        name: Lab
        networks:
          my_net: {{subnets: 10.0.0.0/24}}
        workspaces:
          -x: {{networks: my_net}}
          {long}: {{networks: my_net, scale: 1}}
        """
    assert refusals(text) == [
        "1:7: name: 'Lab' can't be a DNS label; write lower-case letters, digits and inner hyphens, as 'lab'",
        "3:3: networks.my_net: 'my_net' can't be a DNS label; "
        "write lower-case letters, digits and inner hyphens, as 'my-net'",
        "5:3: workspaces.-x: '-x' can't be a DNS label; write lower-case letters, digits and inner hyphens, as 'x'",
        f"6:3: workspaces.{long}: '{long}-0' has 64 characters; a name may have 63, as a DNS label",
    ]


def test_a_workspace_may_not_have_the_name_of_a_scaled_one() -> None:
    text = """\
        name: lab
        networks: {grid: {subnets: 10.0.0.0/24}}
        workspaces:
          worker: {networks: grid, scale: 2}
          worker-1: {networks: grid}
          worker-2: {networks: grid}
        """
    assert refusals(text) == [
        "5:3: workspaces.worker-1: a workspace named worker-1 comes from workspaces.worker too; rename one"
    ]


def test_subnets_of_two_networks_may_not_overlap() -> None:
    text = """\
        name: lab
        networks:
          dmz: {subnets: [10.0.0.0/16]}
          v6: {subnets: ["fd00::/64"]}
          grid:
            subnets:
            - 10.0.0.0/24
            - fd00::/64
        """
    assert refusals(text) == [
        "7:7: networks.grid.subnets[0]: 10.0.0.0/24 overlaps networks.dmz.subnets[0] 10.0.0.0/16; "
        "choose a disjoint prefix",
        "8:7: networks.grid.subnets[1]: fd00::/64 overlaps networks.v6.subnets[0] fd00::/64; choose a disjoint prefix",
    ]


def test_fixed_addresses_and_macs_are_used_once_a_network() -> None:
    text = """\
        name: lab
        networks: {grid: {subnets: 10.0.0.0/24}, other: {subnets: 10.1.0.0/24}}
        workspaces:
          a: {networks: [{network: grid, address: 10.0.0.9, mac: "52:54:00:00:00:01"}]}
          b: {networks: [{network: grid, address: 10.0.0.9, mac: "52-54-00-00-00-01"}]}
          c: {networks: [{network: other, mac: "52:54:00:00:00:01"}]}
        """
    assert refusals(text) == [
        "5:43: workspaces.b.networks[0].address: 10.0.0.9 is in use twice, "
        "first at workspaces.a.networks[0].address in line 4; choose another",
        "5:58: workspaces.b.networks[0].mac: 52:54:00:00:00:01 is in use twice on grid, first in line 4; "
        "choose another",
    ]


def test_what_is_designed_and_not_built_is_refused_as_such() -> None:
    built = "(built: name, networks, workspaces, groups, policies, tests, include, gateways)"
    assert refusals(BASE + "links: []\ngateways: {wan: {kind: nat, networks: grid, snat: x}}\n") == [
        f"6:1: links: links is not built yet; leave it out {built}",
        "7:45: gateways.wan.snat: snat is not built yet; leave it out (built: kind, networks, host)",
    ]
    assert refusals(BASE + "groups: {}\npolicies: []\ntests:\ninclude:\ngateways:\n") == []


def test_many_errors_are_told_at_once_and_in_order() -> None:
    text = """\
        name: lab
        networks:
          grid: {subnets: [10.0.0.0/24], mtu: 1400}
          dmz: {subnets: [10.0.1.7/24]}
        workspaces:
          a: {networks: grid, driver: 5}
          b: {networks: [grid, dmz, wan]}
        polices: []
        """
    assert refusals(text) == [
        "3:34: networks.grid.mtu: mtu is not built yet; "
        "leave it out (built: subnets, pools, exclude, gateway, ipv6, dhcp, dns, boot)",
        "4:19: networks.dmz.subnets[0]: 10.0.1.7/24 has host bits set; write 10.0.1.0/24",
        '6:31: workspaces.a.driver: read the number 5; allowed: a text, as "5"',
        "7:29: workspaces.b.networks[2]: unknown network 'wan'; allowed: dmz, grid",
        "8:1: polices: unknown key 'polices'; did you mean policies?",
    ]


def test_a_file_without_a_name_is_still_checked() -> None:
    assert refusals("networks: {grid: {subnets: 10.0.0.1/24}}\n") == [
        "1:1: name is missing; it is needed here",
        "1:28: networks.grid.subnets: 10.0.0.1/24 has host bits set; write 10.0.0.0/24",
    ]
    assert refusals("- a\n") == [
        "1:1: read a list; a file is a mapping with the keys "
        "name, networks, workspaces, groups, policies, tests, include, gateways"
    ]


def test_keys_of_a_site_are_sent_there() -> None:
    assert refusals("name: lab\nhosts: {}\n") == [
        "2:1: hosts: hosts belongs into a site's file, which `playground controller --site-file` reads"
    ]


def test_a_network_is_looked_for_among_networks_even_where_there_are_none() -> None:
    assert refusals("name: lab\nworkspaces:\n  a: {networks: [grid]}\n") == [
        "3:18: workspaces.a.networks[0]: unknown network 'grid'; the file has no networks"
    ]


def test_too_many_workspaces_are_refused_before_they_are_made() -> None:
    text = with_workspace("{networks: grid, scale: 10000}").replace("head:", "head: &a") + "  b: *a\n  c: *a\n"
    assert refusals(text) == ["4:1: workspaces: 30000 workspaces, scaled ones counted in full; 20000 are allowed"]


@pytest.mark.parametrize(
    ("addresses", "ipv6", "refused"),
    [
        ("[fd00::5]", "slaac",
         "fd00::5: grid has ipv6: slaac, by which each workspace makes its address of its MAC; write ipv6: dhcp or "
         "both there, or fix the MAC here"),
        ("[fd00::5, fd00::6]", "dhcp",
         "fd00::6 is a second IPv6 address on fd00::/64; more than one is not built yet: keep one"),
        ("[fd00::1]", "both", "fd00::1 is the gateway of fd00::/64; choose another, as fd00::2"),
        ("['fd00::']", "both", "fd00:: is the network address of fd00::/64; choose another, as fd00::2"),
        ("['fd00::5054:ff:fe12:3456']", "both",
         "fd00::5054:ff:fe12:3456 is made of a MAC (ff:fe in the middle); fix that MAC, or choose another address"),
        ("[fd01::5]", "both", "fd01::5 lies in no subnet of grid: fd00::/64"),
        ("[fd00::5]", "both", None),
    ],
)  # fmt: skip
def test_a_fixed_ipv6_address_is_one_that_dhcpv6_can_give(addresses: str, ipv6: str, refused: str | None) -> None:
    text = f"""
        name: lab
        networks: {{grid: {{subnets: "fd00::/64", ipv6: {ipv6}}}}}
        workspaces: {{a: {{driver: external, networks: [{{network: grid, addresses: {addresses}}}]}}}}
        """
    found = refusals(text)
    assert [one.partition(": ")[2].partition(": ")[2] for one in found] == ([] if refused is None else [refused])


def test_an_ipv6_address_belongs_to_one_nic_alone() -> None:
    text = """
        name: lab
        networks: {grid: {subnets: "fd00::/64", ipv6: both}}
        workspaces:
          a: {networks: {network: grid, address: "fd00::5"}}
          b: {networks: {network: grid, address: "fd00::5"}}
          c: {networks: {network: grid, allow: {addresses: "fd00::5"}}}
        """
    assert refusals(text) == [
        "6:42: workspaces.b.networks.address: fd00::5 is in use twice, first at workspaces.a.networks.address in line "
        "5; choose another",
        "7:52: workspaces.c.networks.allow.addresses: fd00::5 is a NIC's own address in line 5; leave it out, or "
        "choose another",
    ]
