"""Measures the policy evaluator beside the dumb one of the tests, in one process; prints and writes one JSON object.

`python benchmarks/bench_policies.py [--sizes 1000 10000] [--rounds N]`. Each size is that many workspaces and as many
policies, in four styles of writing them. The dumb one takes a sample of pairs at one port, scaled to all pairs; the
fast one answers for all pairs at all ports. Times in seconds of processor time, medians over the rounds.
"""

from __future__ import annotations

import random
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "policies"))

import measure
import naive

from policies.connections import blocks
from policies.evaluate import split
from policies.model import Endpoint, EndpointPeer, Gateway, Origin, Policy, Rule, Scene
from policies.ports import Ports, Protocol
from policies.resolve import Resolver, resolve
from policies.selector import parse_selector

SAMPLE = 40
"""Pairs that the dumb evaluator judges."""

CHANGES = 20
"""Policies changed one after the other, each evaluated anew."""

STYLES = {
    "by role": ("role=r{role}", "role=r{role}", 50),
    "one subject, peers by role": ("workspace=w{one}", "role=r{role}", 50),
    "one subject, one peer": ("workspace=w{one}", "workspace=w{one}", 50),
    "one subject, wide peers, ports of its own": ("workspace=w{one}", "team=t{team}", 5000),
}
"""(subject, peer, different ports) of each policy; about every second one closes each direction."""


def a_scene(size: int, style: str, seed: int = 1) -> Scene:
    """`size` workspaces on one network with a NAT gateway, and as many policies of two rules a direction."""
    draw = random.Random(seed)
    roles = max(10, size // 50)
    subject, peer, ports = STYLES[style]
    endpoints = tuple(
        Endpoint(
            "p",
            f"w{number}",
            "grid",
            {"workspace": f"w{number}", "network": "grid", "role": f"r{number % roles}", "team": f"t{number % 7}"},
            (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",),
        )
        for number in range(size)
    )

    def who(text: str) -> EndpointPeer:
        filled = text.format(role=draw.randrange(roles), one=draw.randrange(size), team=draw.randrange(7))
        return EndpointPeer(parse_selector(filled), frozenset({"p"}))

    def rules(line: int) -> tuple[Rule, ...]:
        return tuple(
            Rule((who(peer),), Ports.of(Protocol.TCP, 1000 + draw.randrange(ports)), Origin("bench.yaml", line))
            for _ in range(2)
        )

    policies = []
    for number in range(size):
        ingress = rules(number) if draw.random() < 0.7 else None
        egress = rules(number) if ingress is None or draw.random() < 0.3 else None
        policies.append(
            Policy(f"p{number}", (who(subject),), ingress, egress, Origin("bench.yaml", number), playground="p")
        )
    return Scene(endpoints, tuple(policies), (Gateway("p", "wan", frozenset({"grid"})),))


def all_pairs_s(scene: Scene) -> tuple[float, int]:
    """Seconds from policies to every connection between two workspaces and with the world, and how many there are."""
    start_s = time.process_time()
    found = sum(block.pairs for block in blocks(scene))
    return time.process_time() - start_s, found


def naive_s(scene: Scene) -> float:
    """Seconds that the dumb evaluator would take for all pairs at one port."""
    draw = random.Random(2)
    pairs = [draw.sample(scene.endpoints, 2) for _ in range(SAMPLE)]
    start_s = time.process_time()
    for source, destination in pairs:
        naive.is_allowed(scene, source, destination, (Protocol.TCP, 1000))
    return (time.process_time() - start_s) / SAMPLE * len(scene.endpoints) * (len(scene.endpoints) - 1)


def changes_s(scene: Scene, is_new_to_labels: bool) -> list[float]:
    """Seconds to evaluate anew after one policy has changed, again and again, each time another.

    Its rules get other ports; with is_new_to_labels its subject also gets a term that nobody used before, so that
    identities part anew.

    Evaluated: resolved as a whole, and split towards all ends wherever that is not known from before.
    """
    draw = random.Random(3)
    kept = Resolver()
    for chain in kept.resolve(scene).chains:
        split(chain)
    took = []
    for place in draw.sample(range(len(scene.policies)), CHANGES):
        old = scene.policies[place]
        port = Ports.of(Protocol.TCP, 60000 + place % 5000)
        changed = replace(
            old,
            ingress=None if old.ingress is None else tuple(replace(rule, ports=port) for rule in old.ingress),
            egress=None if old.egress is None else tuple(replace(rule, ports=port) for rule in old.egress),
        )
        if is_new_to_labels:
            subject = parse_selector(f"workspace=w{draw.randrange(len(scene.endpoints))}, network!=n{place}")
            changed = replace(changed, subjects=(EndpointPeer(subject, frozenset({"p"})),))
        policies = list(scene.policies)
        policies[place] = changed
        scene = replace(scene, policies=tuple(policies))
        start_s = time.process_time()
        for chain in kept.resolve(scene).chains:
            split(chain)
        took.append(time.process_time() - start_s)
    return took


def main() -> None:
    """Runs all sizes and styles."""
    parser = measure.parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    began = measure.machine()
    figures = {}
    for size in options.sizes:
        for style in STYLES:
            measure.note(f"{size} workspaces and policies, {style}")
            scene = a_scene(size, style)
            ir = resolve(scene)
            rounds = [all_pairs_s(scene) for _ in range(options.rounds)]
            ours = measure.of(took for took, _ in rounds)
            dumb = naive_s(scene)
            figures[f"{size}, {style}"] = {
                "identities": len(ir.identities),
                "chains": len(ir.chains),
                "connections": rounds[0][1],
                "all_pairs_s": ours,
                "naive_all_pairs_s": round(dumb, 1),
                "all_pairs_to_naive": measure.ratio(ours["median"], dumb),
                "one_policy_changed_ms": measure.of(took * 1000 for took in changes_s(scene, False)),
                "one_policy_changed_and_identities_ms": measure.of(took * 1000 for took in changes_s(scene, True)),
                "peak_rss_mib_so_far": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
    measure.publish("policies", {"sizes": figures}, began, options.results)


if __name__ == "__main__":
    main()
