"""OVN in namespaces of its own, as a peer: a central part and chassis with OVS's userspace datapath. Measures nothing.

Starts the daemons of Debian's packages by hand, with their files in a folder that goes with them; touches no OVN that
the machine may run. The kernel's datapath is not used, so no traffic through it may be compared.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from measure import own

from playground.sandbox.namespaces import started

CENTRAL = own("ovn")
LOGICAL_AT_ONCE, INTERFACES_AT_ONCE = 375, 175
"""Ports in one command: a command line has an end."""

NEEDED = ("ovn-northd", "ovn-controller", "ovn-nbctl", "ovs-vswitchd", "ovsdb-server")
SCHEMAS = {"nb": "/usr/share/ovn/ovn-nb.ovsschema", "sb": "/usr/share/ovn/ovn-sb.ovsschema"}


def is_installed() -> bool:
    return all(shutil.which(program) for program in NEEDED)


@dataclass
class Ovn:
    """One logical switch over some chassis. Port i lies on chassis 1 + i % n."""

    folder: Path
    chassis: int
    _pids: list[tuple[int, str | None]] = field(default_factory=list)
    _control: str = ""

    # words

    def nb(self, *words: str) -> str:
        """ovn-nbctl, by a daemon of its own: the start of a program is not counted."""
        return self._run(CENTRAL, ["ovn-nbctl", *words], OVN_NB_DAEMON=self._control)

    def vs(self, chassis: int, *words: str) -> str:
        return self._run(_host(chassis), ["ovs-vsctl", f"--db=unix:{self._at(chassis)}/db.sock", *words])

    def mac(self, port: int) -> str:
        return f"02:0a:00:00:{port >> 8:02x}:{port & 255:02x}"

    def chassis_of(self, port: int) -> int:
        return 1 + port % self.chassis

    def add(self, ports: Sequence[int]) -> None:
        """Logical ports, in the port group, and their interfaces: what a control plane would write."""
        for some in _chunks(ports, LOGICAL_AT_ONCE):
            words: list[str] = []
            for port in some:
                address = f"{self.mac(port)} 10.64.{(port >> 8) + 1}.{port & 255}"
                words += ["--", "lsp-add", "sw0", f"p{port}", "--", "lsp-set-addresses", f"p{port}", address]
            self.nb(*words[1:])
        for chassis in range(1, self.chassis + 1):
            mine = [port for port in ports if self.chassis_of(port) == chassis]
            for some in _chunks(mine, INTERFACES_AT_ONCE):
                words = []
                for port in some:
                    words += ["--", "add-port", "br-int", f"p{port}", "--", "set", "Interface", f"p{port}"]
                    words += ["type=internal", f"external_ids:iface-id=p{port}"]
                self.vs(chassis, *words[1:])

    def remove(self, port: int) -> None:
        """The logical port and its interface go."""
        self.nb("lsp-del", f"p{port}")
        self.vs(self.chassis_of(port), "del-port", "br-int", f"p{port}")

    def await_up(self, ports: Sequence[int], seconds: float, every_s: float = 0.2) -> None:
        """Every one of these logical ports is up. Raises TimeoutError."""
        if len(ports) == 1:
            self.nb(f"--timeout={seconds:.0f}", "wait-until", "Logical_Switch_Port", f"p{ports[0]}", "up=true")
            return
        deadline = time.monotonic() + seconds
        while True:
            said = self.nb("--bare", "--no-heading", "--columns=up", "list", "Logical_Switch_Port").split()
            if said.count("true") >= len(ports):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{said.count('true')} of {len(ports)} OVN ports are up after {seconds:g} s")
            time.sleep(every_s)

    def sync(self) -> None:
        """Every chassis has programmed what the northbound database says."""
        self.nb("--wait=hv", "sync")

    def group_all(self) -> None:
        """All ports are in the port group that the rules name."""
        found = self.nb("--bare", "--no-heading", "--columns=_uuid", "list", "Logical_Switch_Port").split()
        self.nb("set", "Port_Group", "pg0", f"ports={','.join(found)}")

    def add_rule(self, tcp_port: int) -> None:
        """One more rule for all ports, programmed on every chassis."""
        match = f"outport==@pg0 && tcp.dst=={tcp_port}"
        self.nb("--wait=hv", "acl-add", "pg0", "to-lport", "1002", match, "allow-related")

    def add_address(self, address: str) -> None:
        """One more address in the set that a rule names, programmed on every chassis."""
        self.nb("--wait=hv", "add", "Address_Set", "as0", "addresses", f'"{address}"')

    def rules(self) -> int:
        """How many there are."""
        return len(self.nb("acl-list", "pg0").splitlines())

    def flows(self, chassis: int) -> int:
        """OpenFlow entries of a chassis' switch."""
        door = f"unix:{self._at(chassis)}/br-int.mgmt"
        return len(self._run(_host(chassis), ["ovs-ofctl", "dump-flows", door]).splitlines())

    def smaps(self, chassis: int) -> dict[str, str]:
        """/proc/PID/smaps_rollup of a chassis' daemons."""
        return {name: Path(f"/proc/{pid}/smaps_rollup").read_text() for name, pid in self._daemons(chassis).items()}

    def _daemons(self, chassis: int) -> dict[str, int]:
        names = ("ovsdb-server", "ovs-vswitchd", "ovn-controller")
        return {name: int((self._at(chassis) / f"{name}.pid").read_text()) for name in names}

    # parts

    def _at(self, chassis: int) -> Path:
        return self.folder / (f"h{chassis}" if chassis else "c")

    def _run(self, namespace: str, argv: Sequence[str], **environment: str) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", namespace, *argv],
            capture_output=True,
            text=True,
            timeout=600,
            env=dict(os.environ) | environment,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)[:200]}: {done.stderr.strip()}")
        return done.stdout

    def _daemon(self, chassis: int, program: str, *words: str, name: str = "") -> None:
        """Starts one in the background; it is ended with the rest."""
        folder, name = self._at(chassis), name or program
        argv = [program, *words, f"--pidfile={folder}/{name}.pid", f"--log-file={folder}/{name}.log", "-vconsole:off"]
        with (folder / f"{name}.out").open("wb") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", _host(chassis), *argv],
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=dict(os.environ) | {"OVS_RUNDIR": str(folder), "OVN_RUNDIR": str(folder)},
            )
        deadline = time.monotonic() + 20
        while not (folder / f"{name}.pid").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{program} does not start: {(folder / f'{name}.out').read_text()[-300:]}")
            time.sleep(0.02)
        self._pids.append((process.pid, started(process.pid)))

    def start(self) -> None:
        """Central part, chassis, the switch and its rules."""
        self._at(0).mkdir()
        _ip(
            f"netns add {CENTRAL}",
            f"-n {CENTRAL} link set lo up",
            f"-n {CENTRAL} link add ubr type bridge",
            f"-n {CENTRAL} address add 172.31.0.254/24 dev ubr",
            f"-n {CENTRAL} link set ubr up",
        )
        _checksums_in_software(CENTRAL, "ubr")
        central = self._at(0)
        for name, schema in SCHEMAS.items():
            self._run(CENTRAL, ["ovsdb-tool", "create", f"{central}/{name}.db", schema])
            door = [f"--remote=punix:{central}/{name}.sock", f"--unixctl={central}/{name}.ctl"]
            door += ["--remote=ptcp:6642:0.0.0.0"] if name == "sb" else []
            self._daemon(0, "ovsdb-server", *door, f"{central}/{name}.db", name=name)
            self._run(CENTRAL, [f"ovn-{name}ctl", f"--db=unix:{central}/{name}.sock", "init"])
        databases = [f"--ovn{name}-db=unix:{central}/{name}.sock" for name in SCHEMAS]
        self._daemon(0, "ovn-northd", *databases, f"--unixctl={central}/northd.ctl")
        words = ["ovn-nbctl", f"--db=unix:{central}/nb.sock", f"--pidfile={central}/nbctl.pid", "--detach"]
        self._control = self._run(CENTRAL, [*words, f"--unixctl={central}/nbctl.ctl"]).strip()
        pid = int((central / "nbctl.pid").read_text())
        self._pids.append((pid, started(pid)))
        for chassis in range(1, self.chassis + 1):
            self._start_chassis(chassis)
        self.nb("ls-add", "sw0")
        self.nb("pg-add", "pg0")
        self.nb("create", "Address_Set", "name=as0", 'addresses="192.0.2.1"')
        rules = (
            ("to-lport", "1001", "outport==@pg0 && ip4.src==$as0 && tcp.dst==80", "allow-related"),
            ("to-lport", "1000", "outport==@pg0 && ip4", "drop"),
            ("from-lport", "1000", "inport==@pg0 && ip", "allow-related"),
        )
        for direction, priority, match, verdict in rules:
            self.nb("acl-add", "pg0", direction, priority, match, verdict)
        self.sync()

    def _start_chassis(self, number: int) -> None:
        folder, host = self._at(number), _host(number)
        folder.mkdir()
        _ip(
            f"netns add {host}",
            f"-n {host} link set lo up",
            f"-n {CENTRAL} link add u{number} type veth peer name eth0 netns {host}",
            f"-n {CENTRAL} link set u{number} master ubr up",
            f"-n {host} link set eth0 up",
        )
        _checksums_in_software(CENTRAL, f"u{number}")
        _checksums_in_software(host, "eth0")
        schema = "/usr/share/openvswitch/vswitch.ovsschema"
        self._run(host, ["ovsdb-tool", "create", f"{folder}/conf.db", schema])
        door = [f"--remote=punix:{folder}/db.sock", f"--unixctl={folder}/db.ctl"]
        self._daemon(number, "ovsdb-server", *door, f"{folder}/conf.db")
        self.vs(number, "--no-wait", "init")
        settings = {
            "system-id": host,
            "ovn-remote": "tcp:172.31.0.254:6642",
            "ovn-encap-type": "geneve",
            "ovn-encap-ip": f"172.31.0.{number}",
            "ovn-bridge-datapath-type": "netdev",
        }
        words = [f"external_ids:{key}={value}" for key, value in settings.items()]
        self.vs(number, "--no-wait", "set", "Open_vSwitch", ".", *words)
        self._daemon(
            number, "ovs-vswitchd", "--disable-system", f"unix:{folder}/db.sock", f"--unixctl={folder}/switch.ctl"
        )
        mac = f"02:00:ac:1f:00:{number:02x}"
        words = ["add-br", "br-phys", "--", "set", "Bridge", "br-phys", "datapath_type=netdev"]
        words += [f"other_config:hwaddr={mac}", "--", "add-port", "br-phys", "eth0", "--", "add-br", "br-int"]
        self.vs(number, *words, "--", "set", "Bridge", "br-int", "datapath_type=netdev", "fail_mode=secure")
        _ip(
            f"-n {host} address add 172.31.0.{number}/24 dev br-phys",
            f"-n {host} link set br-phys up mtu 1500",
            f"-n {host} link set br-int up",
        )
        self._daemon(number, "ovn-controller", f"unix:{folder}/db.sock")

    def stop(self) -> None:
        """Nothing of it runs or lies anywhere."""
        for pid, who in reversed(self._pids):
            if who is not None and started(pid) == who:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for name in [*map(_host, range(1, self.chassis + 1)), CENTRAL]:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def _host(chassis: int) -> str:
    return own(f"h{chassis}") if chassis else CENTRAL


def _chunks(ports: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(ports), size):
        yield ports[start : start + size]


def _ip(*lines: str) -> None:
    for line in lines:
        subprocess.run(["ip", *line.split()], check=True)


def _checksums_in_software(namespace: str, device: str) -> None:
    """The userspace datapath does not finish checksums that the kernel left for the hardware."""
    subprocess.run(
        ["ip", "netns", "exec", namespace, "ethtool", "-K", device, "tx", "off"], check=True, capture_output=True
    )


@contextlib.contextmanager
def running(chassis: int) -> Iterator[Ovn]:
    """OVN with so many chassis; nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="pgbo-", dir="/tmp") as folder:
        made = Ovn(Path(folder), chassis)
        try:
            made.start()
            yield made
        finally:
            made.stop()
