"""Runs that are killed: training, its cache, conversions, folders of captions."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from .series import Scenario, WrongError, forked

SCENES = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
PHOTOS = 12


def command(*words: object) -> int:
    """The command line, in this process."""
    from capexport.cli.main import main

    return main([str(word) for word in words])


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if not path.is_dir()}


def empty(folder: Path) -> None:
    """Make it, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


class Train(Scenario):
    """Epochs by epochs."""

    def reset(self) -> None:
        empty(self.folder / "trained")

    def run(self) -> int:
        if (self.folder / "trained/out/config.json").exists():
            return 0  # the signal came after the captioner was there, and the command refuses to make it anew
        small = ["--image-size", 64, "--num-layers", 1, "--units", 16, "--vocabulary-size", 20, "--max-length", 8]
        quick = ["--epochs", 4, "--batch", 4, "--steps-per-epoch", 2, "--validation-steps", 1, "--patience", 9]
        data = ["--dataset", "folder", "--data", self.folder / "data", "--out", self.folder / "trained/out"]
        return command("train", *data, "--encoder-weights", self.folder / "encoder.weights.h5", *small, *quick)

    def check(self) -> None:
        for one in (self.folder / "trained/out", self.folder / "trained/out/training/best"):
            if (one / "config.json").exists():
                status, _ = forked(lambda one=one: self._loads(one))
                if status:
                    raise WrongError(f"{one} is there, and cannot be loaded.")

    def _loads(self, directory: Path) -> int:
        from capexport import load_captioner

        load_captioner(directory)
        return 0

    def done(self) -> dict[str, bytes]:
        out = self.folder / "trained/out"
        epochs = [one["epoch"] for one in json.loads((out / "training/history.json").read_text())]
        if epochs != [1, 2, 3, 4]:
            raise WrongError(f"The history has the epochs {epochs}.")
        found = files(self.folder / "trained")
        # Losses, and what comes of them, differ with the moment at which a run went on; names do not.
        return {name: b"" for name in found if "checkpoints" not in name}


class Cache(Scenario):
    """Features of photos, two a file."""

    def reset(self) -> None:
        empty(self.folder / "cache")

    def run(self) -> int:
        from capexport.captioner import features
        from capexport.captioner.backbone import build_backbone

        features.SHARD = 2
        encoder = build_backbone("MobileNetV3Small", (64, 64), str(self.folder / "encoder.weights.h5"))
        photos = sorted((self.folder / "data").glob("*.jpg"))
        cache = features.FeatureCache(self.folder / "cache", encoder, "bilinear", photos)
        return 0 if cache.take(range(PHOTOS)).shape[0] == PHOTOS else 1

    def check(self) -> None:
        for path in (self.folder / "cache").rglob("features-*.npy"):
            if np.load(path, allow_pickle=False).shape[0] != 2:
                raise WrongError(f"{path} is not whole.")

    def done(self) -> dict[str, bytes]:
        return files(self.folder / "cache")


class Convert(Scenario):
    """A bundle, new or over an old one."""

    def reset(self) -> None:
        empty(self.folder / "bundles")
        if (self.folder / "old").exists() and self.rng.random() < 0.5:
            shutil.copytree(self.folder / "old", self.folder / "bundles/bundle")

    def run(self) -> int:
        return command("convert", self.folder / "source", "--out", self.folder / "bundles/bundle", "--force")

    def check(self) -> None:
        from capexport import CapexportError, read_bundle

        if (self.folder / "bundles/bundle").exists():
            try:
                read_bundle(self.folder / "bundles/bundle")
            except CapexportError as error:
                raise WrongError(str(error)) from error

    def done(self) -> dict[str, bytes]:
        found = files(self.folder / "bundles")
        if not (self.folder / "old").exists():
            shutil.copytree(self.folder / "bundles/bundle", self.folder / "old")
        return found


class Folder(Scenario):
    """Captions of a folder; half of the time a table."""

    suffix = ".csv"

    def reset(self) -> None:
        empty(self.folder / "captions")
        shutil.copytree(self.folder / "many", self.folder / "captions/photos")

    def run(self) -> int:
        folder = self.folder / "captions"
        where = ["--bundle", self.folder / "old", "--threads", 1, "--batch", 4, "--out", folder / f"out{self.suffix}"]
        return command("caption", folder / "photos", *where, "--resume", "--sidecar", "--xmp")

    def check(self) -> None:
        folder = self.folder / "captions"
        for path in (folder / "photos").iterdir():
            if path.name.startswith("."):
                continue
            whole = {".txt": b"\n", ".xmp": b'<?xpacket end="w"?>\n'}.get(path.suffix)
            if whole is not None and not path.read_bytes().endswith(whole):
                raise WrongError(f"{path} is not whole.")
        table = folder / "out.csv"
        if table.exists() and len(list(csv.reader(table.open(newline="")))) != 1 + len(
            list((self.folder / "many").iterdir())
        ):
            raise WrongError(f"{table} is not whole.")

    def done(self) -> dict[str, bytes]:
        return files(self.folder / "captions")


class Lines(Folder):
    """The same into .jsonl."""

    suffix = ".jsonl"


SCENARIOS = {"train": (Train,), "cache": (Cache,), "convert": (Convert,), "caption": (Folder, Lines)}


def prepared(folder: Path) -> None:
    """Photos with captions, an encoder, a captioner and a bundle of it, as small as can be."""
    rng = np.random.default_rng(0)
    for name in ("data", "many"):
        (folder / name).mkdir()
        for k in range(PHOTOS if name == "data" else 5 * PHOTOS):
            colour = list(SCENES.values())[k % 3]
            pixels = np.clip(np.array(colour) + rng.normal(0, 30, (80, 80, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{k:03d}.jpg")
    with (folder / "data/captions.csv").open("w", newline="") as file:
        rows = [(f"{k:03d}.jpg", f"a {list(SCENES)[k % 3]} wall", "dev" if k < 4 else "train") for k in range(PHOTOS)]
        csv.writer(file).writerows([("file_name", "caption", "split"), *rows])

    def make() -> int:
        import tensorflow as tf

        import capexport
        from capexport.captioner.backbone import build_backbone
        from capexport.captioner.config import CaptionerConfig
        from capexport.captioner.model import build_captioner
        from capexport.captioner.storage import build_weights

        tf.keras.utils.set_random_seed(7)
        encoder = build_backbone("MobileNetV3Small", (64, 64), None)
        encoder.save_weights(folder / "encoder.weights.h5", save_format="h5")
        words = ["", "[UNK]", "a", "[START]", "[END]", *(f"word{i}" for i in range(25))]
        config = CaptionerConfig(image_size=(64, 64), units=16, max_length=9, vocabulary_size=len(words))
        captioner = build_captioner(config, words, encoder)
        captioner.output_layer.adapt([np.tile(np.arange(len(words)), (8, 1))])
        build_weights(captioner)
        capexport.save_captioner(captioner, folder / "source")
        capexport.convert(folder / "source", folder / "old")
        return 0

    status, _ = forked(make)
    if status:
        raise WrongError(f"What is to be killed cannot be made: {os.waitstatus_to_exitcode(status)}.")
