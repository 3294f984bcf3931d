"""Random scenes, small and dense in what can go wrong: shared labels, overlapping ports, nested blocks, every tier."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import strategies as st

from policies.model import (
    Action,
    BlockPeer,
    Endpoint,
    EndpointPeer,
    Gateway,
    GatewayPeer,
    HostPeer,
    Mode,
    OnDeny,
    Origin,
    Policy,
    Rule,
    SamePeer,
    Scene,
    ServicesPeer,
    Subnet,
    Tier,
    WorldPeer,
)
from policies.ports import EVERYTHING, Ports, Protocol
from policies.selector import parse_selector

SELECTORS = (
    "*",
    "role=a",
    "role!=a",
    "role in (a,b)",
    "role notin (b,c)",
    "has(team)",
    "!has(team)",
    "team=x",
    "role=b, team=y",
    "network=n0",
    "workspace=w1",
    "workspace in (w0,w2), network=n1",
    "role=nobody",
)

PORTS = (
    EVERYTHING,
    Ports.of(Protocol.TCP),
    Ports.of(Protocol.TCP, 22),
    Ports.of(Protocol.TCP, 20, 30),
    Ports.of(Protocol.TCP, 22) | Ports.of(Protocol.UDP, 53),
    Ports.of(Protocol.UDP, 50, 60),
    Ports.of(Protocol.ICMP),
    Ports.of(Protocol.ICMP, 8),
    Ports.of(Protocol.SCTP, 7),
    EVERYTHING - Ports.of(Protocol.TCP, 22),
)

POINTS = (
    (Protocol.TCP, 19),
    (Protocol.TCP, 22),
    (Protocol.TCP, 30),
    (Protocol.TCP, 65535),
    (Protocol.UDP, 53),
    (Protocol.UDP, 61),
    (Protocol.SCTP, 7),
    (Protocol.ICMP, 0),
    (Protocol.ICMP, 8),
    (Protocol.OTHER, 0),
)

BLOCKS = (
    BlockPeer(ip_network("0.0.0.0/0")),
    BlockPeer(ip_network("10.0.0.0/8"), (ip_network("10.1.0.0/16"),)),
    BlockPeer(ip_network("10.1.0.0/16"), (ip_network("10.1.2.0/24"), ip_network("10.1.0.0/24"))),
    BlockPeer(ip_network("10.1.2.3/32")),
    BlockPeer(ip_network("::/0"), (ip_network("fd00::/8"),)),
    BlockPeer(ip_network("fd00:1::/32")),
)

ADDRESSES = ("0.0.0.0", "9.255.255.255", "10.0.0.7", "10.1.0.9", "10.1.2.3", "10.1.2.4", "10.1.9.9", "255.255.255.255")
ADDRESSES += ("::", "fd00::5", "fd00:1::5", "2001:db8::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")

PLAYGROUNDS = ("p", "q")


@st.composite
def peers(draw: st.DrawFn, tier: Tier, playground: str) -> tuple[object, ...]:
    own = None if not playground else frozenset({playground})
    kinds = [
        st.builds(EndpointPeer, st.sampled_from(SELECTORS).map(parse_selector), st.just(own)),
        st.builds(SamePeer, st.sampled_from(["role", "team"])),
        st.just(WorldPeer()),
        st.sampled_from(BLOCKS),
        st.just(HostPeer()),
        st.just(GatewayPeer("wan")),
    ]
    if tier is Tier.ADMIN:
        kinds.append(st.just(ServicesPeer()))
    return tuple(draw(st.lists(st.one_of(kinds), max_size=3)))


@st.composite
def policies(draw: st.DrawFn, number: int) -> Policy:
    tier = draw(st.sampled_from(list(Tier)))
    playground = "" if tier is Tier.ADMIN else draw(st.sampled_from(PLAYGROUNDS))
    own = None if not playground else frozenset({playground})
    actions = [Action.ALLOW] if tier is Tier.OWNER else list(Action)
    rules = st.lists(
        st.builds(
            lambda who, ports, line, action: Rule(who, ports, Origin("random", line), action),
            peers(tier, playground),
            st.sampled_from(PORTS),
            st.integers(1, 9),
            st.sampled_from(actions),
        ),
        max_size=3,
    ).map(tuple)
    subject = st.builds(EndpointPeer, st.sampled_from(SELECTORS).map(parse_selector), st.just(own))
    mode = draw(st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.LOG, Mode.STAGE]))
    return Policy(
        name=f"policy-{number}",
        subjects=tuple(draw(st.lists(subject, min_size=1, max_size=2))),
        ingress=draw(st.one_of(st.none(), rules)),
        egress=draw(st.one_of(st.none(), rules)),
        origin=Origin("random", number),
        tier=tier,
        priority=0 if tier is Tier.OWNER else draw(st.integers(0, 3)),
        mode=mode,
        playground=playground,
        on_deny=draw(st.sampled_from(OnDeny)),
        replaces=f"policy-{draw(st.integers(0, 4))}" if mode is Mode.STAGE and draw(st.booleans()) else "",
    )


@st.composite
def endpoints(draw: st.DrawFn) -> tuple[Endpoint, ...]:
    found = []
    for number in range(draw(st.integers(1, 5))):
        playground = draw(st.sampled_from(PLAYGROUNDS))
        workspace = f"w{number}"
        for _ in range(draw(st.integers(1, 3))):
            network = draw(st.sampled_from(["n0", "n1"]))
            labels = {"workspace": workspace, "network": network, "playground": playground}
            for key, values in (("role", "abc"), ("team", "xy")):
                if value := draw(st.sampled_from([None, *values])):
                    labels[key] = value
            addresses = ("10.1.0.9",) if draw(st.integers(0, 5)) == 5 else ()
            found.append(Endpoint(playground, workspace, network, labels, addresses))
    return tuple(found)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    gateway = st.builds(
        Gateway,
        st.sampled_from(PLAYGROUNDS),
        st.sampled_from(["wan", "lan"]),
        st.frozensets(st.sampled_from(["n0", "n1"]), min_size=1),
        st.booleans(),
    )
    prefixes = [ip_network(text) for text in ("10.1.2.0/24", "10.1.2.4/32", "fd00:1::/64")]
    subnet = st.builds(Subnet, st.sampled_from(PLAYGROUNDS), st.just("n0"), st.sampled_from(prefixes))
    return Scene(
        draw(endpoints()),
        tuple(draw(policies(number)) for number in range(draw(st.integers(0, 5)))),
        tuple(draw(st.lists(gateway, max_size=2))),
        subnets=tuple(draw(st.lists(subnet, max_size=2))),
    )
