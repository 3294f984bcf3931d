"""Owns the gateways that one host carries: makes them as they should be, removes what is not wanted. Decides nothing.

Everything of a gateway but its uplink's end, a table and what that table lists lies in namespaces of ours. Only what
carries our mark is removed, and a device on which we turned forwarding on is listed before it is, so that whoever comes
after a crash turns it off again.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import os
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overlay import gateways as rules
from overlay.gateways import Gateway, Transfer, uplink_device
from overlay.kernel import forwarding, namespaces, uplinks
from overlay.kernel import messages as m
from overlay.kernel.netlink import Netlink
from overlay.kernel.observe import RawLink, addresses_of, read_link, read_links
from overlay.kernel.services import ForeignNamespaceError, prepare, refuse_foreign, set_sysctls
from overlay.state import port_device
from overlay.topology import DEVICE_MTU

_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    # A leg answers for its own addresses alone, and nobody is told of a shorter way: there is none.
    "net/ipv4/conf/all/arp_ignore": "1",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv4/conf/all/rp_filter": "1",
}

_NO_IPV6 = (errno.EACCES, errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.EHOSTUNREACH)
"""A kernel without IPv6, or a host that has it turned off: IPv4 goes on."""

_VERSIONS = (4, 6)


@dataclass(frozen=True, slots=True)
class GatewayStatus:
    """How a gateway stands. cause: why it carries nothing; warnings: what of it does not work, though the rest does."""

    cause: str = ""
    warnings: tuple[str, ...] = ()


class GatewayPlane:
    """The gateways of one host's data plane `name`. Everything blocks; one caller at a time (a lock sees to it).

    The host is the namespace of the thread that makes this object, or the one at `host`.
    """

    def __init__(
        self,
        name: str = "playground",
        *,
        host: str | os.PathLike[str] | None = None,
        directory: Path = namespaces.DIRECTORY,
    ) -> None:
        self.name = name
        self.table = f"{name}_gateways"
        self.mark = f"playground gateway of {name}"
        self._directory = directory
        self._host_fd = namespaces.own() if host is None else os.open(host, os.O_RDONLY | os.O_CLOEXEC)
        self._host = Netlink(self._host_fd)
        self._lock = threading.Lock()
        self._is_empty = False

    def close(self) -> None:
        """Lets go of all descriptors; the gateways stay as they are."""
        with self._lock:
            self._host.close()
            os.close(self._host_fd)

    def converge(self, wanted: Mapping[str, Gateway]) -> dict[str, GatewayStatus]:
        """Makes the host carry exactly these, by id, and says how each stands. May be repeated and interrupted.

        The data plane's namespace is there. Raises OSError when what is common to all of them can't be made.
        """
        with self._lock:
            if not wanted and self._is_empty:
                return {}
            self._remove_others(wanted)
            if not wanted:
                self._close_host()
                self._is_empty = True
                return {}
            self._is_empty = False
            transfers = rules.transfers(wanted)
            found: dict[str, GatewayStatus] = {}
            for id, gateway in sorted(wanted.items()):
                try:
                    self._make(gateway, transfers[id])
                    found[id] = GatewayStatus()
                except (OSError, ForeignNamespaceError) as error:
                    found[id] = GatewayStatus(_said(error))
            warnings = self._open_host(wanted, transfers)
            return {id: GatewayStatus(status.cause, () if status.cause else warnings) for id, status in found.items()}

    # one gateway

    def _make(self, gateway: Gateway, transfer: Transfer) -> None:
        fd = namespaces.find(gateway.namespace, self._directory)
        if fd is None:
            fd = namespaces.create(gateway.namespace, lambda: prepare(self.mark, _SYSCTLS), self._directory)
        try:
            refuse_foreign(fd, self._directory / gateway.namespace, self.mark)
            namespaces.inside(fd, lambda: set_sysctls(_SYSCTLS))
            text, comments = rules.inner_rules(gateway, transfer)
            if _comments(_listed(fd, rules.INNER_TABLE)) != list(comments):
                uplinks.run(fd, "-f", "-", text=text)
            inner = Netlink(fd)
            try:
                self._make_legs(gateway, inner, fd)
                self._make_uplink(gateway, transfer, inner, fd)
            finally:
                inner.close()
        finally:
            os.close(fd)

    def _make_legs(self, gateway: Gateway, inner: Netlink, fd: int) -> None:
        with namespaces.opened(self._directory / self.name) as plane_fd:
            plane = Netlink(plane_fd)
            try:
                wanted = {port_device(leg.port): leg for leg in gateway.legs}
                for raw in read_links(inner):
                    if raw.name.startswith("pg") and raw.name not in wanted:
                        inner.do(m.delete_link(raw.index), (errno.ENODEV,))
                for device, leg in wanted.items():
                    if read_link(inner, device) is None:
                        _delete(plane, device)
                        plane.do(m.create_veth(device, DEVICE_MTU, device, leg.mtu, fd, leg.mac))
                    end, own = read_link(plane, device), read_link(inner, device)
                    if end is None or own is None:
                        raise OSError(errno.ENODEV, f"{device} went while it was made")
                    if not end.link.up:
                        plane.do(m.quieten(end.index), _NO_IPV6)
                        plane.do(m.set_up(end.index, True))
                    if own.link.mtu != leg.mtu:
                        inner.do(m.set_mtu(own.index, leg.mtu))
                    if own.mac != leg.mac:
                        inner.do(m.set_mac(own.index, leg.mac))
                    _address(inner, own, leg.addresses)
                    for prefix in leg.others:
                        inner.do(m.put_link_route(own.index, prefix), _NO_IPV6 if ":" in prefix else ())
            finally:
                plane.close()

    def _make_uplink(self, gateway: Gateway, transfer: Transfer, inner: Netlink, fd: int) -> None:
        device = uplink_device(gateway.id)
        own, end = read_link(inner, rules.UPLINK), read_link(self._host, device)
        if end is not None and end.alias != self.mark:
            raise OSError(errno.EEXIST, f"a device {device} is on this host that is not ours; rename it")
        if own is None or end is None:
            for link, name in ((inner, rules.UPLINK), (inner, device), (self._host, device)):
                _delete(link, name)
            # made where all is ours: on the host it is never without its mark
            inner.do(m.create_veth(device, DEVICE_MTU, rules.UPLINK, DEVICE_MTU, fd))
            if (made := read_link(inner, device)) is not None:
                inner.do(m.quieten(made.index), _NO_IPV6)
                inner.do(m.move_link(made.index, self._host_fd, self.mark, up=False))
            own, end = read_link(inner, rules.UPLINK), read_link(self._host, device)
            if own is None or end is None:
                raise OSError(errno.ENODEV, f"{device} went while it was made")
        _address(self._host, end, transfer.host)
        _address(inner, own, transfer.gateway)
        for address in transfer.host[:2]:
            inner.do(m.put_default_route(own.index, address.partition("/")[0]), _NO_IPV6 if ":" in address else ())

    # the host

    def _open_host(self, wanted: Mapping[str, Gateway], transfers: Mapping[str, Transfer]) -> tuple[str, ...]:
        """Lets the host forward for its gateways; returns what stands against that."""
        found = uplinks.ways(self._host)
        versions = {6 if ":" in prefix else 4 for gateway in wanted.values() for prefix in gateway.owned}
        warnings = [f"this host has no default route for IPv{v}" for v in sorted(versions - found.defaults)]
        devices = {uplink_device(id): transfer for id, transfer in transfers.items()}
        table = self._read_table()
        listed = {version: _opened(table, version) for version in _VERSIONS}
        opened = namespaces.inside(self._host_fd, lambda: {v: _to_open(v, found, listed[v]) for v in _VERSIONS})
        text, comments = rules.host_rules(self.table, devices, opened)
        if _comments(table) != list(comments) or listed != opened:
            uplinks.run(self._host_fd, "-f", "-", text=text)  # before they are opened: what is listed is shut again
        open_all = {version: {*devices, *opened[version]} for version in _VERSIONS}
        done = namespaces.inside(
            self._host_fd,
            lambda: {
                v: forwarding.open_(v, open_all[v]) and not forwarding.shut(v, found.devices[v]) for v in _VERSIONS
            },
        )
        if 4 in versions and not done[4]:
            warnings.append(
                f"IPv4 that comes in by {', '.join(sorted(found.devices[4]))} is not forwarded, though this host "
                "forwards: somebody has turned net.ipv4.conf.*.forwarding off there"
            )
        if 6 in versions and not done[6]:
            warnings.append(
                "IPv6 is not forwarded: this kernel can't do so for single devices (Linux 6.17 can); set "
                "net.ipv6.conf.all.forwarding=1, and accept_ra=2 where this host's own route comes by advertisements"
            )
        if foreign := uplinks.dropping(self._host_fd, self.table, min(devices)):
            warnings.append(
                f"the table {foreign} on this host drops what it does not accept, as Docker's and many firewalls' do; "
                "have its forward chain accept what comes in by devices gw* and what goes out by them"
            )
        return tuple(warnings)

    def _close_host(self) -> None:
        """Takes our table away, and shuts what it lists."""
        table = self._read_table()
        opened = {version: _opened(table, version) for version in _VERSIONS}
        for version in _VERSIONS:
            namespaces.inside(self._host_fd, functools.partial(forwarding.close, version, opened[version]))
        if table:
            uplinks.run(self._host_fd, "delete", "table", "inet", self.table)

    def _read_table(self) -> list[dict[str, Any]]:
        """Our table on the host, entry by entry; empty when there is none."""
        return _listed(self._host_fd, self.table)

    # removal

    def _remove_others(self, wanted: Mapping[str, Gateway]) -> None:
        names = {gateway.namespace for gateway in wanted.values()}
        for name in namespaces.names(self._directory):
            if name.startswith(f"{self.name}-") and rules.NAME_PART in name and name not in names:
                self._remove_namespace(name)
        devices = {uplink_device(id) for id in wanted}
        for raw in read_links(self._host):
            if raw.alias == self.mark and raw.name not in devices:
                self._host.do(m.delete_link(raw.index), (errno.ENODEV,))

    def _remove_namespace(self, name: str) -> None:
        """One that has our mark; any other stays."""
        fd = namespaces.find(name, self._directory)
        if fd is None:
            return
        try:
            refuse_foreign(fd, self._directory / name, self.mark)
            inner = Netlink(fd)
            try:
                for raw in read_links(inner):
                    if raw.link.kind == "veth":
                        inner.do(m.delete_link(raw.index), (errno.ENODEV,))
            finally:
                inner.close()
        except ForeignNamespaceError:
            return
        finally:
            os.close(fd)
        namespaces.remove(name, self._directory)


def _delete(link: Netlink, device: str) -> None:
    if (raw := read_link(link, device)) is not None:
        link.do(m.delete_link(raw.index), (errno.ENODEV,))


def _address(link: Netlink, raw: RawLink, addresses: Collection[str]) -> None:
    """The device has these addresses and no others, and is up."""
    held = addresses_of(link).get(raw.index, set())
    wanted = {str(ipaddress.ip_interface(address)) for address in addresses}
    for address in sorted(held - wanted):
        link.do(m.drop_address(raw.index, address), (errno.EADDRNOTAVAIL,))
    for address in sorted(wanted - held):
        link.do(m.put_address(raw.index, address), _NO_IPV6 if ":" in address else ())
    if not raw.link.up:
        link.do(m.set_up(raw.index, True))


def _listed(namespace: int, table: str) -> list[dict[str, Any]]:
    """A table entry by entry; empty when there is none."""
    try:
        return uplinks.listing(namespace, "list", "table", "inet", table)
    except uplinks.NftError as error:
        if "No such file" in str(error):
            return []
        raise


def _comments(table: Sequence[dict[str, Any]]) -> list[str]:
    """Those of a table's rules, in order: of each chain one after the other."""
    return [entry["rule"].get("comment", "") for entry in table if "rule" in entry]


def _opened(table: Sequence[dict[str, Any]], version: int) -> set[str]:
    """Devices on which we turned forwarding on."""
    sets = [entry["set"] for entry in table if "set" in entry]
    return {name for one in sets if one["name"] == rules.OPENED[version] for name in one.get("elem", ())}


def _to_open(version: int, ways: uplinks.Ways, listed: set[str]) -> set[str]:
    """Devices that only gateways need forwarding on, in the calling thread's namespace: those that we opened already,
    and those that are shut. None where somebody has chosen that everything is forwarded: then nobody else's packets
    are ours to hold back."""
    if not forwarding.is_open(version):
        return listed | forwarding.shut(version, ways.devices[version])
    if version == 6:
        forwarding.close(6, listed)
    return set()


def _said(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
