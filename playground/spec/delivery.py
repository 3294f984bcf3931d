"""Pure. What clients are told beyond their addresses, from `dhcp` and `boot`: options as they go on the wire.

What is said at a NIC counts before what is said of its workspace, and that before its network: an option by itself, a
lease time by itself, a `boot` as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from dhcp import catalogue, catalogue6
from dhcp.catalogue import Option
from dhcp.options import Code
from dhcp.scope import Boot
from overlay.pools import address_text
from playground.spec.addresses import parse_ip
from playground.spec.delivery_models import OTHER, BootShape, DhcpShape
from playground.spec.problem import Problem, suggestion
from playground.spec.source import Document

Path = tuple[str | int, ...]

DEFAULT_LEASE_S: Final = 3600
_LONGEST: Final = 255
"""Bytes of a boot file's name or URL: more would need several pieces, which firmware does not join."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one place says; None and what is not in options is left to the place around it. options, options6: (code,
    value)."""

    lease_s: int | None = None
    options: tuple[tuple[int, bytes], ...] = ()
    boot: Boot | None = None
    options6: tuple[tuple[int, bytes], ...] = ()

    def within(self, outer: Delivery) -> Delivery:
        """What counts here: what is said here, and of the rest what is said around it."""
        return Delivery(
            self.lease_s if self.lease_s is not None else outer.lease_s,
            tuple(sorted((dict(outer.options) | dict(self.options)).items())),
            self.boot or outer.boot,
            tuple(sorted((dict(outer.options6) | dict(self.options6)).items())),
        )


NOTHING: Final = Delivery()


def delivery(
    dhcp: DhcpShape, boot: BootShape | None, document: Document, path: Path, problems: list[Problem]
) -> Delivery:
    """What stands at a network, a workspace or a NIC; what is wrong is added to `problems`."""
    reader = _Reader(document, path, problems)
    return Delivery(
        dhcp.lease_time,
        reader.options("options", dhcp.options, catalogue.find, catalogue.encode),
        None if boot is None else reader.boot(boot),
        reader.options("options6", dhcp.options6, catalogue6.find, catalogue6.encode),
    )


def check_times(counts: Delivery, document: Document, path: Path, problems: list[Problem]) -> None:
    """T1 before T2 before the end of the lease (RFC 2131 §4.4.5), as far as something of that is said here."""
    here = document.keys((*path, "dhcp", "options"))
    lease_s = counts.lease_s if counts.lease_s is not None else DEFAULT_LEASE_S
    values = dict(counts.options)
    renewal = int.from_bytes(values.get(Code.RENEWAL_TIME, (lease_s // 2).to_bytes(4, "big")), "big")
    rebinding = int.from_bytes(values.get(Code.REBINDING_TIME, (lease_s * 7 // 8).to_bytes(4, "big")), "big")
    is_said = "lease_time" in document.keys((*path, "dhcp")) or {"renewal-time", "rebinding-time", "58", "59"} & {*here}
    if is_said and values.keys() & {Code.RENEWAL_TIME, Code.REBINDING_TIME} and not renewal < rebinding < lease_s:
        message = f"a lease of {lease_s} s would be renewed after {renewal} s and rebound after {rebinding} s"
        place = document.key_place((*path, "dhcp"))
        problems.append(Problem.at(place, f"{message}; write renewal-time < rebinding-time < lease_time"))


@dataclass(slots=True)
class _Reader:
    document: Document
    path: Path
    problems: list[Problem]

    def options(
        self,
        where: str,
        said: Mapping[str, object],
        find: Callable[[str | int], tuple[int, Option | None]],
        encode: Callable[[Option | None, object], bytes],
    ) -> tuple[tuple[int, bytes], ...]:
        """where: the key of `dhcp` under which they are said."""
        found: dict[int, bytes] = {}
        names: dict[int, str] = {}
        for key, value in said.items():
            if key.startswith("x-") or value is None:
                continue
            path = (*self.path, "dhcp", where, key)
            try:
                code, option = find(key)
            except ValueError as error:
                self.problems.append(Problem.at(self.document.key_place(path), str(error)))
                continue
            if code in names:
                message = f"option {code} stands here as {names[code]} too; keep one"
                self.problems.append(Problem.at(self.document.key_place(path), message))
                continue
            names[code] = key
            try:
                found[code] = encode(option, value)
            except ValueError as error:
                self.problems.append(Problem.at(self.document.place(path), str(error)))
        return tuple(sorted(found.items()))

    def boot(self, shape: BootShape) -> Boot | None:
        if not shape.model_fields_set:
            return None
        server, server6 = self._server("server", shape.server, 4), self._server("server6", shape.server6, 6)
        files: list[tuple[int, str]] = []
        given = {OTHER: shape.file} if isinstance(shape.file, str) else shape.file or {}
        for kind, name in given.items():
            path: Path = ("file",) if isinstance(shape.file, str) else ("file", kind)
            if kind != OTHER and kind not in catalogue.ARCHITECTURES:
                message = f"unknown architecture {kind[:60]!r}{suggestion(kind, [*catalogue.ARCHITECTURES, OTHER])}"
                self._refuse(message, path, is_key=True)
                continue
            self._check_name(name, path, server or server6)
            files += [(number, name) for number in catalogue.ARCHITECTURES.get(kind, (-1,))]
        if shape.ipxe is not None:
            self._check_name(shape.ipxe, ("ipxe",), server or server6)
        for index, text in enumerate(shape.parameters):
            if not text.isascii() or not text.isprintable() or not 1 <= len(text) <= _LONGEST:
                self._refuse(f"write 1 to {_LONGEST} printable ASCII characters", ("parameters", index))
        if not given and shape.ipxe is None:
            self._refuse("names nothing to boot; write file, ipxe or both", (), is_key=True)
        return Boot(server, tuple(files), shape.ipxe or "", server6, tuple(shape.parameters))

    def _server(self, key: str, text: str | None, wanted: int) -> str:
        """The address of a TFTP server, of that family."""
        if text is None:
            return ""
        try:
            version, address = parse_ip(text)
        except ValueError as error:
            self._refuse(str(error), (key,))
            return text
        if version != wanted:
            clients = "DHCPv4" if wanted == 4 else "DHCPv6"
            self._refuse(f"{text}: {clients} clients boot from an IPv{wanted} address; write one", (key,))
        return address_text(version, address)

    def _check_name(self, name: str, path: Path, server: str) -> None:
        if not name.isascii() or not name.isprintable() or not 1 <= len(name) <= _LONGEST:
            self._refuse(f"write 1 to {_LONGEST} printable ASCII characters, a file's name or a URL", path)
        elif "://" not in name and not server:
            self._refuse(f"{name!r} is a file on a TFTP server; write boot.server, or a URL", path)

    def _refuse(self, message: str, path: Path, *, is_key: bool = False) -> None:
        whole = (*self.path, "boot", *path)
        place = self.document.key_place(whole) if is_key else self.document.place(whole)
        self.problems.append(Problem.at(place, message))
