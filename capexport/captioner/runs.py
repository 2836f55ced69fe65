"""What every training run begins and ends with: a claimed folder and a new decoder, the finished captioner."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tf_keras

from ..atomic import clear_partials, new_file
from ..datasets import CaptionedPhoto
from ..errors import OutputError, SourceError
from ..plot import new_figure
from .config import CaptionerConfig
from .model import Captioner, build_captioner, build_weights
from .pairs import Pairs
from .storage import CONFIG, VOCABULARY, WEIGHTS, load_captioner
from .tokenizer import learn_vocabulary
from .weights import decoder_variables, encoder_variables, fingerprint

COUNTED = 32  # captions at a time


@dataclass(frozen=True)
class Run:
    """A run's folder for work in progress, its captioner to be trained and what that learns from."""

    work: Path
    captioner: Captioner
    train_pairs: Pairs
    dev_pairs: Pairs


def prepare(
    config: CaptionerConfig,
    encoder: tf_keras.Model,
    train_photos: Sequence[CaptionedPhoto],
    dev_photos: Sequence[CaptionedPhoto],
    out: Path,
    options: Any,
    initial: str | Path | None,
    report: Callable[[str], None],
) -> Run:
    """Claim `out` for a run with these arguments, or find the same run in it, and make the captioner.

    Raises OutputError if `out` holds another run or a finished captioner, SourceError if `initial` or the encoder does
    not fit.
    """
    size = tuple(encoder.input_shape[1:3])
    if size != config.image_size:
        taken, wanted = ("x".join(map(str, each)) for each in (size, config.image_size))
        raise SourceError(f"The encoder takes photos of {taken} pixels, and the captioner's image_size is {wanted}.")
    work = out / "training"
    new_figure(1, 1)  # that matplotlib is missing should be known now, not after the first epoch
    data = json.dumps([[(photo.path.name, photo.captions) for photo in part] for part in (train_photos, dev_photos)])
    identity = fingerprint(encoder_variables(encoder), data.encode())
    _claim(out, work, [dataclasses.asdict(config), dataclasses.asdict(options), identity])
    vocabulary = learn_vocabulary([text for photo in train_photos for text in photo.captions], config.vocabulary_size)
    config = dataclasses.replace(config, vocabulary_size=len(vocabulary))
    captioner = build_captioner(config, vocabulary, encoder)
    train_pairs, dev_pairs = Pairs(captioner, train_photos, work), Pairs(captioner, dev_photos, work)
    uniform, marginal = captioner.output_layer.adapt(train_pairs.labels(COUNTED))
    report(f"Uniform entropy: {uniform:.2f}")
    report(f"Marginal entropy: {marginal:.2f}")
    build_weights(captioner)
    if initial is not None:
        _start_from(captioner, load_captioner(initial))
    return Run(work, captioner, train_pairs, dev_pairs)


def publish(best: Path, out: Path) -> Captioner:
    """Copy the best captioner of a run to where it was asked for; returns it."""
    for name in (WEIGHTS, VOCABULARY, CONFIG):  # the config last: it marks a finished captioner
        with new_file(out / name) as partial:
            shutil.copyfile(best / name, partial)
    return load_captioner(out)


def _claim(out: Path, work: Path, identity: list[Any]) -> None:
    """Start a run in `out`, or make sure that the one there is this one."""
    plan = json.dumps(identity)
    path = work / "plan.json"
    if (out / CONFIG).exists():
        raise OutputError(f"{out} holds a finished captioner; choose another --out or remove it.")
    if path.exists() and path.read_text() != plan:
        raise OutputError(
            f"{out} holds a training run with other options, photos or another encoder; "
            "choose another --out or remove it."
        )
    if not path.exists() and out.exists() and any(one != work for one in (*out.iterdir(), *_kept(work))):
        raise OutputError(f"{out} exists already and is not a training run; choose another --out.")
    work.mkdir(parents=True, exist_ok=True)
    for folder in (out, work):
        clear_partials(folder)
    with new_file(path) as partial:
        partial.write_text(plan)


def _kept(folder: Path) -> list[Path]:
    """What is in a folder, but for what a killed run left half-written."""
    return [path for path in folder.glob("*") if path.suffix != ".part"]


def _start_from(captioner: Captioner, initial: Captioner) -> None:
    if initial.tokenizer.get_vocabulary() != captioner.tokenizer.get_vocabulary():
        raise SourceError("The captioner to start from knows other words than this data set's.")
    given = decoder_variables(initial)
    for name, variable in decoder_variables(captioner).items():
        if name not in given or given[name].shape != variable.shape:
            raise SourceError(f"The captioner to start from is of another shape: {name} does not fit.")
        variable.assign(given[name])
