"""Which layers take a step, against choices and errors found the slow way."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capexport.export.layers import Layer
from capexport.export.sensitivity import choose, output_error
from capexport.recipes import Precision, Step

HALF, STATIC = Precision.HALF, Precision.STATIC
LOSSES = st.floats(1e-3, 1.0)


def made_layers(count):
    return [
        Layer(f"layer_{k}", "matmul", f"node_{k}", "", "", weights=1, columns=1, homogeneous=True) for k in range(count)
    ]


def adding_trial(losses, layers):
    """A graph whose layers' errors, by precision and layer, are at right angles, so that their squares add up.

    Each layer has two places of logits and attention to itself, and adds to the one what it takes from the other.
    """

    def trial(precisions):
        lost = [losses.get(precisions.get(layer.node), np.zeros(len(layers)))[k] for k, layer in enumerate(layers)]
        outputs = (1 + np.array(lost) * len(layers) ** 0.5)[:, np.newaxis] * [1, -1]
        return [{"logits": outputs.reshape(1, -1), "attention": outputs.reshape(1, 1, 1, -1)}]

    return trial


@st.composite
def situations(draw):
    """What each layer loses in half precision, which all are in, what more in int8, its cost, and a budget."""
    count = draw(st.integers(1, 9))
    numbers = st.lists(LOSSES, min_size=count, max_size=count)
    half = np.array(draw(numbers))
    static = half * (1 + np.array(draw(numbers)))
    costs = draw(st.lists(st.integers(1, 1000), min_size=count, max_size=count))
    return half, static, costs, draw(st.floats(1e-4, 4.0))


@given(situations())
def test_those_that_lose_least_for_their_cost_come_first_and_all_that_fit_are_taken(situation):
    half, static, costs, budget = situation
    layers = made_layers(len(costs))
    before = {layer.node: HALF for layer in layers}
    trial = adding_trial({HALF: half, STATIC: static}, layers)
    alone = [slow_error(trial({**before, layer.node: STATIC}), trial(before)) for layer in layers]
    choice = choose(layers, costs, trial, Step(STATIC, budget, 0), before)
    left, taken = budget**2, set()
    for k in sorted(range(len(layers)), key=lambda k: alone[k] ** 2 / costs[k]):
        if abs(alone[k] ** 2 - left) < 1e-6:
            return  # rounding decides
        if alone[k] ** 2 <= left:
            left -= alone[k] ** 2
            taken.add(k)
    assert choice.precisions == {layer.node: STATIC if k in taken else HALF for k, layer in enumerate(layers)}
    assert choice.error == pytest.approx(sum(alone[k] ** 2 for k in taken) ** 0.5)
    assert choice.error <= budget
    assert [each.error for each in choice.sensitivities] == pytest.approx(alone)
    assert [each.cost for each in choice.sensitivities] == costs
    assert [each.layer for each in choice.sensitivities] == layers
    assert (choice.wanted, choice.budget) == (STATIC, budget)


def test_what_the_steps_before_lost_counts_no_more():
    """The second layer takes the step although the first has lost more than the budget already."""
    layers = made_layers(2)
    trial = adding_trial({HALF: np.array([3.0, 0.0]), STATIC: np.array([3.5, 0.1])}, layers)
    choice = choose(layers, [1, 1], trial, Step(STATIC, budget=0.1), {layers[0].node: HALF})
    assert list(choice.precisions.values()) == [HALF, STATIC]


def test_layers_that_lose_more_together_than_their_squares_say_are_fewer():
    layers = made_layers(4)
    adding = adding_trial({STATIC: np.full(4, 0.1)}, layers)

    def trial(precisions):
        """Three and more of them lose three times as much."""
        count = list(precisions.values()).count(STATIC)
        worse = {STATIC: np.full(4, 0.3 if count > 2 else 0.1)}
        return adding_trial(worse, layers)(precisions) if count > 2 else adding(precisions)

    choice = choose(layers, [4, 3, 2, 1], trial, Step(STATIC, budget=0.25), {})
    assert [each.precision is STATIC for each in choice.sensitivities] == [True, True, False, False]
    assert choice.error == pytest.approx(0.02**0.5)


def test_no_layer_takes_a_step_that_only_all_together_are_too_bad_for():
    layers = made_layers(2)

    def trial(precisions):
        """Each alone loses nothing, both everything."""
        both = list(precisions.values()).count(STATIC) == 2
        return adding_trial({STATIC: np.full(2, 9.0 if both else 0.0)}, layers)(precisions)

    choice = choose(layers, [1, 1], trial, Step(STATIC, budget=0.25), {})
    assert (list(choice.precisions.values()), choice.error) == ([Precision.FLOAT] * 2, 0)


def test_layers_without_a_step_before_stay_in_float():
    layers = made_layers(3)
    trial = adding_trial({STATIC: np.array([0.3, 0.1, 0.2])}, layers)
    choice = choose(layers, [1, 1, 1], trial, Step(STATIC, budget=0.1), {})
    assert list(choice.precisions.values()) == [Precision.FLOAT, STATIC, Precision.FLOAT]


def test_layers_whose_errors_are_no_numbers_take_no_step():
    """As of a graph whose activations overflow."""
    layers = made_layers(2)
    trial = adding_trial({STATIC: np.array([0.1, np.nan])}, layers)
    choice = choose(layers, [1, 1], trial, Step(STATIC, budget=1.0), {})
    assert list(choice.precisions.values()) == [STATIC, Precision.FLOAT]


def test_layers_that_cost_next_to_nothing_are_not_tried():
    layers, losses = made_layers(3), np.full(3, 1e-6)
    step = Step(STATIC, budget=1.0, worthwhile=0.1)
    choice = choose(layers, [50, 5, 45], adding_trial({STATIC: losses}, layers), step, {layers[1].node: HALF})
    assert list(choice.precisions.values()) == [STATIC, HALF, STATIC]
    assert [each.error is None for each in choice.sensitivities] == [False, True, False]
    assert choice.share == 0.95


def test_a_layer_that_is_barred_stays_as_it_was():
    layers = made_layers(2)
    trial = adding_trial({STATIC: np.full(2, 1e-6)}, layers)
    choice = choose(layers, [1, 3], trial, Step(STATIC, budget=1.0), {layers[1].node: HALF}, [layers[1].node])
    assert list(choice.precisions.values()) == [STATIC, HALF]
    assert choice.share == 0.25


def slow_error(given, truth, banned=()):
    """The definition, number by number."""
    errors = []
    for name in ("logits", "attention"):
        lost = size = 0.0
        for ours, theirs in zip(given, truth, strict=True):
            vocabulary = range(theirs[name].shape[-1])
            places = [k for k in vocabulary if name == "attention" or k not in banned]
            rows = (array[name].reshape(-1, len(vocabulary)).tolist() for array in (ours, theirs))
            for one, other in zip(*rows, strict=True):
                means = [sum(row[k] for k in places) / len(places) for row in (one, other)]
                lost += sum((one[k] - means[0] - other[k] + means[1]) ** 2 for k in places)
                size += sum((other[k] - means[1]) ** 2 for k in places)
        errors.append(lost / size)
    return (sum(errors) / 2) ** 0.5


def made_outputs(seed, steps=6, banned=-1e9):
    """Of some steps, as a captioner's: the two words that it bans are far below all others."""
    rng = np.random.default_rng(seed)
    logits, attention = rng.normal(size=(steps, 1, 9)), rng.normal(size=(steps, 2, 1, 3, 5))
    logits[..., :2] = banned
    return [{"logits": logits[k].astype(np.float32), "attention": attention[k]} for k in range(steps)]


def changed(outputs, **changes):
    return [{name: changes.get(name, np.array)(values) for name, values in each.items()} for each in outputs]


def test_the_error_is_its_definition():
    ours, truth = made_outputs(0), made_outputs(1)
    assert output_error(ours, truth) == pytest.approx(slow_error(ours, truth, banned=(0, 1)), rel=1e-4)
    assert output_error(truth, truth) == 0


def test_an_engine_that_refuses_the_graph_is_over_every_budget():
    assert output_error([], made_outputs(0)) == np.inf


def test_logits_and_attention_count_the_same_whatever_their_unit():
    ours, truth = made_outputs(0), made_outputs(1)
    larger = [changed(side, attention=lambda values: values * 1000) for side in (ours, truth)]
    assert output_error(*larger) == pytest.approx(output_error(ours, truth))


def test_banned_words_are_no_matter():
    truth = made_outputs(0)
    expected = output_error(made_outputs(1), truth)
    assert 0.5 < expected < 3
    assert output_error(made_outputs(1, banned=-2e9), truth) == expected
    assert output_error(made_outputs(0, banned=-2e9), truth) == 0


def test_what_is_added_to_all_logits_is_no_matter():
    truth = made_outputs(0)
    assert output_error(changed(truth, logits=lambda values: values + 3), truth) < 1e-6
    assert output_error(changed(truth, attention=lambda values: values * 2), truth) > 0.5


def test_trials_at_once_say_the_same():
    """Three run at the same time, or none would begin the second; layers are told apart whichever ends first."""
    layers, three, running = made_layers(6), threading.Barrier(3), threading.local()
    adding = adding_trial({STATIC: np.geomspace(0.1, 0.6, 6)}, layers)
    main = threading.get_ident()

    def trial(precisions):
        if threading.get_ident() != main and not hasattr(running, "begun"):
            running.begun = True
            three.wait(timeout=60)
        return adding(precisions)

    step = Step(STATIC, budget=0.3)
    assert choose(layers, [1] * 6, trial, step, {}, at_once=3) == choose(layers, [1] * 6, adding, step, {})


def test_a_trial_that_fails_ends_the_others():
    layers, tried = made_layers(100), []

    def trial(precisions):
        tried.append(precisions)
        if STATIC in precisions.values():
            time.sleep(0.02)
            raise KeyboardInterrupt
        return adding_trial({}, layers)(precisions)

    with pytest.raises(KeyboardInterrupt):
        choose(layers, [1] * 100, trial, Step(STATIC, budget=0.3), {}, at_once=2)
    assert len(tried) < 100
