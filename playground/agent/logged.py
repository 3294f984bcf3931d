"""Hears what rules log in the data plane's namespace, whichever has its name now. Reads nothing of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from policies.kernel.nflog import LogSocket

log = logging.getLogger("agent")


class Logged:
    """One NFLOG group. namespace: its path. what: of which it is said that nobody hears it. hear: reads the socket."""

    def __init__(self, namespace: Path, group: int, what: str, hear: Callable[[LogSocket], None]) -> None:
        self._namespace = namespace
        self._group = group
        self._what = what
        self._hear = hear
        self._socket: LogSocket | None = None
        self._heard_in = (0, 0)
        self._cause = ""

    def listen(self) -> None:
        """Listens from now on, also in a namespace that took the place of another. Cheap; a cause that hinders it is
        said once."""
        try:
            found = self._namespace.stat()
            if (found.st_dev, found.st_ino) == self._heard_in:
                return
            self.close()
            self._socket = LogSocket(self._namespace, self._group)
            self._heard_in = found.st_dev, found.st_ino
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._hear, self._socket)
            self._cause = ""
        except OSError as error:
            if self._cause != str(error):
                log.warning("%s are not heard error=%s", self._what, error)
            self._cause = str(error)

    def close(self) -> None:
        """Listens no more."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket, self._heard_in = None, (0, 0)
