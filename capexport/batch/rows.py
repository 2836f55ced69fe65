"""A photo's caption, or what is wrong with the photo, as a row: a dict that JSON can hold."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ImageError
from ..runtime.caption import Caption

Row = dict[str, Any]
ROUNDED = 1e-3  # by so much a probability may be above 1, and its logarithm above 0


def caption_row(caption: Caption) -> Row:
    """The caption's text, words, tokens, log-probabilities and confidence, and its alternatives, rows of the same."""
    return {
        "text": caption.text,
        "words": caption.words,
        "tokens": caption.tokens,
        "log_probabilities": [round(value, 6) for value in caption.log_probabilities],
        "confidence": round(caption.confidence, 6),
        "alternatives": [caption_row(other) for other in caption.alternatives],
    }


NOTHING: Row = dict.fromkeys(("text", "words", "tokens", "log_probabilities", "confidence", "alternatives"))


def photo_row(path: str, result: Caption | ImageError, min_confidence: float, run: str) -> Row:
    """The row of one photo of many; a photo that cannot be read has its error and null for all else.

    min_confidence  below it the text is empty; words and confidence stay
    run             says which run the row belongs to, see run.run_id
    """
    if isinstance(result, ImageError):
        return {"path": path, **NOTHING, "error": str(result), "run": run}
    return {"path": path, **empty_if_doubtful(caption_row(result), min_confidence), "error": None, "run": run}


def empty_if_doubtful(caption: Row, min_confidence: float) -> Row:
    """The row of a caption, without its text if its confidence is lower."""
    return {**caption, "text": ""} if caption["confidence"] < min_confidence else caption


def is_row(value: Any) -> bool:
    """Whether a JSON value is a row as photo_row makes them, whoever wrote it."""
    if not isinstance(value, dict) or not value.keys() >= ROW:
        return False
    # The names of files may be no UTF-8.
    if not (_is_text(value["path"], "surrogateescape") and _is_text(value["run"])):
        return False
    if value["error"] is not None:
        return _is_text(value["error"]) and all(value[key] is None for key in NOTHING)
    return _is_caption(value)


ROW = {"path", "run", "error", *NOTHING}


def _is_caption(value: Any, alternatives: bool = True) -> bool:
    if not isinstance(value, dict) or not NOTHING.keys() <= value.keys():
        return False
    fits = _is_text(value["text"]) and _is_number(value["confidence"], 0, 1 + ROUNDED)
    lists = ("words", "tokens", "log_probabilities", "alternatives")
    fits = fits and all(isinstance(value[key], list) for key in lists)
    fits = fits and all(_is_text(word) for word in value["words"])
    fits = fits and all(type(token) is int and 0 <= token < 2**31 for token in value["tokens"])
    fits = fits and all(_is_number(one, -math.inf, ROUNDED) for one in value["log_probabilities"])
    others = value["alternatives"] if fits else []
    return fits and (not others or alternatives) and all(_is_caption(one, alternatives=False) for one in others)


def _is_text(value: Any, errors: str = "strict") -> bool:
    """Whether it is text that a file can hold: JSON knows signs that UTF-8 does not."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8", errors)
    except UnicodeEncodeError:
        return False
    return True


def _is_number(value: Any, least: float, most: float) -> bool:
    """Whether it is a number in a range that a table can hold: JSON knows integers that no float is as large as."""
    return (isinstance(value, float) or (type(value) is int and abs(value) < 2**53)) and least <= value <= most
