"""How words are chosen: the options of decoding, checked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..bounds import check_number, check_whole
from ..errors import OptionError

NUMBERS: dict[str, dict[str, float]] = {
    "temperature": {"least": 0},
    "length_penalty": {"least": -10, "most": 10},
    "repetition_penalty": {"above": 0},
    "top_p": {"above": 0, "most": 1},
}


@dataclass(frozen=True)
class DecodingOptions:
    """How words are chosen. Raises OptionError for values that make no sense or contradict each other.

    temperature         0 takes the likeliest word at each step (greedy) or searches with beams; above, words are
                        drawn from softmax(log-probabilities / temperature)
    top_k               draw among the k likeliest words only (Fan et al., 2018)
    top_p               draw among the fewest words whose probabilities, at this temperature and after top_k, add
                        up to p, in (0, 1] (nucleus sampling; Holtzman et al., 2020)
    beams               hypotheses kept at each step of a beam search; 1 is greedy
    length_penalty      a beam's score is its log-probability / tokens ** length_penalty, [END] counted: 0 prefers
                        short captions, 1 ranks by the mean; 0.7 has the best CIDEr on Flickr8k dev with 3 beams; from
                        -10 to 10
    captions            captions a photo: the best of the beams, or so many draws
    repetition_penalty  a word said before has its log-probability multiplied by this (above 1: less likely), as of
                        Keskar et al., 2019, but independent of the logits' offset
    no_repeat_ngram     no run of so many words is said twice (Paulus et al., 2018)
    banned_words        never said
    forced_words        said in every caption, found by beam search (grid beam search; Hokamp and Liu, 2017)
    prefix              the words, separated by spaces, that every caption begins with
    min_length          the least tokens of a caption, [END] included
    max_length          the most tokens, [END] included, which is the last then; None: what the captioner was made for
    seed                of the draws; the same seed gives the same words on every backend and at every batch size, but
                        for near-ties
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    beams: int = 1
    length_penalty: float = 0.7
    captions: int = 1
    repetition_penalty: float = 1.0
    no_repeat_ngram: int | None = None
    banned_words: tuple[str, ...] = ()
    forced_words: tuple[str, ...] = ()
    prefix: str = ""
    min_length: int = 1
    max_length: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.default is not None and getattr(self, field.name) is None:
                raise OptionError(f"{field.name} must not be None; leave it out for its default, {field.default!r}.")
        for name in ("top_k", "beams", "captions", "no_repeat_ngram", "min_length", "max_length"):
            check_whole(name, getattr(self, name), least=1)
        check_whole("seed", self.seed, least=0)
        for name, bounds in NUMBERS.items():
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check_number(name, getattr(self, name), **bounds))
        for name in ("banned_words", "forced_words"):
            words = getattr(self, name)
            listed = isinstance(words, list | tuple | set | frozenset)
            if not listed or not all(isinstance(word, str) for word in words):
                raise OptionError(f"{name} must be a list of words, not {words!r}.")
            object.__setattr__(self, name, tuple(dict.fromkeys(words)))
        if not isinstance(self.prefix, str):
            raise OptionError(f"prefix must be words separated by spaces, not {self.prefix!r:.80}.")
        self._check_together()

    @property
    def drawn(self) -> bool:
        """Whether words are drawn at random."""
        return self.temperature > 0

    @property
    def searched(self) -> bool:
        """Whether the words are known only after a search."""
        return self.beams > 1 or bool(self.forced_words)

    def _check_together(self) -> None:
        if self.drawn and self.searched:
            raise OptionError("Beams and forced words search for the best caption: they take no temperature above 0.")
        if not self.drawn and (self.top_k is not None or self.top_p is not None):
            raise OptionError("top_k and top_p narrow down random draws: give a temperature above 0, too.")
        if not self.drawn and self.captions > self.beams:
            raise OptionError(f"{self.captions} captions a photo need as many beams, or a temperature above 0.")
        if self.max_length is not None and self.min_length > self.max_length:
            raise OptionError(f"min_length is {self.min_length}, more than max_length, {self.max_length}.")
        if self.max_length is not None and len(self.forced_words) >= self.max_length:
            raise OptionError(f"{len(self.forced_words)} forced words do not fit into {self.max_length} tokens.")
        both = set(self.banned_words) & {*self.forced_words, *self.prefix.split()}
        if both:
            raise OptionError(f"The word {min(both)!r} is banned and asked for at once.")


DEFAULT = DecodingOptions()


def with_fields(options: DecodingOptions | None, fields: dict[str, Any]) -> DecodingOptions:
    """The options, DEFAULT if there are none, with fields given by name in their place; raises OptionError as they do.

    Options that exist already are not checked once more, which takes a hundredth of a caption.
    """
    return dataclasses.replace(options or DEFAULT, **fields) if fields else options or DEFAULT
