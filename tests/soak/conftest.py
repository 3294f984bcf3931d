"""A soak is a site test: it speaks the words of `tests/site`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "site"))
