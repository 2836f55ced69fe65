"""The reward of self-critical training, held against the field's own scorer."""

import math

import pytest
from pycocoevalcap.cider.cider import Cider as Published

from capexport.captioner.cider import Cider

REFERENCES = {
    "dog": ["a black dog runs through the snow", "the dog is running in deep snow", "a dog", "dog in the snow"],
    "boy": ["a boy jumps into a pool", "a young boy is jumping into the water of a swimming pool", "boy jumps"],
    "bike": ["a man rides a bike down a hill", "a cyclist on a dirt hill", "the man is riding his bike on a dirt hill"],
}
CANDIDATES = {
    "dog": "a black dog is running through the snow",
    "boy": "a boy a boy a boy in a pool",
    "bike": "two women sit at a table",
}


def scorer():
    return Cider([[text.split() for text in texts] for texts in REFERENCES.values()])


def published(candidates):
    return Published().compute_score(REFERENCES, {key: [text] for key, text in candidates.items()})[1]


@pytest.mark.parametrize("candidates", [CANDIDATES, {key: texts[0] for key, texts in REFERENCES.items()}])
def test_scores_are_the_published_ones(candidates):
    ours = [scorer().score(i, text.split()) for i, text in enumerate(candidates.values())]
    assert ours == pytest.approx(published(candidates).tolist(), rel=1e-9)
    assert max(ours) > 1


def test_odd_captions_score_as_published():
    for text in ("", "dog", "snow snow", "zebra"):
        candidates = CANDIDATES | {"dog": text}
        assert scorer().score(0, text.split()) == pytest.approx(published(candidates)[0], rel=1e-9)


def test_repeating_a_word_does_not_pay_and_length_counts():
    cider = scorer()
    once, thrice = (cider.score(0, text.split()) for text in ("a dog in the snow", "dog dog dog in the snow snow snow"))
    assert once > thrice > 0
    assert cider.score(0, ["dog"] * 60) < 1e-6
    assert not math.isnan(cider.score(2, []))
