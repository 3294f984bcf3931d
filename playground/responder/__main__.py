"""The responder's process, started as `python -m playground.responder`. Decides what it does without; `main` does the
rest.

asyncio takes TLS along where it can be had, which are 4 MiB that nothing here ever uses.
"""

from __future__ import annotations

import sys

sys.modules["ssl"] = None  # type: ignore[assignment]  # to asyncio this Python has none

from playground.responder.main import main  # noqa: E402

sys.exit(main())
