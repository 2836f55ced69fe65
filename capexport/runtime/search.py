"""The ways to choose among the words that may come: the likeliest, a draw, or a beam search.

A search is asked once a step and keeps what it needs from step to step. Its rows belong to photos; a row ends
when its hypothesis does, and is not asked about again. R rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from .options import DecodingOptions
from .rules import FORBIDDEN, Rules, Scores

Index = NDArray[np.intp]


class Place(NamedTuple):
    """Where a hypothesis stands in the record of choices."""

    step: int
    choice: int


class Choice(NamedTuple):
    """What is said next: choice i says token i after all that row parents[i] has said. C choices."""

    parents: Index | None  # (C,); None: each row has one, in their order
    tokens: NDArray[np.int32]  # (C,)
    going: Index  # those that become the next step's rows, in this order


class Search(Protocol):
    """A way to choose words for a batch of photos."""

    photos: Index  # (R,) the photo of each row at the start

    def choose(self, scores: Scores, step: int) -> Choice:
        """Choose, given the rows' scores (R, V)."""

    def best(self, photo: int) -> list[Place]:
        """Where the photo's captions end, the best first, or in the order of their drawing."""


def start_search(options: DecodingOptions, rules: Rules, photos: int) -> Search:
    """The search that the options ask for."""
    return BeamSearch(options, rules, photos) if options.searched else Draw(options, rules, photos)


class Draw:
    """Each row by itself: its likeliest word, or one drawn at random.

    A draw takes the likeliest after adding Gumbel noise (Gumbel, 1954; the "Gumbel-max trick"), which is exact
    sampling and, unlike inverting the cumulative sum, moves with an engine's rounding only in near-ties. Each row
    has its own generator, so that a photo's words do not depend on its neighbours in the batch.
    """

    def __init__(self, options: DecodingOptions, rules: Rules, photos: int) -> None:
        self.photos = np.repeat(np.arange(photos), options.captions)
        self._options = options
        self._end = rules.end
        seeds = [None if options.seed is None else [options.seed, k] for k in range(options.captions)] * photos
        self._random = [np.random.default_rng(seed) for seed in seeds] if options.drawn else []
        self._live = np.arange(len(self.photos))  # (R,) the caption that each row writes
        self._places: dict[int, Place] = {}

    def choose(self, scores: Scores, step: int) -> Choice:
        check_words_left(scores.max(axis=1), step)
        if self._options.drawn:
            with np.errstate(over="ignore"):  # the likeliest is at 0, and however low the temperature remains there
                scores = (scores - scores.max(axis=1, keepdims=True)) / self._options.temperature
            scores = narrow(scores, self._options.top_k, self._options.top_p)
            scores = scores + np.stack([_gumbel(self._random[k], scores.shape[1]) for k in self._live])
        return self.say(scores.argmax(axis=1).astype(np.int32), step)

    def say(self, tokens: NDArray[np.int32], step: int) -> Choice:
        """Have the rows say these tokens (R,)."""
        [going] = (tokens != self._end).nonzero()
        if len(going) < len(tokens):
            for index in (tokens == self._end).nonzero()[0].tolist():
                self._places[int(self._live[index])] = Place(step, index)
            self._live = self._live[going]
        return Choice(None, tokens, going)

    def best(self, photo: int) -> list[Place]:
        return [self._places[k] for k in np.flatnonzero(self.photos == photo).tolist()]


def check_words_left(best: NDArray[np.float64], step: int) -> None:
    """Raise OptionError if a row has no word to say: if its best score (R,) is as good as none."""
    if not best.min() > FORBIDDEN:
        raise OptionError(f"The options leave no word to say at position {step + 1}.")


def narrow(scores: Scores, top_k: int | None, top_p: float | None) -> Scores:
    """Scores (R, V) with -inf for all but the k likeliest words, then for all outside the nucleus of mass p."""
    scores = scores.copy()
    if top_k is not None and top_k < scores.shape[1]:
        least = np.partition(scores, -top_k, axis=1)[:, [-top_k]]
        scores[scores < least] = -np.inf
    if top_p is not None and top_p < 1:
        order = np.argsort(-scores, axis=1, kind="stable")
        sorted_scores = np.take_along_axis(scores, order, axis=1)
        mass = np.exp(sorted_scores - sorted_scores[:, :1])
        before = np.cumsum(mass, axis=1) - mass  # what the likelier words have, unnormalised
        sorted_scores[before >= top_p * mass.sum(axis=1, keepdims=True)] = -np.inf
        np.put_along_axis(scores, order, sorted_scores, axis=1)
    return scores


def _gumbel(random: np.random.Generator, size: int) -> Scores:
    uniform = np.maximum(random.random(size), 2.0**-54)
    noise: Scores = -np.log(-np.log(uniform))
    return noise


class _Candidate(NamedTuple):
    parent: int  # among the photo's rows
    token: int
    total: float  # log-probability of the whole hypothesis


@dataclass
class _Beams:
    """One photo's hypotheses: the live ones, and (score, place) of the best finished ones, the best first."""

    totals: NDArray[np.float64]  # (n,) log-probabilities
    met: NDArray[np.bool_]  # (n, F) which forced words were said
    finished: list[tuple[float, Place]]


class BeamSearch:
    """The captions with the highest scores, log-probability / tokens ** length_penalty, as far as beams see.

    At each step the continuations of the live hypotheses are ranked: those among the first `beams` that end are
    finished, the first `beams` that don't live on. A photo is done when `beams` are finished and no live one has,
    at its present length, a better score than the worst of them. With F forced words there are `beams` for each
    number, 0 to F, of forced words said (the grid of Hokamp and Liu, 2017); only who has said all may end.
    """

    def __init__(self, options: DecodingOptions, rules: Rules, photos: int) -> None:
        self.photos = np.arange(photos)
        self._options = options
        self._rules = rules
        start = np.zeros((1, len(rules.forced)), bool)
        self._beams = [_Beams(np.zeros(1), start, []) for _ in range(photos)]

    def choose(self, scores: Scores, step: int) -> Choice:
        chosen: list[tuple[int, int, bool]] = []
        row = 0
        for beams in self._beams:
            rows = slice(row, row + len(beams.totals))
            if len(beams.totals):
                ended, going = self._continued(beams, scores[rows], step)
                self._finish(beams, ended, step, first=len(chosen))
                live = [] if self._done(beams, going, step) else going
                self._live_on(beams, live)
                chosen += [(row + c.parent, c.token, False) for c in ended]
                chosen += [(row + c.parent, c.token, True) for c in live]
            row = rows.stop
        parents, tokens, goes_on = zip(*chosen, strict=True) if chosen else ((), (), ())
        return Choice(np.array(parents, np.intp), np.array(tokens, np.int32), np.flatnonzero(goes_on))

    def best(self, photo: int) -> list[Place]:
        finished = self._beams[photo].finished
        if not finished:
            raise OptionError("The options leave no caption to say, as far as the beams have searched; try more beams.")
        return [place for _, place in finished[: self._options.captions]]

    def _continued(self, beams: _Beams, scores: Scores, step: int) -> tuple[list[_Candidate], list[_Candidate]]:
        """The best continuations: those that end, and those that go on."""
        totals = beams.totals[:, np.newaxis] + scores  # (n, V)
        said = np.zeros(totals.shape, int) + beams.met.sum(axis=1, keepdims=True)  # forced words, with this token
        for k, token in enumerate(self._rules.forced):
            said[~beams.met[:, k], token] += 1
        missing = len(self._rules.forced) - said
        totals[missing > max(0, self._rules.max_length - step - 2)] = -np.inf  # the last token is [END]
        totals[:, self._rules.end][missing[:, self._rules.end] > 0] = -np.inf
        ended: list[_Candidate] = []
        going: list[_Candidate] = []
        for count in range(len(self._rules.forced) + 1):
            ranked = _ranked(np.where(said == count, totals, -np.inf), 2 * self._options.beams)
            ended += [c for c in ranked[: self._options.beams] if c.token == self._rules.end]
            going += [c for c in ranked if c.token != self._rules.end][: self._options.beams]
        return ended, going

    def _finish(self, beams: _Beams, ended: list[_Candidate], step: int, first: int) -> None:
        scored = [(self._score(c, step), Place(step, first + i)) for i, c in enumerate(ended)]
        beams.finished = sorted(beams.finished + scored, key=lambda pair: -pair[0])[: self._options.beams]

    def _done(self, beams: _Beams, going: list[_Candidate], step: int) -> bool:
        if len(beams.finished) < self._options.beams:
            return False
        return max((self._score(c, step) for c in going), default=-np.inf) <= beams.finished[-1][0]

    def _score(self, candidate: _Candidate, step: int) -> float:
        score: float = candidate.total / (step + 1) ** self._options.length_penalty
        return score

    def _live_on(self, beams: _Beams, live: list[_Candidate]) -> None:
        parents, tokens = [c.parent for c in live], [c.token for c in live]
        beams.totals = np.array([c.total for c in live])
        beams.met = beams.met[parents] | (np.array(tokens)[:, np.newaxis] == np.array(self._rules.forced))


def _ranked(totals: NDArray[np.float64], count: int) -> list[_Candidate]:
    """The `count` largest totals (n, V) that are above -inf, the largest first; of equals, the first."""
    flat = totals.ravel()
    count = min(count, flat.size)
    least = np.partition(flat, -count)[-count]
    top = np.flatnonzero((flat >= least) & (flat > -np.inf))
    top = top[np.argsort(-flat[top], kind="stable")][:count]
    parents, tokens = np.divmod(top, totals.shape[1])
    return [_Candidate(int(p), int(t), float(totals[p, t])) for p, t in zip(parents, tokens, strict=True)]
