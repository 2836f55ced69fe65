"""PyTorch: the captioner's model written anew, with a key/value cache.

H heads, D key dim, N image positions, C channels, U units, V vocabulary, P positions so far.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Pixels, SplitPeer, Task, greedy
from .network import BLOCKS, RELU_BLOCKS, STRIDES, Network

Cross = list[tuple[Tensor, Tensor]]  # keys and values (1, H, N, D) of each layer


class Torch(SplitPeer):
    """The model under inference_mode; compiled: encoder and step through torch.compile."""

    def __init__(self, compiled: bool = False) -> None:
        self._compiled = compiled

    def load(self, folder: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(threads)
        self._task = Task.read(folder)
        network = Network.read(folder)
        self._encoder, self._decoder = Encoder(network).eval(), Decoder(network).eval()
        if self._compiled:
            self._encoder.compile()
            self._decoder.compile(dynamic=True)

    @torch.inference_mode()
    def encode(self, pixels: Pixels) -> Cross:
        return self._decoder.project(self._encoder(torch.from_numpy(pixels)))

    @torch.inference_mode()
    def decode(self, features: Cross) -> list[int]:
        cache = self._decoder.empty_cache(self._task.max_length)
        return greedy(lambda said: int(self._decoder(said[-1], len(said) - 1, features, cache)), self._task)


class Convolution(torch.nn.Module):
    """A convolution that pads as TensorFlow's SAME, and its activation."""

    def __init__(self, network: Network, name: str, stride: int = 1, activation: str = "none") -> None:
        super().__init__()
        kernel = torch.from_numpy(network.arrays[f"{name}.kernel"]).permute(3, 2, 0, 1)  # (out, in, height, width)
        self.register_buffer("kernel", kernel.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", torch.from_numpy(network.arrays[f"{name}.bias"]))
        self.stride, self.size, self.activation = stride, kernel.shape[-1], activation
        self.groups = len(kernel) if name.endswith("/depthwise") else 1

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            padding = self.size // 2
        else:
            height, width = (self._padding(length) for length in x.shape[-2:])
            x, padding = F.pad(x, (*width, *height)), 0
        x = F.conv2d(x, self.kernel, self.bias, self.stride, padding, groups=self.groups)
        return {"none": lambda x: x, "relu": F.relu, "hard": F.hardswish, "gate": F.hardsigmoid}[self.activation](x)

    def _padding(self, length: int) -> tuple[int, int]:
        """Before and after."""
        total = max((-(-length // self.stride) - 1) * self.stride + self.size - length, 0)
        return total // 2, total - total // 2


class Block(torch.nn.Module):
    """Expansion, depthwise convolution, squeeze and excitation, projection, residual; some blocks lack some."""

    def __init__(self, network: Network, name: str, stride: int, activation: str) -> None:
        super().__init__()

        def part(suffix: str, *arguments: object) -> torch.nn.Module | None:
            there = f"{name}/{suffix}.kernel" in network.arrays
            return Convolution(network, f"{name}/{suffix}", *arguments) if there else None

        self.expand = part("expand", 1, activation)
        self.depthwise = part("depthwise", stride, activation)
        self.squeeze, self.excite = part("squeeze_excite/Conv", 1, "relu"), part("squeeze_excite/Conv_1", 1, "gate")
        self.project = part("project")

    def forward(self, x: Tensor) -> Tensor:
        given = x
        if self.expand:
            x = self.expand(x)
        x = self.depthwise(x)
        if self.squeeze:
            x = x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)))
        x = self.project(x)
        return given + x if given.shape == x.shape else x


class Encoder(torch.nn.Module):
    """MobileNetV3Small without its classifier: pixels uint8 (height, width, 3) -> features (N, C)."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        blocks = [
            Block(network, name, stride, "relu" if i < RELU_BLOCKS else "hard")
            for i, (name, stride) in enumerate(zip(BLOCKS, STRIDES, strict=True))
        ]
        first, last = Convolution(network, "Conv", 2, "hard"), Convolution(network, "Conv_1", 1, "hard")
        self.layers = torch.nn.Sequential(first, *blocks, last)
        self.rescaled = network.rescaled

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.permute(2, 0, 1)[None].float()  # (1, 3, height, width), channels last in memory
        x = self.layers(x / 127.5 - 1 if self.rescaled else x)
        return x[0].flatten(1).T


class Decoder(torch.nn.Module):
    """One step, as forward; the photo's keys and values, as project."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.heads, self.depth, self.epsilon = network.heads, network.layers, network.epsilon
        for name, array in network.arrays.items():
            if name.split(".")[0] in ("tokens", "positions", "output", *map(str, range(self.depth))):
                self.register_buffer(name.replace(".", "_"), torch.from_numpy(array))

    def project(self, features: Tensor) -> Cross:
        """Keys and values (1, H, N, D) of features (N, C), by layer."""
        return [
            tuple(map(self._heads, self._linear(features, f"{i}_cross_kv").chunk(2, -1))) for i in range(self.depth)
        ]

    def empty_cache(self, length: int) -> Cross:
        """Room for the keys and values (1, H, length, D) of so many words, by layer."""
        size = len(getattr(self, "0_cross_query_bias")) // self.heads
        return [tuple(torch.zeros(1, self.heads, length, size) for _ in range(2)) for _ in range(self.depth)]

    def forward(self, token: int, position: int, cross: Cross, cache: Cross) -> Tensor:
        """The likeliest token after this one; the cache is written at the position."""
        x = (self.tokens[token] + self.positions[position])[None]  # (1, U)
        for i, ((keys, values), kept) in enumerate(zip(cross, cache, strict=True)):
            query, *new = map(self._heads, self._linear(x, f"{i}_self_qkv").chunk(3, -1))  # (1, H, 1, D)
            for store, one in zip(kept, new, strict=True):
                store[:, :, position : position + 1] = one
            past = [store[:, :, : position + 1] for store in kept]
            x = self._add(x, self._attend(query, *past), f"{i}_self")
            query = self._heads(self._linear(x, f"{i}_cross_query"))
            x = self._add(x, self._attend(query, keys, values), f"{i}_cross")
            inner = self._linear(F.relu(self._linear(x, f"{i}_ff_first")), f"{i}_ff_second")
            x = self._norm(x + inner, f"{i}_ff")
        return self._linear(x, "output").argmax()

    def _linear(self, x: Tensor, name: str) -> Tensor:
        # Kernels stay (in, out): with F.linear, which wants (out, in), a step of one row takes a third longer at least.
        return torch.addmm(getattr(self, f"{name}_bias"), x, getattr(self, f"{name}_kernel"))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(0, 1)[None]  # (1, H, rows, D)

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        attended = F.scaled_dot_product_attention(query, keys, values, scale=1.0)  # (1, H, 1, D)
        return attended[0].transpose(0, 1).flatten(1)  # (1, H * D)

    def _add(self, x: Tensor, attended: Tensor, name: str) -> Tensor:
        return self._norm(x + self._linear(attended, f"{name}_output"), name)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        gamma, beta = (getattr(self, f"{name}_norm_{part}") for part in ("gamma", "beta"))
        return F.layer_norm(x, x.shape[-1:], gamma, beta, self.epsilon)
