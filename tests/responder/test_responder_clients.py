"""Real clients at real ports: what udhcpc, dhclient, dhcpcd, the kernel and dig get."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from responder_lab import ORIGIN, SERVER, Agent, Guest, Host, answers_for, eui64, needs, until

from playground.responder.protocol import Name, name_key

pytestmark = pytest.mark.system


def a_hook(folder: Path) -> Path:
    """A client's script that notes its environment, a file a reason."""
    hook = folder / "hook"
    note = f"{folder}/${{reason:-$1}}"
    hook.write_text(f'#!/bin/sh\nenv >"{note}.part" && mv "{note}.part" "{note}.env"\nexit 0\n')
    hook.chmod(0o755)
    return hook


def noted(folder: Path, reason: str) -> dict[str, str]:
    text = (folder / f"{reason}.env").read_text()
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def udhcpc(guest: Guest, folder: Path) -> dict[str, str]:
    argv = ["busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-s", str(a_hook(folder))]
    guest.run(*argv, "-O", "search", "-O", "staticroutes")
    return noted(folder, "bound")


def test_udhcpc_gets_all(agent: Agent, host: Host, a_guest: Callable[[], Guest], tmp_path: Path) -> None:
    needs("busybox")
    guest = a_guest()
    agent.tell(answers_for(guest, host), whole=True)
    guest.up()
    got = udhcpc(guest, tmp_path)
    assert {name: got.get(name) for name in ("ip", "mask", "mtu", "dns", "domain", "search", "lease", "router")} == {
        "ip": guest.address,
        "mask": "24",
        "mtu": "1400",
        "dns": SERVER,
        "domain": f"grid.{ORIGIN}",
        "search": f"grid.{ORIGIN} {ORIGIN}",
        "lease": "3600",
        "router": None,
    }
    assert got["staticroutes"] == f"169.254.169.254/32 {SERVER}"
    agent.hear(lambda: agent.kinds(guest.port) == ["offered", "bound"])


def test_dhclient_gets_all(agent: Agent, host: Host, a_guest: Callable[[], Guest], tmp_path: Path) -> None:
    needs("dhclient")
    guest = a_guest()
    agent.tell(answers_for(guest, host), whole=True)
    guest.up()
    config = tmp_path / "dhclient.conf"
    config.write_text(
        "option routes code 121 = array of unsigned integer 8;\n"
        "request subnet-mask, domain-name-servers, domain-name, domain-search, host-name, interface-mtu, routes;\n"
    )
    argv = ["dhclient", "-4", "-1", "-d", "-sf", str(a_hook(tmp_path)), "-cf", str(config)]
    argv += ["-lf", str(tmp_path / "leases"), "-pf", str(tmp_path / "pid"), "eth0"]
    with subprocess.Popen(guest.argv(*argv), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        try:
            until((tmp_path / "BOUND.env").exists, 10, "dhclient was not bound")
        finally:
            client.terminate()
    got = noted(tmp_path, "BOUND")
    assert got["new_ip_address"] == guest.address
    assert got["new_subnet_mask"] == "255.255.255.0"
    assert got["new_interface_mtu"] == "1400"
    assert got["new_domain_name_servers"] == SERVER
    assert got["new_domain_name"] == f"grid.{ORIGIN}"
    assert got["new_domain_search"].replace(". ", " ").rstrip(".") == f"grid.{ORIGIN} {ORIGIN}"
    assert got["new_routes"] == "32 169 254 169 254 10 20 0 1"
    assert "new_routers" not in got
    agent.hear(lambda: agent.kinds(guest.port) == ["offered", "bound"])


def is_root_of_all_users() -> bool:
    """Whether more than one user id exists in this user namespace."""
    return sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines()) > 1


@pytest.mark.long
def test_dhcpcd_gets_all_in_one_exchange(
    agent: Agent, host: Host, a_guest: Callable[[], Guest], tmp_path: Path
) -> None:
    needs("dhcpcd")
    if os.geteuid() != 0 or not is_root_of_all_users():
        pytest.skip("dhcpcd gives up root for a user of its own, and only one user is mapped here")
    guest = a_guest()
    agent.tell(answers_for(guest, host), whole=True)
    guest.up()
    hook = a_hook(tmp_path)
    config = tmp_path / "dhcpcd.conf"
    wanted = "domain_name_servers, domain_name, domain_search, host_name, interface_mtu, classless_static_routes"
    config.write_text(f"option {wanted}\noption rapid_commit\nipv4only\nnoarp\nnodelay\n")
    client = f"dhcpcd -B -1 -t 8 -f {config} -c {hook} eth0"
    guest.run(
        *("unshare", "--mount", "sh", "-c"),
        f"mount -t tmpfs none /run && mkdir -p /var/lib/dhcpcd && mount -t tmpfs none /var/lib/dhcpcd && {client}",
    )
    got = noted(tmp_path, "BOUND")
    assert got["new_ip_address"] == guest.address
    assert got["new_interface_mtu"] == "1400"
    assert got["new_domain_name_servers"] == SERVER
    assert got["new_domain_name"] == f"grid.{ORIGIN}"
    assert got["new_domain_search"] == f"grid.{ORIGIN} {ORIGIN}"
    assert got["new_classless_static_routes"] == f"169.254.169.254/32 {SERVER}"
    # RFC 4039: its DISCOVER was acknowledged, there was no offer.
    agent.hear(lambda: agent.kinds(guest.port) == ["bound"])


def addresses(guest: Guest) -> list[dict[str, object]]:
    shown = json.loads(guest.run("ip", "-j", "-6", "address", "show", "dev", "eth0", "scope", "global"))
    return [entry for link in shown for entry in link.get("addr_info", []) if "local" in entry]


def test_the_kernel_makes_its_address_of_our_prefix(agent: Agent, host: Host, a_guest: Callable[[], Guest]) -> None:
    guest = a_guest()
    agent.tell(answers_for(guest, host, with_ra=True), whole=True)
    guest.up()  # the advertisement at the port's start is lost: there was no carrier. The kernel solicits.
    found = until(lambda: addresses(guest), what="no address by autoconfiguration")
    assert [(entry["local"], entry["prefixlen"], entry["dynamic"]) for entry in found] == [(eui64(guest.mac), 64, True)]
    assert guest.run("cat", "/proc/sys/net/ipv6/conf/eth0/mtu").strip() == "1400"
    assert guest.run("ip", "-6", "route", "show", "default") == ""
    assert "fd00:20::/64 dev eth0" in guest.run("ip", "-6", "route")


def test_a_client_whose_solicitation_was_lost_is_advertised_to_again_at_once(
    agent: Agent, host: Host, a_guest: Callable[[], Guest]
) -> None:
    guest = a_guest()
    guest.run("sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/eth0/router_solicitations")
    agent.tell(answers_for(guest, host, with_ra=True), whole=True)
    guest.up()  # what was advertised before is lost: there was no carrier
    until(lambda: addresses(guest), seconds=3.0, what="no address though nobody solicits")


def dig(guest: Guest, *argv: str) -> str:
    return guest.run("dig", "+short", "+time=2", "+tries=1", *argv).strip()


def test_dig_finds_names_both_ways_over_both_transports_and_protocols(
    agent: Agent, host: Host, a_guest: Callable[[], Guest]
) -> None:
    needs("dig")
    guest = a_guest()
    agent.tell(answers_for(guest, host), whole=True)
    guest.up()
    guest.ip(f"address add {guest.address}/24 dev eth0", f"address add {eui64(guest.mac)}/64 dev eth0 nodad")
    name = f"worker-{guest.port[-1]}.grid.{ORIGIN}"
    for server in (SERVER, "fd00:20::1"):
        for transport in ("+notcp", "+tcp"):
            asked = [name, "A", name, "AAAA", "-x", guest.address, "-x", eui64(guest.mac)]
            got = dig(guest, f"@{server}", transport, *asked)
            assert got.splitlines() == [guest.address, eui64(guest.mac), f"{name}.", f"{name}."], (server, transport)
    assert "NXDOMAIN" in guest.run("dig", "+time=2", f"@{SERVER}", f"nobody.grid.{ORIGIN}")
    assert "REFUSED" in guest.run("dig", "+time=2", f"@{SERVER}", "example.org")
    [told] = agent.ask(guest.port)
    assert told["origin"] == ORIGIN
    assert [(one["name"], one["kind"], one["outcome"]) for one in told["unanswered"]] == [
        (f"nobody.grid.{ORIGIN}", "A", "NO_SUCH_NAME"),
        ("example.org", "A", "NOT_FORWARDED"),
    ]


def libc(guest: Guest, folder: Path, options: str, *argv: str) -> str:
    """What the C library finds, told of its server as a DHCP client tells it."""
    (folder / "resolv.conf").write_text(f"nameserver {SERVER}\nsearch grid.{ORIGIN} {ORIGIN}\noptions {options}\n")
    (folder / "nsswitch.conf").write_text("hosts: dns\n")
    names = ("resolv.conf", "nsswitch.conf")
    mounts = " && ".join(f"mount --bind {folder / name} /etc/{name}" for name in names)
    return guest.run("unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh", *argv, check=False)


@pytest.mark.parametrize("options", ["timeout:2", "timeout:2 edns0", "timeout:2 use-vc"])
def test_the_c_library_finds_names_both_ways(
    options: str, agent: Agent, host: Host, a_guest: Callable[[], Guest], tmp_path: Path
) -> None:
    guest = a_guest()
    many = {
        name_key("atlas", f"{number:012x}"): Name(
            workspace="many", network="grid", addresses=(f"10.20.0.{number}", f"fd00:20::1:{number:x}")
        )
        for number in range(100, 180)  # more than a datagram holds
    }
    agent.tell({**answers_for(guest, host), **many}, whole=True)
    guest.up()
    guest.ip(f"address add {guest.address}/24 dev eth0", f"address add {eui64(guest.mac)}/64 dev eth0 nodad")
    worker = f"worker-{guest.port[-1]}"
    found = libc(guest, tmp_path, options, "getent", "ahosts", worker)
    assert {line.split()[0] for line in found.splitlines()} == {guest.address, eui64(guest.mac)}
    for address in (guest.address, eui64(guest.mac)):
        assert f"{worker}.grid.{ORIGIN}" in libc(guest, tmp_path, options, "getent", "hosts", address)
    found = libc(guest, tmp_path, options, "getent", "ahosts", f"many.{ORIGIN}")
    assert len({line.split()[0] for line in found.splitlines()}) == 160
    assert libc(guest, tmp_path, options, "getent", "ahosts", "nobody") == ""
