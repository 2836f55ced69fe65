"""The decoding loop against a fake backend and an obvious reference."""

import math

import numpy as np
import pytest

from capexport import DecodingOptions, OptionError
from capexport.runtime.backend import Step
from capexport.runtime.decoding import decode, log_softmax
from capexport.vocabulary import Vocabulary

WORDS = ("", "[UNK]", "[START]", "[END]", "a", "dog", "runs", "far")
VOCABULARY = Vocabulary(WORDS)
MAP = (2, 3)


class FakeBackend:
    """Logits that depend on the token and position alone, and on a cache that it checks."""

    def __init__(self, seed=0, logits=None):
        rng = np.random.default_rng(seed)
        self.table = rng.normal(size=(12, len(WORDS), len(WORDS))).astype(np.float32) * 2 if logits is None else logits
        self.table[..., :3] = -1e9
        self.seen = []

    def encode(self, images):
        return {"features": images}

    def empty_cache(self, batch):
        return {"seen": np.zeros((batch, 0), np.int32)}

    def step(self, tokens, position, features, cache):
        assert cache["seen"].shape == (1, position)
        grown = {"seen": np.concatenate([cache["seen"], tokens[:, None]], axis=1)}
        self.seen.append(int(tokens[0]))
        attention = np.full((2, 1, 2, 6), 1 / 6, np.float32)
        return Step(self.table[position, tokens[0]][None], attention, grown)


def caption(backend, **options):
    return decode(backend, {}, VOCABULARY, MAP, max_length=12, options=DecodingOptions(**options))


def greedy_reference(table):
    token, tokens, log_probabilities = 2, [], []
    for position in range(12):
        row = [float(value) for value in table[position, token]]
        token = max(range(len(row)), key=row.__getitem__)
        log_probabilities.append(row[token] - math.log(sum(math.exp(value) for value in row)))
        tokens.append(token)
        if token == 3:
            break
    return tokens, log_probabilities


@pytest.mark.parametrize("seed", range(40))
def test_greedy_against_the_reference(seed):
    backend = FakeBackend(seed)
    tokens, log_probabilities = greedy_reference(backend.table)
    result = caption(backend)
    assert list(result.tokens) == tokens
    np.testing.assert_allclose(result.log_probabilities, log_probabilities, atol=1e-5)
    assert result.words == tuple(WORDS[token] for token in tokens)
    assert result.text == " ".join(WORDS[token] for token in tokens if token != 3)
    assert result.confidence == pytest.approx(math.exp(np.mean(log_probabilities)), rel=1e-5)
    assert result.attention.shape == (len(tokens), *MAP)
    np.testing.assert_allclose(result.attention.sum(axis=(1, 2)), 1, atol=1e-6)
    assert backend.seen == [2, *tokens[:-1]]


def test_sampling_follows_the_softmax():
    """Chi-square of 4,000 first words against softmax(logits / temperature), at the 0.1 % level."""
    backend = FakeBackend(3)
    expected = np.exp(log_softmax(backend.table[0, 2] / 0.7))
    drawn = [caption(backend, temperature=0.7, seed=seed, max_length=1).tokens[0] for seed in range(4000)]
    counts = np.bincount(drawn, minlength=len(WORDS))
    likely = expected > 1e-12
    assert counts[~likely].sum() == 0
    statistic = ((counts - 4000 * expected)[likely] ** 2 / (4000 * expected[likely])).sum()
    assert statistic < 18.47  # 4 degrees of freedom


def test_a_seed_repeats_itself():
    backend = FakeBackend(1)
    first = [caption(backend, temperature=1.0, seed=seed).tokens for seed in range(20)]
    assert first == [caption(backend, temperature=1.0, seed=seed).tokens for seed in range(20)]
    assert len(set(first)) > 5


def test_without_a_seed_draws_differ():
    backend = FakeBackend(1)
    assert len({caption(backend, temperature=1.5).tokens for _ in range(30)}) > 1


def test_the_maximal_length_cuts_a_caption():
    never_ending = np.zeros((12, len(WORDS), len(WORDS)), np.float32)
    never_ending[..., 5] = 3
    backend = FakeBackend(logits=never_ending)
    assert caption(backend).tokens == (5,) * 12
    assert caption(backend, max_length=4).text == "dog dog dog dog"


def test_a_tiny_temperature_is_greedy():
    backend = FakeBackend(9)
    assert caption(backend, temperature=1e-6, seed=0).tokens == caption(backend).tokens


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"seed": -1},
        {"max_length": 0},
    ],
)
def test_options_that_make_no_sense(options):
    with pytest.raises(OptionError):
        DecodingOptions(**options)


def test_longer_than_the_captioner_was_made_for():
    with pytest.raises(OptionError, match="made for 12"):
        caption(FakeBackend(), max_length=13)
