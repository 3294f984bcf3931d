from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from overlay.kernel import namespaces
from playground import doctor
from playground.doctor import kernel, packages, underlay, world
from playground.doctor.__main__ import main
from playground.doctor.packages import Tool

ABSENT = Tool("no-such-program", "no-such-package", "nothing")


@pytest.fixture
def switches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Gives a kernel setting a value, in a file of the test's own; all others do not exist."""
    for name in ("APPARMOR_SWITCH", "CLONE_SWITCH", "LIMIT", "APPARMOR_PROFILE", "MODULES_FILE", "SYSCTL_FILE"):
        monkeypatch.setattr(kernel, name, tmp_path / name.lower())
    monkeypatch.setattr(kernel, "BRIDGE_KNOBS", tmp_path)
    monkeypatch.setattr(kernel, "SYSCTLS", tmp_path / "sys")

    def write(name: str, value: str) -> Path:
        path: Path = getattr(kernel, name)
        path.write_text(value)
        return path

    return write


def namespaces_check(monkeypatch: pytest.MonkeyPatch, uid: int) -> doctor.Check:
    """What is said where the trial fails for `uid`."""
    monkeypatch.setattr(kernel, "_cause", lambda: "Operation not permitted")
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    (check,) = kernel.checks()
    assert not check.ok and "Operation not permitted" in check.detail
    return check


def test_every_check_that_fails_says_what_to_do() -> None:
    assert [check.name for check in doctor.checks() if not check.ok and not check.remedy] == []


@pytest.mark.system
def test_what_a_sandbox_needs_works_where_namespaces_do() -> None:
    found = {check.name: check.ok for check in kernel.checks()}
    assert all(found[name] for name in ("namespaces", "bridge", "veth", "vxlan", "packet sockets"))


@pytest.mark.system
def test_what_would_stop_a_gateway_is_said_with_its_remedy(tmp_path: Path) -> None:
    def look(commands: str) -> doctor.Check:
        for command in commands.splitlines():
            subprocess.run(command, shell=True, check=True)
        [check] = world.checks()
        return check

    way = "ip link add un0 type veth\nip link set un0 up\nip addr add 192.0.2.9/24 dev un0\n"
    way += "ip route add default via 192.0.2.1"
    strict = "nft add table ip t\nnft add chain ip t FORWARD '{ type filter hook forward priority 0; policy drop; }'"
    accepts = "nft add rule ip t FORWARD iifname '\"gw*\"' accept"
    fd = namespaces.create("doctored", lambda: None, tmp_path)
    try:
        seen = [namespaces.inside(fd, lambda commands=commands: look(commands)) for commands in (way, strict, accepts)]
    finally:
        os.close(fd)
        namespaces.remove("doctored", tmp_path)
        subprocess.run(["umount", "--lazy", tmp_path], check=True)
    assert [check.ok for check in seen] == [True, False, True]
    assert "IPv4 by un0, no default route for IPv6" in seen[0].detail
    assert "ip t" in seen[1].detail and "gw*" in seen[1].remedy
    assert all(check.is_optional for check in seen)


@pytest.mark.system
def test_what_to_pass_as_the_underlay_is_said_with_its_mtu(tmp_path: Path) -> None:
    def there() -> list[doctor.Check]:
        commands = "link add un0 mtu 9000 type veth\nlink set un0 up\nlink set lo up\naddr add 192.0.2.1/24 dev un0\n"
        subprocess.run(["ip", "-batch", "-"], input=commands, text=True, check=True)
        return underlay.checks()

    folder = tmp_path / "netns"
    machine = namespaces.create("machine", lambda: None, folder)
    try:
        (check,) = namespaces.inside(machine, there)
    finally:
        os.close(machine)
        namespaces.remove("machine", folder)
        subprocess.run(["umount", "--lazy", folder], check=True)
    assert check.ok and check.detail == "for --underlay: 192.0.2.1 (un0, MTU 9000)"


def test_the_line_for_missing_packages_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *args, **kwargs: "/usr/bin/apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    tools = [Tool("dig", "bind9-dnsutils", ""), Tool("host", "bind9-dnsutils", ""), Tool("nft", "nftables", "")]
    line = packages.install_line(tools)
    assert line == "run: sudo apt-get install --no-install-recommends bind9-dnsutils nftables"


def test_a_missing_package_fails_the_set_up_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packages, "NEEDED", (ABSENT,))
    assert main(["--packages"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("missing: no-such-package; ") and said.err.count("\n") == 1


def test_set_up_is_silent_when_all_packages_are_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packages, "NEEDED", (Tool("sh", "dash", "a shell"),))
    assert main(["--packages"]) == 0
    assert capsys.readouterr() == ("", "")


def test_packages_are_asked_for_in_one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, ...]] = []
    monkeypatch.setattr(packages, "NEEDED", (ABSENT, Tool("no-such-either", "another", "")))
    monkeypatch.setattr(packages, "_apt", lambda *words: called.append(words))
    monkeypatch.setattr("shutil.which", lambda name, path=None: "/usr/bin/apt-get" if name == "apt-get" else None)
    with pytest.raises(doctor.FixFailed, match="still missing"):
        packages.fix(False, lambda line: None)
    assert called == [("update",), ("install", "-y", "--no-install-recommends", "no-such-package", "another")]


def test_nothing_is_installed_when_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "NEEDED", (Tool("sh", "dash", "a shell"),))
    monkeypatch.setattr(packages, "_apt", lambda *words: pytest.fail("apt was called"))
    packages.fix(False, lambda line: pytest.fail(line))


def test_only_root_fixes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PermissionError):
        doctor.fix()
    assert main(["--fix"]) == 1
    assert "use sudo" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("switch", "value", "said"),
    [
        ("CLONE_SWITCH", "0\n", "kernel.unprivileged_userns_clone is 0"),
        ("LIMIT", "0\n", "user.max_user_namespaces is 0"),
    ],
)
def test_a_forbidden_user_namespace_names_the_setting_and_the_line_for_root(
    switches: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch, switch: str, value: str, said: str
) -> None:
    switches(switch, value)
    check = namespaces_check(monkeypatch, 1000)
    assert said in check.detail and check.is_fixable
    assert check.remedy.startswith("run once: sudo ") and check.remedy.endswith("doctor --fix")


def test_apparmor_is_asked_for_a_profile_of_this_environment_alone(
    switches: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    switches("APPARMOR_SWITCH", "1\n")
    monkeypatch.setattr(kernel, "_own_interpreter", lambda: tmp_path / ".venv/bin/python3.12")
    assert namespaces_check(monkeypatch, 1000).is_fixable
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(kernel, "_run", lambda *argv: ran.append(argv))
    (tmp_path / "loaded").touch()
    said: list[str] = []
    kernel.fix(said.append)
    kernel.fix(said.append)
    assert len(said) == 1 and len(ran) == 1 and ran[0][0] == "apparmor_parser"
    text = kernel.APPARMOR_PROFILE.read_text()
    assert f'"{tmp_path}/.venv/bin/python*"' in text and "userns," in text


def test_the_systems_python_gets_no_profile(
    switches: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    switches("APPARMOR_SWITCH", "1\n")
    monkeypatch.setattr(kernel, "_own_interpreter", lambda: None)
    check = namespaces_check(monkeypatch, 1000)
    assert not check.is_fixable and "every Python program" in check.remedy
    with pytest.raises(doctor.FixFailed, match="every Python program"):
        kernel.fix(lambda line: None)


def test_a_profile_that_can_not_be_loaded_is_not_left_behind(
    switches: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    switches("APPARMOR_SWITCH", "1\n")
    monkeypatch.setattr(kernel, "_own_interpreter", lambda: tmp_path / "python")

    def refuse(*argv: str) -> None:
        raise doctor.FixFailed("syntax error")

    monkeypatch.setattr(kernel, "_run", refuse)
    with pytest.raises(doctor.FixFailed, match="syntax error"):
        kernel.fix(lambda line: None)
    assert not kernel.APPARMOR_PROFILE.exists()


def test_a_setting_is_set_now_and_at_boot_and_once(switches: Callable[[str, str], Path], tmp_path: Path) -> None:
    switch = switches("CLONE_SWITCH", "0\n")
    said: list[str] = []
    kernel.fix(said.append)
    assert switch.read_text() == "1"
    kernel.fix(said.append)
    assert kernel.SYSCTL_FILE.read_text() == "kernel.unprivileged_userns_clone = 1\n"
    assert len(said) == 1


def test_br_netfilter_is_loaded_with_its_effect_on_other_bridges_off(
    switches: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    knobs = tmp_path / "bridge"
    monkeypatch.setattr(kernel, "BRIDGE_KNOBS", knobs)

    def modprobe(*argv: str) -> None:
        assert argv == ("modprobe", "br_netfilter")
        knobs.mkdir()
        (knobs / "bridge-nf-call-iptables").write_text("1")

    monkeypatch.setattr(kernel, "_run", modprobe)
    kernel.fix(lambda line: None)
    assert (knobs / "bridge-nf-call-iptables").read_text() == "0"
    assert kernel.MODULES_FILE.read_text() == "br_netfilter\n"
    assert kernel.SYSCTL_FILE.read_text() == "net.bridge.bridge-nf-call-iptables = 0\n"


def test_a_kernel_without_br_netfilter_is_no_failure(
    switches: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*argv: str) -> None:
        raise doctor.FixFailed("module not found")

    monkeypatch.setattr(kernel, "BRIDGE_KNOBS", tmp_path / "none")
    monkeypatch.setattr(kernel, "_run", refuse)
    said: list[str] = []
    kernel.fix(said.append)
    assert "module not found" in said[0] and not kernel.MODULES_FILE.exists()


def test_json_holds_every_field_of_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json"])
    for check in json.loads(capsys.readouterr().out):
        assert set(check) == {"name", "ok", "detail", "remedy", "is_fixable", "is_optional"}


def test_the_doctor_runs_before_any_package_is_installed() -> None:
    import subprocess
    import sys

    source = Path(doctor.__file__).parents[2]
    alone = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {str(source)!r}); import playground.doctor.__main__",
    ]
    assert subprocess.run(alone).returncode == 0


def test_few_neighbours_are_said_and_raised_once(switches: Callable[[str, str], Path], tmp_path: Path) -> None:
    for name in kernel.NEIGHBOURS:
        switch = tmp_path.joinpath("sys", *name.split("."))
        switch.parent.mkdir(parents=True, exist_ok=True)
        switch.write_text("100\n")
    (found,) = kernel._neighbours()
    assert not found.ok and found.is_fixable and found.is_optional
    said: list[str] = []
    kernel.fix(said.append)
    assert [line.split()[1].rpartition(".")[2] for line in said[:3]] == ["gc_thresh3", "gc_thresh2", "gc_thresh1"]
    (found,) = kernel._neighbours()
    assert found.ok
    kernel.fix(lambda line: pytest.fail(line))
