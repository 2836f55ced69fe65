"""JAX: the captioner's model written anew; a caption is two compiled functions, encode and the whole decoding loop.

H heads, D key dim, N image positions, C channels, U units, V vocabulary, M the maximal length.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array, lax

from .base import Pixels, SplitPeer, Task
from .network import BLOCKS, RELU_BLOCKS, STRIDES, Network

Weights = dict[str, Array]
Cross = list[tuple[Array, Array]]  # keys and values (H, N, D) of each layer
LIMITS = "NPROC"  # how many threads XLA's client for processors starts with; jax has no setting of its own


class Jax(SplitPeer):
    """Two functions under jit; the loop is a lax.while_loop over a cache for M words."""

    def load(self, folder: Path, threads: int) -> None:
        assert os.environ[LIMITS] == str(threads), "worker.py sets it before jax is imported"
        task, network = Task.read(folder), Network.read(folder)
        self._weights = {name: jnp.asarray(array) for name, array in network.arrays.items()}
        self._encode = jax.jit(partial(encode, network=network))
        self._decode = jax.jit(partial(decode, network=network, task=task))

    def encode(self, pixels: Pixels) -> Cross:
        return jax.block_until_ready(self._encode(self._weights, pixels))

    def decode(self, features: Cross) -> list[int]:
        said, count = self._decode(self._weights, features)
        return said[1 : int(count)].tolist()


def encode(weights: Weights, pixels: Array, network: Network) -> Cross:
    """Cross keys and values of pixels uint8 (height, width, 3)."""
    x = pixels[None].astype(jnp.float32)
    x = x / 127.5 - 1 if network.rescaled else x
    x = _hard_swish(_convolve(weights, x, "Conv", 2))
    for i, (name, stride) in enumerate(zip(BLOCKS, STRIDES, strict=True)):
        x = _block(weights, x, name, stride, jax.nn.relu if i < RELU_BLOCKS else _hard_swish)
    features = _hard_swish(_convolve(weights, x, "Conv_1"))
    features = features.reshape(-1, features.shape[-1])  # (N, C)
    return [
        tuple(_heads(part, network) for part in jnp.split(_linear(weights, features, f"{i}.cross.kv"), 2, axis=-1))
        for i in range(network.layers)
    ]


def decode(weights: Weights, cross: Cross, network: Network, task: Task) -> tuple[Array, Array]:
    """The tokens (M,) from [START] on, and how many they are."""
    heads, _, size = cross[0][0].shape
    kept = [tuple(jnp.zeros((heads, task.max_length, size)) for _ in range(2)) for _ in range(network.layers)]

    def goes_on(state: tuple) -> Array:
        _, count, following, _ = state
        return (following != task.end) & (count < task.max_length)

    def step(state: tuple) -> tuple:
        said, count, token, kept = state
        logits, kept = _step(weights, token, count, cross, kept, network)
        following = logits.argmax().astype(jnp.int32)
        return said.at[count].set(token), count + 1, following, kept

    said = jnp.zeros(task.max_length, jnp.int32)
    said, count, _, _ = lax.while_loop(goes_on, step, (said, jnp.int32(0), jnp.int32(task.start), kept))
    return said, count


def _step(weights: Weights, token: Array, position: Array, cross: Cross, kept: Cross, network: Network):
    x = (weights["tokens"][token] + weights["positions"][position])[None]  # (1, U)
    grown = []
    for i, (keys, values) in enumerate(cross):
        query, *new = (_heads(part, network) for part in jnp.split(_linear(weights, x, f"{i}.self.qkv"), 3, axis=-1))
        stored = [lax.dynamic_update_slice(old, one, (0, position, 0)) for old, one in zip(kept[i], new, strict=True)]
        seen = jnp.arange(stored[0].shape[1]) <= position  # (M,)
        grown.append(tuple(stored))
        x = _add(weights, x, _attend(query, *stored, seen), f"{i}.self", network)
        query = _heads(_linear(weights, x, f"{i}.cross.query"), network)
        x = _add(weights, x, _attend(query, keys, values), f"{i}.cross", network)
        inner = _linear(weights, jax.nn.relu(_linear(weights, x, f"{i}.ff.first")), f"{i}.ff.second")
        x = _norm(weights, x + inner, f"{i}.ff", network)
    return _linear(weights, x, "output")[0], grown


def _block(weights: Weights, x: Array, name: str, stride: int, activation) -> Array:
    given = x
    if f"{name}/expand.kernel" in weights:
        x = activation(_convolve(weights, x, f"{name}/expand"))
    x = activation(_convolve(weights, x, f"{name}/depthwise", stride))
    if f"{name}/squeeze_excite/Conv.kernel" in weights:
        squeezed = x.mean((1, 2), keepdims=True)
        inner = jax.nn.relu(_convolve(weights, squeezed, f"{name}/squeeze_excite/Conv"))
        x = x * _hard_sigmoid(_convolve(weights, inner, f"{name}/squeeze_excite/Conv_1"))
    x = _convolve(weights, x, f"{name}/project")
    return given + x if given.shape == x.shape else x


def _convolve(weights: Weights, x: Array, name: str, stride: int = 1) -> Array:
    kernel, bias = weights[f"{name}.kernel"], weights[f"{name}.bias"]
    if name.endswith("/depthwise"):
        return _depthwise(x, kernel[:, :, 0], stride) + bias
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=layout) + bias


def _depthwise(x: Array, kernel: Array, stride: int) -> Array:
    """kernel (height, width, C), as a sum of shifted products: with XLA's own the encoder takes six times as long."""
    size = len(kernel)
    lengths = [-(-length // stride) for length in x.shape[1:3]]
    totals = [max((new - 1) * stride + size - old, 0) for new, old in zip(lengths, x.shape[1:3], strict=True)]
    x = jnp.pad(x, ((0, 0), *((total // 2, total - total // 2) for total in totals), (0, 0)))  # TensorFlow's SAME
    height, width = ((length - 1) * stride + 1 for length in lengths)
    shifts = [(i, j) for i in range(size) for j in range(size)]
    return sum(x[:, i : i + height : stride, j : j + width : stride] * kernel[i, j] for i, j in shifts)


def _hard_sigmoid(x: Array) -> Array:
    return jnp.clip(x / 6 + 0.5, 0, 1)


def _hard_swish(x: Array) -> Array:
    return x * _hard_sigmoid(x)


def _linear(weights: Weights, x: Array, name: str) -> Array:
    return x @ weights[f"{name}.kernel"] + weights[f"{name}.bias"]


def _heads(x: Array, network: Network) -> Array:
    return x.reshape(len(x), network.heads, -1).swapaxes(0, 1)  # (H, rows, D)


def _attend(query: Array, keys: Array, values: Array, seen: Array | None = None) -> Array:
    scores = query @ keys.swapaxes(1, 2)  # (H, 1, positions)
    scores = scores if seen is None else jnp.where(seen, scores, -1e9)
    return (jax.nn.softmax(scores) @ values).swapaxes(0, 1).reshape(1, -1)  # (1, H * D)


def _add(weights: Weights, x: Array, attended: Array, name: str, network: Network) -> Array:
    return _norm(weights, x + _linear(weights, attended, f"{name}.output"), name, network)


def _norm(weights: Weights, x: Array, name: str, network: Network) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scale = lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + network.epsilon)
    return centred * scale * weights[f"{name}.norm.gamma"] + weights[f"{name}.norm.beta"]
