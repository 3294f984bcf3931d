"""Owns a libnftables context: runs nft text, in the network namespace of the thread that made it. Decides nothing.

The library is that of the `nft` command (libnftables(3), soname libnftables.so.1). It keeps what it has read of the
kernel between two commands, so that one more element among ten thousand costs 0.1 ms, and not a process and its start.
"""

from __future__ import annotations

import ctypes
import json
from typing import Any, Protocol

from policies.kernel.nft import NftCommand, NftError

_SONAME = "libnftables.so.1"
_JSON = 1 << 4
"""nftables/libnftables.h, NFT_CTX_OUTPUT_JSON."""


class Nft(Protocol):
    """Runs nft text in one namespace; all of a text is one transaction. Raises NftError; then nothing has changed."""

    def load(self, text: str, *, is_trial: bool = False) -> None:
        """is_trial: the kernel looks at all of it, and changes nothing."""
        ...

    def list(self, text: str) -> list[dict[str, Any]]:
        """What `list …` commands say, entry by entry (libnftables-json(5))."""
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...


def open_nft() -> Nft:
    """The library, in the namespace of the calling thread; the command where there is no library."""
    try:
        return LibNft()
    except OSError:
        return NftCommand()


class LibNft:
    """The library. Raises OSError if it is not there. To be used by the thread that made it alone."""

    def __init__(self) -> None:
        self._library = _library()
        self._context = ctypes.c_void_p(self._library.nft_ctx_new(0))
        if not self._context:
            raise OSError("libnftables gave no context")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def load(self, text: str, *, is_trial: bool = False) -> None:
        """See Nft."""
        self._library.nft_ctx_set_dry_run(self._context, is_trial)
        self._run(text)

    def list(self, text: str) -> list[dict[str, Any]]:
        """See Nft."""
        self._library.nft_ctx_output_set_flags(self._context, _JSON)
        try:
            found: list[dict[str, Any]] = []
            for line in self._run(text).splitlines():  # a document for each command
                found += json.loads(line)["nftables"] if line else []
            return found
        finally:
            self._library.nft_ctx_output_set_flags(self._context, 0)

    def close(self) -> None:
        """Frees it."""
        self._library.nft_ctx_free(self._context)

    def _run(self, text: str) -> str:
        code = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
        said: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        complaint: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if code != 0:
            raise NftError(complaint.decode(errors="replace").strip() or f"libnftables ended with {code}")
        return said.decode(errors="replace")


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(_SONAME)
    context, text = ctypes.c_void_p, ctypes.c_char_p
    library.nft_ctx_new.restype = context
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(library, name).argtypes = [context]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [context]
        getattr(library, name).restype = text
    library.nft_ctx_output_set_flags.argtypes = [context, ctypes.c_uint]
    library.nft_ctx_output_set_flags.restype = None
    library.nft_ctx_set_dry_run.argtypes = [context, ctypes.c_bool]
    library.nft_ctx_set_dry_run.restype = None
    library.nft_run_cmd_from_buffer.argtypes = [context, text]
    return library
