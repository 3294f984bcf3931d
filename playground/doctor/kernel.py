"""Owns what the kernel and the distribution allow: namespaces, modules, taps; and allowing it as root.

What can be tried is tried (`playground.doctor.trial`, `overlay.kernel.capabilities`); settings are read only to say why
something failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from overlay.kernel.capabilities import Capability, probe
from playground.doctor.check import Check, FixFailed

_SBIN = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))

APPARMOR_SWITCH = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
CLONE_SWITCH = Path("/proc/sys/kernel/unprivileged_userns_clone")
LIMIT = Path("/proc/sys/user/max_user_namespaces")
APPARMOR_PROFILE = Path("/etc/apparmor.d/playground")
MODULES_FILE = Path("/etc/modules-load.d/playground.conf")
SYSCTL_FILE = Path("/etc/sysctl.d/60-playground.conf")
BRIDGE_KNOBS = Path("/proc/sys/net/bridge")
SYSCTLS = Path("/proc/sys")

NEIGHBOURS = {
    f"net.{family}.neigh.default.{limit}": value
    for family in ("ipv4", "ipv6")
    for limit, value in (("gc_thresh1", 4096), ("gc_thresh2", 8192), ("gc_thresh3", 16384))
}
"""How many neighbours the kernel keeps, over all network namespaces; its own limit of 1024 is full when some thirty
emulated workspaces talk to each other, each way (ip-sysctl: neigh/default/gc_thresh*)."""

_FIXABLE = {"br_netfilter"}


def checks() -> list[Check]:
    """The namespaces of a sandbox first; when they fail, nothing further can be tried."""
    namespaces = _namespaces(_cause())
    if not namespaces.ok:
        return [namespaces]
    features = [_feature(found) for found in probe() if found.name != namespaces.name]
    return [namespaces, *features, *_neighbours()]


def fix(say: Callable[[str], None]) -> None:
    """Allows ordinary users their namespaces and loads br_netfilter, now and at boot. Raises FixFailed."""
    if _value(CLONE_SWITCH) == "0":
        _set_for_good(CLONE_SWITCH, "kernel.unprivileged_userns_clone", "1", say)
    if _value(LIMIT) == "0":
        _set_for_good(LIMIT, "user.max_user_namespaces", "10000", say)
    if _value(APPARMOR_SWITCH) == "1":
        _allow_in_apparmor(say)
    if not BRIDGE_KNOBS.exists():
        _load_bridge_netfilter(say)
    for name in _few_neighbours():
        _set_for_good(_switch(name), name, str(NEIGHBOURS[name]), say)


# -- checks ----------------------------------------------------------------------------------------------------------


def _cause() -> str:
    """Why a sandbox can't be made; empty when it can. In a process of its own: what it makes ends with it."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    environment = dict(os.environ) | {"PYTHONPATH": path}
    trial = [sys.executable, "-m", "playground.doctor.trial"]
    done = subprocess.run(trial, env=environment, capture_output=True, text=True)
    return done.stdout.strip() or ("" if done.returncode == 0 else f"the trial failed: {done.stderr.strip()[-200:]}")


def _namespaces(cause: str) -> Check:
    whose = "root's own" if os.geteuid() == 0 else "an ordinary user's"
    if not cause:
        return Check("namespaces", True, f"{whose} namespaces work")
    detail = f"no {whose} namespaces ({cause})"
    by_hand = f"run once: sudo {_command()} doctor --fix"
    if os.geteuid() == 0:
        return Check("namespaces", False, detail, "a container needs CAP_SYS_ADMIN and an unmasked /proc: --privileged")
    if _value(CLONE_SWITCH) == "0":
        return Check("namespaces", False, f"{detail}: kernel.unprivileged_userns_clone is 0", by_hand, True)
    if _value(LIMIT) == "0":
        return Check("namespaces", False, f"{detail}: user.max_user_namespaces is 0", by_hand, True)
    if _value(APPARMOR_SWITCH) == "1":
        detail = f"{detail}: AppArmor keeps them from programs without a profile"
        if _own_interpreter() is None:
            return Check("namespaces", False, detail, _NO_OWN_INTERPRETER)
        return Check("namespaces", False, detail, by_hand, True)
    return Check(
        "namespaces", False, detail, "run as root, or outside this container (it masks /proc, or forbids unshare)"
    )


def _neighbours() -> list[Check]:
    """Nothing where it can't be seen: only the first network namespace shows these limits."""
    if not all(_switch(name).exists() for name in NEIGHBOURS):
        return []
    if not _few_neighbours():
        return [Check("neighbours", True, "the kernel keeps enough of them for large emulated sites", is_optional=True)]
    detail = "the kernel keeps few neighbours in all: more than about 30 emulated workspaces can't all talk at once"
    by_hand = f"run once: sudo {_command()} doctor --fix"
    return [Check("neighbours", False, detail, by_hand, is_fixable=True, is_optional=True)]


def _few_neighbours() -> list[str]:
    """The limits that are below ours, largest first: each must stay above the next."""
    found = {name: _value(_switch(name)) for name in NEIGHBOURS}
    return [name for name, value in reversed(NEIGHBOURS.items()) if int(found[name] or value) < value]


def _switch(name: str) -> Path:
    """The file of a sysctl; none of ours has a dot inside a part."""
    return SYSCTLS.joinpath(*name.split("."))


def _feature(found: Capability) -> Check:
    """What the data plane's own trial says of one thing."""
    if found.works:
        return Check(found.name, True, "works", is_optional=not found.needed)
    is_fixable = found.name in _FIXABLE and os.geteuid() != 0
    remedy = f"run once: sudo {_command()} doctor --fix" if is_fixable else found.remedy
    return Check(found.name, False, found.cause, remedy, found.name in _FIXABLE, not found.needed)


def _value(switch: Path) -> str | None:
    """A sysctl's value; None where this kernel has no such thing."""
    return switch.read_text().strip() if switch.exists() else None


def _command() -> str:
    """This program, as root finds it too."""
    beside = Path(sys.executable).with_name("playground")
    return str(beside) if beside.exists() else f"{sys.executable} -m playground"


# -- fixes -----------------------------------------------------------------------------------------------------------

_NO_OWN_INTERPRETER = (
    "this environment runs the system's Python, and a profile for that would open every Python program: "
    "make an environment with `python3 -m venv --copies` (as `make demo` does), or run as root"
)


def _own_interpreter() -> Path | None:
    """This environment's interpreter, if it has one of its own: AppArmor knows a program by its real path."""
    real = Path(sys.executable).resolve()
    return real if real.is_relative_to(Path(sys.prefix).resolve()) and sys.prefix != sys.base_prefix else None


def profile(interpreter: Path) -> str:
    """AppArmor profile that takes nothing from `interpreter` and gives it user namespaces; apparmor.d(5)."""
    pattern = f"{interpreter.parent}/python*"
    return (
        "# Written by `playground doctor --fix`: an emulated site of an ordinary user is a user namespace.\n"
        "abi <abi/4.0>,\n\ninclude <tunables/global>\n\n"
        f'profile playground "{pattern}" flags=(unconfined) {{\n  userns,\n\n'
        "  include if exists <local/playground>\n}\n"
    )


def _allow_in_apparmor(say: Callable[[str], None]) -> None:
    interpreter = _own_interpreter()
    if interpreter is None:
        raise FixFailed(_NO_OWN_INTERPRETER)
    text = profile(interpreter)
    if APPARMOR_PROFILE.exists() and APPARMOR_PROFILE.read_text() == text:
        return
    before = APPARMOR_PROFILE.read_text() if APPARMOR_PROFILE.exists() else None
    APPARMOR_PROFILE.write_text(text)
    try:
        _run("apparmor_parser", "--replace", str(APPARMOR_PROFILE))
    except FixFailed:
        if before is None:
            APPARMOR_PROFILE.unlink()
        else:
            APPARMOR_PROFILE.write_text(before)
        raise
    say(f"AppArmor lets {interpreter.parent}/python* make user namespaces ({APPARMOR_PROFILE})")


def _load_bridge_netfilter(say: Callable[[str], None]) -> None:
    """Loaded, it hands all bridged traffic of this machine (libvirt's, say) to its iptables rules: switched off."""
    try:
        _run("modprobe", "br_netfilter")
    except FixFailed as error:
        say(f"br_netfilter could not be loaded ({error}); a playground runs without, policies will need it")
        return
    MODULES_FILE.parent.mkdir(exist_ok=True)
    MODULES_FILE.write_text("br_netfilter\n")
    for knob in sorted(BRIDGE_KNOBS.glob("bridge-nf-call-*")):
        _set_for_good(knob, f"net.bridge.{knob.name}", "0", say)
    say(f"loaded br_netfilter, now and at boot ({MODULES_FILE}); the machine's own bridges stay unfiltered")


def _set_for_good(switch: Path, name: str, value: str, say: Callable[[str], None]) -> None:
    line = f"{name} = {value}\n"
    lines = SYSCTL_FILE.read_text() if SYSCTL_FILE.exists() else ""
    if line not in lines:
        SYSCTL_FILE.parent.mkdir(exist_ok=True)
        SYSCTL_FILE.write_text(lines + line)
    switch.write_text(value)
    say(f"set {name} to {value}, now and at boot ({SYSCTL_FILE})")


def _run(*argv: str) -> None:
    program = shutil.which(argv[0], path=_SBIN)
    if program is None:
        raise FixFailed(f"the program {argv[0]} is missing")
    done = subprocess.run([program, *argv[1:]], capture_output=True, text=True)
    if done.returncode:
        raise FixFailed(f"{' '.join(argv)}: {' '.join(done.stderr.split())}")
