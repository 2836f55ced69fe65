"""Shared pieces: a tiny captioner with random weights, its bundles, the shipped captioner, data sets, a web."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings
from PIL import Image

from capexport.bundle import Bundle, read_bundle, write_bundle
from capexport.image import load_image
from capexport.recipes import RECIPES
from capexport.runtime.caption import Caption
from capexport.shipped import sample_photos
from capexport.tensorflow_setup import import_tensorflow
from tests.graphfiles import edit_tflite, unknown_operator
from tests.web import Web

if TYPE_CHECKING:
    from capexport.export.explanation import Choices
    from capexport.export.exporter import Exporter

if "PYTEST_XDIST_WORKER" in os.environ:
    import_tensorflow()  # sooner than by itself, as some of the tests' modules would
settings.register_profile("capexport", deadline=None)  # no test is a measure of time: machines are shared
settings.load_profile("capexport")
# A shell without job control has its background commands ignore Ctrl-C, and so all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

VARIANTS = [(to, recipe.name) for recipe in RECIPES.values() for to in recipe.formats]
FUSED = [(to, recipe, "fused") for to, recipe in VARIANTS]
CALIBRATION = 6  # photos, for tiny captioners: enough to go through every step of calibration
SCENES = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
TINY_WORDS = ["", "[UNK]", "a", "[START]", "[END]", *(f"word{i}" for i in range(25))]


def made_caption(words: list[str], maps: tuple[int, int, int, int] = (2, 2, 7, 7), seed: int = 0) -> Caption:
    """A caption of these words with random attention of (layers, heads, h, w) and random probabilities."""
    rng = np.random.default_rng(seed)
    weights = np.exp(1.5 * rng.standard_normal((len(words), *maps)))
    return Caption(
        text=" ".join(word for word in words if word != "[END]"),
        words=tuple(words),
        tokens=tuple(range(len(words))),
        log_probabilities=tuple(np.log(rng.uniform(0.01, 1, len(words))).tolist()),
        cross_attention=(weights / weights.sum(axis=(-2, -1), keepdims=True)).astype(np.float32),
    )


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    return sample_photos()


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(scope="session")
def lively_encoder(photos):
    """A 64-pixel encoder of random weights whose features vary with the photo: its batch norms know the photos."""
    import tensorflow as tf

    from capexport.captioner.backbone import build_backbone
    from capexport.captioner.distillation import estimate_statistics

    tf.keras.utils.set_random_seed(7)
    encoder = build_backbone("MobileNetV3Small", (64, 64), None)
    encoder.trainable = True
    estimate_statistics(encoder, [load_image(photo, (64, 64)) for photo in photos], batch=len(photos))
    encoder.trainable = False
    return encoder


@pytest.fixture(scope="session")
def tiny(lively_encoder):
    return tiny_captioner(lively_encoder)


def tiny_captioner(encoder: Any, **changes: Any) -> Any:
    """A captioner small enough to convert in seconds: 64 pixels, 2 layers, 2 heads, 16 units, 30 words.

    changes  in its config
    """
    import tensorflow as tf

    from capexport.captioner.config import CaptionerConfig
    from capexport.captioner.model import build_captioner
    from capexport.captioner.storage import build_weights

    tf.keras.utils.set_random_seed(7)
    sizes = {"image_size": (64, 64), "units": 16, "max_length": 9, "vocabulary_size": len(TINY_WORDS)}
    captioner = build_captioner(CaptionerConfig(**sizes | changes), TINY_WORDS, encoder)
    rng = np.random.default_rng(7)
    labels = rng.choice(len(TINY_WORDS), size=(500, 8), p=rng.dirichlet(np.ones(len(TINY_WORDS))))
    captioner.output_layer.adapt([np.concatenate([labels, np.full((500, 1), TINY_WORDS.index("[END]"))], axis=1)])
    build_weights(captioner)
    return captioner


@pytest.fixture(scope="session")
def tied(lively_encoder):
    """A tiny captioner whose words' vectors are the weights of their logits, too, and whose norms scale and shift."""
    import tensorflow as tf

    captioner = tiny_captioner(lively_encoder, tied_embeddings=True)
    captioner.seq_embedding.token_embedding.embeddings.assign(tf.random.stateless_normal((len(TINY_WORDS), 16), (7, 7)))
    captioner.output_layer.dense.bias.assign(tf.random.stateless_normal((len(TINY_WORDS),), (8, 8)))
    for layer in captioner.decoder_layers:
        layer.ff.layernorm.gamma.assign(tf.random.stateless_uniform((16,), (9, 9), 0.5, 1.5))
        layer.ff.layernorm.beta.assign(tf.random.stateless_normal((16,), (9, 9)))
    return captioner


@pytest.fixture(scope="session")
def tiny_source(tiny, tmp_path_factory) -> Path:
    import capexport

    directory = tmp_path_factory.mktemp("source") / "tiny"
    capexport.save_captioner(tiny, directory)
    return directory


class Bundles(dict[tuple[str, ...], Bundle]):
    """A captioner's bundles by format and recipe, each made when it is first asked for, by whichever process that is.

    There is no gate: random weights are quantised better or worse, as it happens. After the recipe there may be the
    word fused.

    root     where all processes of a test run find them
    choices  which precisions their layers got, by graph and step
    """

    def __init__(self, captioner: Any, photos: list[Path], root: Path) -> None:
        self._captioner, self._photos = captioner, photos
        self._root = root
        self._root.mkdir(exist_ok=True)
        self.choices: dict[tuple[str, ...], Choices] = {}

    def __missing__(self, variant: tuple[str, ...]) -> Bundle:
        name = "-".join(variant)
        choices = self._root / f"{name}.choices"
        with FileLock(self._root / f"{name}.lock"):
            if not choices.exists():
                to, recipe, *fused = variant
                export = self._exporter.export(to, recipe, fused=fused == ["fused"])
                export.write(self._root / name, gate=False)
                choices.write_bytes(pickle.dumps(export.choices))
        self.choices[variant] = pickle.loads(choices.read_bytes())
        self[variant] = read_bundle(self._root / name)
        return self[variant]

    @cached_property
    def _exporter(self) -> Exporter:
        from capexport.export.exporter import Exporter

        return Exporter(self._captioner, self._photos)


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder for what the processes of a test run make for each other."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def tiny_bundles(tiny, photos, shared) -> Bundles:
    return Bundles(tiny, photos[:CALIBRATION], shared / "tiny")


@pytest.fixture
def tiny_bundle(tiny_bundles) -> Bundle:
    return tiny_bundles["onnx", "fp32"]


@pytest.fixture(scope="session")
def refused(tiny_bundles, tmp_path_factory) -> Bundle:
    """A bundle whose engine cannot load it, correctly signed."""
    bundle = tiny_bundles["tflite", "fp32"]
    name = bundle.manifest.graphs["decoder"].file
    files = {**bundle.files, name: edit_tflite(bundle.files[name], unknown_operator)}
    return write_bundle(tmp_path_factory.mktemp("refused") / "refused", bundle.manifest, files)


@pytest.fixture(scope="session")
def shipped():
    """The captioner that ships, live."""
    import capexport

    return capexport.load_captioner()


@pytest.fixture(scope="session")
def shipped_bundles(shipped, shared) -> Bundles:
    return Bundles(shipped, [], shared / "shipped")


@pytest.fixture
def small_flickr8k(tmp_path) -> Path:
    """18 train and 6 dev photos, each of one colour, which its five captions name."""
    root = tmp_path / "flickr8k"
    (root / "Flicker8k_Dataset").mkdir(parents=True)
    (root / "Flickr8k_text").mkdir()
    rng = np.random.default_rng(0)
    lines, names = [], []
    for i in range(24):
        colour = list(SCENES)[i % 3]
        name = f"{i:04d}_photo.jpg"
        pixels = np.clip(np.array(SCENES[colour]) + rng.normal(0, 10, (80, 80, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "Flicker8k_Dataset" / name)
        texts = ["A {} wall .", "There is a {} wall", "the wall is {} !", "A plain {} colour", "{}"]
        lines += [f"{name}#{k}\t{text.format(colour)}" for k, text in enumerate(texts)]
        names.append(name)
    (root / "Flickr8k_text/Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    (root / "Flickr8k_text/Flickr_8k.trainImages.txt").write_text("\n".join(names[:18]) + "\n")
    (root / "Flickr8k_text/Flickr_8k.devImages.txt").write_text("\n".join(names[18:]) + "\n")
    return root


@pytest.fixture(scope="session")
def flickr8k() -> Path:
    """The folder of Flickr8k, which cannot ship with the project."""
    data = os.environ.get("CAPEXPORT_DATA")
    if not data:
        pytest.skip("CAPEXPORT_DATA names no folder with flickr8k/ in it")
    return Path(data) / "flickr8k"
