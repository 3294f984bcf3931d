"""The steps for two small hosts, as text. A line that changes is explained in the commit that changes it.

`pytest --update-golden tests/overlay/test_golden.py` writes the files anew.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from overlay_lab import NET, a_port, a_remote, mac

from overlay.diff import diff
from overlay.kernel.memory import MemoryDataPlane
from overlay.ops import describe
from overlay.state import Gate, HostState, Leg, Network, port_device

GOLDEN = Path(__file__).parent / "golden"


def stays() -> Network:
    """One guest here, one elsewhere, a service leg."""
    port = a_port(1)
    return Network(
        NET,
        vni=4711,
        mtu=1450,
        ports={port.id: port},
        remotes={mac(2): a_remote(2, "192.0.2.2")},
        vteps=frozenset({"192.0.2.2"}),
        leg=Leg("playground-atlas", ("10.0.0.254/24",)),
    )


def moves() -> Network:
    """The same guest has gone to a third host; this one sends stragglers after it."""
    port = a_port(1, gate=Gate.CLOSED)
    return Network(
        NET,
        vni=4711,
        mtu=1450,
        ports={port.id: port},
        remotes={mac(1): a_remote(1, "192.0.2.3"), mac(2): a_remote(2, "192.0.2.2")},
        vteps=frozenset({"192.0.2.2", "192.0.2.3"}),
        leg=Leg("playground-atlas", ("10.0.0.254/24",)),
        chase={mac(1): "192.0.2.3"},
    )


def steps(*networks: Network) -> str:
    """Those to the last state, from an empty host through the others."""
    kernel = MemoryDataPlane()
    kernel.plug(port_device(a_port(1).id))
    ops = []
    for network in networks:
        ops = diff(HostState("192.0.2.1", {network.id: network}), kernel.observe())
        assert kernel.apply(ops) == []
    return "".join(f"{describe(op)}\n" for op in ops)


@pytest.mark.parametrize(("name", "networks"), [("first", [stays()]), ("departure", [stays(), moves()])])
def test_the_steps_are_these(name: str, networks: list[Network], golden: Callable[[str, Path], None]) -> None:
    golden(steps(*networks), GOLDEN / f"{name}.txt")
