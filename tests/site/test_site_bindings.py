"""A machine that is not ours, moved by a tool that is not ours, by the scripts of docs/api.md: one network namespace
with a leg on each of two hosts, of which one is plugged at a time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from site_lab import CLIENT_PYTHON, STREAM, Site, emulated

from playground.client import Refused, Unreachable
from tests.waiting import eventually

pytestmark = pytest.mark.system

LAB = """\
name: lab
networks:
  grid: {subnets: [10.20.0.0/24]}
workspaces:
  vm: {networks: [grid], host: n1, driver: external, labels: {role: vm}}
  peer: {networks: [grid], host: n3, labels: {role: peer}}
policies:
  - {name: from-peers, subject: role=vm, ingress: [{from: role=peer, ports: [udp/47900, icmp/echo]}], egress: []}
"""
PAGE = Path(__file__).parents[2] / "docs" / "api.md"


@dataclass
class Vm:
    """A namespace whose `eth0` is a bridge with the port's MAC and address; its legs are `to-n1` and `to-n2`, the other
    ends of each host's `pg…`."""

    site: Site
    pid: str
    port: str

    def within(self, *argv: str) -> list[str]:
        return self.site.inside(["nsenter", f"--target={self.pid}", "--net", "--", *argv])

    def run(self, *argv: str) -> str:
        return subprocess.run(self.within(*argv), check=True, capture_output=True, text=True, timeout=20).stdout

    def plug(self, host: str, other: str) -> list[str]:
        """The command that moves it."""
        batch = f"link set to-{other} nomaster\nlink set to-{host} master eth0\n"
        return self.within("sh", "-c", f"printf '{batch}' | ip -batch -")

    @contextmanager
    def hears(self) -> Iterator[dict[str, Any]]:
        """A stream of 1000 datagrams a second from `peer` while the body runs; the result is yielded."""
        result: dict[str, Any] = {}
        words = ("receive", "--port", "47900", "--patience", "60")
        taking = subprocess.Popen(
            self.within(*CLIENT_PYTHON, STREAM, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert taking.stderr is not None and "listening" in taking.stderr.readline()
        address = self.site.address("lab", "vm.grid")
        send = ("send", "--to", address, "--port", "47900", "--rate", "1000", "--seconds", "60")
        sending = subprocess.Popen(
            self.site.enter("lab", "peer", *CLIENT_PYTHON, STREAM, *send), stdout=subprocess.PIPE, text=True
        )
        try:
            yield result
            self.site.within("lab", "peer", "pkill", "-TERM", "-f", "stream.py send")
            sending.communicate(timeout=20)
            result.update(json.loads(taking.communicate(timeout=20)[0]))
        finally:
            self.site.within("lab", "peer", "pkill", "-KILL", "-f", "stream.py send", check=False)
            for process in (sending, taking):
                if process.poll() is None:
                    process.kill()
                    process.communicate()

    def pinged(self) -> bool:
        address = self.site.address("lab", "vm.grid")
        return " 0% packet loss" in self.site.within("lab", "peer", "ping", "-c1", "-W1", address, check=False)


@pytest.fixture(scope="module")
def lab() -> Iterator[Site]:
    with emulated("owners", 3) as site:
        yield site


@pytest.fixture(scope="module")
def vm(lab: Site) -> Iterator[Vm]:
    answer = lab.client.put("playgrounds", {"file": "lab.yaml", "text": LAB})
    assert answer["name"] == "lab"
    held = subprocess.Popen(
        lab.inside(["unshare", "--net", "sh", "-c", "echo $$; exec sleep 300"], "n1"), stdout=subprocess.PIPE, text=True
    )
    try:
        assert held.stdout is not None
        made = Vm(lab, held.stdout.readline().strip(), lab.device("lab", "vm", "grid"))
        row = eventually(lambda: lab.ports("lab").get("vm.grid"), what="the port")
        made.run("ip", "link", "add", "eth0", "address", row["mac"], "type", "bridge")
        made.run("ip", "address", "add", f"{row['addresses'][0]}/24", "dev", "eth0")
        made.run("ip", "link", "set", "eth0", "up")
        for host in ("n1", "n2"):
            lab.on(host, "ip", "link", "add", made.port, "type", "veth", "peer", f"to-{host}", "netns", made.pid)
            made.run("ip", "link", "set", f"to-{host}", "up")
        subprocess.run(made.plug("n1", "n2"), check=True, timeout=20)
        lab.converged("lab")
        eventually(made.pinged, 20, "it is reached")
        yield made
    finally:
        lab.inside(["kill", made.pid])
        subprocess.run(lab.inside(["kill", made.pid]), check=False)
        held.communicate(timeout=10)


def example(language: str) -> str:
    """The one of docs/api.md."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (text,) = found
    return str(text)


def states(site: Site, port: str) -> dict[str, str]:
    return {row["host"]: row["state"] for row in site.client.get(f"ports/{port}/bindings")}


def assert_at(vm: Vm, host: str) -> None:
    eventually(lambda: states(vm.site, vm.port) == {host: "active"}, 20, f"bound to {host} alone")
    vm.site.converged("lab")
    assert vm.site.host_of("lab", "vm") == host
    assert vm.pinged()


def test_the_pages_shell_script_moves_a_machine_under_traffic_and_policies(vm: Vm, tmp_path: Path) -> None:
    script = tmp_path / "move-port"
    script.write_text(example("sh"))
    environment = vm.site.environment | {"PLAYGROUND_SOCKET": str(vm.site.info.run_dir / "controller.sock")}
    with vm.hears() as heard:
        words = ["sh", str(script), vm.port, "n2", *vm.plug("n2", "n1")]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and json.loads(done.stdout)["state"] == "active", (done.stdout, done.stderr)
    assert heard["lost"] < 2000 and heard["duplicated"] == 0, heard
    assert_at(vm, "n2")


def test_the_pages_python_script_moves_it_back_and_a_move_that_fails_leaves_it(vm: Vm, tmp_path: Path) -> None:
    script = tmp_path / "move_port.py"
    script.write_text(example("python"))
    server = f"unix:{vm.site.info.run_dir / 'controller.sock'}"

    def moved(*command: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, str(script), server, vm.port, "n1", *command]
        return subprocess.run(words, env=vm.site.environment, capture_output=True, text=True, timeout=60)

    failed = moved("false")
    assert failed.returncode == 1 and "not moved" in failed.stderr
    assert_at(vm, "n2")
    with vm.hears() as heard:
        done = moved(*vm.plug("n1", "n2"))
    assert (done.returncode, done.stdout) == (0, "active\n"), done.stderr
    assert heard["lost"] < 2000 and heard["duplicated"] == 0, heard
    assert_at(vm, "n1")


@pytest.mark.parametrize("language", ["sh", "python"])
def test_a_script_of_the_page_that_is_interrupted_takes_its_binding_back(vm: Vm, language: str, tmp_path: Path) -> None:
    script = tmp_path / "interrupted"
    script.write_text(example(language))
    socket = str(vm.site.info.run_dir / "controller.sock")
    words = ["sh", str(script)] if language == "sh" else [sys.executable, str(script), f"unix:{socket}"]
    environment = vm.site.environment | {"PLAYGROUND_SOCKET": socket}
    began = tmp_path / "began"
    with subprocess.Popen(
        [*words, vm.port, "n2", "sh", "-c", f"touch {began}; sleep 30"],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        eventually(began.exists, 20, "the command begun")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) != 0
    assert_at(vm, "n1")


def test_agents_and_controllers_that_die_in_the_middle_change_nothing_of_it(vm: Vm) -> None:
    site, path = vm.site, f"ports/{vm.port}/bindings"
    bound = site.cli("port", "bind", vm.port, "n2", "--json")
    assert bound.returncode == 0, bound.stderr
    shown = json.loads(bound.stdout)
    assert (shown["state"], shown["host"]) == ("prepared", "n2")
    for dies in ("agent-n1", "agent-n2", "controller"):
        site.kill(dies)
    subprocess.run(vm.plug("n2", "n1"), check=True, timeout=20)

    def activated() -> bool:
        try:
            answer = site.client.post(f"{path}/n2/activate?wait_s=1", {"generation": shown["generation"]})
        except Unreachable:
            return False
        return bool(answer["state"] == "active")

    eventually(activated, 30, "active on n2")
    site.await_hosts()
    assert_at(vm, "n2")
    with pytest.raises(Refused, match=f"generation {shown['generation']} on n2 is active already"):
        site.client.delete(f"{path}/n2?generation={shown['generation']}")


ANNOUNCE = """
import socket, sys
mac, address = bytes.fromhex(sys.argv[1]), socket.inet_aton(sys.argv[2])
opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
opened.bind(("eth0", 0))
arp = bytes.fromhex("0001080006040001") + mac + address + bytes(6) + address
opened.send(b"\\xff" * 6 + mac + b"\\x08\\x06" + arp)
opened.send(b"\\xff" * 6 + mac + b"\\x80\\x35" + bytes.fromhex("0001080006040003") + mac + bytes(4) + mac + bytes(4))
"""


def test_a_mac_that_shows_up_elsewhere_unannounced_is_not_believed_and_is_reported(vm: Vm) -> None:
    site, row = vm.site, vm.site.ports("lab")["vm.grid"]
    here = site.host_of("lab", "vm")
    for _ in range(3):
        forged = (row["mac"].replace(":", ""), row["addresses"][0])
        site.within("lab", "peer", *CLIENT_PYTHON, "-c", ANNOUNCE, *forged)
    said = eventually(
        lambda: [event for event in site.client.get("events") if event["kind"] == "mac-elsewhere"], 20, "an event"
    )
    assert [event["object"] for event in said] == ["workspace lab/vm"]
    assert f"its MAC {row['mac']} announced itself at peer.grid on n3; that is not believed" == said[0]["text"]
    (problem,) = site.hosts()["n3"]["problems"]
    assert "the MAC of lab/vm.grid announces itself at peer.grid since" in problem
    for of, sentence in (("lab/vm", f"its MAC {row['mac']} announces itself"), ("lab/peer", "the MAC of vm.grid")):
        (why,) = site.client.get("why", {"of": of})
        assert any(sentence in one for one in why["findings"]), why["findings"]
    assert_at(vm, here)


def test_what_is_prepared_and_taken_back_leaves_its_device_to_its_owner(vm: Vm) -> None:
    site = vm.site
    here = site.host_of("lab", "vm")
    there = "n1" if here == "n2" else "n2"
    assert site.cli("port", "bind", vm.port, there).returncode == 0
    late = site.cli("port", "activate", vm.port, there, "--generation", "1")
    assert late.returncode == 1 and "not the one that counts" in late.stderr
    assert "aborted" in site.cli("port", "abort", vm.port, there).stdout
    eventually(lambda: vm.port in site.on(there, "ip", "-br", "link"), 20, "the device is in its host's namespace")
    assert_at(vm, here)
