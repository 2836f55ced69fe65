"""Ids and words of a captioner, and its special tokens. A word's id is its line in the file."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .errors import VocabularyError
from .plain import quoted, read_plain

PAD, UNKNOWN, START, END = "", "[UNK]", "[START]", "[END]"
BANNED = (PAD, UNKNOWN, START)  # never generated
MARKUP = re.compile(r"<[A-Za-z/!?]")  # where HTML begins an element, its end or a comment
MAX_WORD = 1000  # characters
MAX_FILE = 2**26  # bytes


def _harmful(char: str) -> bool:
    """Whether a character ends a word or a line, steers a terminal, turns text around or is none (a surrogate).

    Others that print nothing, such as the joiners inside emoji, are part of the words of real captions.
    """
    return (
        char == " "
        or unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs")
        or unicodedata.bidirectional(char) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        or char in "\ufffe\uffff"  # which no XML may have
    )


def _unusable(words: Sequence[str]) -> str | None:
    """The first word that is empty, cannot be shown, or is the beginning of an element of HTML; None without one."""
    text = "".join(words)
    harmful = set(filter(_harmful, set(text)))  # once a character: there may be millions of words
    markup = "<" in text
    for word in words:
        if not 0 < len(word) <= MAX_WORD or (harmful and harmful & set(word)) or (markup and MARKUP.search(word)):
            return word
    return None


@dataclass(frozen=True)
class Vocabulary:
    """The words of a captioner in the order of their ids. Raises VocabularyError for an unusable list.

    The first word is padding (the empty string); "[UNK]", "[START]" and "[END]" must be there, nothing twice.
    """

    words: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<Vocabulary of {len(self.words)} words>"

    def __post_init__(self) -> None:
        if not self.words or self.words[0] != PAD:
            raise VocabularyError("A vocabulary must begin with the empty word, which is padding.")
        missing = [word for word in (UNKNOWN, START, END) if word not in self.words]
        if missing:
            raise VocabularyError(f"The vocabulary has no {' and no '.join(missing)}.")
        if len(self._ids) != len(self.words):
            [(twice, _)] = Counter(self.words).most_common(1)
            raise VocabularyError(f"The vocabulary has {quoted(twice)} twice.")
        unusable = _unusable(self.words[1:])
        if unusable is not None:
            raise VocabularyError(f"The vocabulary has an unusable word: {quoted(unusable)}.")

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    @property
    def start(self) -> int:
        """The id of [START]."""
        return self._ids[START]

    @property
    def end(self) -> int:
        """The id of [END]."""
        return self._ids[END]

    def id(self, word: str) -> int:
        """A word's id, that of [UNK] for a word it has not."""
        return self._ids.get(word, self._ids[UNKNOWN])

    def decode(self, tokens: Iterable[int]) -> list[str]:
        """The words of the tokens, special tokens included. Raises VocabularyError for an id out of range."""
        ids = [int(token) for token in tokens]
        for token in ids:
            if not 0 <= token < len(self.words):
                raise VocabularyError(f"There is no word {token}: the vocabulary has {len(self.words)} words.")
        return [self.words[token] for token in ids]

    @property
    def sha256(self) -> str:
        """The hash (hexadecimal) of its file."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()

    def to_text(self) -> str:
        """The vocabulary as its file's text: one word a line, the first line empty."""
        return "".join(f"{word}\n" for word in self.words)

    @classmethod
    def from_text(cls, text: str) -> Vocabulary:
        """The inverse of to_text."""
        if not text.endswith("\n"):
            raise VocabularyError("A vocabulary file must end with a line break; this one may be cut off.")
        return cls(tuple(text[:-1].split("\n")))

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Read a vocabulary file (UTF-8); raises VocabularyError if it cannot be read or breaks a rule."""
        try:
            return cls.from_text(read_plain(path, MAX_FILE).decode("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise VocabularyError(f"The vocabulary {path} cannot be read: {error}.") from error

    @classmethod
    def from_words(cls, words: Sequence[str]) -> Vocabulary:
        """A vocabulary of any sequence of words, e.g. a tokenizer's get_vocabulary()."""
        return cls(tuple(str(word) for word in words))
