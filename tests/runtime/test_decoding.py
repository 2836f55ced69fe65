"""The decoding loop against a fake backend and obvious references: greedy, draws, batches, the record."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capexport import BundleError, DecodingOptions, OptionError
from capexport.runtime.decoding import Decoding, log_softmax
from tests.runtime.fake import END, MAX_LENGTH, VOCABULARY, WORDS, FakeBackend, all_of, caption, captions


def greedy_reference(backend, photo=0):
    tokens, log_probabilities = [], []
    while len(tokens) < MAX_LENGTH and END not in tokens:
        row = backend.log_probabilities(photo, tokens)
        tokens.append(END if len(tokens) == MAX_LENGTH - 1 else max(range(len(row)), key=row.__getitem__))
        log_probabilities.append(row[tokens[-1]])
    return tokens, log_probabilities


@pytest.mark.parametrize("seed", range(30))
def test_greedy_against_the_reference(seed):
    backend = FakeBackend(seed)
    tokens, log_probabilities = greedy_reference(backend)
    result = caption(backend)
    assert list(result.tokens) == tokens
    np.testing.assert_allclose(result.log_probabilities, log_probabilities, atol=1e-6)
    assert result.words == tuple(WORDS[token] for token in tokens)
    assert result.text == " ".join(WORDS[token] for token in tokens if token != END)
    assert result.confidence == pytest.approx(math.exp(np.mean(log_probabilities)))
    assert result.alternatives == ()


@pytest.mark.parametrize("options", [{}, {"beams": 3, "captions": 3}, {"temperature": 1.5, "captions": 4, "seed": 1}])
def test_each_word_has_its_own_attention(options):
    backend = FakeBackend(4)
    for photo, best in enumerate(captions(backend, photos=5, **options)):
        for result in all_of(best):
            said = [VOCABULARY.start]
            for word, token in enumerate(result.tokens):
                expected = backend.attention(np.array([photo]), np.array([said]))[:, 0]  # (L, H, N)
                np.testing.assert_array_equal(result.cross_attention[word], expected.reshape(2, 3, 2, 2))
                said.append(token)


def test_attention_of_layers_and_heads():
    result = caption(FakeBackend(1))
    maps = result.cross_attention
    np.testing.assert_array_equal(result.attention, maps.mean(axis=(1, 2)))
    np.testing.assert_array_equal(result.attention_of(layer=1), maps[:, 1].mean(axis=1))
    np.testing.assert_array_equal(result.attention_of(head=2), maps[:, :, 2].mean(axis=1))
    np.testing.assert_array_equal(result.attention_of(layer=0, head=1), maps[:, 0, 1])
    with pytest.raises(OptionError, match="no layer 2: the model has 2"):
        result.attention_of(layer=2)
    with pytest.raises(OptionError, match="no head -1"):
        result.attention_of(head=-1)


def chi_square(drawn, expected):
    """How far counts are from their expectation, as a statistic and its degrees of freedom."""
    counts = np.bincount(drawn, minlength=len(expected))
    possible = expected > 0
    assert counts[~possible].sum() == 0
    wanted = expected[possible] * len(drawn)
    return ((counts[possible] - wanted) ** 2 / wanted).sum(), int(possible.sum()) - 1


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0},
        {"temperature": 0.7},
        {"temperature": 1.3, "top_k": 3},
        {"temperature": 1.0, "top_p": 0.8},
        {"temperature": 2.0, "top_k": 4, "top_p": 0.9},
    ],
)
def test_draws_follow_the_distribution(options):
    """4,000 first words against probabilities computed with plain Python; the bounds are of the 0.1 % level."""
    backend = FakeBackend(3)
    drawn = [one.tokens[0] for one in all_of(caption(backend, seed=8, captions=4000, max_length=2, **options))]
    statistic, freedom = chi_square(np.array(drawn), np.array(distribution(backend.logits(0, []), **options)))
    assert statistic < {4: 18.47, 3: 16.27, 2: 13.82, 1: 10.83}[freedom]


def distribution(logits, temperature, top_k=None, top_p=1.0):
    weights = {token: math.exp(float(value) / temperature) for token, value in enumerate(logits) if value > -1e8}
    ranked = sorted(weights, key=weights.__getitem__, reverse=True)[:top_k]
    nucleus, mass = [], 0.0
    for token in ranked:
        if mass < top_p:
            nucleus.append(token)
        mass += weights[token] / sum(weights[other] for other in ranked)
    total = sum(weights[token] for token in nucleus)
    return [weights[token] / total if token in nucleus else 0.0 for token in range(len(logits))]


@pytest.mark.parametrize("banned", [(), ("dog", "a")])
@pytest.mark.parametrize("prefix", ["", "runs"])
def test_the_likeliest_words_are_those_with_the_highest_scores(banned, prefix):
    """Scores are made for every word where an option bears on them, and a penalty that is almost none does."""
    for seed in range(30):
        options = {"banned_words": banned, "prefix": prefix}
        straight, scored = (
            captions(FakeBackend(seed), photos=4, **options, **more) for more in ({}, {"repetition_penalty": 1 + 1e-12})
        )
        assert [one.tokens for one in straight] == [one.tokens for one in scored]
        assert [one.log_probabilities for one in straight] == [one.log_probabilities for one in scored]


def decoding_of(backend, photos, held, **options):
    features, chosen = {"photo": np.arange(photos)}, DecodingOptions(**options)
    return Decoding(backend, features, backend.vocabulary, backend.shape(), chosen, held)


@pytest.mark.parametrize("held", [0, 40, 100, 10**6])
@pytest.mark.parametrize("prefix", ["", "runs"])
def test_words_that_wait_for_their_log_probabilities_get_their_own(held, prefix):
    for seed in range(10):
        backend = FakeBackend(seed)
        decoding = decoding_of(backend, 5, held, prefix=prefix)
        assert len(list(decoding)) > 1
        for photo in range(5):
            result = decoding.caption(photo)
            for k, token in enumerate(result.tokens):
                expected = backend.log_probabilities(photo, list(result.tokens[:k]))[token]
                assert result.log_probabilities[k] == pytest.approx(expected, abs=1e-6)


def test_who_sees_words_at_once_sees_none_that_logits_are_no_numbers_for():
    backend = FakeBackend(0, end_bias=-9)
    first = max(range(len(WORDS)), key=backend.logits(0, []).__getitem__)
    backend.logits(0, [first])[5] = math.nan
    words = iter(decoding_of(backend, 1, held=0))
    assert next(words).tolist() == [first]
    with pytest.raises(BundleError, match="not numbers"):
        next(words)


def test_a_seed_repeats_itself_and_its_absence_does_not():
    backend = FakeBackend(1)
    first = [caption(backend, temperature=1.0, seed=seed).tokens for seed in range(20)]
    assert first == [caption(backend, temperature=1.0, seed=seed).tokens for seed in range(20)]
    assert len(set(first)) > 5
    assert len({caption(backend, temperature=1.5).tokens for _ in range(30)}) > 1


def test_the_first_of_several_draws_is_the_single_one():
    backend = FakeBackend(1)
    several = all_of(caption(backend, temperature=1.0, seed=5, captions=6))
    assert len({one.tokens for one in several}) > 2
    assert several[0].tokens == caption(backend, temperature=1.0, seed=5).tokens


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.0, "seed": 3},
        {"temperature": 1.2, "seed": 3, "top_k": 4, "captions": 3},
        {"beams": 4, "captions": 2},
        {"beams": 2, "forced_words": ("dog",)},
        {"no_repeat_ngram": 1, "repetition_penalty": 1.5},
    ],
)
def test_batches_say_what_single_photos_say(options):
    backend = FakeBackend(6)
    together = captions(backend, photos=13, **options)
    for photo, best in enumerate(together):
        alone = FakeBackend(6)
        alone.logits = lambda _, prefix, photo=photo: backend.logits(photo, prefix)
        assert [one.tokens for one in all_of(best)] == [one.tokens for one in all_of(caption(alone, **options))]


def test_finished_rows_drop_out_of_the_batch():
    backend = FakeBackend(2)
    lengths = [len(result.tokens) for result in captions(backend, photos=20)]
    assert backend.batches == [sum(length > step for length in lengths) for step in range(max(lengths))]
    assert len(set(lengths)) > 2


def test_words_come_as_they_are_chosen():
    backend = FakeBackend(2)
    options = DecodingOptions()
    decoding = Decoding(backend, {"photo": np.arange(1)}, VOCABULARY, backend.shape(), options)
    seen = []
    for [token] in decoding:
        seen.append(token)
        assert len(backend.batches) == len(seen)
    assert tuple(seen) == decoding.caption(0).tokens


def test_a_tiny_temperature_is_greedy():
    backend = FakeBackend(9)
    assert caption(backend, temperature=1e-6, seed=0).tokens == caption(backend).tokens


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_an_error_not_a_caption(broken):
    backend = FakeBackend(0)
    backend.logits(0, [])[5] = broken
    with pytest.raises(BundleError, match="not numbers"), np.errstate(invalid="ignore"):
        caption(backend)


def test_log_softmax():
    logits = np.array([[1.0, 2.0, 3.0], [1000.0, -1e9, 999.0]], np.float32)
    expected = [[math.log(math.exp(v) / sum(map(math.exp, (1, 2, 3)))) for v in (1, 2, 3)]]
    expected += [[math.log(1 / (1 + math.exp(-1))), -1e9, math.log(1 / (1 + math.e))]]
    np.testing.assert_allclose(log_softmax(logits), expected, rtol=1e-5)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 10**6),
    mode=st.sampled_from(["greedy", "draw", "beam"]),
    width=st.integers(1, 3),
    banned=st.sets(st.sampled_from(["a", "dog"])),
    forced=st.sets(st.sampled_from(["runs", "far"])),
    prefix=st.sampled_from(["", "far", "runs runs"]),
    ngram=st.sampled_from([None, 2, 3]),
    lengths=st.tuples(st.integers(1, 6), st.integers(5, MAX_LENGTH)),
)
def test_every_option_is_kept(seed, mode, width, banned, forced, prefix, ngram, lengths):
    options = {"banned_words": tuple(banned), "prefix": prefix, "no_repeat_ngram": ngram}
    options |= {"min_length": min(lengths), "max_length": max(lengths)}
    if mode == "draw":
        options |= {"temperature": 1.0, "captions": width, "seed": seed}
    if mode == "beam":
        options |= {"beams": width, "captions": width, "forced_words": tuple(forced)}
    try:
        results = captions(FakeBackend(seed), photos=2, **options)
    except OptionError as error:
        assert "leave no" in str(error)
        assert ngram or len(banned) == 2
        return
    for best in results:
        assert mode != "beam" or len({one.tokens for one in all_of(best)}) == len(all_of(best))
        for one in all_of(best):
            *said, end = one.words
            assert end == "[END]"
            assert not {*WORDS[:4], *banned} & set(said)
            assert min(lengths) <= len(one.words) <= max(lengths)
            assert said[: len(prefix.split())] == prefix.split()
            if mode == "beam":
                assert forced <= set(said)
            if ngram:
                runs = [one.words[i : i + ngram] for i in range(len(one.words) - ngram + 1)]
                assert len(set(runs)) == len(runs)
