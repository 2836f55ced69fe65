"""Caption quality as the field measures it: BLEU and CIDEr of pycocoevalcap on PTB-tokenised captions.

BLEU: Papineni et al., 2002. CIDEr(-D): Vedantam et al., 2015. The tokeniser is Stanford's and runs on Java.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Mapping, Sequence

from ..errors import MissingExtraError
from ..quiet import silenced_stderr


def score(references: Mapping[str, Sequence[str]], candidates: Mapping[str, str]) -> dict[str, float]:
    """BLEU-1 to BLEU-4 (0..1), CIDEr, the share of distinct captions and the mean length in words.

    references, candidates  by photo, over the same photos. Raises MissingExtraError without pycocoevalcap or Java.
    """
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "pycocoevalcap", "evaluate") from error
    if shutil.which("java") is None:
        raise MissingExtraError("java", "evaluate")
    with contextlib.redirect_stdout(io.StringIO()), silenced_stderr():
        tokenize = PTBTokenizer().tokenize
        truth = tokenize({key: [{"caption": text} for text in texts] for key, texts in references.items()})
        ours = tokenize({key: [{"caption": text}] for key, text in candidates.items()})
        bleu, _ = Bleu(4).compute_score(truth, ours)
        cider, _ = Cider().compute_score(truth, ours)
    texts = list(candidates.values())
    return {
        **{f"BLEU-{n}": float(value) for n, value in enumerate(bleu, start=1)},
        "CIDEr": float(cider),
        "distinct": len(set(texts)) / len(texts),
        "words": sum(len(text.split()) for text in texts) / len(texts),
    }
