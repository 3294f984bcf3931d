"""What an agent says of its machine: the underlay's device, in a network namespace of the test's own."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overlay.kernel import namespaces
from playground.agent.__main__ import main
from playground.agent.inventory import Underlay, UnderlayError, fact, facts

pytestmark = pytest.mark.system


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Takes `ip` commands. un0 has MTU 9000, an IPv4 and an IPv6 address."""
    folder = tmp_path / "netns"
    try:
        fd = namespaces.create("machine", lambda: None, folder)
    except OSError as error:
        pytest.skip(f"network namespaces cannot be made ({error.strerror})")

    def ip(commands: str) -> None:
        argv = ["nsenter", f"--net={folder / 'machine'}", "ip", "-batch", "-"]
        subprocess.run(argv, input=commands, text=True, check=True)

    try:
        ip(
            "link add un0 mtu 9000 type veth peer name far mtu 9000\nlink set un0 up\nlink set lo up\n"
            "addr add 192.0.2.1/24 dev un0\naddr add 192.0.2.8 peer 192.0.2.9 dev un0\n"
            "addr add 2001:db8::1/64 dev un0 nodad\n"
        )
        yield ip
    finally:
        os.close(fd)
        namespaces.remove("machine", folder)
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def look(machine: Callable[[str], None], tmp_path: Path) -> Callable[[Underlay], None]:
    def there(underlay: Underlay) -> None:
        with namespaces.opened(tmp_path / "netns" / "machine") as fd:
            namespaces.inside(fd, underlay.look)

    return there


@pytest.mark.parametrize("address", ["192.0.2.1", "192.0.2.8", "2001:db8::1", "2001:0DB8:0::1"])
def test_the_underlay_is_the_device_that_has_the_address(look: Callable[[Underlay], None], address: str) -> None:
    underlay = Underlay(address)
    look(underlay)
    assert (underlay.device, underlay.mtu) == ("un0", 9000)


@pytest.mark.parametrize("address", ["192.0.2.99", "192.0.2.9"], ids=["nobodys", "the peer's"])
def test_an_address_that_no_device_has_is_refused_with_those_there_are(
    look: Callable[[Underlay], None], address: str
) -> None:
    with pytest.raises(UnderlayError) as refused:
        look(Underlay(address))
    assert str(refused.value) == (
        f"no device of this host has the address {address}; addresses are 192.0.2.1 (un0), 192.0.2.8 (un0), "
        "2001:db8::1 (un0): give --underlay one of them, or the address to a device first"
    )


def test_a_word_that_is_no_address_is_refused() -> None:
    with pytest.raises(UnderlayError, match="this is no IPv4 or IPv6 address"):
        Underlay("n1.example")


def test_an_agent_does_not_start_on_an_address_that_is_not_its_hosts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("secret")
    folders = [f"--{kind}-dir={tmp_path / kind}" for kind in ("state", "run", "workspaces")]
    argv = ["--name=n1", "--controller=http://127.0.0.1:1", f"--token-file={tmp_path / 'token'}", *folders]
    assert main([*argv, "--underlay=198.51.100.99"]) == 1
    assert "no device of this host has the address 198.51.100.99" in capsys.readouterr().err


def test_a_changed_mtu_is_noticed_and_a_lost_address_changes_nothing(
    machine: Callable[[str], None], look: Callable[[Underlay], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    underlay = Underlay("192.0.2.1")
    look(underlay)

    def again() -> None:
        with namespaces.opened(tmp_path / "netns" / "machine") as fd:
            namespaces.inside(fd, underlay.look_again)

    with caplog.at_level(logging.WARNING, "agent"):
        again()
        assert not caplog.records
        machine("link set un0 mtu 1400\n")
        again()
        assert underlay.mtu == 1400
        machine("addr del 192.0.2.1/24 dev un0\n")
        again()
    assert underlay.mtu == 1400
    assert [record.getMessage().partition(" device")[0].partition(" error")[0] for record in caplog.records] == [
        "underlay changed",
        "underlay address gone",
    ]


def test_an_agent_imports_no_more_than_it_uses() -> None:
    code = "import sys, playground.agent.agent, playground.agent.inventory, playground.agent.link; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"pyroute2", "pydantic", "fastapi", "uvicorn", "ruamel", "dnslib", "scapy", "sqlite3"}.isdisjoint(loaded)


def test_a_host_offers_what_it_was_told_and_what_it_is() -> None:
    offers = [fact("kvm"), fact("gpu=a100"), fact("arch=pdp11")]
    assert facts(offers) == {"kvm": "yes", "gpu": "a100", "arch": platform.machine()}


@pytest.mark.parametrize("text", ["", "a b", "=x", "gpu=", "gpu=a b", "-x"])
def test_what_no_selector_could_name_is_no_offer(text: str) -> None:
    with pytest.raises(ValueError, match="can't be what a host offers; write a word, as gpu, or KEY=VALUE"):
        fact(text)
