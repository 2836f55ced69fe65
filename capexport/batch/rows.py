"""A photo's caption, or what is wrong with the photo, as a row: a dict that JSON can hold."""

from __future__ import annotations

from typing import Any

from ..errors import ImageError
from ..runtime.caption import Caption

Row = dict[str, Any]


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
    if not (isinstance(value["path"], str) and isinstance(value["run"], str)):
        return False
    if value["error"] is not None:
        return isinstance(value["error"], str) and all(value[key] is None for key in NOTHING)
    return _is_caption(value)


ROW = {"path", "run", "error", *NOTHING}


def _is_caption(value: Any, alternatives: bool = True) -> bool:
    if not isinstance(value, dict) or not NOTHING.keys() <= value.keys():
        return False
    lists: dict[str, Any] = {"words": str, "tokens": int, "log_probabilities": (int, float), "alternatives": dict}
    fits = isinstance(value["text"], str) and isinstance(value["confidence"], int | float)
    fits = fits and all(
        isinstance(value[key], list) and all(isinstance(one, kind) for one in value[key]) for key, kind in lists.items()
    )
    fits = fits and all(0 <= token < 2**31 for token in value["tokens"])
    others = value["alternatives"] if fits else []
    return fits and (not others or alternatives) and all(_is_caption(one, alternatives=False) for one in others)
