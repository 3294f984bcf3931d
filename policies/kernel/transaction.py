"""Owns transactions of the kernel's tables: commands as one batch of messages, and what the kernel says to it.

A batch is taken as a whole or not at all (linux/netfilter/nfnetlink.h, NFNL_MSG_BATCH_BEGIN), and only if nobody has
changed any table since the generation that it names. Knows no more than `bytecode` and `elements` do: what they can't
say is not begun.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import assert_never

from policies.compile.changes import (
    AddChain,
    AddCounter,
    AddElements,
    AddRules,
    AddSet,
    Command,
    DeclareTable,
    DeleteChain,
    DeleteCounter,
    DeleteElements,
    DeleteSet,
    DeleteTable,
    FlushChain,
    as_text,
)
from policies.compile.tables import Table, fingerprint
from policies.kernel.bytecode import bytecode
from policies.kernel.elements import encoded, lists
from policies.kernel.fields import Unspoken, note
from policies.kernel.netlink import (
    CREATE,
    Message,
    NetfilterError,
    attribute,
    body,
    error_of,
    framed,
    nest,
    opened,
    split,
    u32,
)
from policies.kernel.nft import NftError

_NFTABLES = 10
_NEWCHAIN, _DELCHAIN, _NEWRULE, _DELRULE, _NEWSET, _NEWSETELEM, _DELSETELEM, _NEWOBJ, _DELOBJ = (
    _NFTABLES << 8 | kind for kind in (3, 5, 6, 8, 9, 12, 14, 18, 20)
)
_BEGIN, _END, _ERROR = 16, 17, 2
_GENERATION = 1
_APPEND = 0x800
_COUNTER = 1
_FAMILIES = {"inet": 1, "netdev": 5}
_HOOKS = {"inet": {"prerouting": 0, "forward": 2}, "netdev": {"ingress": 0, "egress": 1}}
_HOOK = re.compile(r'type (filter) hook (\w+)(?: device ("[^"]+"))? priority (-?\d+); policy (accept|drop);')
_COMMENT = 0
"""NFTNL_UDATA_RULE_COMMENT."""

_CHUNK = 1 << 16
_PATIENCE_S = 10.0
"""The kernel answers at once; who waits longer waits for what never comes."""

_SHOWN = 200
"""Characters of a refused command in the words about it."""


class Changed(Exception):
    """Somebody else has changed tables since the generation that a transaction named; it was not begun."""


def messages(commands: Iterable[Command]) -> list[tuple[Command, Message]]:
    """Each message with the command that it is of. Raises Unspoken."""
    found: list[tuple[Command, Message]] = []
    sets = 0
    for command in commands:
        made = list(_messages(command, sets))
        sets += sum(kind == _NEWSET for kind, _, _ in made)
        found += [(command, message) for message in made]
    return found


def _messages(command: Command, sets: int) -> Iterator[Message]:
    """sets: how many the batch has made before."""
    match command:
        case FlushChain(table, name):
            yield _of(_DELRULE, 0, table, attribute(2, _text(name)))
        case DeleteChain(table, name):
            yield _of(_DELCHAIN, 0, table, attribute(3, _text(name)))
        case AddChain(table, name, hook):
            yield _of(_NEWCHAIN, CREATE, table, attribute(3, _text(name)), *(_hook(table, hook) if hook else ()))
        case AddRules(table, name, rules):
            for rule in rules:
                made = list(_rule(table, name, rule, sets))
                sets += sum(kind == _NEWSET for kind, _, _ in made)
                yield from made
        case DeleteElements(table, name, shape, elements):
            for listed in encoded(shape, elements, is_deleted=True):
                yield _of(_DELSETELEM, 0, table, attribute(2, _text(name)), listed)
        case AddElements(table, name, shape, elements):
            for listed in encoded(shape, elements):
                yield _of(_NEWSETELEM, CREATE, table, attribute(2, _text(name)), listed)
        case AddCounter(table, name):
            yield _of(_NEWOBJ, CREATE, table, attribute(2, _text(name)), u32(3, _COUNTER), nest(4))
        case DeleteCounter(table, name):
            yield _of(_DELOBJ, 0, table, attribute(2, _text(name)), u32(3, _COUNTER))
        case DeclareTable() | DeleteTable() | AddSet() | DeleteSet():
            raise Unspoken(type(command).__name__)
        case _:
            assert_never(command)


def _of(kind: int, flags: int, table: Table, *attributes: bytes) -> Message:
    family, name = table
    if family not in _FAMILIES:
        raise Unspoken(family)
    return kind, flags, body(_FAMILIES[family], attribute(1, _text(name)), *attributes)


def _text(name: str) -> bytes:
    return name.encode() + b"\0"


def _hook(table: Table, text: str) -> Iterator[bytes]:
    found = _HOOK.fullmatch(text)
    hooks = _HOOKS[table[0]]
    if found is None or found[2] not in hooks or (table[0] == "netdev") != bool(found[3]):
        raise Unspoken(text)
    device = [attribute(3, _text(found[3].strip('"')))] if found[3] else []
    yield nest(4, u32(1, hooks[found[2]]), u32(2, int(found[4]) & 0xFFFFFFFF), *device)
    yield u32(5, found[5] == "accept")
    yield attribute(7, _text(found[1]))


def _rule(table: Table, chain: str, rule: str, sets: int) -> Iterator[Message]:
    """First its own sets, whose numbers come after `sets`, then the rule with its fingerprint as comment."""
    made = bytecode(rule, table[0])
    ids = list(range(sets + 1, sets + 1 + len(made.sets)))
    for id, own in zip(ids, made.sets, strict=True):
        name = attribute(2, own.name)
        yield _of(_NEWSET, CREATE, table, name, u32(10, id), own.described)
        for listed in lists(own.elements):
            yield _of(_NEWSETELEM, CREATE, table, name, u32(4, id), listed)
    expressions = nest(4, made.expressions(ids))
    comment = attribute(7, note(_COMMENT, _text(fingerprint(rule))))
    yield _of(_NEWRULE, CREATE | _APPEND, table, attribute(2, _text(chain)), expressions, comment)


class Transactions:
    """A socket of the calling thread's namespace, for one thread at a time. Raises OSError."""

    def __init__(self) -> None:
        self._socket = opened()
        self._socket.settimeout(_PATIENCE_S)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def apply(self, commands: Sequence[Command], generation: int) -> int:
        """All of them, at this generation or not at all; the generation that they made.

        Raises Unspoken and Changed, with nothing begun; NftError, when the kernel refused, and nothing has changed;
        OSError, and then what has become of it is not known.
        """
        said = messages(commands)
        first = self._sequence + 2
        last = first + len(said) - 1
        batch = [_framed(_BEGIN, self._sequence + 1, u32(_GENERATION, generation))]
        batch += [framed(one, number, number == last) for number, (_, one) in enumerate(said, first)]
        batch.append(_framed(_END, last + 1))
        self._sequence = last + 1
        try:
            self._socket.send(b"".join(batch))
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise Unspoken("more than the socket takes at once") from error
            raise
        refused = dict(self._answers(first - 1, last))
        if not refused:
            return generation % 0xFFFFFFFF + 1  # nought is left out (nf_tables_commit)
        place = min(refused)
        if place < first:
            if refused[place].errno == errno.ERESTART:
                raise Changed
            raise NftError(f"the kernel refused the transaction: {refused[place].strerror}")
        command = as_text([said[place - first][0]]).strip()
        raise NftError(f"{command[:_SHOWN]}: {refused[place].strerror}")

    def _answers(self, begin: int, last: int) -> Iterator[tuple[int, NetfilterError]]:
        """Refusals, by sequence number, up to the answer to the last message, or to all of it."""
        while True:
            for kind, sequence, content in split(self._socket.recv(_CHUNK)):
                if kind != _ERROR or not begin <= sequence <= last:
                    continue  # to a batch of which the first answer was all that was waited for
                if error := error_of(content):
                    yield sequence, error
                if sequence in (begin, last):
                    return


def _framed(kind: int, sequence: int, *attributes: bytes) -> bytes:
    return framed((kind, 0, body(0, *attributes, resource=_NFTABLES)), sequence, is_acknowledged=False)
