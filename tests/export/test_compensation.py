"""Weights rounded with each other in mind."""

import numpy as np
import pytest

from capexport.export.compensation import LEVELS, Correlating, Correlations, windows


def made_rows(outer=12, inner=40, seed=0):
    return np.random.default_rng(seed).normal(size=(outer, inner)).astype(np.float32)


def made_inputs(count=500, inner=40, sources=10, seed=1):
    """Inputs that go together: each is a mixture of a few sources, and a little of its own."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(count, sources)) @ rng.normal(size=(sources, inner))
    return (mixed + rng.normal(size=(count, inner)) / 10).astype(np.float32)


def scales_of(rows):
    return np.abs(rows).max(axis=1, keepdims=True) / np.float32(LEVELS)


def correlations_of(inputs):
    correlating = Correlating()
    for part in np.array_split(inputs, 3, axis=-2):
        correlating.see("a layer", part)
    return correlating.correlations()


def error(rows, levels, scales, inputs):
    return np.square(inputs @ (levels * scales - rows).T).mean()


def one_by_one(rows, scales, gram):
    """Optimal brain surgeon, slowly: after each weight, the others are set anew to what serves the outputs best."""
    rows, steps = rows.astype(np.float64), np.broadcast_to(scales, rows.shape)
    gram = gram + np.eye(len(gram)) * 0.01 * np.trace(gram) / len(gram)
    order = list(np.argsort(-np.diag(gram) + 0.0, kind="stable"))
    levels = np.zeros_like(rows)
    for row, step, level in zip(rows, steps, levels, strict=True):
        pinned = np.abs(np.round(row / step)) >= LEVELS
        nearest = np.clip(np.round(row / step), -LEVELS, LEVELS)
        for k, now in enumerate(order):
            free = order[k + 1 :]
            level[now] = nearest[now] if pinned[now] else np.clip(np.round(row[now] / step[now]), -LEVELS, LEVELS)
            lost = row[now] - level[now] * step[now]
            if free:
                row[free] += lost * np.linalg.solve(gram[np.ix_(free, free)], gram[free, now])
            row[now] = level[now] * step[now]
    return levels


def test_it_is_what_setting_the_others_anew_after_each_weight_gives():
    for inner in (5, 70):  # within a block, and beyond
        rows, inputs = made_rows(inner=inner), made_inputs(inner=inner)
        found = correlations_of(inputs).levels("a layer", rows, scales_of(rows))
        gram = inputs.T.astype(np.float64) @ inputs
        np.testing.assert_array_equal(found, one_by_one(rows, scales_of(rows), gram))


def test_outputs_lose_less_than_by_rounding_to_the_nearest():
    rows, inputs = made_rows(), made_inputs()
    scales = scales_of(rows)
    found = correlations_of(inputs).levels("a layer", rows, scales)
    assert error(rows, found, scales, made_inputs(seed=1)) < 0.3 * error(rows, np.round(rows / scales), scales, inputs)


def test_levels_are_whole_and_the_scale_can_be_found_again():
    rows = made_rows()
    found = correlations_of(made_inputs()).levels("a layer", rows, scales_of(rows))
    np.testing.assert_array_equal(found, np.round(found))
    np.testing.assert_array_equal(np.abs(found).max(axis=1), LEVELS)
    again = scales_of((found * scales_of(rows)).astype(np.float32))
    np.testing.assert_allclose(again, scales_of(rows), rtol=1e-6)


def test_a_layer_that_was_not_watched_is_rounded_to_the_nearest():
    rows = made_rows()
    np.testing.assert_array_equal(
        Correlations().levels("a layer", rows, scales_of(rows)), np.round(rows / scales_of(rows))
    )


def test_inputs_that_are_divided_go_together_as_the_quotients_do():
    rows, inputs = made_rows(), made_inputs()
    divisors = np.linspace(0.1, 3, rows.shape[1], dtype=np.float32)
    divided = correlations_of(inputs).levels("a layer", rows, scales_of(rows), divisors)
    np.testing.assert_array_equal(divided, correlations_of(inputs / divisors).levels("a layer", rows, scales_of(rows)))


def test_each_channel_of_a_depthwise_layer_has_its_own():
    rows = made_rows(outer=4, inner=9)
    image = np.random.default_rng(2).normal(size=(20, 20, 4)).cumsum(axis=0).astype(np.float32)
    inputs = windows(image, 9)  # (4, R, 9)
    found = correlations_of(inputs).levels("a layer", rows, scales_of(rows))
    channels = list(zip(rows, scales_of(rows), inputs, strict=True))
    nearest = sum(error(row, np.round(row / scale), scale, seen) for row, scale, seen in channels)
    assert sum(error(*channel[:1], found[k], *channel[1:]) for k, channel in enumerate(channels)) < 0.7 * nearest


@pytest.mark.parametrize("size", [(6, 7), (2, 2)])
def test_windows_are_what_a_kernel_sees(size):
    image = np.arange(np.prod(size) * 3, dtype=np.float32).reshape(*size, 3)
    seen = windows(image, 9)
    assert seen.shape == (3, max(size[0] - 2, 1) * max(size[1] - 2, 1), 9)
    padded = np.pad(image, [(0, max(3 - side, 0)) for side in size] + [(0, 0)])
    np.testing.assert_array_equal(seen[1, 0], padded[:3, :3, 1].ravel())


def test_inputs_that_are_always_zero_do_no_harm():
    rows, inputs = made_rows(), made_inputs()
    inputs[:, 3:7] = 0
    assert np.all(np.isfinite(correlations_of(inputs).levels("a layer", rows, scales_of(rows))))
    nothing = correlations_of(inputs * 0).levels("a layer", rows, scales_of(rows))
    np.testing.assert_array_equal(nothing, np.round(rows / scales_of(rows)))
