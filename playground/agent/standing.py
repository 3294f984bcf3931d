"""How a host stands with its site's controllers, for people on that host: a small file that its agent keeps, and what
`playground agent --status` says by it. Decides nothing: the agent reads none of it."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path

import msgspec

FILE = "agent.json"
"""In the host's run directory."""


class Standing(msgspec.Struct, frozen=True):
    """since_utc_s: when the present connection, or the time without one, began. opens_until_utc_s: until when
    workspaces are started by what the host was shown last; nothing that runs ends then. All are seconds since 1970."""

    is_connected: bool
    since_utc_s: float
    cause: str = ""
    opens_until_utc_s: float = 0.0


class StandingFile:
    """Keeps the file, when it is given one, and is silent while nothing has changed."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._said: Standing | None = None

    def connected(self, now_utc_s: float) -> None:
        """A controller has shown this host all that concerns it."""
        if self._said is None or not self._said.is_connected:
            self._say(Standing(True, now_utc_s))

    def alone(self, since_utc_s: float, cause: str, opens_until_utc_s: float) -> None:
        """No controller is heard; since_utc_s counts unless the host was alone before."""
        if self._said is not None and not self._said.is_connected:
            since_utc_s = self._said.since_utc_s
        self._say(Standing(False, since_utc_s, cause, opens_until_utc_s))

    def _say(self, standing: Standing) -> None:
        if standing == self._said:
            return
        self._said = standing
        if self._path is not None:
            draft = self._path.with_suffix(".draft")
            draft.write_bytes(msgspec.json.encode(standing) + b"\n")
            draft.replace(self._path)


def told(host: str, run: Path, now_utc_s: float) -> tuple[str, bool]:
    """A sentence on the host whose run directory this is, and whether a controller is in charge of it."""
    try:
        standing = msgspec.json.decode((run / FILE).read_bytes(), type=Standing)
    except FileNotFoundError:
        return f"{host}: no agent has run here since the machine started", False
    except msgspec.DecodeError as error:
        return f"{host}: {run / FILE} can't be read ({error}); its agent writes it anew when it starts", False
    age = f"since {_clock(standing.since_utc_s)}, {max(0.0, now_utc_s - standing.since_utc_s):.0f} s ago"
    if not _is_running(run / "agent.lock"):
        return f"{host}: its agent does not run; what it left running goes on, nothing is mended or started", False
    if standing.is_connected:
        return f"{host}: connected {age}", True
    opens = standing.opens_until_utc_s
    until = (
        f"workspaces are started by what it was shown last until {_clock(opens)}"
        if opens > now_utc_s
        else "no workspace is started any more: what it was shown last is too old"
    )
    return f"{host}: alone {age}: {standing.cause or 'just started'}; what runs goes on, {until}", False


def _clock(utc_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(utc_s))


def _is_running(lock: Path) -> bool:
    try:
        with lock.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
