"""Real DHCPv6 clients at real ports: dhclient through boot, confirmation and release, dhcpcd by what routers say."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from responder_lab import ORIGIN, Agent, Guest, Host, eui64, needs, until
from test_responder_clients import a_hook, is_root_of_all_users, noted

from dhcp.scope import PortScope, Scope6, ScopeRa
from overlay.state import LEG_LINK_LOCAL
from playground.responder.protocol import port_key

pytestmark = pytest.mark.system

SERVER6 = "fd00:20::1"


def a_scope(guest: Guest, **changes: Any) -> PortScope:
    """IPv6 alone, all of it by DHCPv6."""
    v6 = Scope6(
        addresses=(eui64(guest.mac),),
        source=LEG_LINK_LOCAL,
        dns=(SERVER6,),
        hostname="worker",
        domain=f"grid.{ORIGIN}",
        search=(f"grid.{ORIGIN}", ORIGIN),
        ntp=("fd00:20::9",),
    )
    ra = ScopeRa(LEG_LINK_LOCAL, prefixes=(("fd00:20::/64", False),), mtu=1400, managed=True, other=True)
    whole = guest.scope(with_v4=False)
    return replace(whole, ra=ra, v6=replace(v6, **changes))


def dhclient(guest: Guest, folder: Path, *more: str) -> subprocess.Popen[bytes]:
    config = folder / "dhclient.conf"
    config.write_text(
        "option dhcp6.ntp code 56 = string;\n"
        "request dhcp6.name-servers, dhcp6.domain-search, dhcp6.ntp, dhcp6.fqdn;\n"
        'send fqdn.fqdn "mine";\n'
    )
    argv = ["dhclient", "-6", "-1", "-d", "-sf", str(a_hook(folder)), "-cf", str(config)]
    argv += ["-lf", str(folder / "leases"), "-pf", str(folder / "pid"), *more, "eth0"]
    until(lambda: guest.run("ip", "-6", "address", "show", "dev", "eth0", "scope", "link", "-tentative"))
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(guest.argv(*argv), stdout=log, stderr=log)


def test_dhclient_gets_all_and_gives_it_back(
    agent: Agent, host: Host, a_guest: Callable[[], Guest], tmp_path: Path
) -> None:
    needs("dhclient")
    guest = a_guest()
    agent.tell({port_key(guest.port): a_scope(guest)}, whole=True)
    guest.up()
    with dhclient(guest, tmp_path) as client:
        try:
            until((tmp_path / "BOUND6.env").exists, 10, "dhclient was not bound")
        finally:
            client.kill()
    got = noted(tmp_path, "BOUND6")
    assert got["new_ip6_address"] == eui64(guest.mac)
    assert got["new_dhcp6_name_servers"] == SERVER6
    assert got["new_dhcp6_domain_search"].replace(". ", " ").rstrip(".") == f"grid.{ORIGIN} {ORIGIN}"
    assert got["new_max_life"] == "3600"
    assert got["new_fqdn_fqdn"] == f"worker.grid.{ORIGIN}"
    assert got["new_dhcp6_ntp"] == "0:1:0:10:fd:0:0:20:0:0:0:0:0:0:0:0:0:0:0:9"
    agent.hear(lambda: agent.kinds(guest.port) == ["offered", "bound"])
    guest.ip(f"address add {eui64(guest.mac)}/64 dev eth0")
    with dhclient(guest, tmp_path, "-r") as client:
        assert client.wait(10) == 0
    agent.hear(lambda: agent.kinds(guest.port)[-1:] == ["released"])


def test_dhclient_comes_back_with_its_address_and_is_told_when_it_is_another(
    agent: Agent, host: Host, a_guest: Callable[[], Guest], tmp_path: Path
) -> None:
    needs("dhclient")
    guest = a_guest()
    agent.tell({port_key(guest.port): a_scope(guest)}, whole=True)
    guest.up()
    with dhclient(guest, tmp_path) as client:
        try:
            until((tmp_path / "BOUND6.env").exists, 10, "dhclient was not bound")
        finally:
            client.kill()
    agent.tell({port_key(guest.port): a_scope(guest, addresses=("fd00:20::77",))})
    (tmp_path / "BOUND6.env").unlink()
    with dhclient(guest, tmp_path) as client:
        try:
            until((tmp_path / "BOUND6.env").exists, 10, "dhclient did not take another address")
        finally:
            client.kill()
    assert noted(tmp_path, "BOUND6")["new_ip6_address"] == "fd00:20::77"
    [told] = agent.ask(guest.port)
    assert "REPLY_NOT_ON_LINK" in told["counts6"]
    assert {"SOLICIT", "REQUEST", "CONFIRM"} <= {exchange["what"] for exchange in told["exchanges"]}


@pytest.mark.long
def test_dhcpcd_is_led_to_dhcpv6_by_the_advertised_flags(
    agent: Agent, host: Host, a_guest: Callable[[], Guest], tmp_path: Path
) -> None:
    needs("dhcpcd")
    if os.geteuid() != 0 or not is_root_of_all_users():
        pytest.skip("dhcpcd gives up root for a user of its own, and only one user is mapped here")
    guest = a_guest()
    agent.tell({port_key(guest.port): a_scope(guest)}, whole=True)
    guest.up()
    hook = a_hook(tmp_path)
    config = tmp_path / "dhcpcd.conf"
    wanted = "dhcp6_name_servers, dhcp6_domain_search, dhcp6_ntp_servers"
    config.write_text(f"option {wanted}\noption rapid_commit\nipv6only\nnodelay\nslaac hwaddr\nduid\n")
    client = f"dhcpcd -B -1 -t 8 -f {config} -c {hook} eth0"
    guest.run(
        *("unshare", "--mount", "sh", "-c"),
        f"mount -t tmpfs none /run && mkdir -p /var/lib/dhcpcd && mount -t tmpfs none /var/lib/dhcpcd && {client}",
    )
    got = noted(tmp_path, "BOUND6")
    assert got["new_dhcp6_ia_na1_ia_addr1"] == eui64(guest.mac)
    assert got["new_dhcp6_name_servers"] == SERVER6
    assert got["new_dhcp6_domain_search"] == f"grid.{ORIGIN} {ORIGIN}"
    agent.hear(lambda: "bound" in agent.kinds(guest.port))
