"""An emulated site as one sandbox of namespaces: `ensure`, `find`, `stop`, ways in. Knows nothing of playgrounds."""

from playground.sandbox.folders import SandboxError
from playground.sandbox.lifecycle import (
    SandboxInfo,
    ask,
    command_in,
    ensure,
    enter,
    find,
    provide_hypervisors,
    stop,
)

__all__ = ["SandboxError", "SandboxInfo", "ask", "command_in", "ensure", "enter", "find", "provide_hypervisors", "stop"]
