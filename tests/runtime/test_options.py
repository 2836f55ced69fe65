"""Options that make no sense, that contradict each other, and that no captioner can follow."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from capexport import DecodingOptions, OptionError
from tests.runtime.fake import WORDS, FakeBackend, all_of, caption


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": "warm"},
        {"seed": -1},
        {"seed": 1.5},
        {"max_length": 0},
        {"min_length": 0},
        {"beams": 0},
        {"beams": True},
        {"captions": 0},
        {"top_k": 0, "temperature": 1},
        {"top_p": 0, "temperature": 1},
        {"top_p": 1.1, "temperature": 1},
        {"top_p": math.nan, "temperature": 1},
        {"length_penalty": math.nan},
        {"length_penalty": 10.1},
        {"length_penalty": -700},
        {"repetition_penalty": 0},
        {"no_repeat_ngram": 0},
        {"banned_words": "dog"},
        {"forced_words": (1,)},
    ],
)
def test_values_that_make_no_sense(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        DecodingOptions(**options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"temperature": 1, "beams": 2}, "no temperature"),
        ({"temperature": 1, "forced_words": ("dog",)}, "no temperature"),
        ({"top_k": 5}, "give a temperature"),
        ({"top_p": 0.9}, "give a temperature"),
        ({"captions": 2}, "as many beams"),
        ({"captions": 4, "beams": 3}, "as many beams"),
        ({"min_length": 5, "max_length": 4}, "more than max_length"),
        ({"forced_words": ("a", "dog", "runs"), "max_length": 3}, "do not fit"),
        ({"banned_words": ("dog",), "forced_words": ("dog",)}, "banned and asked for"),
        ({"banned_words": ("dog",), "prefix": "a dog"}, "banned and asked for"),
    ],
)
def test_options_that_contradict_each_other(options, match):
    with pytest.raises(OptionError, match=match):
        DecodingOptions(**options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"max_length": 9}, "made for 8"),
        ({"min_length": 9}, "made for 8"),
        ({"banned_words": ("Dog",)}, "Did you mean 'dog'"),
        ({"forced_words": ("zebra",)}, "no word 'zebra'"),
        ({"prefix": "a zebra"}, "no word 'zebra'"),
        ({"banned_words": ("[END]",)}, r"no word '\[END\]'"),
        ({"banned_words": ("",)}, "no word ''"),
        ({"beams": 6}, "more than the 5 words"),
        ({"beams": 5, "banned_words": ("a",)}, "more than the 4 words"),
        ({"prefix": "a dog", "forced_words": ("far",), "max_length": 3}, "do not fit"),
    ],
)
def test_options_that_this_captioner_cannot_follow(options, match):
    with pytest.raises(OptionError, match=match):
        caption(FakeBackend(), **options)


def test_lists_are_taken_as_tuples_and_words_once():
    assert DecodingOptions(banned_words=["a", "dog", "a"]).banned_words == ("a", "dog")


def test_numbers_of_any_type():
    options = DecodingOptions(temperature=Decimal("0.5"), top_p=np.float32(0.5), length_penalty=Fraction(1, 2))
    assert [type(one) for one in (options.temperature, options.top_p, options.length_penalty)] == [float] * 3


@pytest.mark.parametrize("narrowed", [{}, {"top_p": 0.5}, {"top_k": 2}])
@pytest.mark.parametrize("temperature", [1e-6, 1e-310, 5e-324])
def test_temperatures_next_to_zero_are_greedy(temperature, narrowed):
    backend = FakeBackend(3)
    drawn = caption(backend, temperature=temperature, seed=1, **narrowed)
    assert drawn.tokens == caption(backend).tokens


def test_banned_words():
    for seed in range(20):
        free, banned = (caption(FakeBackend(seed), banned_words=words) for words in ((), ("dog", "far")))
        assert not {"dog", "far"} & set(banned.words)
        assert {"dog", "far"} & set(free.words) or free.tokens == banned.tokens


def test_lengths():
    for seed in range(20):
        assert len(caption(FakeBackend(seed), min_length=6).tokens) >= 6
        assert len(caption(FakeBackend(seed), max_length=2).tokens) <= 2
    cut = caption(FakeBackend(0, end_bias=-50.0))
    assert len(cut.words) == 8
    assert cut.words.index("[END]") == 7


def test_prefix():
    result = caption(FakeBackend(3), prefix=" a dog ")
    assert result.words[:2] == ("a", "dog")
    assert result.log_probabilities[0] == pytest.approx(FakeBackend(3).log_probabilities(0, [])[WORDS.index("a")])


def test_the_repetition_penalty_multiplies_what_was_said():
    backend = FakeBackend(5)
    tokens = []
    for _ in range(7):
        row = [value if value > -1e8 else -math.inf for value in backend.log_probabilities(0, tokens)]
        row = [value * 3 if token in tokens else value for token, value in enumerate(row)]
        tokens.append(max(range(len(row)), key=row.__getitem__))
        if tokens[-1] == 3:
            break
    assert list(caption(backend, repetition_penalty=3.0).tokens) in (tokens, [*tokens, 3])
    assert len(set(caption(FakeBackend(0, end_bias=-9), repetition_penalty=0.01).tokens[1:-1])) == 1


def test_no_run_of_words_is_said_twice():
    for n in (1, 2, 3):
        for seed in range(10):
            backend = FakeBackend(seed, end_bias=-2.0)
            for one in all_of(caption(backend, beams=2, captions=2, no_repeat_ngram=n)):
                runs = [one.tokens[i : i + n] for i in range(len(one.tokens) - n + 1)]
                assert len(set(runs)) == len(runs)
    repeating = caption(FakeBackend(0, words=2, end_bias=-9))
    assert repeating.text.split()[:3] == ["a", "a", "a"]
