"""Desired states over a small universe, for hypothesis: two networks, few ports, MACs and VTEPs."""

from __future__ import annotations

from hypothesis import strategies as st
from overlay_lab import NET, OTHER_NET, a_port, a_remote, mac, port_id

from overlay.state import Gate, HostState, Leg, LocalPort, Network, NetworkId, RemotePort

VTEPS = ["192.0.2.2", "192.0.2.3", "192.0.2.4"]
NUMBERS = {NET: [1, 2, 3], OTHER_NET: [4, 5]}
"""Ports of each network."""

ADOPTED = 3
"""The port whose device lies in the host's namespace."""


def local_port(number: int, gate: Gate, addresses: tuple[str, ...]) -> LocalPort:
    return LocalPort(
        port_id(number),
        mac(number),
        addresses,
        gate,
        adopt=number == ADOPTED,
        also=also(number),
        announces=bool(also(number)),
    )


def also(number: int) -> tuple[str, ...]:
    """MACs that lead to a port beside its own: one of the two that are here or there has some, and one of those that
    never are here."""
    return (mac(60 + number), mac(80 + number)) if number in (2, 20) else ()


def addresses_of(number: int) -> st.SearchStrategy[tuple[str, ...]]:
    return st.sampled_from([(), (f"10.0.0.{number}",), (f"10.0.0.{number}", f"fd00::{number:x}")])


def remotes() -> st.SearchStrategy[dict[str, RemotePort]]:
    """Some of the MACs are those of local ports: guests move."""
    entry = st.sampled_from([1, 2, 4, 20, 21]).flatmap(
        lambda n: st.builds(RemotePort, st.just(mac(n)), addresses_of(n), st.sampled_from(VTEPS), also=st.just(also(n)))
    )
    return st.lists(entry, max_size=4).map(lambda found: {remote.mac: remote for remote in found})


def legs(network: NetworkId) -> st.SearchStrategy[Leg | None]:
    gateway = st.sampled_from([("10.0.0.1/24",), ("10.0.0.254/24", "fd00::1/64")])
    # A service namespace serves several networks.
    return st.none() | st.builds(Leg, st.sampled_from(["service", f"service-{network[-2:]}"]), gateway)


@st.composite
def networks(draw: st.DrawFn, network: NetworkId) -> Network:
    ports = {}
    for number in draw(st.sets(st.sampled_from(NUMBERS[network]))):
        port = local_port(number, draw(st.sampled_from(Gate)), draw(addresses_of(number)))
        ports[port.id] = port
    return Network(
        network,
        vni=draw(st.sampled_from([100, 101])) + int(network[-2:], 16),
        mtu=draw(st.sampled_from([1430, 1450])),
        ports=ports,
        remotes=draw(remotes()),
        vteps=frozenset(draw(st.sets(st.sampled_from(VTEPS)))),
        leg=draw(legs(network)),
        chase=draw(st.dictionaries(st.sampled_from([mac(1), mac(20)]), st.sampled_from(VTEPS), max_size=2)),
    )


@st.composite
def host_states(draw: st.DrawFn) -> HostState:
    chosen = draw(st.sets(st.sampled_from([NET, OTHER_NET])))
    return HostState("192.0.2.1", {network: draw(networks(network)) for network in chosen})


UNDERLAY = "192.0.2.1"
PRESENT = (1, 2, ADOPTED, 4)
"""Numbers of the ports whose devices exist in the named states' world; port 5's never comes."""


def a_host(*networks: Network) -> HostState:
    return HostState(UNDERLAY, {network.id: network for network in networks})


def a_network(*ports: LocalPort, **changes: object) -> Network:
    return Network(NET, vni=7, mtu=1450, ports={port.id: port for port in ports}, **changes)  # type: ignore[arg-type]


def _remotes(*numbers: int) -> dict[str, RemotePort]:
    return {mac(number): a_remote(number, VTEPS[number % len(VTEPS)]) for number in numbers}


_LEG = Leg("service", ("10.0.0.254/24", "fd00::1/64"))
_OTHER = Network(OTHER_NET, vni=8, mtu=1450, ports={port_id(4): a_port(4)}, leg=Leg("service", ("10.1.0.1/24",)))

NAMED: dict[str, HostState] = {
    "empty": a_host(),
    "bare": a_host(a_network()),
    "peers": a_host(a_network(remotes=_remotes(20, 21), vteps=frozenset(VTEPS))),
    "ports": a_host(a_network(a_port(1), a_port(2), a_port(5), leg=_LEG)),
    "adopted": a_host(a_network(a_port(1), a_port(ADOPTED, adopt=True))),
    "leaving": a_host(
        a_network(
            a_port(1),
            a_port(2, gate=Gate.CLOSED),
            remotes=_remotes(2, 20),
            vteps=frozenset(VTEPS[:2]),
            leg=_LEG,
            chase={mac(2): VTEPS[2]},
        )
    ),
    "settled": a_host(a_network(a_port(1), remotes=_remotes(2, 20), vteps=frozenset(VTEPS), leg=_LEG)),
    "two": a_host(a_network(a_port(1), remotes=_remotes(20), vteps=frozenset(VTEPS[:1]), leg=_LEG), _OTHER),
    "renumbered": a_host(
        Network(NET, vni=9, mtu=1430, ports={port_id(1): a_port(1, addresses=("10.0.0.77",))}, leg=Leg("spare", ()))
    ),
}
"""States that one host goes through: nothing, a network alone, with others' ports, with its own, a move, and more."""
