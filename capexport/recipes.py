"""The one table of formats and recipes, which the command line, the checks and the docs read."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from .errors import OptionError


@dataclass(frozen=True)
class Format:
    """A graph format: the suffix of its files and the extra whose engine runs it."""

    name: str
    suffix: str
    extra: str


@dataclass(frozen=True)
class Bounds:
    """How far a recipe's captions, logits and attention may be from Keras' in float32.

    identical        the least share of identical captions, those that part at a near-tie counted in
    logits_error     the largest difference of a logit
    attention_error  the largest difference of an attention weight
    same_cell        the least share of words whose most attended cell is the same
    """

    identical: float
    logits_error: float
    attention_error: float
    same_cell: float


@dataclass(frozen=True)
class Recipe:
    """How numbers are kept in a bundle's graphs, and how far that may take it from Keras."""

    name: str
    weights: str
    activations: str
    purpose: str
    formats: tuple[str, ...]
    bounds: Bounds


FORMATS = {
    "onnx": Format("onnx", ".onnx", "onnx"),
    "tflite": Format("tflite", ".tflite", "tflite"),
}

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "fp32",
            "float",
            "float",
            "the reference",
            ("onnx", "tflite"),
            Bounds(identical=1.0, logits_error=1e-3, attention_error=1e-4, same_cell=0.99),
        ),
        Recipe(
            "dynamic-int8",
            "int8 per channel, or block of 64 in ONNX's decoder, in all matmuls; float in the convolutions",
            "float at rest, int8 in the decoder's matmuls, by row",
            "a third of the size, faster words",
            ("onnx", "tflite"),
            Bounds(identical=0.85, logits_error=0.5, attention_error=0.05, same_cell=0.95),
        ),
    )
}


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
