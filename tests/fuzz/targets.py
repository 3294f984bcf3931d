"""All doors that are fuzzed, by name."""

from __future__ import annotations

from typing import Any

from fuzz_agents import AGENTS
from fuzz_api import API
from fuzz_controllers import CONTROLLERS
from fuzz_dhcp import DHCP
from fuzz_dhcp6 import DHCP6
from fuzz_files import FILE
from fuzz_lab import Target
from fuzz_names import NAMES_DOOR

TARGETS: dict[str, Target[Any]] = {
    target.name: target for target in (FILE, API, AGENTS, CONTROLLERS, NAMES_DOOR, DHCP, DHCP6)
}
