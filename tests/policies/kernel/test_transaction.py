"""Our own messages to the kernel make what libnftables makes of the same text, wholly or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from filter_lab import Namespace
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kernel_rulesets import plain
from rule_texts import rules
from test_model_against_kernel import BRIDGES, IDS, ZONES, Case, cases, guests_of, services_of

from policies.compile.changes import (
    AddCounter,
    AddElements,
    AddRules,
    Command,
    DeleteChain,
    DeleteCounter,
    DeleteElements,
    as_text,
    difference,
)
from policies.compile.places import PolicedEnd, PolicedNetwork
from policies.compile.playground import PlaygroundCompiler, policy_table
from policies.compile.tables import Chain, Part, Ruleset, SetShape, whole
from policies.compile.ways import STATIC, TABLE
from policies.guard import answers
from policies.guard import parts as guard
from policies.guard.rules import SHARED
from policies.guard.station import GuardedPort, Station
from policies.kernel import netlink, transaction
from policies.kernel.bytecode import bytecode
from policies.kernel.fields import Unspoken
from policies.kernel.libnftables import LibNft
from policies.kernel.listing import Listing
from policies.kernel.nft import NftError
from policies.kernel.transaction import Changed, Transactions
from policies.model import Endpoint
from policies.resolve import Resolver

pytestmark = pytest.mark.system

AS_FOUND = (Phase.explicit, Phase.reuse, Phase.generate)
"""An example is a dozen processes: to make a failing one smaller would take minutes."""

DEVICES = ("pg1", "pg2", "vx1")


@dataclass
class Side:
    """A namespace that is changed in one of the two ways. spoken: transactions that were ours to say."""

    namespace: Namespace
    nft: LibNft
    listing: Listing
    transactions: Transactions | None = None
    spoken: int = 0

    def load(self, text: str) -> None:
        self.namespace.call(self.nft.load, text)

    def takes(self, text: str) -> bool:
        """Whether libnftables would."""
        try:
            self.namespace.call(lambda: self.nft.load(text, is_trial=True))
        except NftError:
            return False
        return True

    def change(self, commands: list[Command]) -> None:
        if self.transactions is not None and commands:
            try:
                made = self.namespace.call(self.transactions.apply, commands, self.listing.generation())
                assert made == self.listing.generation()
                self.spoken += 1
                return
            except Unspoken as unspoken:
                print("not ours to say:", unspoken)
        self.load(as_text(commands))

    def held(self) -> list[str]:
        return plain(json.loads(self.namespace.run("nft -j list ruleset")))


@pytest.fixture(scope="module")
def sides() -> Iterator[tuple[Side, Side]]:
    made = []
    for is_ours in (True, False):
        namespace = Namespace()
        for device in DEVICES:
            namespace.run(f"ip link add {device} type veth peer name x{device}")
        transactions = namespace.call(Transactions) if is_ours else None
        made.append(Side(namespace, namespace.call(LibNft), Listing(namespace.path), transactions))
    yield made[0], made[1]
    for side in made:
        side.namespace.call(side.nft.close)
        side.listing.close()
        if side.transactions is not None:
            side.transactions.close()
        side.namespace.close()


def compiled(case: Case, is_lenient: bool) -> Ruleset:
    """A scene as tables, with blocks of addresses at some ends."""
    scene, local = case
    guests, ir = guests_of(scene), Resolver().resolve(scene)
    found = []
    for playground, id in IDS.items():
        mine = [(key[1], bridge) for key, bridge in BRIDGES.items() if key[0] == playground]
        networks = tuple(
            PolicedNetwork(name, bridge, ZONES[bridge], services_of(guests[bridge]), ("172.16.0.0/24",))
            for name, bridge in mine
        )
        ends = tuple(
            PolicedEnd(
                one.end.workspace,
                name,
                (*one.addresses.values(), *(("10.7.0.0/16", "fd55::/63") if place % 3 == 0 else ())),
                (playground, one.end.workspace, name) in local,
            )
            for name, bridge in mine
            for place, one in enumerate(guests[bridge])
            if isinstance(one.end, Endpoint)
        )
        if one := PlaygroundCompiler(playground, id).compile(ir, networks, ends, is_lenient=is_lenient):
            found.append(one)
    return {TABLE: policy_table(found) or {"static": STATIC}}


@st.composite
def guarded(draw: st.DrawFn) -> Ruleset:
    """Some ports and a tunnel, with stations behind them."""

    def station(number: int) -> Station:
        return Station(
            f"02:00:00:00:00:{number:02x}",
            (f"10.0.0.{number}", f"fd00::{number:x}"),
            allowed_addresses=draw(st.sampled_from([(), ("10.9.0.0/16", "10.0.0.100/32", "fd09::/64")])),
            allowed_macs=draw(st.sampled_from([(), (f"00:00:5e:00:01:{number:02x}",)])),
            owned=draw(st.sampled_from([None, None, ("10.0.0.0/16", "fd00::/48")])),
        )

    found: dict[object, Part] = {"shared": SHARED}
    bridges = st.sampled_from([None, 7])
    for device in ("pg1", "pg2"):
        if draw(st.booleans()):
            part = guard.of_port(GuardedPort(device, station(draw(st.integers(1, 9))), ("10.0.0.0/24",)))
            found[device] = guard.judged(part, draw(bridges)) if draw(st.booleans()) else part
    tunnel = guard.of_tunnel("vx1", ("10.0.0.0/24", "fd00::/64"))
    found["vx1"] = guard.judged(tunnel, draw(bridges)) if draw(st.booleans()) else tunnel
    for number in draw(st.sets(st.integers(10, 12))):
        found["vx1", number] = guard.of_station("vx1", station(number))
    for bridge in draw(st.sets(st.integers(1, 3))):
        found["answers", bridge] = answers.part_of(bridge)
    return {guard.TABLE: found}


@given(st.lists(st.tuples(cases(), st.booleans(), guarded()), min_size=2, max_size=3))
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), phases=AS_FOUND)
def test_a_change_by_our_messages_is_the_change_by_libnftables(
    sides: tuple[Side, Side], history: list[tuple[Case, bool, Ruleset]]
) -> None:
    tunnel = guard.of_tunnel("vx1", ("10.0.0.0/24", "fd00::/64"))
    before: Ruleset = {TABLE: {"static": STATIC}, guard.TABLE: {"shared": SHARED, "vx1": tunnel}}
    for side in sides:
        side.load("flush ruleset\n" + whole(before))
    for case, is_lenient, guards in history:
        after = {**compiled(case, is_lenient), **guards}
        commands = difference(before, after)
        spoken = sides[0].spoken
        for side in sides:
            side.change(commands)
        assert not commands or sides[0].spoken == spoken + 1  # whatever is compiled, we can say
        assert sides[0].held() == sides[1].held()
        before = after


TRIED = ("inet", "t")
BASE = """
table inet t {
    map jumps { typeof iifname . ct original ip saddr : verdict;
    }
    set known { typeof iifname . ip saddr;
    }
    counter c { }
    chain a { }
    chain b { }
    chain tried { }
    chain entry { type filter hook forward priority 0; jump a
    }
}
"""


@given(st.lists(rules(), min_size=10, max_size=40))
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), phases=AS_FOUND)
def test_what_we_say_of_any_rule_is_what_libnftables_says(sides: tuple[Side, Side], texts: list[str]) -> None:
    for side in sides:
        side.load("flush ruleset\n" + BASE)
    spoken = [text for text in texts if sides[1].takes(f"add rule inet t tried {text}\n") and is_ours_to_say(text)]
    before = Part({"tried": Chain()})
    commands = difference({TRIED: {"one": before}}, {TRIED: {"one": Part({"tried": Chain(tuple(spoken))})}})
    for side in sides:
        side.change(commands)
    assert sides[0].held() == sides[1].held()


def is_ours_to_say(rule: str) -> bool:
    try:
        bytecode(rule, "inet")
    except Unspoken:
        return False
    return True


KNOWN = SetShape("set", "typeof iifname . ip saddr;")
JUMPS = SetShape("map", "typeof iifname . ct original ip saddr : verdict;")

REFUSED: dict[str, tuple[Command, str]] = {
    "a jump to a chain that is not there": (AddRules(TRIED, "tried", ("jump nowhere",)), "jump nowhere"),
    "a rule in a chain that is not there": (AddRules(TRIED, "none", ("drop",)), "No such file"),
    "a lookup in a set that is not there": (AddRules(TRIED, "tried", ("iifname . ip saddr @none drop",)), "@none"),
    "a counter that is not there": (AddRules(TRIED, "tried", ('counter name "none" drop',)), "No such file"),
    "an element of a set that is not there": (
        AddElements(TRIED, "none", KNOWN, {'"a" . 10.0.0.1': ""}),
        "No such file",
    ),
    "an element that is not there to delete": (
        DeleteElements(TRIED, "known", KNOWN, {'"a" . 10.0.0.1': ""}),
        "No such file",
    ),
    "an element that has another value": (
        AddElements(TRIED, "jumps", JUMPS, {'"br1" . 10.0.0.1': "goto b"}),
        "File exists",
    ),
    "a chain that is used": (DeleteChain(TRIED, "a"), "busy"),
    "a counter that is not there to delete": (DeleteCounter(TRIED, "none"), "No such file"),
    "a loop": (AddRules(TRIED, "a", ("jump a",)), "Too many"),
}


@pytest.fixture
def ours(sides: tuple[Side, Side]) -> Side:
    side = sides[0]
    side.load("flush ruleset\n" + BASE + "table netdev n { }\n")
    side.change([AddElements(TRIED, "jumps", JUMPS, {'"br1" . 10.0.0.1': "jump a"})])
    return side


def apply(side: Side, commands: list[Command], generation: int | None = None) -> int:
    assert side.transactions is not None
    known = side.listing.generation() if generation is None else generation
    return side.namespace.call(side.transactions.apply, commands, known)


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_kernel_refuses_is_named_and_nothing_of_the_transaction_is_done(ours: Side, what: str) -> None:
    command, said = REFUSED[what]
    before, generation = ours.held(), ours.listing.generation()
    around = [AddCounter(TRIED, "first"), command, AddRules(TRIED, "tried", ("accept",))]
    with pytest.raises(NftError, match=said) as refusal:
        apply(ours, around)
    assert "first" not in str(refusal.value) and "accept" not in str(refusal.value)  # the place is that of the command
    assert (ours.held(), ours.listing.generation()) == (before, generation)
    apply(ours, [around[0], around[2]])  # and the next is taken


def test_a_transaction_is_not_begun_when_somebody_else_has_changed_a_table(ours: Side) -> None:
    known = ours.listing.generation()
    ours.namespace.run("nft add table ip theirs")
    before = ours.held()
    with pytest.raises(Changed):
        apply(ours, [AddCounter(TRIED, "mine")], known)
    assert ours.held() == before
    apply(ours, [AddCounter(TRIED, "mine")])


def test_what_is_more_than_a_socket_takes_is_left_to_libnftables_before_anything_is_begun(
    ours: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "opened", lambda: netlink.opened(buffer=1 << 14))
    narrow, generation = ours.namespace.call(Transactions), ours.listing.generation()
    with pytest.raises(Unspoken):
        narrow.apply([AddRules(TRIED, "tried", ("drop",) * 1000)], generation)
    assert ours.listing.generation() == generation
    narrow.apply([AddRules(TRIED, "tried", ("drop",))], generation)
    narrow.close()


def test_elements_that_fill_many_messages_all_arrive(ours: Side) -> None:
    elements = {f'"br1" . 10.1.{number >> 8}.{number & 255}': "" for number in range(5000)}
    apply(ours, [AddElements(TRIED, "known", KNOWN, elements)])
    listed = ours.namespace.call(ours.nft.list, "list set inet t known")
    assert len(next(entry["set"]["elem"] for entry in listed if "set" in entry)) == 5000
    apply(ours, [DeleteElements(TRIED, "known", KNOWN, elements)])


STRANGE = [
    "ip daddr 10.0.0.1 dnat to 10.0.0.2",
    "meta mark",
    "meta mark vmap { 1 : accept",
    "meta mark vmap { 1 : accept, 1 : drop }",
    "meta l4proto { tcp udp }",
    'iifname "br*" drop',
    'iifname "a name of more than fifteen" drop',
    "ct mark 4294967296 drop",
    "ct original proto-dst 65536 drop",
    "ct original proto-dst 9-3 drop",
    "ct original ip daddr 10.0.0.1/24 drop",
    "reject with tcp reset",
    "ip daddr 10.0.0.0/8 drop",
    '"drop',
    "@ll,7,2 1 drop",
    "jump",
]


@pytest.mark.parametrize("rule", STRANGE)
def test_what_is_not_surely_understood_is_not_said(rule: str) -> None:
    with pytest.raises(Unspoken):
        bytecode(rule, "inet")
