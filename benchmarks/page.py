"""Writes the figures of benchmarks/results into docs/performance.md, and its plots. Measures nothing, adds no figure.

`python benchmarks/page.py`. The prose of the page is written by hand; what lies between `<!-- NAME -->` and
`<!-- end -->` is replaced. The same results give the same page, byte by byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plot
from measure import NO_PEER, RESULTS, Json

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "performance.md"
PLOTS = DOCS / "performance"

Results = Mapping[str, Json]
"""Name of a benchmark → what it wrote."""


Cells = tuple[str, str, str, bool | None]
"""Ours; what ran beside it, or ""; their ratio, or ""; whether the goal is met, None where that can't be told."""


@dataclass(frozen=True)
class Row:
    """One line of the table. goal: "" where none was set. told: a result → the cells."""

    work: str
    script: str
    goal: str
    told: Callable[[Json], Cells]


def _number(value: float) -> str:
    """Three significant digits, and all of larger whole numbers."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _ratio(value: float | str, limit: float) -> tuple[str, bool | None]:
    """The ratio, and whether it is at most `limit`; nothing can be said without a peer."""
    return (value, None) if isinstance(value, str) else (f"{value:.2g}×", value <= limit)


def _size(result: Json, ports: int) -> Json:
    return next(size for size in result["sizes"] if size["ports"] == ports)


def _peer(size: Json, *path: str) -> float | None:
    found: Any = size["ovn"]
    if found == NO_PEER:
        return None
    for word in path:
        found = found[word]
    return float(found)


def _beside(name: str, value: float | None, unit: str) -> str:
    return NO_PEER if value is None else f"{name} {_number(value)} {unit}"


def _one_port(ports: int) -> Callable[[Json], Cells]:
    def told(result: Json) -> Cells:
        size = _size(result, ports)
        ratio, met = _ratio(size["ratio_to_ovn"]["one_port"], 0.3)
        ours = f"{_number(size['one_port']['forwarding_ms']['median'])} ms"
        return (
            ours,
            _beside("OVN", _peer(size, "one_port", "up_ms", "median"), "ms"),
            ratio,
            met if ports == 1000 else None,
        )

    return told


def _from_commit(result: Json) -> Cells:
    took = (_size(result, ports)["one_port"]["from_commit_ms"]["median"] for ports in (10, 1000))
    growth = result["one_port_growth"]
    return " → ".join(f"{_number(ms)} ms" for ms in took), "", f"{growth:.2g}×", growth <= 1.5


def _from_request(result: Json) -> Cells:
    return "", "", f"{result['one_port_growth_from_request']:.2g}×", None


def _bulk(result: Json) -> Cells:
    size = _size(result, 1000)
    ours = f"{_number(size['bulk']['all_forwarding_s'])} s; with ends {_number(size['bulk']['with_ends_s'])} s"
    ratio, met = _ratio(size["ratio_to_ovn"]["bulk_with_ends"], 0.3)
    return ours, _beside("OVN, with ends", _peer(size, "bulk", "all_up_s"), "s"), ratio, met


def _adopted(result: Json) -> Cells:
    return f"{_number(result['adopted']['bulk']['all_forwarding_s'])} s", "", "", None


def _memory(result: Json) -> Cells:
    size = _size(result, 1000)
    ratio, met = _ratio(size["ratio_to_ovn"]["memory"], 0.5)
    ours = size["memory_mib"]
    text = f"{_number(ours['rss'])} MiB resident"
    rules = "" if size["ovn"] == NO_PEER else f" with {size['ovn']['rules']} rules"
    return text, _beside(f"OVN's chassis{rules}", _peer(size, "memory_mib", "rss"), "MiB"), ratio, met


def _proportional(result: Json) -> Cells:
    size = _size(result, 1000)
    ratio, _ = _ratio(size["ratio_to_ovn"]["memory_proportional"], 0.5)
    ours = f"{_number(size['memory_mib']['pss'])} MiB"
    return ours, _beside("OVN's chassis", _peer(size, "memory_mib", "pss"), "MiB"), ratio, None


def _three_rules(result: Json) -> Cells:
    found = result["ovn_three_rules"]
    ratio, _ = _ratio(result["memory_ratio_to_three_rules"], 0.5)
    peer = None if found == NO_PEER else found["memory_mib"]["rss"]
    return "", _beside("OVN's chassis with 3 rules", peer, "MiB"), ratio, None


def _repointed(result: Json) -> Cells:
    peer = None if result["frr"] == NO_PEER else result["frr"]["repointed_ms"]["median"]
    ratio, met = _ratio(result["repointed_ratio_to_frr"], 0.3)
    return f"{_number(result['repointed_ms']['median'])} ms", _beside("FRR EVPN", peer, "ms"), ratio, met


def _stream(result: Json) -> Cells:
    lost, bare = result["stream"]["lost"], result["bare"]["lost"]
    beyond = result["lost_beyond_bare"]
    return f"at most {lost['max']} lost in {lost['n']} moves", f"bare flip: {bare['max']}", "", beyond <= 1


def _gap(result: Json) -> Cells:
    found = result["network_ms"]
    ours, hand = found["ours"]["median"], found["by_hand"]["median"]
    return f"{_number(ours)} ms", f"by hand {_number(hand)} ms", "", ours <= 5 and ours <= hand


def _announced(result: Json) -> Cells:
    own, peer = result["repointed_ms"], result["frr"]
    if own == NO_PEER:
        return "not heard", NO_PEER, "", None
    ratio, met = _ratio(result["repointed_ratio_to_frr"], 0.3)
    told = None if peer == NO_PEER else peer["repointed_ms"]["median"]
    return f"{_number(own['median'])} ms", _beside("FRR EVPN", told, "ms"), ratio, met


def _whole(part: str, words: str, most: float) -> Callable[[Json], Cells]:
    def told(result: Json) -> Cells:
        found = result[part]
        ratio = found["ratio"]["median"]
        peer = f"{words} {_number(found['by_hand']['median'])} s"
        return f"{_number(found['ours']['median'])} s", peer, f"{ratio:.2g}×", ratio <= most

    return told


def _restart(result: Json) -> Cells:
    lost, took = result["lost"]["max"], result["converged_s"]["median"]
    return f"{lost} lost, converged in {_number(took)} s", NO_PEER, "", lost == 0 and took < 2


def _claims(result: Json) -> Cells:
    ours, peer = result["claims_batch_per_s"], result["ipset_allocations_per_s"]
    text = f"netaddr IPSet, not durable: {_number(peer)} a second"
    return f"{_number(ours)} a second", text, f"{result['claims_to_ipset_ratio']:.2g}×", ours >= 20_000


def _watch(result: Json) -> Cells:
    ratio, met = _ratio(result["put_to_event_ratio_to_etcd"], 0.3)
    peer = result.get("etcd_put_to_event_ms")
    return f"{_number(result['put_to_event_ms'])} ms", _beside("etcd, 3 members", peer, "ms"), ratio, met


def _flow(kind: str, unit: str) -> Callable[[Json], Cells]:
    def told(result: Json) -> Cells:
        found = result[kind]
        ratio = found["ratio"]["median"]
        peer = f"by hand {_number(found['by_hand']['median'])} {unit}"
        return f"{_number(found['ours']['median'])} {unit}", peer, f"{ratio:.3g}×", ratio >= 0.97

    return told


def _packet(beside: str, words: str) -> Callable[[Json], Cells]:
    """What one small packet takes of a processor; the ratio is theirs to ours, as that of packets a second is."""

    def told(result: Json) -> Cells:
        if "packet_us" not in result:
            return "not measured", NO_PEER, "", None
        found = result["packet_us"]
        peer = f"{words} {_number(found[beside]['median'])} µs"
        return f"{_number(found['ours']['median'])} µs", peer, f"{found['ratios'][beside]['median']:.3g}×", None

    return told


def _policed_packet(way: str, beside: str, words: str) -> Callable[[Json], Cells]:
    def told(result: Json) -> Cells:
        if "packet_us" not in result["sizes"][0]:
            return "not measured", NO_PEER, "", None
        found = result["sizes"][0]["packet_us"]
        peer = f"{words} {_number(found[beside]['median'])} µs"
        return f"{_number(found[way]['median'])} µs", peer, f"{found['ratios'][way]['median']:.3g}×", None

    return told


def _atlas(result: Json) -> Cells:
    took = result["atlas"]["command_s"]["median"]
    return f"{_number(took)} s", "", "", took <= 8


def _help(result: Json) -> Cells:
    found = result["help"]
    beyond = found["beyond_ms"]["median"]
    bare = f"bare Python {_number(found['bare_ms']['median'])} ms"
    return f"{_number(found['help_ms']['median'])} ms", bare, f"+{_number(beyond)} ms", beyond <= 100


def _policies(result: Json) -> Cells:
    found = result["sizes"]["1000, by role"]
    ours, dumb = found["all_pairs_s"]["median"], found["naive_all_pairs_s"]
    return f"{_number(ours)} s", f"the tests' dumb one {_number(dumb)} s, by a sample", f"{ours / dumb:.2g}×", None


def _cpu(part: str, peer: str) -> Callable[[Json], Cells]:
    def told(result: Json) -> Cells:
        found = result[part]
        ours, theirs = found["ours"]["cpu_us"], found[peer]["cpu_us"]
        return f"{_number(ours)} µs of CPU", f"{peer} {_number(theirs)} µs", f"{ours / theirs:.2g}×", None

    return told


def _queries(result: Json) -> Cells:
    ratio = result["dns"]["ratio_to_dnsmasq"]
    ours, peer = result["dns"]["ours"], result["dns"].get("dnsmasq", {}).get("queries_per_s")
    text = f"{_number(ours['queries_per_s'])} a second, {_number(ours['cpu_us'])} µs of CPU each"
    if ratio == NO_PEER:
        return text, NO_PEER, "", None
    return text, _beside("dnsmasq", peer, "a second"), f"{ratio:.2g}×", ratio >= 0.5


def _forwarded(what: str) -> Callable[[Json], Cells]:
    def told(result: Json) -> Cells:
        found = result["forwarding"]
        ratio, met = _ratio(found[f"{what}_ratio_to_dnsmasq"], 1.5)
        peer = found.get("dnsmasq", {}).get(what)
        return f"{_number(found['ours'][what])} µs", _beside("dnsmasq", peer, "µs"), ratio, met

    return told


def _name_changed(result: Json) -> Cells:
    found = result["changed_ms"]
    text = f"{_number(found['median'])} ms, at most {_number(found['max'])}"
    return text, NO_PEER, "", found["median"] <= 100


def _flooded(result: Json) -> Cells:
    found = result["flood"]
    loud, quiet = found["loud"], found["quiet"]
    text = f"{_number(loud['median_us'])} µs, 99 of 100 within {_number(loud['p99_us'])}, {loud['lost']} lost"
    beside = f"nobody floods: {_number(quiet['median_us'])} µs, {_number(quiet['p99_us'])}"
    return text, beside, f"{loud['median_us'] / quiet['median_us']:.2g}×", loud["lost"] == 0


def _storm(result: Json) -> Cells:
    found = result["storm"]
    ours, peer = found["ours"], found.get("dnsmasq", {}).get("seconds")
    text = f"{_number(ours['seconds'])} s, {_number(ours['cpu_us'])} µs of CPU each"
    ratio = "" if found["ratio"] == NO_PEER else f"{found['ratio']:.2g}×"
    return text, _beside("dnsmasq", peer, "s"), ratio, ours["seconds"] <= 1 and ours["bound"] == found["ports"]


def _exchanges(part: str, least: float) -> Callable[[Json], Cells]:
    """DHCPv4 beside Kea: without loss a second."""

    def told(result: Json) -> Cells:
        found = result.get(part, {"ratio": NO_PEER})
        ratio = found["ratio"]
        if "ours" not in found:
            return "not measured", NO_PEER, "", None
        text = f"{_number(found['ours']['per_s'])} a second, {_number(found['ours']['cpu_us'])} µs of CPU each"
        if ratio == NO_PEER:
            return text, NO_PEER, "", None
        words = {"kea": "kea", "kea_threaded": "by two threads", "dnsmasq": "dnsmasq"}
        peers = [f"{word} {_number(found[which]['per_s'])}" for which, word in words.items() if which in found]
        return text, f"{', '.join(peers)} a second", f"{ratio:.2g}×", ratio >= least

    return told


def _cpu_each(part: str) -> Callable[[Json], Cells]:
    """What an exchange costs the server, and the kernel in its name; softirqs of the whole machine apart."""

    def told(result: Json) -> Cells:
        found = result.get(part, {})
        ratio = found.get("cpu_ratio", NO_PEER)
        if "ours" not in found or ratio == NO_PEER:
            return "not measured", NO_PEER, "", None
        cells = [
            f"{_number(one['cpu_us'])} µs of CPU" + (f", {_number(soft)} of softirq" if soft is not None else "")
            for one in (found["ours"], found["kea"])
            for soft in [one.get("softirq_us")]
        ]
        return cells[0], f"Kea {cells[1]}", f"{ratio:.2g}×", ratio <= 0.4

    return told


def _by_perfdhcp(result: Json) -> Cells:
    found = result.get("perfdhcp", {})
    if not found.get("bound"):
        return "not measured", NO_PEER, "", None
    ours, kea = found["bound"]["cpu_us"], found.get("kea") and found["kea"]["cpu_us"]
    ratio, _ = _ratio(ours / kea, 1.0) if kea else ("", None)
    return f"{_number(ours)} µs of CPU", _beside("Kea", kea, "µs"), ratio, None


def _exchanges6(result: Json) -> Cells:
    found = result["exchanges"]
    ratio = found["ratio"]
    if "ours" not in found:
        return "not measured", NO_PEER, "", None
    text = f"{_number(found['ours']['per_s'])} a second, {_number(found['ours']['cpu_us'])} µs of CPU each"
    if ratio == NO_PEER:
        return text, NO_PEER, "", None
    rest = f", without its file {_number(found['kea_without_file']['per_s'])}" if "kea_without_file" in found else ""
    return text, f"Kea {_number(found['kea']['per_s'])} a second{rest}", f"{ratio:.2g}×", ratio >= 2


def _policy_changed(at: int) -> Callable[[Json], Cells]:
    def told(result: Json) -> Cells:
        size, peer = result["sizes"][at], result["ovn"]
        ours = f"{_number(size['opened']['from_commit_ms']['median'])} ms, of {_number(size['policies'])}"
        ratio, met = _ratio(result["ratios_to_ovn"][at], 0.3)
        return ours, _beside("OVN", None if peer == NO_PEER else peer["rule_ms"]["median"], "ms"), ratio, met

    return told


def _policies_more(result: Json) -> Cells:
    took = (size["opened"]["from_commit_ms"]["median"] for size in (result["sizes"][0], result["sizes"][-1]))
    return " → ".join(f"{_number(ms)} ms" for ms in took), "", f"{result['growth']:.2g}×", None


def _policed(kind: str, unit: str, least: float) -> Callable[[Json], Cells]:
    def told(result: Json) -> Cells:
        found = result["sizes"][0][kind]
        ratio = found["ratio"]["median"]
        bare = f"the bridge unfiltered {_number(found['bare']['median'])} {unit}"
        return f"{_number(found['policed']['median'])} {unit}", bare, f"{ratio:.2g}×", ratio >= least

    return told


def _policed_more(result: Json) -> Cells:
    ratios = [size["small_packets_per_s"]["ratio"]["median"] for size in (result["sizes"][0], result["sizes"][-1])]
    growth = result["growth"]["small_packets_per_s"]
    return " → ".join(f"{ratio:.2g}×" for ratio in ratios), "", f"{growth:.2g}×", growth >= 0.95


def _rules_loaded(result: Json) -> Cells:
    size = result["sizes"][-1]
    ratio, met = _ratio(size["loaded_ratio"], 2)
    return f"{_number(size['loaded_s'])} s", _beside("`nft -f`", size["nft_by_hand_s"], "s"), ratio, met


def _one_of_many(result: Json) -> Cells:
    took = (size["changed_ms"]["median"] for size in (result["sizes"][0], result["sizes"][-1]))
    return " → ".join(f"{_number(ms)} ms" for ms in took), "", "", None


ROWS = (
    Row("one port added → frames from the other host, 10 ports", "bench_ports", "", _one_port(10)),
    Row("the same, 100 ports", "bench_ports", "", _one_port(100)),
    Row("the same, 1000 ports", "bench_ports", "≤ 0.3× OVN", _one_port(1000)),
    Row("the same from its commit on, 10 → 1000 ports", "bench_ports", "≤ 1.5×", _from_commit),
    Row("the same from the request on, 10 → 1000 ports", "bench_ports", "", _from_request),
    Row("1000 ports bound in bulk on 2 hosts", "bench_ports", "≤ 0.3× OVN", _bulk),
    Row("the same, ends adopted from the hosts' namespaces", "bench_ports", "", _adopted),
    Row("memory of a host's agent, DHCP and DNS at 1000 ports", "bench_ports", "≤ 0.5× OVN", _memory),
    Row("the same, proportional to who shares it", "bench_ports", "", _proportional),
    Row("the same, resident, beside fewer rules", "bench_ports", "", _three_rules),
    Row("MAC moved → the third host re-pointed", "bench_moves", "≤ 0.3× FRR", _repointed),
    Row("move under 1000 datagrams a second", "bench_moves", "≤ 1 beyond a bare flip", _stream),
    Row("live migration: silence beyond the hypervisor's pause", "bench_migration", "≤ 5 ms, ≤ by hand", _gap),
    Row("RARP at the target → the third host re-pointed", "bench_migration", "≤ 0.3× FRR", _announced),
    Row("live migration, whole", "bench_migration", "≤ 1.2×", _whole("wall_s", "`virsh migrate`", 1.2)),
    Row("machine from `up` to its address", "bench_migration", "≤ 1.1×", _whole("start_s", "`virsh create`", 1.1)),
    Row("agent killed at 1000 ports under traffic", "bench_restart", "0 lost, < 2 s", _restart),
    Row("addresses claimed durably, in batches", "bench_store", "≥ 20,000 a second", _claims),
    Row("put in the store → event at a watcher", "bench_store", "≤ 0.3× etcd", _watch),
    Row("TCP through the overlay", "bench_wire", "≥ 0.97×", _flow("tcp_mbps", "Mb/s")),
    Row("packets of 64 bytes through the overlay", "bench_wire", "≥ 0.97×", _flow("small_packets_per_s", "a second")),
    Row("the same, processor time of each", "bench_wire", "", _packet("by_hand", "by hand")),
    Row("… beside one kept from netfilter", "bench_wire", "", _packet("no_detour", "by hand")),
    Row("… and with guests' NICs that can move", "bench_wire", "", _packet("movable", "by hand")),
    Row("`up examples/atlas.yaml --emulate 3`, cold", "bench_start", "≤ 8 s", _atlas),
    Row("`playground --help`", "bench_start", "≤ +100 ms", _help),
    Row("1000 workspaces under 1000 policies: who may talk to whom", "bench_policies", "", _policies),
    Row("one of few policies, at 1000 ports → packets meet it", "bench_enforcement", "≤ 0.3× OVN", _policy_changed(0)),
    Row("one of many policies, the same", "bench_enforcement", "≤ 0.3× OVN", _policy_changed(-1)),
    Row("the same, from few to many policies", "bench_enforcement", "", _policies_more),
    Row(
        "packets of 64 bytes through policed ports",
        "bench_policed",
        "≥ 0.60×",
        _policed("small_packets_per_s", "a second", 0.6),
    ),
    Row(
        "the same, processor time of each",
        "bench_policed",
        "",
        _policed_packet("policed", "bare", "the bridge unfiltered"),
    ),
    Row(
        "the same, where each verdict is logged", "bench_policed", "", _policed_packet("logged", "policed", "unlogged")
    ),
    Row("a refused one, logged", "bench_policed", "", _policed_packet("refused_logged", "refused", "unlogged")),
    Row("TCP through policed ports", "bench_policed", "≥ 0.85×", _policed("tcp_mbps", "Mb/s", 0.85)),
    Row("small packets, 10 → 10,000 policies", "bench_policed", "≥ 0.95×", _policed_more),
    Row("10,000 policies of 1000 ports put in force from nothing", "bench_policed", "≤ 2× nft", _rules_loaded),
    Row("one policy changed, in the kernel, 10 → 10,000 policies", "bench_policed", "", _one_of_many),
    Row("DNS queries answered", "bench_dns", "≥ 0.5× dnsmasq", _queries),
    Row("the same, beside a loop of dnslib", "bench_dns", "", _cpu("dns", "dnslib")),
    Row("a name of others, cached: asked and answered", "bench_dns", "≤ 1.5× dnsmasq", _forwarded("cached_us")),
    Row("a name of others, not cached: beyond asking them", "bench_dns", "≤ 1.5× dnsmasq", _forwarded("added_us")),
    Row("a changed name is answered on every host, from the request on", "bench_names", "≤ 100 ms", _name_changed),
    Row("a name asked beside one who asks 50,000 times a second", "bench_names", "0 lost", _flooded),
    Row("a DHCP frame answered", "bench_dhcp", "", _cpu("dhcp", "scapy")),
    Row("1000 ports' clients ask at once, all bound", "bench_dhcp", "≤ 1 s", _storm),
    Row("DHCP of a bound port, exchanges without loss", "bench_dhcp", "≥ 2× Kea", _exchanges("bound", 2)),
    Row("DHCP of a bound port, an exchange", "bench_dhcp", "≤ 0.4× Kea", _cpu_each("bound")),
    Row("the same at 2000 a second as perfdhcp offers them", "bench_dhcp", "", _by_perfdhcp),
    Row("DHCP leases on disk before the ACK, exchanges", "bench_dhcp", "≥ 1× Kea", _exchanges("leases", 1)),
    Row("DHCP leases on disk before the ACK, an exchange", "bench_dhcp", "≤ 0.4× Kea", _cpu_each("leases")),
    Row("a DHCPv6 frame answered", "bench_dhcp6", "", _cpu("dhcp6", "scapy")),
    Row("DHCPv6 at a port, exchanges of four messages", "bench_dhcp6", "≥ 2× Kea", _exchanges6),
    Row("DHCPv6 at a port, an exchange", "bench_dhcp6", "", _cpu_each("exchanges")),
)


def result_name(row: Row) -> str:
    """The name of the file a row's script writes, without its ending."""
    return row.script.removeprefix("bench_")


def _table(results: Results) -> str:
    lines = ["| work | ours | beside it, same run | ratio | goal | met |", "|---|---|---|---|---|---|"]
    words = {True: "yes", False: "**no**", None: ""}
    for row in ROWS:
        ours, peer, ratio, met = row.told(results[result_name(row)])
        lines.append(f"| {row.work} | {ours} | {peer} | {ratio} | {row.goal} | {words[met] if row.goal else ''} |")
    return "\n".join(lines)


def _runs(results: Results) -> str:
    lines = ["| script | commit | load average before / after |", "|---|---|---|"]
    for name, result in sorted(results.items()):
        machine = result["machine"]
        lines.append(f"| `bench_{name}` | {result['commit']} | {machine['load']} / {machine['load_after']} |")
    return "\n".join(lines)


def _machine(results: Results) -> str:
    machine = results["ports"]["machine"]
    return (
        f"{machine['cores']} × {machine['processor']}, {machine['memory_gib']} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}; {results['ports']['at']}."
    )


def _phases(results: Results) -> str:
    atlas = results["start"]["atlas"]
    names = {
        "sandbox_s": "sandbox made, controller answers",
        "hosts_s": "three agents heard",
        "accepted_s": "file accepted",
        "served_s": "all run, all addresses taken",
        "converged_s": "every host converged",
    }
    lines = ["| phase | seconds |", "|---|---|"]
    return "\n".join([*lines, *(f"| {words} | {_number(atlas[name]['median'])} |" for name, words in names.items())])


BLOCKS: Mapping[str, Callable[[Results], str]] = {
    "machine": _machine,
    "figures": _table,
    "phases": _phases,
    "runs": _runs,
}


def plots(results: Results) -> dict[str, str]:
    """File name → SVG."""
    sizes = results["ports"]["sizes"]
    one = {"playground": [(s["ports"], s["one_port"]["forwarding_ms"]["median"]) for s in sizes]}
    bulk = {"playground": [(s["ports"], s["bulk"]["with_ends_s"]) for s in sizes]}
    if peers := [s for s in sizes if s["ovn"] != NO_PEER]:
        one["OVN"] = [(s["ports"], s["ovn"]["one_port"]["up_ms"]["median"]) for s in peers]
        bulk["OVN"] = [(s["ports"], s["ovn"]["bulk"]["all_up_s"]) for s in peers]
    return {
        "one-port.svg": plot.draw("One port added", "ports that are there", "ms", one),
        "bulk.svg": plot.draw("All ports bound in one change, ends included", "ports", "s", bulk),
    }


def read(folder: Path = RESULTS) -> dict[str, Json]:
    """What the benchmarks wrote last."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def render(text: str, results: Results) -> str:
    """The page with the figures of `results`. Raises KeyError for a block or a result that there is not."""

    def fill(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n{BLOCKS[match[1]](results)}\n<!-- end -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def main() -> None:
    results = read()
    PAGE.write_text(render(PAGE.read_text(), results))
    PLOTS.mkdir(exist_ok=True)
    for name, text in plots(results).items():
        (PLOTS / name).write_text(text)


if __name__ == "__main__":
    main()
