"""The table of peers: everything that peers.py times, in the order of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from capexport.errors import OptionError

BASELINE = "capexport-onnx-dynamic-int8"
BUNDLES = {
    f"{to}-{recipe}{'-fused' * fused}": (to, recipe, fused)
    for to, recipe, fused in (
        ("onnx", "fp32", False),
        ("onnx", "dynamic-int8", False),
        ("onnx", "dynamic-int8", True),
        ("onnx", "int8", False),
        ("tflite", "fp32", False),
        ("tflite", "dynamic-int8", False),
        ("tflite", "dynamic-int8", True),
    )
}


@dataclass(frozen=True)
class Entry:
    """A peer: its row's name, what it is, its class, the options of that, and the files that it loads (files.py)."""

    name: str
    what: str
    module: str
    kind: str
    files: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


PEERS = (
    Entry("keras-eager", "the tutorial's simple_gen", "peer.with_keras", "SimpleGen"),
    Entry(
        "keras-jit",
        "under tf.function, compiled by XLA; the prefix padded to the maximal length; no cache",
        "peer.with_keras",
        "Functions",
        options={"jit": True},
    ),
    Entry(
        "keras-function",
        "under tf.function; no cache",
        "peer.with_keras",
        "Functions",
        options={"jit": False},
    ),
    Entry(
        "tf2onnx-whole",
        "the captioner as one graph through tf2onnx, so that each step encodes the photo, too; no cache; onnxruntime",
        "peer.with_onnxruntime",
        "Whole",
        files=["whole.onnx"],
    ),
    Entry(
        "tf2onnx-split",
        "the encoder and the decoder through tf2onnx; no cache; onnxruntime",
        "peer.with_onnxruntime",
        "Split",
        files=["encoder.onnx", "decoder.onnx"],
    ),
    Entry(
        "tflite-whole",
        "the captioner as one graph through TFLiteConverter, each step encodes the photo, too; no cache; LiteRT",
        "peer.with_litert",
        "Whole",
        files=["whole.tflite"],
    ),
    Entry(
        "tflite-split",
        "the encoder and the decoder through TFLiteConverter; no cache; LiteRT",
        "peer.with_litert",
        "Split",
        files=["encoder.tflite", "decoder.tflite"],
    ),
    Entry(
        "onnx-cross-anew",
        "capexport's graphs in float, but features are projected to cross keys and values at every step; onnxruntime",
        "peer.with_onnxruntime",
        "WithCache",
        files=["features.onnx", "anew.onnx"],
        options={"encoder": "features.onnx", "decoder": "anew.onnx"},
    ),
    Entry(
        "onnx-cross-once",
        "capexport's graphs in float, but the encoder projects features to cross keys and values, once; onnxruntime",
        "peer.with_onnxruntime",
        "WithCache",
        files=["projections.onnx", "attending.onnx"],
        options={"encoder": "projections.onnx", "decoder": "attending.onnx"},
    ),
    Entry("pytorch", "written in PyTorch, with a cache", "peer.with_torch", "Torch", files=["network.npz"]),
    Entry(
        "pytorch-compile",
        "the same under torch.compile",
        "peer.with_torch",
        "Torch",
        files=["network.npz"],
        options={"compiled": True},
    ),
    Entry(
        "jax",
        "written in JAX, under jit with the loop inside, with a cache of fixed size",
        "peer.with_jax",
        "Jax",
        files=["network.npz"],
    ),
    Entry("openvino", "capexport's ONNX graphs in float, in OpenVINO", "peer.with_openvino", "OpenVino", ["onnx-fp32"]),
    *(
        Entry(
            f"capexport-{bundle}",
            f"capexport.load(...).caption_pixels, {to} {recipe}{', whole captions by one graph' * fused}",
            "peer.with_capexport",
            "Capexport",
            files=[bundle],
            options={"bundle": bundle},
        )
        for bundle, (to, recipe, fused) in BUNDLES.items()
    ),
)


def chosen(names: Sequence[str]) -> tuple[Entry, ...]:
    """The peers of these names, in the table's order; all of them for none. Raises OptionError for an unknown one."""
    known = [entry.name for entry in PEERS]
    for name in names:
        if name not in known:
            raise OptionError(f"There is no peer {name!r}; there are: {', '.join(known)}.")
    return tuple(entry for entry in PEERS if not names or entry.name in names)
