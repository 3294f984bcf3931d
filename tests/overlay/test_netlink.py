"""Framing needs no kernel; sockets are tried in a scratch namespace."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay_lab import clear, mac

from overlay.kernel import messages as m
from overlay.kernel import namespaces, netlink, programs
from overlay.kernel.capabilities import probe
from overlay.kernel.netlink import Message, Netlink, NetlinkError, attribute, nest, parse, string, text, u32
from overlay.kernel.observe import read_link


def test_attributes_survive_packing_and_parsing() -> None:
    packed = text(3, "vx0") + u32(4, 65000) + nest(18, text(1, "vxlan"))
    found = parse(packed)
    assert len(packed) % 4 == 0
    assert string(found[3]) == "vx0"
    assert netlink.number(found[4]) == 65000
    assert string(parse(found[18])[1]) == "vxlan"


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_cut_attribute_is_left_out(cut: int) -> None:
    whole = attribute(1, b"abcd") + attribute(2, b"efghijkl")
    assert set(parse(whole[:-cut])) <= {1, 2}
    assert 2 not in parse(whole[:-cut])


@pytest.fixture
def folder(tmp_path: Path, permitted: None) -> Iterator[Path]:
    names = tmp_path / "netns"
    yield names
    clear([path.name for path in names.iterdir()], names)


@pytest.fixture
def scratch(folder: Path) -> Iterator[Netlink]:
    fd = namespaces.create("scratch", lambda: None, folder)
    link = Netlink(fd)
    yield link
    link.close()
    os.close(fd)


@pytest.mark.system
def test_a_refusal_names_its_message_and_stops_no_other(scratch: Netlink) -> None:
    scratch.do(m.create_bridge("b0"))
    index = read_link(scratch, "b0").index  # type: ignore[union-attr]
    good = [m.put_neighbour(index, f"10.0.{n >> 8}.{n & 255}", mac(n & 255), router=False) for n in range(600)]
    bad: Message = m.put_neighbour(9999, "10.9.9.9", mac(9), router=False)
    messages = [*good[:300], bad, *good[300:], bad]
    assert [(at, error.errno) for at, error in scratch.send(messages)] == [(300, errno.ENODEV), (601, errno.ENODEV)]
    assert len(scratch.dump(m.RTM_GETNEIGH, m.list_neighbours(index))) == 600


@pytest.mark.system
def test_the_kernels_own_words_are_in_the_error(scratch: Netlink) -> None:
    scratch.do(m.create_bridge("b0"))
    with pytest.raises(NetlinkError, match=os.strerror(errno.EEXIST)) as caught:
        scratch.do(m.create_bridge("b0"))
    assert caught.value.errno == errno.EEXIST


@pytest.mark.system
def test_a_name_in_use_is_not_taken(folder: Path) -> None:
    first = namespaces.create("one", lambda: None, folder)
    with pytest.raises(FileExistsError):
        namespaces.create("one", lambda: None, folder)
    found = namespaces.find("one", folder)
    assert found is not None and namespaces.is_same(first, found)
    os.close(first)
    os.close(found)
    namespaces.remove("one", folder)
    namespaces.remove("one", folder)
    assert namespaces.find("one", folder) is None


@pytest.mark.system
def test_a_leftover_file_is_no_namespace_and_its_name_is_free(folder: Path) -> None:
    folder.mkdir()
    (folder / "half").touch()
    assert namespaces.find("half", folder) is None
    os.close(namespaces.create("half", lambda: None, folder))
    assert namespaces.find("half", folder) is not None


def test_every_capability_that_is_missing_comes_with_a_cause_and_a_remedy() -> None:
    found = probe()
    assert {"namespaces", "bridge", "vxlan", "veth", "nftables"} <= {one.name for one in found}
    for one in found:
        assert one.works == (one.remedy == "") == (one.cause == ""), one


@pytest.mark.system
def test_redirects_by_programs_are_told_as_they_are_tried(permitted: None) -> None:
    """The doctor's trial and a workspace driver's are one, made by others."""
    told = next(one for one in probe() if one.name == "redirects by BPF")
    try:
        programs.attempt()
    except OSError as error:
        assert told.cause == (error.strerror or str(error))
    else:
        assert told.works
