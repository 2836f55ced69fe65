"""Which layers bear a step down in precision: each is tried alone, in the engine that will run it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..progress import track
from ..recipes import Precision, Step
from ..runtime.rules import FORBIDDEN
from .layers import Layer, Precisions

Outputs = Mapping[str, NDArray[np.float32]]
# What a graph says with its layers in these precisions; nothing, if the engine refuses it.
Trial = Callable[[Precisions], Sequence[Outputs]]

TIGHTER, TRIES = 0.8, 20  # the share of the squared budget that is tried next, and how often


@dataclass(frozen=True)
class Sensitivity:
    """What one layer loses.

    error      of the graph's outputs, if this layer alone takes the step, see choose; None: not tried
    cost       the layer's weights, or its multiplications for one photo or one token
    precision  what the layer got
    """

    layer: Layer
    error: float | None
    cost: int
    precision: Precision


@dataclass(frozen=True)
class Choice:
    """A step to a wanted precision: what each layer loses and what it got, and the error of all that took the step."""

    wanted: Precision
    sensitivities: tuple[Sensitivity, ...]
    error: float
    budget: float

    @property
    def share(self) -> float:
        """Of the graph's cost, what the layers have that took the step."""
        taken = sum(each.cost for each in self.sensitivities if each.precision is self.wanted)
        return taken / sum(each.cost for each in self.sensitivities)

    @property
    def precisions(self) -> Precisions:
        """By node."""
        return {each.layer.node: each.precision for each in self.sensitivities}


def choose(
    layers: Sequence[Layer],
    costs: Sequence[int],
    trial: Trial,
    step: Step,
    before: Precisions,
    barred: Collection[str] = (),
    at_once: int = 1,
) -> Choice:
    """Give as much of the cost as the step's budget of error allows its precision; the rest stays as before.

    Errors are those that the step adds to the state before it: what earlier steps lost is no matter here.
    Errors of single layers add up as squares, near enough to choose by: those with the least squared error for their
    cost come first, and those that fit into the budget are taken. If together they lose more after all, fewer are.

    barred   nodes of layers that are not to take the step
    at_once  trials that may run at the same time, in threads
    """
    truth, wanted = trial(before), step.precision
    least = step.worthwhile * sum(costs)
    candidates = [k for k, layer in enumerate(layers) if costs[k] >= least and layer.node not in barred]

    def loss(k: int) -> float:
        return output_error(trial({**before, layers[k].node: wanted}), truth)

    with ThreadPoolExecutor(at_once) as pool:
        losses = track(pool.map(loss, candidates), len(candidates), f"trying layers: {wanted.name.lower()}")
        alone = dict(zip(candidates, losses, strict=True))
    order = sorted(candidates, key=lambda k: alone[k] ** 2 / costs[k])

    def after(taken: Collection[int]) -> Precisions:
        return {
            layer.node: wanted if k in taken else before.get(layer.node, Precision.FLOAT)
            for k, layer in enumerate(layers)
        }

    for taken in (*(_fitting(order, alone, step.budget**2 * TIGHTER**k) for k in range(TRIES)), ()):
        precisions = after(taken)
        error = output_error(trial(precisions), truth)
        if error <= step.budget:
            break
    sensitivities = [
        Sensitivity(layer, alone.get(k), cost, precisions[layer.node])
        for k, (layer, cost) in enumerate(zip(layers, costs, strict=True))
    ]
    return Choice(wanted, tuple(sensitivities), error, step.budget)


def _fitting(order: Sequence[int], alone: Mapping[int, float], allowance: float) -> Collection[int]:
    """Of these layers, one after the other, those whose squared errors fit into the allowance together."""
    taken: set[int] = set()
    for k in order:
        if alone[k] ** 2 <= allowance:
            taken.add(k)
            allowance -= alone[k] ** 2
    return taken


def output_error(given: Sequence[Outputs], truth: Sequence[Outputs]) -> float:
    """The root mean square error of logits and attention, relative to how much these vary.

    Both count the same; what is added to all logits, or to the attention of all places, is no matter, and banned
    logits are none. Infinite, and thus over every budget, if nothing is given, or something that is no number.
    """
    if not given:
        return math.inf
    allowed = truth[0]["logits"][0] > FORBIDDEN  # (V,)
    errors = []
    for name, places in (("logits", allowed), ("attention", slice(None))):
        ours, theirs = (np.concatenate([_centred(each[name][..., places]) for each in side]) for side in (given, truth))
        lost, varied = (np.square(one).mean(dtype=np.float64) for one in (ours - theirs, theirs))
        errors.append(lost / varied if lost else lost)  # the attention to an only place never varies
    return float(np.nan_to_num(np.sqrt(np.mean(errors)), nan=np.inf))


def _centred(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values - values.mean(axis=-1, keepdims=True)
