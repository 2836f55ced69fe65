"""The one table of formats and recipes, which the command line, the checks and the docs read."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import Enum

from .errors import OptionError


@dataclass(frozen=True)
class Format:
    """A graph format: the suffix of its files, the engine that runs it, and the extra that installs that.

    one_file  whether the file of a graph for whole captions holds the encoder and the decoder, too
    devices   that it can run on: what onnxruntime makes of a graph for a file of its own format is for processors alone
    """

    name: str
    suffix: str
    engine: str
    extra: str
    one_file: bool = False
    devices: tuple[str, ...] = ("cpu",)


@dataclass(frozen=True)
class Bounds:
    """How far a recipe's features, captions, logits and attention may be from Keras' in float32.

    features_error   the root mean square of the errors of what the encoder gives, over that of Keras' own
    identical        the least share of identical captions, those that part at a near-tie counted in
    logits_error     the largest difference of a logit
    attention_error  the largest difference of an attention weight
    same_cell        the least share of words whose most attended cell is the same
    """

    features_error: float
    identical: float
    logits_error: float
    attention_error: float
    same_cell: float


class Precision(Enum):
    """How the weights of a layer are kept, and what it computes in."""

    FLOAT = "float"
    HALF = "stored in half precision, computed in float"
    STORED = "stored in int8, a scale per channel; computed in float"
    DYNAMIC = "int8, a scale per channel; activations in int8, by row, on scales found as they come"
    STATIC = "int8, a scale per channel; activations in int8 on scales found on calibration photos"


INT8 = frozenset({Precision.STORED, Precision.DYNAMIC, Precision.STATIC})  # of weights


@dataclass(frozen=True)
class Step:
    """A step down in precision, taken by as many of a graph's layers as its budget allows.

    budget  the error that the step may add to the graph's outputs, root mean square, relative to the outputs
    worthwhile  the least share of a graph's cost for which a layer takes the step. Some layers of hardly any cost are
            squeeze-excite gates that never move on most photos: what rounding does to them cannot be measured there.
    """

    precision: Precision
    budget: float
    worthwhile: float = 1e-3


@dataclass(frozen=True)
class Recipe:
    """How far each graph's layers step down in precision, and how far that may take a bundle from Keras.

    Layers that a step would cost too much stay where the step before left them.
    """

    name: str
    encoder: tuple[Step, ...]
    decoder: tuple[Step, ...]
    purpose: str
    formats: tuple[str, ...]
    bounds: Bounds

    def steps(self, graph: str) -> tuple[Step, ...]:
        """Of the graph "encoder" or "decoder"."""
        return {"encoder": self.encoder, "decoder": self.decoder}[graph]

    def precision(self, graph: str) -> Precision:
        """The lowest that the graph's layers have."""
        steps = self.steps(graph)
        return steps[-1].precision if steps else Precision.FLOAT


FORMATS = {
    "onnx": Format("onnx", ".onnx", "onnx", "onnx", devices=("cpu", "cuda")),
    "ort": Format("ort", ".ort", "onnx", "onnx"),
    "tflite": Format("tflite", ".tflite", "tflite", "tflite", one_file=True),
}

SAME_WORDS = (Step(Precision.HALF, budget=0.0005, worthwhile=0.0),)
HALF = (Step(Precision.HALF, budget=0.002, worthwhile=0.0),)
STORED = (*HALF, Step(Precision.STORED, budget=0.0058))
DYNAMIC = (*HALF, Step(Precision.DYNAMIC, budget=0.01))

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "fp32",
            (),
            (),
            "the reference",
            ("onnx", "ort", "tflite"),
            Bounds(features_error=1e-4, identical=1.0, logits_error=1e-3, attention_error=1e-4, same_cell=0.99),
        ),
        Recipe(
            "fp16",
            SAME_WORDS,
            SAME_WORDS,
            "half the size, nearly always the same words",
            ("onnx", "ort", "tflite"),
            Bounds(identical=0.97, features_error=0.02, logits_error=0.1, attention_error=0.01, same_cell=0.98),
        ),
        Recipe(
            "weight-int8",
            STORED,
            STORED,
            "a quarter of the size; float everywhere else",
            ("onnx", "ort", "tflite"),
            Bounds(features_error=0.05, identical=0.85, logits_error=0.5, attention_error=0.05, same_cell=0.95),
        ),
        Recipe(
            "dynamic-int8",
            STORED,
            DYNAMIC,
            "a quarter of the size, faster words; what ships",
            ("onnx", "ort", "tflite"),
            Bounds(identical=0.85, features_error=0.1, logits_error=0.5, attention_error=0.05, same_cell=0.95),
        ),
        Recipe(
            "int8",
            (
                *HALF,
                Step(Precision.STORED, budget=0.0085),
                Step(Precision.STATIC, budget=0.01),
            ),
            (*DYNAMIC, Step(Precision.STATIC, budget=0.015)),
            "hardware that multiplies in int8",
            ("onnx", "ort", "tflite"),
            Bounds(identical=0.7, features_error=0.3, logits_error=2.0, attention_error=0.2, same_cell=0.95),
        ),
    )
}


DEFAULT_RECIPE = "dynamic-int8"  # of what is made without being asked for a recipe, to be used


def check_recipe(to: str, recipe: str) -> None:
    """Raise OptionError, with the nearest name there is, unless the format has the recipe."""
    _known("format", to, list(FORMATS))
    _known("recipe", recipe, list(RECIPES))
    if to not in RECIPES[recipe].formats:
        there = [name for name, other in RECIPES.items() if to in other.formats]
        raise OptionError(f"The format {to} has no recipe {recipe!r}; it has: {', '.join(there)}.")


def _known(kind: str, name: str, names: list[str]) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise OptionError(f"There is no {kind} {name!r}.{hint} There are: {', '.join(names)}.")
