"""What `dhcp` and `boot` mean: which place counts, and that it reaches the records."""

from __future__ import annotations

import ipaddress
from textwrap import dedent

from dhcp.scope import Boot
from playground.spec import load_playground
from playground.spec.delivery import Delivery

FILE = """\
    name: lab
    networks:
      grid:
        subnets: [10.0.0.0/24]
        dhcp: {lease_time: 2h, options: {ntp-servers: 10.0.0.5, root-path: /a, x-note: mine, nis-domain: null}}
        boot: {server: 10.0.0.9, file: {bios: a.kpxe, efi-x64: b.efi, other: c}, ipxe: "http://10.0.0.9/i"}
    workspaces:
      plain: {networks: grid}
      head:
        networks: [{network: grid, dhcp: {lease_time: 5m, options: {17: /c}}}]
        dhcp: {lease_time: 1h, options: {root-path: /b, log-servers: 10.0.0.7}}
        boot: {file: "http://10.0.0.9/x.efi"}
    """
NETWORK = Delivery(
    7200,
    ((17, b"/a"), (42, b"\x0a\0\0\5")),
    Boot("10.0.0.9", ((0, "a.kpxe"), (7, "b.efi"), (9, "b.efi"), (-1, "c")), "http://10.0.0.9/i"),
)


def test_a_network_says_what_stands_there() -> None:
    spec = load_playground(dedent(FILE), "lab.yaml")
    assert spec.networks["grid"].delivery == NETWORK
    assert spec.workspaces["plain"].nics[0].delivery == Delivery()


def test_dhcpv6_has_options_and_a_boot_server_of_its_own() -> None:
    text = """\
        name: lab
        networks:
          grid:
            subnets: ["fd00::/64"]
            dhcp: {options6: {ntp-servers: ["fd00::5", "ff05::101", a.b], 250: {u16: 7}, x-note: mine}}
            boot: {server6: "fd00::9", file: a.efi, parameters: [a=1, b]}
        workspaces: {w: {networks: [{network: grid, dhcp: {options6: {250: {hex: ff}}}}]}}
        """
    spec = load_playground(dedent(text), "lab.yaml")
    five, all_of_site = ipaddress.IPv6Address("fd00::5").packed, ipaddress.IPv6Address("ff05::101").packed
    times = b"\0\1\0\x10" + five + b"\0\2\0\x10" + all_of_site + b"\0\3\0\5\1a\1b\0"
    found = spec.networks["grid"].delivery
    assert found.options6 == ((56, times), (250, b"\0\7"))
    assert found.boot == Boot("", ((-1, "a.efi"),), "", "fd00::9", ("a=1", "b"))
    nic = spec.workspaces["w"].nics[0].delivery
    assert nic.within(found).options6 == ((56, times), (250, b"\xff"))


def test_what_is_nearer_counts_and_a_boot_counts_whole() -> None:
    nic = load_playground(dedent(FILE), "lab.yaml").workspaces["head"].nics[0]
    assert nic.delivery == Delivery(
        300, ((7, b"\x0a\0\0\7"), (17, b"/c")), Boot("", ((-1, "http://10.0.0.9/x.efi"),), "")
    )
    counts = nic.delivery.within(NETWORK)
    assert counts.options == ((7, b"\x0a\0\0\7"), (17, b"/c"), (42, b"\x0a\0\0\5"))
    assert (counts.lease_s, counts.boot) == (300, nic.delivery.boot)
