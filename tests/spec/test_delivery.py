"""What `dhcp` and `boot` mean: which place counts, and that it reaches the records."""

from __future__ import annotations

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


def test_what_is_nearer_counts_and_a_boot_counts_whole() -> None:
    nic = load_playground(dedent(FILE), "lab.yaml").workspaces["head"].nics[0]
    assert nic.delivery == Delivery(
        300, ((7, b"\x0a\0\0\7"), (17, b"/c")), Boot("", ((-1, "http://10.0.0.9/x.efi"),), "")
    )
    counts = nic.delivery.within(NETWORK)
    assert counts.options == ((7, b"\x0a\0\0\7"), (17, b"/c"), (42, b"\x0a\0\0\5"))
    assert (counts.lease_s, counts.boot) == (300, nic.delivery.boot)
