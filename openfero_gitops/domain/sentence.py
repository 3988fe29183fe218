"""Sentences with untrusted text in them, to be escaped as the medium requires."""

from __future__ import annotations

from typing import Final

from openfero_gitops.domain.text import printable

_MAX_QUOTE_CHARACTERS: Final = 300


class Quote(str):
    """Untrusted text from the repository inside a sentence; it is escaped when it is printed."""

    __slots__ = ()


#: Parts of a sentence: our own text, and quotes.
Sentence = tuple[str, ...]


def sentence_text(sentence: Sentence) -> str:
    """A sentence on one line, its quotes escaped."""
    return "".join(
        printable(part, _MAX_QUOTE_CHARACTERS) if isinstance(part, Quote) else part
        for part in sentence
    )
