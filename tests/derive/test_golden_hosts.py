"""What every example means on every host of a site, as text: a changed line is a change of what is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest

from overlay.state import HostState
from playground.admit import Known, admit
from playground.derive import Derived, Setting, derive_whole
from playground.gateways import DRIVER
from playground.placement import HostView, Refusal, place
from playground.records import BindingRecord, Driver, HostRecord, PolicyRecord, PortRecord, WorkspaceRecord
from playground.spec import load_playground, load_site
from playground.view import View, host_scope, playground_scope
from playground.wire import Complete, Enter, Viewed

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
GOLDEN = Path(__file__).parent / "golden"


def is_playground(path: Path) -> bool:
    return "workspaces:" in path.read_text()


def hosts() -> dict[str, HostRecord]:
    """The hosts of the example site where an example pins to them, else three plain ones."""
    site = load_site((EXAMPLES / "campus.yaml").read_text(), "campus.yaml")
    drivers = (
        Driver("netns", "same-kernel", "one"),
        Driver("libvirt", "live"),
        Driver("external", "live"),
        Driver(DRIVER, "cold"),
    )
    return {
        name: HostRecord(name=name, site=site.name, underlay=host.underlay, labels=dict(host.labels), drivers=drivers)
        for name, host in site.hosts.items()
    }


def views(path: Path, of_site: Iterable[PolicyRecord] = ()) -> dict[str, View]:
    """What each host would be shown once the example is up and placed. of_site: policies of the site."""

    def included(pattern: str) -> list[tuple[str, bytes]]:
        return [(str(one.relative_to(path.parent)), one.read_bytes()) for one in sorted(path.parent.glob(pattern))]

    known_hosts = hosts()
    admission = admit(load_playground(path.read_text(), path.name, included), Known(hosts=known_hosts), "change")
    name = admission.root.name if admission.root else ""
    answers = place(
        [r for r in admission.puts if isinstance(r, WorkspaceRecord)],
        [HostView(record, is_up=True) for record in known_hosts.values()],
    )
    records: list[Viewed] = []
    for record in admission.puts:
        if isinstance(record, WorkspaceRecord):
            answer = answers[record.playground, record.name]
            assert not isinstance(answer, Refusal), answer
            record = msgspec.structs.replace(record, host=answer)
        if isinstance(record, PortRecord):
            host = str(answers[record.playground, record.workspace])
            records.append(
                BindingRecord(
                    port=record.id, playground=record.playground, workspace=record.workspace, active=host, source=host
                )
            )
        records.append(record)  # type: ignore[arg-type]
    found: dict[str, View] = {}
    for host in known_hosts:
        view = View()
        view.take(Enter("site", 1, [*known_hosts.values(), *of_site]))
        here: list[Viewed] = [r for r in records if isinstance(r, WorkspaceRecord) and r.host == host]
        view.take(Enter(host_scope(host), 1, here))
        if here:
            shared: list[Viewed] = [r for r in records if not isinstance(r, WorkspaceRecord)]
            view.take(Enter(playground_scope(name), 1, shared))
        view.take(Complete(1))
        found[host] = view
    return found


def text_of(host: str, derived: Derived) -> str:
    """A host's derived state, line by line, in a fixed order."""
    lines = [f"host {host}, underlay {derived.state.underlay}"]
    for guest in sorted(derived.wants.values(), key=lambda want: want.name):
        lines.append(f"  {guest.role.value} {guest.playground}/{guest.name} ({guest.driver})")
        lines += [f"    eth{nic.index} {nic.device} {nic.mac} mtu {nic.mtu}" for nic in guest.guest.nics]
    for one in sorted(derived.gateways.values(), key=lambda one: one.name):
        lines.append(f"  gateway {one.playground}/{one.name} {one.gateway}")
    lines += _network_lines(derived.state)
    for key, value in sorted(derived.services.items()):
        lines.append(f"  answers {key}: {msgspec.json.encode(value).decode()}")
    return "\n".join(lines) + "\n"


def _network_lines(state: HostState) -> list[str]:
    lines = []
    for network in sorted(state.networks.values(), key=lambda n: n.vni):
        lines.append(f"  network {network.id} vni {network.vni} mtu {network.mtu} vteps {sorted(network.vteps)}")
        if network.leg:
            lines.append(f"    leg in {network.leg.namespace}: {' '.join(network.leg.addresses)}")
        for port in sorted(network.ports.values(), key=lambda p: p.mac):
            adopted = " adopted" if port.adopt else ""
            lines.append(f"    port {port.id} {port.mac} {' '.join(port.addresses)} {port.gate.value}{adopted}")
        for remote in sorted(network.remotes.values(), key=lambda r: r.mac):
            lines.append(f"    remote {remote.mac} {' '.join(remote.addresses)} at {remote.vtep}")
        lines += [f"    chase {mac} to {vtep}" for mac, vtep in sorted(network.chase.items())]
    return lines


@pytest.mark.parametrize("path", sorted(p for p in EXAMPLES.glob("*.yaml") if is_playground(p)), ids=lambda p: p.stem)
def test_an_example_means_this_on_every_host(path: Path, golden: Callable[[str, Path], None]) -> None:
    known = hosts()
    text = "\n".join(
        text_of(host, derive_whole(view, Setting(host, known[host].underlay, "internal")))
        for host, view in sorted(views(path).items())
    )
    golden(text, GOLDEN / f"{path.stem}.txt")
