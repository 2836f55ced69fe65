"""Attention as light: smooth, true to the weights, and alike on photos of any brightness."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capexport.heat import light, light_range, lit, shares

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def hot(shape: tuple[int, int], cell: tuple[int, int]) -> np.ndarray:
    """A map with all its weight in one cell."""
    weights = np.zeros((1, *shape))
    weights[0][cell] = 1
    return weights


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (7, 7), (6, 9), (10, 10)])
@pytest.mark.parametrize("size", [(224, 224), (30, 300), (5, 3)])
def test_an_even_map_stays_even(shape, size):
    even = np.full((1, *shape), 1 / np.prod(shape))
    np.testing.assert_allclose(shares(even, size), np.ones((1, *size)))


@settings(max_examples=50)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_nothing_rings(rows, columns, seed):
    weights = np.random.default_rng(seed).dirichlet(np.full(rows * columns, 0.1)).reshape(1, rows, columns)
    cells = weights * weights.size
    field = shares(weights, (120, 144))
    assert cells.min() - 1e-9 <= field.min()
    assert field.max() <= cells.max() + 1e-9


@pytest.mark.parametrize("cell", [(0, 0), (3, 3), (6, 0), (2, 5)])
def test_the_brightest_place_is_in_the_cell_that_was_looked_at(cell):
    field = shares(hot((7, 7), cell), (140, 210))[0]
    y, x = np.unravel_index(field.argmax(), field.shape)
    assert (y // 20, x // 30) == cell
    assert field.mean() == pytest.approx(1, rel=0.2)


def test_it_is_smooth():
    field = shares(hot((7, 7), (3, 3)), (224, 224))[0]
    steps = np.abs(np.diff(field, axis=0)).max()
    assert steps < 1.4 * field.max() / 32  # a cell is 32 pixels
    assert np.abs(np.diff(field, 2, axis=0)).max() < steps / 10


def test_the_light_is_symmetric_about_an_even_share():
    np.testing.assert_allclose(light(np.array([0, 1 / 4, 1 / 2, 1, 2, 4, 9]), 4), [-1, -1, -0.5, 0, 0.5, 1, 1])


def test_what_is_nearly_even_is_no_focus():
    field = shares(np.full((1, 7, 7), 1 / 49) * np.linspace(0.99, 1.01, 49).reshape(7, 7), (64, 64))
    assert np.abs(light(field, light_range(field))).max() < 0.02


def test_more_attention_is_more_light_whatever_the_photo():
    lights = np.linspace(-1, 1, 201)[np.newaxis]
    for shade in (0.0, 128.0, 255.0):
        luminance = lit(np.full(lights.shape, shade), lights)[0] @ LUMINANCE
        assert (np.diff(luminance) >= -1).all()
        assert luminance[-1] > luminance[100] + 80
    black_in_light = lit(np.zeros((1, 1)), np.ones((1, 1))) @ LUMINANCE
    white_at_an_even_share = lit(np.full((1, 1), 255.0), np.zeros((1, 1))) @ LUMINANCE
    assert black_in_light > white_at_an_even_share


def test_the_photo_shows_through_the_light():
    for value in (-1.0, 0.0, 1.0):
        black, white = lit(np.array([[0.0, 255.0]]), np.full((1, 2), value))[0] @ LUMINANCE
        assert white - black > 50
