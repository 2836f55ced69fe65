"""Checks: which side of a bound is which, and what is only reported."""

import dataclasses
import math

import numpy as np
import pytest

from capexport.manifest import Check
from capexport.parity.checks import compare_pixels, within_bounds
from capexport.parity.comparison import NEAR_TIE, Comparison, Parity
from capexport.recipes import Bounds

BOUNDS = Bounds(features_error=0.01, identical=0.9, logits_error=0.1, attention_error=0.2, same_cell=0.5)
EXACT = Comparison(
    features_error=0.01,
    logits_error=0.1,
    logits_rms=0.05,
    identical=True,
    divergence=None,
    margin=None,
    attention_error=0.2,
    same_cell=0.5,
    jensen_shannon=0.25,
)
PARTED = dataclasses.replace(EXACT, identical=False, divergence=3, margin=0.5)
NEAR = dataclasses.replace(PARTED, margin=NEAR_TIE / 2)


def failed(*comparisons):
    return [check.name for check in within_bounds(Parity(comparisons), BOUNDS) if not check.holds]


def test_bounds_are_within():
    assert failed(EXACT) == []


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("features_error", 0.011, "relative error of features"),
        ("logits_error", 0.11, "largest error of a logit"),
        ("attention_error", 0.21, "largest error of attention"),
        ("same_cell", 0.4, "most attended cell the same"),
    ],
)
@pytest.mark.parametrize("number", [None, math.nan])
def test_outside_a_bound(field, value, name, number):
    assert failed(EXACT, dataclasses.replace(EXACT, **{field: number or value})) == [name]


def test_captions_may_part_so_often_and_at_near_ties():
    assert failed(*[EXACT] * 9, PARTED) == []
    assert failed(*[EXACT] * 8, PARTED, PARTED) == ["identical captions"]
    assert failed(*[EXACT] * 8, PARTED, NEAR) == []


def test_what_is_only_reported():
    parity = Parity((*[EXACT] * 8, NEAR, dataclasses.replace(PARTED, divergence=1)))
    reported = {check.name: check.found for check in within_bounds(parity, BOUNDS) if not check.allowed}
    assert reported == {
        "rms error of logits": "0.05",
        "first divergent step": "median 2, earliest 1",
        "top-two margin at that step": "median 0.25, largest 0.5",
        "near-ties among these steps": "1 of 2",
        "Jensen-Shannon divergence": "0.25 bits a word",
    }


def test_pixels():
    black = np.zeros((2, 5, 3), np.uint8)
    spot = black.copy()
    spot[0, 0] = [255, 1, 0]
    found = "2 photos: 3.3% differ, by 255 at most"
    assert compare_pixels("pixels", [(black, spot), (spot, spot)]) == Check("pixels", found)
    assert compare_pixels("pixels", [(spot, black), (spot, spot)], 254) == Check(
        "pixels", found, "by 254 at most", False
    )
    assert compare_pixels("pixels", [(spot, black)], most=255).holds
