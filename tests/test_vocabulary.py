"""Ids and words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capexport import VocabularyError
from capexport.vocabulary import Vocabulary

WORDS = ("", "[UNK]", "a", "[START]", "[END]", "dog")
HARMFUL = " \t\n\v\f\r\0\x1b\x85\u2028\u2029\u202a\u202e\u2066\u2069\ud800"  # breaks, controls, bidi, a surrogate
ODD = "\u00a0\u00ad\u200b\u200d\u2009\u3000\ufe0f\ufeff\u0301\U000e0067\U0010ffff\U0001f469"


def test_ids_and_words():
    vocabulary = Vocabulary(WORDS)
    assert (vocabulary.start, vocabulary.end, len(vocabulary)) == (3, 4, 6)
    assert vocabulary.id("dog") == 5
    assert vocabulary.id("zebra") == 1
    assert vocabulary.decode([2, 5, 4]) == ["a", "dog", "[END]"]


@pytest.mark.parametrize("token", [-1, 6, 2**40])
def test_an_id_out_of_range(token):
    with pytest.raises(VocabularyError, match="6 words"):
        Vocabulary(WORDS).decode([token])


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "empty word"),
        (("a", *WORDS), "empty word"),
        (("", "[UNK]", "[START]"), r"no \[END\]"),
        ((*WORDS, "dog"), "'dog' twice"),
        ((*WORDS, ""), "'' twice"),
        ((*WORDS, "a b"), "unusable"),
        *(((*WORDS, f"a{harmful}b"), "unusable") for harmful in HARMFUL),
    ],
)
def test_lists_that_are_no_vocabulary(words, problem):
    with pytest.raises(VocabularyError, match=problem):
        Vocabulary(tuple(words))


def test_a_file_that_was_cut_off():
    with pytest.raises(VocabularyError, match="cut off"):
        Vocabulary.from_text(Vocabulary(WORDS).to_text()[:-2])


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(VocabularyError, match="cannot be read"):
        Vocabulary.read(tmp_path / "vocabulary.txt")


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8), unique=True))
def test_text_round_trip(words):
    vocabulary = Vocabulary((*WORDS, *(word for word in words if word not in WORDS)))
    assert Vocabulary.from_text(vocabulary.to_text()) == vocabulary


@pytest.mark.parametrize("odd", ODD)
def test_odd_words_that_do_no_harm(odd, tmp_path):
    vocabulary = Vocabulary((*WORDS, f"a{odd}b", odd))
    (tmp_path / "vocabulary.txt").write_bytes(vocabulary.to_text().encode())
    assert Vocabulary.read(tmp_path / "vocabulary.txt") == vocabulary


@given(st.text())
def test_any_text_is_a_vocabulary_or_refused(text):
    try:
        assert Vocabulary.from_text(text).to_text() == text
    except VocabularyError as error:
        assert str(error)
