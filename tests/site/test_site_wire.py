"""What crosses between hosts and what does not, how large a packet may be, and clients that are not ours."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6ND_RS
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN
from site_lab import CLIENT_PYTHON, Site, emulated

from tests.waiting import eventually

pytestmark = pytest.mark.system

ECHO = 8
DHCP_PORTS = {67, 68, 546, 547}

LAB = """\
name: lab
networks:
  grid: {subnets: [10.20.0.0/24, "fd00:20::/64"]}
workspaces:
  one: {networks: [grid], host: n1}
  two: {networks: [grid], host: n2}
  guest: {networks: [grid], host: n1, driver: external}
"""


@pytest.fixture(scope="module", params=["ipv4", pytest.param("ipv6", marks=pytest.mark.long)])
def underlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pair(underlay: str) -> Iterator[Site]:
    """Two hosts on either kind of underlay."""
    with emulated("wire", 2, underlay=underlay) as made:
        yield made


@pytest.fixture(scope="module")
def lab(pair: Site) -> Iterator[Site]:
    """Up, seen from the underlay meanwhile: `lab.crossed` has the frames."""
    with pair.capture(lambda *argv: pair.inside(argv, "n2")) as frames:
        answer = pair.client.put("playgrounds", {"file": "lab.yaml", "text": LAB})
        assert answer["name"] == "lab"
        eventually(
            lambda: all(
                row["state"] == "forwarding" for name, row in pair.ports("lab").items() if name != "guest.grid"
            ),
            what="ports forward",
        )
        eventually(lambda: bound(pair, "one") and bound(pair, "two"), what="addresses taken")
        for source, target in (("one", "two.grid"), ("two", "one.grid")):
            for version in (4, 6):
                address = pair.address("lab", target, version)
                pair.within("lab", source, "ping", "-c1", "-W2", address)
    pair.crossed = frames()  # type: ignore[attr-defined]
    yield pair
    pair.down("lab")


def bound(site: Site, workspace: str) -> bool:
    rows = [row for row in site.client.get("leases", {"playground": "lab"}) if row["workspace"] == workspace]
    held = json.loads(site.within("lab", workspace, "ip", "-json", "-6", "addr", "show", "eth0"))
    ready = [a for a in held[0]["addr_info"] if a["scope"] == "global" and not a.get("tentative")] if held else []
    return rows[0]["state"] == "bound" and bool(ready)


def test_address_delivery_and_resolution_never_cross_the_underlay(lab: Site) -> None:
    crossed = [frame[VXLAN].payload for frame in map(Ether, lab.crossed) if VXLAN in frame]  # type: ignore[attr-defined]
    assert any(ICMP in frame and frame[ICMP].type == ECHO for frame in crossed), "the capture saw nothing at all"
    for frame in crossed:
        assert not (UDP in frame and {frame[UDP].sport, frame[UDP].dport} & DHCP_PORTS), frame.summary()
        assert ICMPv6ND_RA not in frame and ICMPv6ND_RS not in frame, frame.summary()
        assert not (ARP in frame and frame[ARP].op == ARP.who_has), frame.summary()
    ours = {lab.address("lab", f"{name}.grid", 6) for name in ("one", "two")}
    assert not ours & {frame[ICMPv6ND_NS].tgt for frame in crossed if ICMPv6ND_NS in frame}


def send(site: Site, size: int, version: int) -> tuple[str, bool]:
    """One datagram of `size` bytes of IP packet from one to two with DF: what the sender heard, whether it arrived.

    A small one of the same flow follows, behind which nothing is on its way any more.
    """
    header, ip, discover, receive_errors = {4: (28, "IP", 10, 11), 6: (48, "IPV6", 23, 25)}[version]
    family = f"AF_INET{'6' if version == 6 else ''}"
    take = (
        f"import socket; s = socket.socket(socket.{family}, socket.SOCK_DGRAM)\n"
        "s.bind(('', 47997)); s.settimeout(10)\n"
        "print('ready', flush=True)\n"
        "print(len(s.recv(65536)), flush=True)\n"
    )
    # <linux/in.h>, <linux/in6.h>: MTU_DISCOVER; PROBE (3) sets DF and ignores what is known of the path; RECVERR
    give = (
        f"import socket, time; s = socket.socket(socket.{family}, socket.SOCK_DGRAM)\n"
        f"s.setsockopt(socket.IPPROTO_{ip}, {discover}, 3)\n"
        f"s.connect(('{site.address('lab', 'two.grid', version)}', 47997))\n"
        f"s.setsockopt(socket.IPPROTO_{ip}, {receive_errors}, 1)\n"
        "heard = ''\n"
        f"try: s.send(b'x' * {size - header}); time.sleep(0.3)\n"
        "except OSError as error: heard = error.strerror\n"
        "try: s.recvmsg(1, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT); heard = heard or 'too big'\n"
        "except BlockingIOError: pass\n"
        "except OSError as error: heard = heard or error.strerror\n"
        "s.send(b'after')\n"
        "print(heard)\n"
    )
    taking = subprocess.Popen(site.enter("lab", "two", *CLIENT_PYTHON, "-c", take), stdout=subprocess.PIPE, text=True)
    assert taking.stdout is not None and taking.stdout.readline() == "ready\n"
    heard = site.within("lab", "one", *CLIENT_PYTHON, "-c", give).strip()
    arrived = int(taking.communicate(timeout=20)[0])
    assert arrived in (size - header, len("after"))
    return heard, arrived == size - header


@pytest.mark.parametrize("version", [4, 6])
def test_the_largest_packet_arrives_and_a_larger_one_is_answered(lab: Site, underlay: str, version: int) -> None:
    mtu = json.loads(lab.within("lab", "one", "ip", "-json", "link", "show", "eth0"))[0]["mtu"]
    assert mtu == 1500 - (50 if underlay == "ipv4" else 70)
    assert send(lab, mtu, version) == ("", True)
    # the guest raises its own MTU: the kernel in between must say so, and lose nothing in silence
    lab.within("lab", "one", "ip", "link", "set", "eth0", "mtu", "1600")
    try:
        heard, arrived = send(lab, mtu + 1, version)
        assert not arrived and heard, "a packet too large vanished without an answer"
    finally:
        lab.within("lab", "one", "ip", "link", "set", "eth0", "mtu", str(mtu))
        lab.within("lab", "one", "ip", "route", "flush", "cache", check=False)


DHCLIENT_SCRIPT = """\
#!/bin/sh
case "$reason" in
BOUND|RENEW|REBIND) echo "$reason $new_ip_address $new_interface_mtu $new_domain_name_servers" > {out};;
esac
exit 0
"""


def foreign(site: Site) -> str:
    """A veth as somebody else brings it: `pg<port>` on the host n1, its other end in a namespace `vm` there."""
    device, mac = site.device("lab", "guest", "grid"), site.ports("lab")["guest.grid"]["mac"]
    site.on("n1", "ip", "netns", "add", "vm")
    peer = ("peer", "name", "vm0", "netns", "vm", "address", mac)
    site.on("n1", "ip", "link", "add", device, "type", "veth", *peer)  # adopted as soon as it is there
    site.on("n1", "ip", "-n", "vm", "link", "set", "lo", "up")
    site.on("n1", "ip", "-n", "vm", "link", "set", "vm0", "up")
    return device


def test_a_guest_that_somebody_else_runs_is_served_and_given_back(lab: Site, underlay: str) -> None:
    """dhclient, dhcpcd and dig, none of them ours, behind a device that is not ours either."""
    device = foreign(lab)
    vm = ("ip", "netns", "exec", "vm")
    try:
        eventually(lambda: lab.ports("lab")["guest.grid"]["state"] == "forwarding", what="the port forwards")
        address = lab.address("lab", "guest.grid")
        if shutil.which("dhclient"):
            out, script = lab.files / "said", lab.files / "dhclient-script"
            script.write_text(DHCLIENT_SCRIPT.format(out=out))
            script.chmod(0o755)
            (lab.files / "dhclient.conf").write_text("request interface-mtu, domain-name-servers, subnet-mask;\n")
            lab.on(
                "n1",
                *vm,
                *("timeout", "15", "dhclient", "-4", "-1", "-v", "-cf", str(lab.files / "dhclient.conf")),
                *("-sf", str(script), "-lf", str(lab.files / "leases"), "-pf", str(lab.files / "pid"), "vm0"),
            )
            mtu = str(1500 - (50 if underlay == "ipv4" else 70))
            assert out.read_text().split() == ["BOUND", address, mtu, "10.20.0.1"]
            lab.on("n1", "kill", (lab.files / "pid").read_text().strip())
        if shutil.which("dhcpcd"):
            out, config = lab.files / "dhcpcd-said", lab.files / "dhcpcd.conf"
            script = lab.files / "dhcpcd-script"
            script.write_text(DHCLIENT_SCRIPT.format(out=out))
            script.chmod(0o755)
            config.write_text("option interface_mtu, domain_name_servers\nipv4only\nnoarp\nnodelay\n")
            client = f"timeout 15 dhcpcd -B -1 -t 8 -f {config} -c {script} vm0"
            own = "mount -t tmpfs none /run && mkdir -p /var/lib/dhcpcd && mount -t tmpfs none /var/lib/dhcpcd"
            lab.on("n1", *vm, "unshare", "--mount", "sh", "-c", f"{own} && {client}", check=False)
            assert out.read_text().split()[:2] == ["BOUND", address]
        lab.on("n1", *vm, "ip", "addr", "replace", f"{address}/24", "dev", "vm0")
        assert " 0% packet loss" in lab.on("n1", *vm, "ping", "-c1", "-W2", lab.address("lab", "two.grid"))
        for how in ((), ("+tcp",)):
            for kind, version in (("A", 4), ("AAAA", 6)):
                asked = ("dig", "+short", "+tries=1", "+time=2", *how, "@10.20.0.1")
                wanted = lab.address("lab", "two.grid", version)
                assert lab.on("n1", *vm, *asked, "two.grid.lab.internal", kind).strip() == wanted
                assert lab.on("n1", *vm, *asked, "-x", wanted).strip() == "two.grid.lab.internal."
                assert lab.within("lab", "two", *asked, "-x", wanted).strip() == "two.grid.lab.internal."
        lab.up(LAB.replace("  guest: {networks: [grid], host: n1, driver: external}\n", ""))
        eventually(lambda: device in lab.on("n1", "ip", "-br", "link"), what="the device is back where it was")
    finally:
        lab.on("n1", "ip", "netns", "del", "vm")
