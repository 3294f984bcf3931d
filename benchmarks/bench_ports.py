"""Ports: how long one takes, and a thousand, until frames from the other host come out of them. Two emulated hosts.

`python benchmarks/bench_ports.py [--sizes 10,100,1000] [--times 10]`. A size is a fresh site: the ends of all ports
(taps) are made, then one file binds half of the ports to each host: `bulk`. Then ports are added one at a time:
`one_port`. Both count from the request that carries the file, so the reading of the whole file and its commits are in
it, until a frame sent into a port of the other host is read from the new port's tap. `remote_fdb` is when the other
host's tunnel entry was heard of by netlink: the calibration of the one against the other. `committed` is when the store
was first written to after the request, which is the commit of the root pointer: `from_commit` counts from there.
`memory_mib` is that of one
host's processes at the end. `adopted` is the largest size
once more, with taps that lie in the hosts' own namespaces and have to be moved. Where OVN is installed (`make
bench-peers`) one of it, in two chassis, grows with us from size to size: logical ports and interfaces up to the size,
ports one at a time, which go again, ten rules of all ports, ten addresses in a rule's set. It begins with three rules,
so at the third size it has 33. `ovn_three_rules` is a chassis of another one that has the ports of the largest size and
three rules.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable

import measure
import ovn
from lab import Lab, Port, emulated, first_arrivals, frame, frames_of
from measure import Json

from overlay.kernel import messages as m
from overlay.kernel.netlink import Netlink, parse, split

HOSTS = ("n1", "n2")
GROUPS = {"a": "n1", "b": "n2"}
EVERY_S = 0.001
ONE_PORT_S = 60.0
BULK_S = 600.0
OBJECTS = 10
"""Rules, and addresses in a rule's set, that OVN gets at each size."""
_NEIGH = 3  # RTNLGRP_NEIGH


def bulk(site: Lab, size: int, adopted: bool = False) -> Json:
    """Binds `size` ports in one change; seconds until the last of them receives from the other host."""
    names = {host: [f"{group}-{number}" for number in range(size // 2)] for group, host in GROUPS.items()}
    before_ends = time.perf_counter()
    for host in HOSTS:
        site.make_ends(names[host], host, adopted)
    ends_s = time.perf_counter() - before_ends
    site.wanted = {group: (host, size // 2) for group, host in GROUPS.items()}
    used = site.cpu_s(HOSTS)
    start = time.perf_counter()
    site.put()
    answered = time.perf_counter()
    site.learn()
    probes = {host: site.ports[names[host][0]] for host in HOSTS}
    across = {HOSTS[0]: probes[HOSTS[1]], HOSTS[1]: probes[HOSTS[0]]}
    pairs = {name: (across[port.host], port) for name, port in site.ports.items()}
    arrived = first_arrivals(pairs, BULK_S)
    site.converged()
    converged = time.perf_counter()
    spent = {name: round(now - used[name], 2) for name, now in site.cpu_s(HOSTS).items()}
    forwarding_s = max(arrived.values()) - start
    return {
        "ends_made_s": round(ends_s, 3),
        "answered_s": round(answered - start, 3),
        "first_port_s": round(min(arrived.values()) - start, 3),
        "all_forwarding_s": round(forwarding_s, 3),
        "with_ends_s": round(forwarding_s + ends_s, 3),
        "converged_s": round(converged - start, 3),
        "cpu_s": spent,
    }


def one_port(site: Lab, name: str, host: str, source: Port) -> dict[str, float]:
    """Adds a port whose end exists; ms from the request to the first write of the store, its answer, the remote FDB
    entry, the first frame, the end; and from that write to the frame.

    source: a port of the other host, into which frames for the new one are written all the time.
    """
    site.wanted[name] = (host, 0)
    port = site.ports[name]
    told, wire = bytes.fromhex(port.mac.replace(":", "")), frame(port, source)
    times: dict[str, float] = {}

    def ask() -> None:
        site.put()
        times["answered"] = time.perf_counter()

    store = site.info.state_dir / "store.db-wal"
    written_ns = store.stat().st_mtime_ns
    with contextlib.closing(hear_neighbours(site, source.host)) as heard:
        asking = threading.Thread(target=ask)
        start = time.perf_counter()
        asking.start()
        while not {"remote_fdb", "forwarding"} <= times.keys():
            if "forwarding" not in times:
                os.write(source.tap, wire)
            time.sleep(EVERY_S)
            if "committed" not in times and store.stat().st_mtime_ns != written_ns:
                times["committed"] = time.perf_counter()
            if "remote_fdb" not in times and hears(heard, told):
                times["remote_fdb"] = time.perf_counter()
            if "forwarding" not in times and wire in frames_of(port):
                times["forwarding"] = time.perf_counter()
            if time.perf_counter() - start > ONE_PORT_S:
                raise TimeoutError(f"{name} got nothing in {ONE_PORT_S:g} s")
        asking.join()
    site.converged()
    times["converged"] = time.perf_counter()
    took = {what: (at - start) * 1000 for what, at in times.items()}
    return {**took, "from_commit": took["forwarding"] - took["committed"]}


def hear_neighbours(site: Lab, host: str) -> Netlink:
    """A socket that is told of every FDB and neighbour entry of a host's data plane."""
    namespace = site.dataplane(host)
    try:
        heard = Netlink(namespace, [_NEIGH])
    finally:
        os.close(namespace)
    heard.socket.setblocking(False)
    return heard


def hears(heard: Netlink, mac: bytes) -> bool:
    """Whether an FDB entry for this MAC was told of since the last look."""
    while True:
        try:
            data = heard.socket.recv(1 << 17)
        except BlockingIOError:
            return False
        for kind, _, _, body in split(data):
            if kind == m.RTM_NEWNEIGH and bytes(parse(body, 12).get(m.NDA_LLADDR, b"")) == mac:
                return True


def memory_of(smaps: dict[str, str]) -> Json:
    """Of one host's processes: proportional (pss) of each and of all, resident (rss) of all, MiB."""
    each = {name: measure.pss_mib(text) for name, text in smaps.items()}
    return {**each, "pss": round(sum(each.values()), 1), "rss": round(sum(map(measure.rss_mib, smaps.values())), 1)}


def measure_size(size: int, times: int, adopted: bool) -> Json:
    """Both rows at one size, on a site of its own."""
    measure.note(f"{size} ports on two hosts")
    with emulated(len(HOSTS)) as site:
        load = round(os.getloadavg()[0], 2)
        bound = bulk(site, size, adopted)
        added = [f"x{number}" for number in range(times)]
        for number, name in enumerate(added):
            site.make_ends([name], HOSTS[number % 2], adopted, [f"10.64.255.{number + 1}"])
        before = site.cpu_s(HOSTS)
        steps = []
        for number, name in enumerate(added):
            source = site.ports[("b-0", "a-0")[number % 2]]
            steps.append(one_port(site, name, HOSTS[number % 2], source))
        spent = {name: round((now - before[name]) / times * 1000) for name, now in site.cpu_s(HOSTS).items()}
        memory = memory_of(site.smaps(HOSTS[0]))
    one = {f"{what}_ms": measure.of((step[what] for step in steps), 1) for what in steps[0]}
    return {"ports": size, "load": load, "bulk": bound, "one_port": {**one, "cpu_ms_each": spent}, "memory_mib": memory}


def measure_ovn(peer: ovn.Ovn, had: int, size: int, times: int) -> Json:
    """Both rows by OVN that has so many ports: from the command until the port is up, and until every chassis has it.
    Then rules and addresses, one by one, which stay for the next size."""
    measure.note(f"{size} ports on two chassis of OVN")
    load = round(os.getloadavg()[0], 2)
    start = time.perf_counter()
    peer.add(range(had, size))
    added = time.perf_counter()
    peer.group_all()
    peer.await_up(range(size), BULK_S)
    up = time.perf_counter()
    peer.sync()
    synced = time.perf_counter()
    ups, syncs = [], []
    for port in range(size, size + times):
        began = time.perf_counter()
        peer.add([port])
        peer.await_up([port], ONE_PORT_S)
        ups.append((time.perf_counter() - began) * 1000)
        peer.sync()
        syncs.append((time.perf_counter() - began) * 1000)
    for port in range(size, size + times):
        peer.remove(port)
    peer.sync()
    rules = [timed_ms(lambda n=n: peer.add_rule(size + n)) for n in range(OBJECTS)]
    addresses = [timed_ms(lambda n=n: peer.add_address(f"198.18.{size // 10}.{n}")) for n in range(OBJECTS)]
    bound = {"ends_made_s": added - start, "all_up_s": up - start, "converged_s": synced - start}
    return {
        "ports": size,
        "had": had,
        "load": load,
        "bulk": {what: round(seconds, 3) for what, seconds in bound.items()},
        "one_port": {"up_ms": measure.of(ups, 1), "converged_ms": measure.of(syncs, 1)},
        "rule_ms": measure.of(rules, 1),
        "address_ms": measure.of(addresses, 1),
        "rules": peer.rules(),
        "flows": peer.flows(1),
        "memory_mib": memory_of(peer.smaps(1)),
    }


def timed_ms(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def measure_bare_ovn(size: int) -> Json:
    """A chassis' memory with the ports and no more than three rules, which the comparison needs to be read rightly."""
    measure.note(f"{size} ports on two chassis of OVN with three rules")
    with ovn.running(len(HOSTS)) as peer:
        peer.add(range(size))
        peer.group_all()
        peer.await_up(range(size), BULK_S)
        peer.sync()
        return {"rules": peer.rules(), "flows": peer.flows(1), "memory_mib": memory_of(peer.smaps(1))}


def compare(ours: Json, peer: Json | None) -> Json:
    """Our figures over OVN's, at one size. Its interfaces are made in the bulk's time, so our ends are counted too."""
    ours_one, ours_all = ours["one_port"]["forwarding_ms"]["median"], ours["bulk"]["with_ends_s"]
    peer_one = peer["one_port"]["up_ms"]["median"] if peer else None
    return {
        "one_port": measure.ratio(ours_one, peer_one),
        "memory": measure.ratio(ours["memory_mib"]["rss"], peer["memory_mib"]["rss"] if peer else None),
        "memory_proportional": measure.ratio(ours["memory_mib"]["pss"], peer["memory_mib"]["pss"] if peer else None),
        "bulk_with_ends": measure.ratio(ours_all, peer["bulk"]["all_up_s"] if peer else None),
    }


def growth(sizes: list[Json], what: str) -> float | str:
    """How much longer one port takes at the largest size than at the smallest."""
    return measure.ratio(sizes[-1]["one_port"][what]["median"], sizes[0]["one_port"][what]["median"])


def main() -> None:
    options = measure.parser(__doc__)
    options.add_argument("--sizes", default="10,100,1000", help="ports (default: %(default)s)")
    options.add_argument("--times", type=int, default=10, help="ports added one by one at each size")
    asked = options.parse_args()
    began = measure.machine()
    sizes: list[Json] = []
    bare: Json | None = None
    with contextlib.ExitStack() as stack:
        peer = stack.enter_context(ovn.running(len(HOSTS))) if ovn.is_installed() else None
        had = 0
        for size in map(int, asked.sizes.split(",")):
            ours = measure_size(size, asked.times, adopted=False)
            theirs = measure_ovn(peer, had, size, asked.times) if peer else None
            had = size
            sizes.append({**ours, "ovn": theirs or measure.NO_PEER, "ratio_to_ovn": compare(ours, theirs)})
    if ovn.is_installed():
        bare = measure_bare_ovn(sizes[-1]["ports"])
    moved = measure_size(sizes[-1]["ports"], asked.times, adopted=True)
    figures = {
        "sizes": sizes,
        "one_port_growth": growth(sizes, "from_commit_ms"),
        "one_port_growth_from_request": growth(sizes, "forwarding_ms"),
        "adopted": moved,
        "ovn_three_rules": bare or measure.NO_PEER,
        "memory_ratio_to_three_rules": measure.ratio(
            sizes[-1]["memory_mib"]["rss"], bare["memory_mib"]["rss"] if bare else None
        ),
    }
    measure.publish("ports", figures, began, asked.results)


if __name__ == "__main__":
    main()
