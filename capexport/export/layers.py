"""What every format says of a graph: its layers, that is its convolutions and products by constant weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ..manifest import Graph
from ..recipes import Precision
from ..runtime.backend import Runner
from ..vocabulary import Vocabulary
from .compensation import Correlating, Correlations, windows
from .graphs import Dialect

Ranges = Mapping[str, "Range"]  # of activations, by the name of their tensor
Precisions = Mapping[str, Precision]  # of layers, by what the format calls their node

LEAST = 0.03  # the smallest scale of a channel beside the largest; a channel that was always 0 may not stay so
SHARED = 0.75  # the exponent of a source's scales where the weights are rounded along with it
UNEVEN = 0.2  # a result whose channels would be rounded with no less than this share of the noise is not divided
HEADROOM = 1.25  # for values beyond those that were seen
KNOWN = 4  # models whose layers are kept: a captioner's graphs, tried in one precision after the other


@dataclass(frozen=True)
class Layer:
    """A convolution or a product by constant weights.

    name     as Keras names the layer, e.g. expanded_conv_3/expand
    kind     conv, depthwise or matmul
    node     what the format calls it
    source, result   the tensors before and after it, an activation that is fused with it included
    weights  how many
    columns  output channels; weights / columns is the multiplications an output takes
    homogeneous  whether twice the weights and bias give twice the result, which a fused ReLU6 prevents
    integral     whether its engine computes it sooner in integers, in STATIC precision, than in float
    """

    name: str
    kind: str
    node: str
    source: str
    result: str
    weights: int
    columns: int
    homogeneous: bool
    integral: bool = True


@dataclass(frozen=True)
class Range:
    """The least and the largest value of each channel of an activation, 0 included."""

    low: NDArray[np.float32]  # (C,)
    high: NDArray[np.float32]  # (C,)

    @classmethod
    def of(cls, values: NDArray[np.float32], axis: int) -> Range:
        """Of one tensor whose channels are on the axis."""
        others = tuple(k for k in range(values.ndim) if k != axis % values.ndim)
        return cls(np.minimum(values.min(axis=others), 0), np.maximum(values.max(axis=others), 0))

    def joined(self, other: Range) -> Range:
        """The range of both."""
        return Range(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    @property
    def scales(self) -> NDArray[np.float32]:
        """The channels' largest absolute values, over the largest of all."""
        most = np.maximum(-self.low, self.high)
        return np.maximum(most / max(most.max(), 1e-12), LEAST).astype(np.float32)

    def extremes(self, scales: NDArray[np.float32]) -> tuple[float, float]:
        """The least and the largest value of all channels after a division by the scales."""
        low, high = float((self.low / scales).min()), float((self.high / scales).max())
        return low * HEADROOM, max(high, low + LEAST) * HEADROOM


@dataclass(frozen=True)
class Observation:
    """What a graph's activations were in use.

    ranges        their least and largest values
    elements      how many there are in one row
    correlations  how layers' inputs go together
    """

    ranges: Ranges = field(default_factory=dict)
    elements: Mapping[str, int] = field(default_factory=dict)
    correlations: Correlations = field(default_factory=Correlations)


class Format(Protocol):
    """What a module of a format does. Models are the bytes of its files."""

    DIALECT: Dialect
    TOOLS: tuple[str, ...]  # the packages that have a say in the files

    def export(self, module: tf.Module) -> bytes:
        """A module's `function` (concrete, with named inputs and a dict of outputs), layers' names kept."""

    def layers(self, model: bytes) -> Sequence[Layer]:
        """In the order in which they are computed."""

    def observe(self, model: bytes, outputs: Sequence[str], use: Callable[[Runner], object]) -> Observation:
        """Watch each layer's source and result while `use` runs the graph, for its outputs, as often as it likes."""

    def lower(self, model: bytes, precisions: Precisions, observation: Observation) -> bytes:
        """An exported model with its layers in these precisions, else in float; for int8 it must have been observed."""

    def mimic(self, model: bytes, precisions: Precisions, observation: Observation) -> bytes:
        """A model that computes the same as the lowered one, to try layers out, in whatever form is made soonest."""

    def finish(self, model: bytes) -> bytes:
        """A lowered model with names that do not depend on the process that made it."""

    def fuse(
        self, graphs: Mapping[str, Graph], models: Mapping[str, bytes], vocabulary: Vocabulary, max_length: int
    ) -> bytes:
        """One finished model for whole captions, of the finished "encoder" and "decoder", which the graphs describe."""

    def write(self, model: bytes) -> bytes:
        """A finished model as a file of the format."""

    def companions(self, graphs: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Files that a bundle with these graphs' files has beside them, by name."""


def as_it_is(model: bytes) -> bytes:
    """Of formats whose finished models are their files."""
    return model


def no_companions(graphs: Mapping[str, bytes]) -> Mapping[str, bytes]:  # noqa: ARG001
    """Of formats whose graphs are all that there is."""
    return {}


class Observer:
    """Gathers an Observation."""

    def __init__(self) -> None:
        self._ranges: dict[str, Range] = {}
        self._elements: dict[str, int] = {}
        self._correlating = Correlating()

    def see(self, name: str, values: NDArray[np.float32], axis: int, rows: int) -> None:
        """An activation of so many rows (photos or tokens), its channels on the axis."""
        seen = Range.of(values, axis)
        self._ranges[name] = self._ranges[name].joined(seen) if name in self._ranges else seen
        self._elements[name] = values.size // rows

    def correlate(self, layer: Layer, source: NDArray[np.float32]) -> None:
        """What a layer reads: (R, C) or (B, height, width, C), of which one photo will do.

        Kernels of more than one place are left out, but for depthwise ones: theirs are too many inputs.
        """
        if layer.kind == "depthwise":
            seen = windows(source[0], layer.weights // layer.columns)  # of a channel, which may have several kernels
            self._correlating.see(layer.node, np.repeat(seen, layer.columns // len(seen), axis=0))
        elif layer.weights == layer.columns * source.shape[-1]:
            some = source if source.ndim == 2 else source[:1]
            self._correlating.see(layer.node, some.reshape(-1, source.shape[-1]))

    def observation(self) -> Observation:
        """What was seen so far."""
        return Observation(self._ranges, self._elements, self._correlating.correlations())


@dataclass(frozen=True)
class Rounding:
    """How the activations around a calibrated layer are brought to a common range, and its weights with them.

    One scale serves all channels of an activation, and MobileNetV3's differ by factors of a hundred: those with small
    values would be left with no levels. So each channel is divided by its own largest value before it is rounded. The
    layer's weights make up for it, and what it gives is multiplied again. (After Nagel et al., 2019, "Data-Free
    Quantization Through Weight Equalization and Bias Correction", with multiplications where there is no ReLU.)

    source, result  what the channels are divided by
    """

    source: NDArray[np.float32]  # (C_in,)
    result: NDArray[np.float32]  # (C_out,)

    @classmethod
    def of(cls, layer: Layer, ranges: Ranges) -> Rounding:
        """A product of many channels rounds its weights, too: there the source's scales take only part of the way."""
        source, result = ranges[layer.source], ranges[layer.result]
        divided = layer.homogeneous and np.mean(np.square(result.scales)) < UNEVEN
        return cls(
            source.scales if layer.kind == "depthwise" else source.scales**SHARED,
            result.scales if divided else np.ones_like(result.scales),
        )


def least_scales(bias: NDArray[np.float32], step: float) -> NDArray[np.float32]:
    """The scales that a layer's weights must have at least, for its bias is kept in levels of weights times sources.

    A channel of tiny weights and a large bias would need more of them than int32 has.

    step  between two levels of the source
    """
    return (np.abs(bias) / np.float32(step * 2**30)).astype(np.float32)


def layer_name(operation: str) -> str:
    """The layer's name in what TensorFlow calls an operation, or several ones, parted by semicolons.

    "mobilenet/re_lu/Relu;mobilenet/block_1/expand/BatchNorm/add;mobilenet/block_1/expand/Conv2D1" -> "block_1/expand"
    """
    found = re.search(r"([^;]+)/(?:Conv2D|depthwise|MatMul|BiasAdd)\d*(?:;|$)", operation)
    name = found.group(1) if found else operation.split(";")[0]
    ours = name.startswith(("layer_", "cross_", "output"))
    return name if ours else name.split("/", maxsplit=1)[-1]  # without the name of the Keras model
