"""What a soak adds to a site: drifts, kills by pid, and what it all costs the machine."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
from dataclasses import dataclass

from site_lab import CLIENT_PYTHON, Site
from test_site_chaos import HOSTS

from playground.records import network_id

STEADY = "steady"
"""The playground that nobody edits, moves or makes drift: what is done to the others must not be seen here."""

STEADY_FILE = f"""name: {STEADY}
networks:
  grid: {{subnets: [10.8.0.0/24, "fd08::/64"]}}
workspaces:
  one: {{networks: [grid], host: n1}}
  two: {{networks: [grid], host: n2}}
  three: {{networks: [grid], host: n3}}
"""

PROGRAMS = ("controller", "agent", "responder")

LOOK = """
import json, os, re
found = {name: {"processes": 0, "pss_kib": 0, "descriptors": 0} for name in ("controller", "agent", "responder")}
namespaces = set()
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        words = open(f"/proc/{pid}/cmdline").read().split(chr(0))
        namespaces |= {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "mnt", "pid", "uts")}
        name = next((n for n in found if any(w in (f"playground.{n}", f"playground.{n}.main") for w in words)), None)
        if name:
            rollup = open(f"/proc/{pid}/smaps_rollup").read()
            found[name]["pss_kib"] += int(re.search(r"^Pss: +([0-9]+)", rollup, re.M)[1])
            found[name]["descriptors"] += len(os.listdir(f"/proc/{pid}/fd"))
            found[name]["processes"] += 1
    except OSError:
        pass
print(json.dumps({"programs": found, "namespaces": len(namespaces)}))
"""


@dataclass(frozen=True)
class Footprint:
    """What a site takes of its machine. pss_kib, descriptors: by program, all its processes together."""

    pss_kib: dict[str, int]
    descriptors: dict[str, int]
    processes: dict[str, int]
    namespaces: int

    def grown(self, before: Footprint) -> list[str]:
        """What has grown beyond noise since `before`, which was taken in the same state of the site."""
        found = []
        for name in PROGRAMS:
            if self.pss_kib[name] > before.pss_kib[name] * 1.15 + 4096:
                found.append(f"{name}: {before.pss_kib[name]} → {self.pss_kib[name]} KiB of memory")
            if self.descriptors[name] > before.descriptors[name] + 3 * before.processes[name]:
                found.append(f"{name}: {before.descriptors[name]} → {self.descriptors[name]} descriptors")
            if self.processes[name] != before.processes[name]:
                found.append(f"{name}: {before.processes[name]} → {self.processes[name]} processes")
        if self.namespaces != before.namespaces:
            found.append(f"namespaces: {before.namespaces} → {self.namespaces}")
        return found


def footprint(site: Site) -> Footprint:
    """As it is now."""
    words = site.inside([*CLIENT_PYTHON, "-c", LOOK])
    seen = json.loads(subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout)
    programs = seen["programs"]

    def each(what: str) -> dict[str, int]:
        return {name: programs[name][what] for name in PROGRAMS}

    return Footprint(each("pss_kib"), each("descriptors"), each("processes"), seen["namespaces"])


def called_for(site: Site) -> dict[str, set[str]]:
    """What each host should hold where its ports are now: names of namespaces, and of devices in its data plane."""
    found = {host: {"netns playground", "lo"} for host in HOSTS}
    for port in site.client.get("ports"):
        name, network = port["playground"], network_id(port["playground"], port["network"])
        found[port["host"]] |= {f"netns playground-{name}", f"br{network}", f"vx{network}", f"lg{network}"}
        found[port["host"]].add(site.device(name, port["workspace"], port["network"]))
    for playground in site.client.get("status")["playgrounds"]:
        name = playground["name"]
        for gateway in playground["gateways"]:
            here = found[gateway["host"]]
            here.add(f"netns playground-{name}-gw.{gateway['name']}")
            for network in gateway["networks"]:
                id = network_id(name, network)
                here |= {f"netns playground-{name}", f"br{id}", f"vx{id}", f"lg{id}"}
                here.add(site.device(name, f"@{gateway['name']}", network))
    return found


def held(site: Site) -> dict[str, set[str]]:
    """What each host holds. What answers beside a bridge is counted with that bridge, whose index its names have."""
    found = {}
    for host in HOSTS:
        links = site.on(host, "ip", "-o", "link", dataplane=True).splitlines()
        found[host] = {f"netns {line.split()[0]}" for line in site.on(host, "ip", "netns").splitlines()}
        devices = {line.split(": ")[1].partition("@")[0]: int(line.split(": ")[0]) for line in links}
        answering = {f"rj{index:x}{end}" for name, index in devices.items() if name.startswith("br") for end in "ab"}
        found[host] |= devices.keys() - answering
    return found


def misplaced(site: Site) -> list[str]:
    """What is not where it should be, or where nothing calls for it; each as a word for people."""
    wanted, there = called_for(site), held(site)
    lacks = [f"{host} lacks {name}" for host in HOSTS for name in sorted(wanted[host] - there[host])]
    return lacks + [f"{host} keeps {name}" for host in HOSTS for name in sorted(there[host] - wanted[host])]


def kill(site: Site, dice: random.Random) -> str:
    """kill -9 of one that is there just now, by its pid inside the site; who it was."""
    host = dice.choice(HOSTS)
    victim = dice.choice(["controller", f"agent-{host}", f"agent-{host}", f"responder on {host}"])
    if victim.startswith("responder"):
        with contextlib.suppress(AssertionError):  # an agent that was killed before may not have made another yet
            site.kill_responder(host)
    else:
        pid = site.program(victim)["pid"]
        if pid is not None:
            subprocess.run(site.inside(["kill", "-9", str(pid)]), check=False, capture_output=True)
    return victim


def drift(site: Site, dice: random.Random) -> str:
    """Somebody takes away what an agent has made for a playground that is not `STEADY`; what it was, "" for nothing."""
    host = dice.choice(HOSTS)
    mine = {site.device(STEADY, name, "grid") for name in ("one", "two", "three")} | {f"vx{network_id(STEADY, 'grid')}"}
    lines = site.on(host, "ip", "-o", "link", dataplane=True, check=False).splitlines()
    devices = [line.split(": ")[1].partition("@")[0] for line in lines]
    ports = [device for device in devices if device.startswith("pg") and device not in mine]
    tunnels = [device for device in devices if device.startswith("vx") and device not in mine]
    match dice.choice(["entry", "entry", "port", "tunnel"]):
        case "entry" if tunnels:
            tunnel = dice.choice(tunnels)
            told = site.on(host, "bridge", "fdb", "show", "dev", tunnel, dataplane=True, check=False).splitlines()
            entries = [line.split() for line in told if " dst " in line]
            if not entries:
                return ""
            words = dice.choice(entries)
            mac, far = words[0], words[words.index("dst") + 1]
            site.on(host, "bridge", "fdb", "del", mac, "dev", tunnel, "dst", far, "self", dataplane=True, check=False)
            return f"{host}: {mac} at {far} of {tunnel}"
        case "port" if ports:
            port = dice.choice(ports)
            site.on(host, "ip", "link", "set", port, "nomaster", dataplane=True, check=False)
            return f"{host}: {port} of its bridge"
        case "tunnel" if tunnels:
            tunnel = dice.choice(tunnels)
            site.on(host, "ip", "link", "del", tunnel, dataplane=True, check=False)
            return f"{host}: {tunnel}"
        case _:
            return ""
