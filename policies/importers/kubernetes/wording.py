"""Pure. Names in another alphabet: each word gets one that is allowed and its own, near to what it was."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable


class Wording:
    """Word → allowed word, one to one. The order in which words are added decides who keeps a name that two want."""

    def __init__(self, shape: Callable[[str], str], reserved: Iterable[str] = ()) -> None:
        """shape: the allowed word nearest to any text, with room for a suffix of six characters."""
        self._shape = shape
        self._taken = set(reserved)
        self._words: dict[str, str] = {}

    def __getitem__(self, word: str) -> str:
        """The word's own, added now if it is new."""
        if word not in self._words:
            wanted = self._shape(word)
            found, count = wanted, 1
            while found in self._taken:
                count += 1
                found = f"{wanted}-{count}"
            self._taken.add(found)
            self._words[word] = found
        return self._words[word]


def dns_label(text: str) -> str:
    """Lower-case letters, digits and inner hyphens (RFC 1123 §2.1), at most 57."""
    found = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:57].strip("-")
    return found or "unnamed"


def label_word(text: str) -> str:
    """A label's key or value in our notation: letters, digits and inner `-_./`, at most 63.

    One that is allowed stays as it is, but for those that leave no room for a suffix.
    """
    found = re.sub(r"[^A-Za-z0-9_./-]+", "_", text).strip("-_./")[:57].strip("-_./")
    return found or "empty"
