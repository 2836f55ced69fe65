"""The captioner in PyTorch, as functions of its weights by name; what they compute is what capexport.captioner does.

P photos, C captions each, T text positions, N image positions, F feature channels, H heads, D key dim, U units,
V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]
Cross = list[tuple[Tensor, Tensor]]  # keys and values (P, H, N, D) of each layer

LAYERS, HEADS, UNITS, CHANNELS, PLACES = 2, 2, 256, 576, 50
BATCH_NORM_EPSILON, LAYER_NORM_EPSILON = 1e-3, 1e-3  # Keras'
BLOCKS = (  # kernel, stride, channels expanded to and brought to, squeeze and excitation (Howard et al., 2019, table 2)
    (3, 2, 0, 16, 8),
    (3, 2, 72, 24, 0),
    (3, 1, 88, 24, 0),
    (5, 2, 96, 40, 24),
    (5, 1, 240, 40, 64),
    (5, 1, 240, 40, 64),
    (5, 1, 120, 48, 32),
    (5, 1, 144, 48, 40),
    (5, 2, 288, 96, 72),
    (5, 1, 576, 96, 144),
    (5, 1, 576, 96, 144),
)
RELU_BLOCKS = 3
WATCHED = (0, 2, 7, 10)  # blocks whose maps a student of the encoder is held to, the last of each size


@dataclass(frozen=True)
class Convolution:
    """Where a convolution's weights are, and what it does; `first` numbers the first of them among the encoder's."""

    first: int
    shape: tuple[int, int, int]  # out, in a group, side
    stride: int
    normed: bool
    activation: str

    @property
    def depthwise(self) -> bool:
        return self.shape[1] == 1

    def names(self) -> list[str]:
        kernel = "depthwise_kernel" if self.depthwise else "kernel"
        rest = ("gamma", "beta", "moving_mean", "moving_variance") if self.normed else ("bias",)
        return [f"feature_extractor.{self.first + i:03d}.{kind}" for i, kind in enumerate((kernel, *rest))]


@dataclass(frozen=True)
class Block:
    expand: Convolution | None
    depthwise: Convolution
    squeeze: Convolution | None
    excite: Convolution | None
    project: Convolution
    residual: bool


def _structure() -> tuple[Convolution, list[Block], Convolution]:
    count, made = 0, []

    def convolution(out: int, given: int, side: int, stride: int, normed: bool, activation: str) -> Convolution:
        nonlocal count
        made.append(Convolution(count, (out, given, side), stride, normed, activation))
        count += len(made[-1].names())
        return made[-1]

    first = convolution(16, 3, 3, 2, True, "hard")
    blocks, channels = [], 16
    for i, (side, stride, wide, out, narrow) in enumerate(BLOCKS):
        activation = "relu" if i < RELU_BLOCKS else "hard"
        expand = convolution(wide, channels, 1, 1, True, activation) if wide else None
        wide = wide or channels
        depthwise = convolution(wide, 1, side, stride, True, activation)
        squeeze = convolution(narrow, wide, 1, 1, False, "relu") if narrow else None
        excite = convolution(wide, narrow, 1, 1, False, "gate") if narrow else None
        project = convolution(out, wide, 1, 1, True, "none")
        blocks.append(Block(expand, depthwise, squeeze, excite, project, stride == 1 and channels == out))
        channels = out
    return first, blocks, convolution(CHANNELS, channels, 1, 1, True, "hard")


FIRST, INNER, LAST = _structure()


def convolutions() -> Iterator[Convolution]:
    yield FIRST
    for block in INNER:
        for one in (block.expand, block.depthwise, block.squeeze, block.excite, block.project):
            if one is not None:
                yield one
    yield LAST


def is_encoder(name: str) -> bool:
    return name.startswith("feature_extractor.")


def is_statistic(name: str) -> bool:
    return name.rpartition(".")[2].startswith("moving_")


def to_torch(name: str, array: np.ndarray, device: torch.device) -> Tensor:
    """An array under its name of weights.safetensors, with kernels of convolutions as PyTorch has them."""
    tensor = torch.tensor(array.astype(np.float32), device=device)
    if is_encoder(name) and tensor.ndim == 4:
        places = (2, 3, 0, 1) if name.endswith("depthwise_kernel") else (3, 2, 0, 1)
        tensor = tensor.permute(places).contiguous(memory_format=torch.channels_last)
    return tensor


def to_array(name: str, tensor: Tensor) -> np.ndarray:
    array = tensor.detach().float().cpu()
    if is_encoder(name) and tensor.ndim == 4:
        array = array.permute((2, 3, 0, 1) if name.endswith("depthwise_kernel") else (2, 3, 1, 0))
    return np.ascontiguousarray(array.numpy())


def new_encoder(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random weights as Keras begins with: Glorot's uniform ones (2010)."""
    arrays = {}
    for one in convolutions():
        out, given, side = one.shape
        shape = (side, side, out, 1) if one.depthwise else (side, side, given, out)
        names = one.names()
        arrays[names[0]] = _glorot(rng, shape, shape[-2] * side**2, shape[-1] * side**2)
        for name in names[1:]:
            ones = name.endswith(("gamma", "moving_variance"))
            arrays[name] = np.full(out, float(ones), np.float32)
    return arrays


def new_decoder(rng: np.random.Generator, vocabulary: int) -> dict[str, np.ndarray]:
    """Random weights as Keras begins with."""
    arrays = {
        "seq_embedding.token_embedding.embeddings": rng.uniform(-0.05, 0.05, (vocabulary, UNITS)),
        "seq_embedding.pos_embedding.embeddings": rng.uniform(-0.05, 0.05, (PLACES, UNITS)),
        "output_layer.dense.kernel": _glorot(rng, (UNITS, vocabulary), UNITS, vocabulary),
        "output_layer.dense.bias": np.zeros(vocabulary),
    }
    for i in range(LAYERS):
        for block, source in (("self_attention", UNITS), ("cross_attention", CHANNELS)):
            name = f"decoder_layers.{i}.{block}"
            for part, size in (("query", UNITS), ("key", source), ("value", source)):
                # Keras takes the sides of (size, H, D) for a convolution's: fans of H * D by place, not of a matrix.
                arrays[f"{name}.mha.{part}.kernel"] = _glorot(rng, (size, HEADS, UNITS), HEADS * size, UNITS * size)
                arrays[f"{name}.mha.{part}.bias"] = np.zeros((HEADS, UNITS))
            arrays[f"{name}.mha.attention_output.kernel"] = _glorot(
                rng, (HEADS, UNITS, UNITS), UNITS * HEADS, UNITS * HEADS
            )
            arrays[f"{name}.mha.attention_output.bias"] = np.zeros(UNITS)
        for place, shape in (("first", (UNITS, 2 * UNITS)), ("second", (2 * UNITS, UNITS))):
            arrays[f"decoder_layers.{i}.ff.{place}.kernel"] = _glorot(rng, shape, *shape)
            arrays[f"decoder_layers.{i}.ff.{place}.bias"] = np.zeros(shape[1])
        for block in ("self_attention", "cross_attention", "ff"):
            arrays[f"decoder_layers.{i}.{block}.norm.gamma"] = np.ones(UNITS)
            arrays[f"decoder_layers.{i}.{block}.norm.beta"] = np.zeros(UNITS)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def encode(weights: Weights, images: Tensor, momentum: float | None = None) -> tuple[Tensor, list[Tensor]]:
    """Images (B, h, w, 3) of 0..255 -> features (B, N, F), and the maps after the blocks of WATCHED and of the last.

    momentum  of the batch norms' statistics, which are then the batch's; None leaves them as they are
    """
    x = (images.permute(0, 3, 1, 2) / 127.5 - 1).contiguous(memory_format=torch.channels_last)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda, cache_enabled=False):
        maps, x = [], _convolve(weights, x, FIRST, momentum)
        for i, block in enumerate(INNER):
            given = x
            for one in (block.expand, block.depthwise):
                x = _convolve(weights, x, one, momentum) if one else x
            if block.squeeze and block.excite:
                gate = _convolve(weights, x.mean((2, 3), keepdim=True), block.squeeze, None)
                x = x * _convolve(weights, gate, block.excite, None)
            x = _convolve(weights, x, block.project, momentum)
            x = x + given if block.residual else x
            maps += [x] if i in WATCHED else []
        x = _convolve(weights, x, LAST, momentum)
    return x.flatten(2).transpose(1, 2).float(), [*maps, x]


def cross_of(weights: Weights, features: Tensor) -> Cross:
    """Keys and values of cross-attention for features (P, N, F)."""
    pairs = []
    for i in range(LAYERS):
        name = f"decoder_layers.{i}.cross_attention.mha"
        pairs.append(tuple(_heads(weights, f"{name}.{part}", features).transpose(1, 2) for part in ("key", "value")))
    return pairs


def logits_of(weights: Weights, cross: Cross, tokens: Tensor, dropout: float = 0.0) -> Tensor:
    """Logits (P, C, T, V) of what follows each of tokens (P, C, T); those after a caption's end mean nothing."""
    photos, captions, length = tokens.shape
    x = weights["seq_embedding.token_embedding.embeddings"][tokens.flatten(0, 1)]  # (P * C, T, U)
    x = x + weights["seq_embedding.pos_embedding.embeddings"][:length]
    unseen = torch.full((length, length), -1e9, device=x.device).triu(1)
    for i in range(LAYERS):
        name = f"decoder_layers.{i}.self_attention"
        query, keys, values = (
            _heads(weights, f"{name}.mha.{part}", x).transpose(1, 2) for part in ("query", "key", "value")
        )
        x = _joined(weights, name, x, _attend(query, keys, values, dropout, unseen).transpose(1, 2))
        name = f"decoder_layers.{i}.cross_attention"
        query = _heads(weights, f"{name}.mha.query", x).reshape(photos, captions * length, HEADS, -1).transpose(1, 2)
        attended = _attend(query, *cross[i], dropout).transpose(1, 2)  # (P, C * T, H, D)
        x = _joined(weights, name, x, attended.reshape(photos * captions, length, HEADS, -1))
        x = _fed_forward(weights, i, x, dropout)
    return _logits(weights, x).unflatten(0, (photos, captions))


class Stepper:
    """One token after the other for P photos of C rows each, which may change places: keys and values are kept."""

    def __init__(self, weights: Weights, cross: Cross, rows: int, length: int) -> None:
        self._weights, self._cross, self._rows = weights, cross, rows
        first = cross[0][0]
        shape = (len(first) * rows, HEADS, length, first.shape[-1])
        self._past = [tuple(first.new_zeros(shape) for _ in range(2)) for _ in range(LAYERS)]
        self._position = 0

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits (P * C, V) of what follows tokens (P * C,)."""
        weights, place = self._weights, self._position
        x = weights["seq_embedding.token_embedding.embeddings"][tokens]
        x = (x + weights["seq_embedding.pos_embedding.embeddings"][place])[:, None]  # (P * C, 1, U)
        for i in range(LAYERS):
            name = f"decoder_layers.{i}.self_attention"
            query, *new = (
                _heads(weights, f"{name}.mha.{part}", x).transpose(1, 2) for part in ("query", "key", "value")
            )
            for kept, one in zip(self._past[i], new, strict=True):
                kept[:, :, place : place + 1] = one
            keys, values = (kept[:, :, : place + 1] for kept in self._past[i])
            x = _joined(weights, name, x, _attend(query, keys, values).transpose(1, 2))
            name = f"decoder_layers.{i}.cross_attention"
            query = _heads(weights, f"{name}.mha.query", x).reshape(-1, self._rows, HEADS, UNITS).transpose(1, 2)
            attended = _attend(query, *self._cross[i]).transpose(1, 2)  # (P, C, H, D)
            x = _joined(weights, name, x, attended.reshape(len(x), 1, HEADS, -1))
            x = _fed_forward(weights, i, x)
        self._position += 1
        return _logits(weights, x)[:, 0]

    def take(self, rows: Tensor) -> None:
        """Go on with these of the rows, of the same photos: (P * C,)."""
        self._past = [tuple(kept[rows] for kept in pair) for pair in self._past]


def _convolve(weights: Weights, x: Tensor, one: Convolution, momentum: float | None) -> Tensor:
    kernel, *rest = (weights[name] for name in one.names())
    side, padding = one.shape[2], one.shape[2] // 2
    if one.stride == 2:  # of even lengths TensorFlow pads less before than after
        x, padding = F.pad(x, ((side - 2) // 2, side // 2) * 2), 0
    groups = len(kernel) if one.depthwise else 1
    x = F.conv2d(x, kernel, None if one.normed else rest[0], one.stride, padding, 1, groups)
    if one.normed:
        gamma, beta, mean, variance = rest
        learns = momentum is not None
        x = F.batch_norm(x, mean, variance, gamma, beta, learns, 1 - momentum if learns else 0.0, BATCH_NORM_EPSILON)
    return {"none": lambda x: x, "relu": F.relu, "hard": F.hardswish, "gate": F.hardsigmoid}[one.activation](x)


def _heads(weights: Weights, name: str, x: Tensor) -> Tensor:
    """(..., U) -> (..., H, D)"""
    kernel, bias = weights[f"{name}.kernel"], weights[f"{name}.bias"]
    return (x @ kernel.flatten(1) + bias.flatten()).unflatten(-1, kernel.shape[1:])


def _attend(query: Tensor, keys: Tensor, values: Tensor, dropout: float = 0.0, mask: Tensor | None = None) -> Tensor:
    scores = query @ keys.transpose(-1, -2) / math.sqrt(query.shape[-1])
    shares = (scores if mask is None else scores + mask).softmax(-1)
    return (F.dropout(shares, dropout) if dropout else shares) @ values


def _joined(weights: Weights, name: str, x: Tensor, attended: Tensor) -> Tensor:
    kernel, bias = (weights[f"{name}.mha.attention_output.{part}"] for part in ("kernel", "bias"))
    return _norm(weights, name, x + attended.flatten(-2) @ kernel.flatten(0, 1) + bias)


def _fed_forward(weights: Weights, i: int, x: Tensor, dropout: float = 0.0) -> Tensor:
    name = f"decoder_layers.{i}.ff"
    inner = F.relu(x @ weights[f"{name}.first.kernel"] + weights[f"{name}.first.bias"])
    inner = inner @ weights[f"{name}.second.kernel"] + weights[f"{name}.second.bias"]
    return _norm(weights, name, x + (F.dropout(inner, dropout) if dropout else inner))


def _norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    gamma, beta = (weights[f"{name}.norm.{part}"] for part in ("gamma", "beta"))
    return F.layer_norm(x, x.shape[-1:], gamma, beta, LAYER_NORM_EPSILON)


def _logits(weights: Weights, x: Tensor) -> Tensor:
    bias = weights["output_layer.dense.bias"] + weights["output_layer.bias"]
    return x @ weights["output_layer.dense.kernel"] + bias


def _glorot(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int) -> np.ndarray:
    limit = math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-limit, limit, shape).astype(np.float32)
