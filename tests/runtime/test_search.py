"""Beam search against brute force where the beams see everything, and against a slow, obvious one where they don't."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capexport import OptionError
from capexport.runtime.search import _ranked
from capexport.vocabulary import Vocabulary
from tests.runtime.fake import END, MAX_LENGTH, WORDS, FakeBackend, all_of, caption

LARGE = Vocabulary((*WORDS, *(f"word{i}" for i in range(200))))  # so that there can be more beams than hypotheses


def score(backend, tokens, length_penalty):
    total = sum(backend.log_probabilities(0, tokens[:i])[token] for i, token in enumerate(tokens))
    return total / len(tokens) ** length_penalty


def every_caption(words, max_length):
    """All captions over the words, [END] at the end."""
    for length in range(max_length):
        for said in itertools.product([word for word in words if word != END], repeat=length):
            yield [*said, END]


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("forced", [(), ("dog",), ("dog", "runs")])
@pytest.mark.parametrize("seed", range(6))
def test_wide_beams_find_the_best_captions_there_are(seed, forced, length_penalty):
    backend = FakeBackend(seed, LARGE, words=4)  # [END], a, dog, runs
    ids = {WORDS.index(word) for word in forced}
    possible = [tokens for tokens in every_caption([3, 4, 5, 6], max_length=4) if ids <= set(tokens)]
    expected = sorted(possible, key=lambda tokens: -score(backend, tokens, length_penalty))[:10]
    options = {"beams": 150, "captions": 10, "max_length": 4, "length_penalty": length_penalty}
    found = all_of(caption(backend, forced_words=forced, **options))
    assert [list(one.tokens) for one in found] == expected


def slow_beam_search(backend, beams, length_penalty):
    live, finished = [([], 0.0)], []
    for step in range(MAX_LENGTH):
        continued = [
            (total + log_probability, [*said, token])
            for said, total in live
            for token, log_probability in enumerate(backend.log_probabilities(0, said))
            if log_probability > -1e8 and (token == END or step < MAX_LENGTH - 1)
        ]
        continued.sort(key=lambda pair: -pair[0])
        ended = [pair for pair in continued[:beams] if pair[1][-1] == END]
        going = [pair for pair in continued if pair[1][-1] != END][:beams]
        finished += [(total / len(said) ** length_penalty, said) for total, said in ended]
        finished = sorted(finished, key=lambda pair: -pair[0])[:beams]
        best_going = going[0][0] / (step + 1) ** length_penalty if going else -math.inf
        if len(finished) == beams and best_going <= finished[-1][0]:
            break
        live = [(said, total) for total, said in going]
    return [said for _, said in finished]


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("beams", [2, 3, 5])
@pytest.mark.parametrize("seed", range(15))
def test_narrow_beams_against_a_slow_search(seed, beams, length_penalty):
    backend = FakeBackend(seed, end_bias=1.0)
    expected = slow_beam_search(backend, beams, length_penalty)
    found = all_of(caption(backend, beams=beams, captions=beams, length_penalty=length_penalty))
    assert [list(one.tokens) for one in found] == expected


@given(
    st.lists(st.lists(st.sampled_from([-math.inf, -2.0, -1.0, 0.0]), min_size=4, max_size=4), min_size=1, max_size=5)
)
def test_of_equal_hypotheses_the_first_are_taken(totals):
    candidates = [(i, k, total) for i, row in enumerate(totals) for k, total in enumerate(row) if total > -math.inf]
    expected = sorted(candidates, key=lambda candidate: -candidate[2])
    for count in (1, 3, 30):
        assert [tuple(one) for one in _ranked(np.array(totals), count)] == expected[:count]


def test_more_beams_never_find_worse_than_greedy_here():
    """Not a law of beam search, but true where the beams see all: three words, three steps."""
    for seed in range(20):
        backend = FakeBackend(seed, LARGE, words=4)
        greedy = caption(backend, max_length=3)
        best = caption(backend, beams=100, max_length=3, length_penalty=1)
        assert score(backend, best.tokens, 1) >= score(backend, greedy.tokens, 1) - 1e-9


def test_log_probabilities_are_the_models_own():
    """Under every rule that bends the scores."""
    options = {"beams": 3, "captions": 3, "repetition_penalty": 1.7, "banned_words": ("a",), "min_length": 4}
    for seed in range(10):
        backend = FakeBackend(seed)
        for one in all_of(caption(backend, **options)):
            expected = [backend.log_probabilities(0, one.tokens[:i])[t] for i, t in enumerate(one.tokens)]
            assert one.log_probabilities == pytest.approx(expected, abs=1e-5)


def test_forced_words_cost_as_little_as_possible():
    """Forcing a word that the best caption has changes nothing; forcing another one is never better."""
    for seed in range(10):
        backend = FakeBackend(seed, LARGE, words=5)
        free = caption(backend, beams=150, max_length=3)
        for word in ("a", "dog", "runs", "far"):
            forced = caption(backend, beams=150, max_length=3, forced_words=(word,))
            assert word in forced.words
            if word in free.words:
                assert forced.tokens == free.tokens
            else:
                assert score(backend, forced.tokens, 0.7) < score(backend, free.tokens, 0.7)


def test_forced_words_with_few_beams():
    for seed in range(20):
        result = caption(FakeBackend(seed), beams=1, forced_words=("far", "runs", "dog"), max_length=4)
        assert len(result.words) == 4
        assert {"far", "runs", "dog"} <= set(result.words)


def test_what_cannot_be_said():
    backend = FakeBackend(0)
    with pytest.raises(OptionError, match="leave no caption"):
        caption(backend, beams=2, banned_words=("a", "dog", "runs"), no_repeat_ngram=1, min_length=5)
    backend.logits(0, [])[WORDS.index("far")] = -1e9
    with pytest.raises(OptionError, match="leave no word to say at position 1"):
        caption(backend, prefix="far")
