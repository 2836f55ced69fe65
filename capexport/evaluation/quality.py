"""Caption quality as the field measures it, by pycocoevalcap (Chen et al., 2015) on PTB-tokenised captions.

BLEU (Papineni et al., 2002), METEOR (Denkowski and Lavie, 2014), ROUGE-L (Lin, 2004), CIDEr-D (Vedantam et al., 2015)
and SPICE (Anderson et al., 2016). The tokeniser, METEOR and SPICE run on Java; without it the captions are tokenised
here, much in the same way, and those two are left out.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from ..errors import MissingExtraError, OptionError
from ..quiet import silenced_stderr

Tokenized = dict[str, list[str]]  # by photo, each caption as words separated by spaces

PTB, OWN = "PTB tokenizer (Stanford CoreNLP)", "capexport's own tokens, nearly the PTB tokenizer's (no Java here)"
SPICE_MODELS = "lib/stanford-corenlp-3.6.0-models.jar"


@dataclass(frozen=True)
class Quality:
    """What the metrics say of captions; BLEU, METEOR, ROUGE-L and SPICE from 0 to 1, CIDEr from 0 to 10.

    scores     by metric; also the share of distinct captions and the mean length in words
    skipped    metrics that could not be computed, and why
    tokenizer  which one made the words
    """

    scores: dict[str, float]
    tokenizer: str
    skipped: dict[str, str] = field(default_factory=dict)


def score(references: Mapping[str, Sequence[str]], candidates: Mapping[str, str]) -> Quality:
    """Hold candidates against people's captions, both by photo and over the same photos.

    Raises MissingExtraError without pycocoevalcap, OptionError where there are no candidates.
    """
    if not candidates:
        raise OptionError("There are no captions to score.")
    scores: dict[str, float] = {}
    skipped: dict[str, str] = {}
    java, metrics = shutil.which("java") is not None, _metrics()
    with contextlib.redirect_stdout(io.StringIO()), silenced_stderr():
        tokenize = _ptb if java else tokens
        truth = tokenize(references)
        ours = tokenize({key: [text] for key, text in candidates.items()})
        for name, metric in metrics.items():
            why = _lacks(name, java)
            if why:
                skipped[name] = why
            else:
                scores |= _scored(name, metric().compute_score(truth, ours)[0])
    texts = list(candidates.values())
    scores["distinct"] = len(set(texts)) / len(texts)
    scores["words"] = sum(len(text.split()) for text in texts) / len(texts)
    return Quality(scores, PTB if java else OWN, skipped)


def tokens(captions: Mapping[str, Sequence[str]]) -> Tokenized:
    """Lower case, contractions split as in the Penn Treebank, punctuation dropped."""
    return {key: [" ".join(_words(text)) for text in texts] for key, texts in captions.items()}


def _words(text: str) -> list[str]:
    split = re.sub(r"(n't|'(?:s|re|ve|ll|d|m))\b", r" \1", text.lower())
    return re.findall(r"n't|'(?:s|re|ve|ll|d|m)\b|\w+(?:[-.&/]\w+)*", split)


def _ptb(captions: Mapping[str, Sequence[str]]) -> Tokenized:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    words: Tokenized = PTBTokenizer().tokenize(
        {key: [{"caption": text} for text in texts] for key, texts in captions.items()}
    )
    return words


def check_installed() -> None:
    """Raise MissingExtraError without pycocoevalcap: for who has captions to make before."""
    _metrics()


def _metrics() -> dict[str, Callable[[], Any]]:
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.meteor.meteor import Meteor
        from pycocoevalcap.rouge.rouge import Rouge
        from pycocoevalcap.spice.spice import Spice
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "pycocoevalcap", "evaluate") from error
    return {"BLEU": lambda: Bleu(4), "METEOR": Meteor, "ROUGE-L": Rouge, "CIDEr": Cider, "SPICE": Spice}


def _lacks(metric: str, java: bool) -> str:
    """What a metric needs that is not there; nothing if it can run."""
    if metric in ("METEOR", "SPICE") and not java:
        return "it runs on Java, which is not installed"
    if metric == "SPICE" and not resources.files("pycocoevalcap.spice").joinpath(SPICE_MODELS).is_file():
        return (
            "its language models are not there; pycocoevalcap fetches them with "
            "pycocoevalcap.spice.get_stanford_models.get_stanford_models()"
        )
    return ""


def _scored(name: str, value: Any) -> dict[str, float]:
    if isinstance(value, list):
        return {f"{name}-{n}": float(one) for n, one in enumerate(value, start=1)}
    return {name: float(value)}
