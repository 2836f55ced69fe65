"""Every error a user can cause, as one tree; the command line turns each into one sentence and exit code 2.

All can be pickled, as they are on their way out of another process. The sentence is one line whatever it quotes:
names in files may hold line breaks or a terminal's control sequences.

CapexportError
├── ImageError          a photo that cannot be read, or is not one
├── VocabularyError     a vocabulary file or word list that breaks its rules
├── BundleError         a bundle that is damaged, incomplete or of another version
├── SourceError         a source captioner, or a live model, that cannot be read or exported
├── DataError           a data set that is missing, incomplete or malformed
│   └── DownloadError   a file or photo that cannot be fetched
├── OptionError         options that do not exist or contradict each other
├── QualityError        a bundle whose captions, logits or attention are outside its recipe's bounds
├── OutputError         an output that exists already or cannot be written
└── MissingExtraError   an optional package that is not installed (an ImportError, too)
"""

from __future__ import annotations

from typing import Any


class CapexportError(Exception):
    """The root of every error a user can cause; its message has escapes (`\\n`) for what cannot be printed."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """The text with escapes (`\\n`) for what a terminal would not print but obey."""
    return "".join(sign if sign.isprintable() else _escaped(sign) for sign in text)


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")


class ImageError(CapexportError):
    """A photo that cannot be read, or is not one."""


class VocabularyError(CapexportError):
    """A vocabulary file or word list that breaks its rules."""


class BundleError(CapexportError):
    """A bundle that is damaged, incomplete or of another version."""


class SourceError(CapexportError):
    """A source captioner, or a live model, that cannot be read or exported."""


class DataError(CapexportError):
    """A data set that is missing, incomplete or malformed."""


class DownloadError(DataError):
    """A file or photo that cannot be fetched; `transient` where a later try may succeed."""

    def __init__(self, url: str, reason: str, transient: bool = False) -> None:
        super().__init__(f"{url} cannot be fetched: {reason}.")
        self.url = url
        self.reason = reason
        self.transient = transient

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.reason, self.transient)


class OptionError(CapexportError):
    """Options that do not exist or contradict each other."""


class QualityError(CapexportError):
    """A bundle whose captions, logits or attention are outside its recipe's bounds."""


class OutputError(CapexportError):
    """An output that exists already or cannot be written."""


class MissingExtraError(CapexportError, ImportError):
    """An optional package that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; install it with: pip install 'capexport[{extra}]'")
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.package, self.extra)
