"""Names and records of the map as zones, without a socket: what they give, share, and leave behind."""

from __future__ import annotations

import dns.message
import msgspec
import pytest

from playground.responder.protocol import (
    Name,
    Records,
    View,
    decode_value,
    encode_value,
    name_key,
    records_key,
    view_key,
)
from playground.responder.views import Views

ORIGIN = "atlas.internal"
VIEW = View(netns="/nowhere", listen=("10.20.0.1",), origin=ORIGIN, reverse=("10.20.0.0/24",))


@pytest.fixture
def views() -> Views:
    made = Views(lambda key, cause: None, lambda: 0.0)
    made.set("atlas", VIEW)
    return made


def found(views: Views, name: str, kind: str = "A") -> list[str]:
    answers = views._views["atlas"].answers
    assert answers is not None
    reply = answers.answer(dns.message.make_query(f"{name}.{ORIGIN}", kind).to_wire())
    assert isinstance(reply, bytes)
    return sorted(str(rdata) for rrset in dns.message.from_wire(reply).answer for rdata in rrset)


def a_name(number: int, *aliases: str) -> Name:
    return Name(workspace=f"w{number}", network="grid", addresses=(f"10.20.0.{number}",), aliases=aliases)


def test_several_ports_share_a_name_and_the_last_takes_it_along(views: Views) -> None:
    for number in (2, 3):
        views.set_names("atlas", f"name/atlas/{number}", a_name(number, "web"))
    assert found(views, "web") == ["10.20.0.2", "10.20.0.3"]
    views.drop_names("atlas", "name/atlas/2")
    assert found(views, "web") == ["10.20.0.3"]
    views.set_names("atlas", "name/atlas/3", a_name(3))
    assert found(views, "web") == []


def test_records_come_and_go_whole(views: Views) -> None:
    views.set_names("atlas", "name/atlas/2", a_name(2))
    key = "records/atlas/grid"
    views.set_names("atlas", key, Records(records=(("m.grid", "CNAME", f"w2.{ORIGIN}."), ("m2.grid", "TXT", "x"))))
    assert found(views, "m.grid") == ["10.20.0.2", f"w2.{ORIGIN}."]
    views.set_names("atlas", key, Records(records=(("m2.grid", "TXT", "y"),)))
    assert (found(views, "m.grid"), found(views, "m2.grid", "TXT")) == ([], ['"y"'])


def test_a_record_that_can_not_be_changes_nothing(views: Views) -> None:
    views.set_names("atlas", "records/atlas/grid", Records(records=(("m.grid", "TXT", "x"),)))
    for bad in (("m.grid", "NULL", "x"), ("m.grid", "SRV", "x"), ("a..b", "TXT", "x")):
        with pytest.raises(ValueError):
            views.set_names("atlas", "records/atlas/grid", Records(records=(bad,)))
    assert found(views, "m.grid", "TXT") == ['"x"']


def test_zones_stay_where_only_rights_change(views: Views) -> None:
    zones, forwarder = views._views["atlas"].zones, views._views["atlas"].forwarder
    views.set("atlas", msgspec.structs.replace(VIEW, transfer=("10.20.0.9/32",)))
    assert (views._views["atlas"].zones, views._views["atlas"].forwarder) == (zones, forwarder)
    views.set("atlas", msgspec.structs.replace(VIEW, forward=("10.20.0.0/24",), resolvers=("192.0.2.53",)))
    assert views._views["atlas"].zones is zones
    assert views._views["atlas"].forwarder is not forwarder


def test_every_key_has_its_kind() -> None:
    values = {
        view_key("atlas"): VIEW,
        name_key("atlas", "p"): a_name(2, "web"),
        records_key("atlas", "n"): Records(records=(("a", "TXT", "x"),)),
    }
    for key, value in values.items():
        assert decode_value(key, encode_value(value)) == value
