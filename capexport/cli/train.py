"""capexport train"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..captioner.backbone import build_backbone
from ..captioner.best import BestOptions, train_best
from ..captioner.config import CaptionerConfig
from ..captioner.storage import load_captioner
from ..captioner.training import TrainingOptions, train
from ..errors import OptionError
from .dataset import add_dataset_options, read_photos
from .options import add_options, read_options


@dataclass(frozen=True)
class _Recipe:
    """A way to train: its options, and the dropout that it takes unless told."""

    options: type[Any]
    train: Callable[..., Any]
    dropout_rate: float


RECIPES = {
    "tutorial": _Recipe(TrainingOptions, train, CaptionerConfig.dropout_rate),
    "best": _Recipe(BestOptions, train_best, dropout_rate=0.2),
}
OF_ENCODER = ("backbone", "include_preprocessing", "image_size")  # what a config says of it


def configure(parser: argparse.ArgumentParser) -> None:
    add_dataset_options(parser, "train", "dev")
    parser.add_argument(
        "--encoder-weights",
        default="imagenet",
        metavar="FILE|DIR",
        help="the encoder's weights, as Keras saves them, or the captioner whose encoder is taken; imagenet downloads "
        "Keras' own (default: imagenet)",
    )
    parser.add_argument("--init", type=Path, metavar="DIR", help="start from the decoder of this captioner")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="resumed if it holds the same run")
    parser.add_argument("--image-size", type=int, default=CaptionerConfig.image_size[0], metavar="PIXELS")
    dropout = ", ".join(f"{recipe.dropout_rate} for {name}" for name, recipe in RECIPES.items())
    parser.add_argument("--dropout-rate", type=float, metavar="X", help=f"(default: {dropout})")
    add_options(parser, CaptionerConfig, without=("image_size", "dropout_rate"))
    parser.add_argument("--recipe", choices=list(RECIPES), default="tutorial", help="(default: tutorial)")
    named: set[str] = set()
    for name, recipe in RECIPES.items():
        group = parser.add_argument_group(f"options of --recipe {name}")
        add_options(group, recipe.options, without=tuple(named))
        named |= _fields(recipe.options)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> None:
    recipe = RECIPES[parsed.recipe]
    _check_options(parsed, recipe)
    dropout_rate = recipe.dropout_rate if parsed.dropout_rate is None else parsed.dropout_rate
    size = (parsed.image_size, parsed.image_size)
    config = read_options(CaptionerConfig, parsed, image_size=size, dropout_rate=dropout_rate)
    options = read_options(recipe.options, parsed)
    train_photos, dev_photos = (read_photos(parsed, split) for split in ("train", "dev"))
    config, encoder = _encoder(config, parsed.encoder_weights)
    recipe.train(config, encoder, train_photos, dev_photos, parsed.out, options, initial=parsed.init)
    print(f"{parsed.out}: a captioner; next: capexport convert {parsed.out} --to onnx")


def _encoder(config: CaptionerConfig, weights: str) -> tuple[CaptionerConfig, Any]:
    """The encoder, and the config with what it says of it; raises OptionError for options that say something else."""
    if not Path(weights).is_dir():
        return config, build_backbone(config.backbone, config.image_size, weights, config.include_preprocessing)
    captioner = load_captioner(weights)
    theirs = {name: getattr(captioner.config, name) for name in OF_ENCODER}
    for name, value in theirs.items():
        if getattr(config, name) not in (getattr(CaptionerConfig, name), value):
            option = f"--{name.replace('_', '-')}"
            raise OptionError(f"The encoder of {weights} has {value!r} as its {name}: leave {option} out.")
    return dataclasses.replace(config, **theirs), captioner.feature_extractor


def _check_options(parsed: argparse.Namespace, recipe: _Recipe) -> None:
    """Raises OptionError for an option of another recipe."""
    for name, other in RECIPES.items():
        for field in dataclasses.fields(other.options):
            alien = field.name not in _fields(recipe.options)
            if alien and getattr(parsed, field.name) != field.default:
                raise OptionError(f"--{field.name.replace('_', '-')} is an option of --recipe {name}.")


def _fields(kind: type[Any]) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}
