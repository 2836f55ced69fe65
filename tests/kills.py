"""Kills runs again and again, with SIGKILL, and looks what the next run makes of what is left.

    python -m tests.kills [train] [cache] [convert] [caption] [--kills 100] [--signal KILL] [--seed 1] [--json]

train    `capexport train` of a tiny captioner on a folder of small photos
cache    the features of photos that training keeps
convert  `capexport convert`, half of the time over a bundle that is there already, with --force
caption  a folder of photos captioned into .jsonl or .csv, with sidecars and XMP packets, with --resume

So many kills of each, half of them at a random time, half just before a random one of the run's changes to files
(opening one to write, renaming, removing), where half-done work is likeliest. After each kill whatever lies under a
final name must be whole. After some kills a run is left in peace: it must end well, with what an undisturbed run makes,
and leave no other file. With --signal INT (Ctrl-C) a run itself must leave nothing half-written, and end with exit code
130. The exit code is 1 otherwise.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SCENES = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
PHOTOS = 12
PEACE = 0.2  # the share of runs that are not killed
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "shutil.rmtree"}
HANG = 600  # seconds
INTERRUPTED = 130


@dataclass
class Tally:
    """What became of the runs of one kind."""

    kills: int = 0
    at_events: int = 0
    ended: int = 0  # in peace
    seconds: float = 0.0


class WrongError(Exception):
    """What is half-written, other than it should be, or in the way."""


def changes(event: str, arguments: tuple[object, ...]) -> bool:
    """Whether an audit event is about to change a file."""
    if event == "open":
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
    return event in EVENTS


def forked(
    run: Callable[[], int], delay: float | None = None, event: int | None = None, kill: signal.Signals = signal.SIGKILL
) -> tuple[int, int]:
    """Run it in a fork, killed after so many seconds or just before its so-manieth change of a file.

    Returns the exit status as of os.waitpid, and how many changes there were (of one that was not killed).
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        code, count = 70, 0

        def counted(name: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if changes(name, arguments):
                count += 1
                if count == event:
                    os.kill(os.getpid(), kill)

        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            log = os.open(os.environ.get("KILLS_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 2)
            sys.addaudithook(counted)
            code = run()
            os.write(writer, str(count).encode())
        finally:
            os._exit(code)
    os.close(writer)
    began, sent = time.monotonic(), False
    with os.fdopen(reader, "rb") as said:
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            passed = time.monotonic() - began
            if passed > HANG + (delay or 0):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise WrongError(f"A run hangs: {HANG} s.")
            if delay is not None and passed > delay and not sent:
                os.kill(child, kill)
                sent = True
            time.sleep(0.002)
        return status, int(said.read() or 0)


class Scenario(ABC):
    """A run that is killed; each method but `reset` and `check` is called in forks, for TensorFlow cannot be forked."""

    def __init__(self, folder: Path, rng: np.random.Generator, kill: signal.Signals = signal.SIGKILL) -> None:
        self.folder, self.rng, self.kill = folder, rng, kill

    @abstractmethod
    def reset(self) -> None:
        """Begin anew: nothing is left of the last series of runs."""

    @abstractmethod
    def run(self) -> int:
        """The run, and its exit code."""

    @abstractmethod
    def check(self) -> None:
        """Raise WrongError if anything under a final name is not whole."""

    @abstractmethod
    def done(self) -> dict[str, bytes]:
        """What there is after a run that ended, by name: the same each time."""

    def attempt(self, kill: bool, length: float, events: int) -> tuple[bool, bool]:
        """One run and its check: whether it was killed, and whether that was at an event."""
        at_event = kill and self.rng.random() < 0.5
        delay = float(self.rng.uniform(0, length)) if kill and not at_event else None
        event = int(self.rng.integers(1, events + 1)) if at_event else None
        status, _ = forked(self.run, delay, event, self.kill)
        interrupted = self.kill == signal.SIGINT and status == INTERRUPTED << 8
        killed = os.WIFSIGNALED(status) or interrupted
        if not killed and status:
            raise WrongError(f"A run ends with {os.waitstatus_to_exitcode(status)}.")
        if interrupted:
            left = [path for path in self.folder.rglob(".*") if path.name.endswith((".part", ".old"))]
            if left:
                raise WrongError(f"A run that was interrupted leaves {left[0]}.")
        self.check()
        return killed, at_event


def series(scenario: Scenario, kills: int) -> Tally:
    """Runs that are killed so many times in all, with one that ends after some."""
    tally, began = Tally(), time.monotonic()
    scenario.reset()
    started = time.monotonic()
    status, events = forked(scenario.run)
    length = time.monotonic() - started
    if status:
        raise WrongError(f"An undisturbed run ends with {os.waitstatus_to_exitcode(status)}.")
    scenario.check()
    expected = scenario.done()
    scenario.reset()
    while tally.kills < kills:
        kill = bool(scenario.rng.random() > PEACE)
        killed, at_event = scenario.attempt(kill, length, events)
        tally.kills += killed
        tally.at_events += killed and at_event
        if not killed:
            found = scenario.done()
            odd = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
            if odd:
                raise WrongError(f"After a run that ended, other than undisturbed: {', '.join(odd)[:500]}.")
            tally.ended += 1
            scenario.reset()
    tally.seconds = round(time.monotonic() - began, 1)
    return tally


def command(*words: object) -> int:
    """The command line, in this process."""
    from capexport.cli.main import main

    return main([str(word) for word in words])


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if not path.is_dir()}


def empty(folder: Path) -> None:
    """Make it, with nothing in it."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


class Train(Scenario):
    """Epochs by epochs."""

    def reset(self) -> None:
        empty(self.folder / "trained")

    def run(self) -> int:
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
            import shutil

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
            import shutil

            shutil.copytree(self.folder / "bundles/bundle", self.folder / "old")
        return found


class Folder(Scenario):
    """Captions of a folder; half of the time a table."""

    suffix = ".csv"

    def reset(self) -> None:
        import shutil

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help=f"of {', '.join(SCENARIOS)} (default: all)")
    parser.add_argument("--kills", type=int, default=100, help="of each (default: 100)")
    parser.add_argument("--signal", choices=("KILL", "INT"), default="KILL")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object a kind and line")
    parsed = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Imported once, and not used in this process: a fork then begins with its own TensorFlow.
    __import__("capexport.export.convert")
    __import__("capexport.captioner.training")
    __import__("capexport.cli.caption")
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepared(folder)
        for name in parsed.what or SCENARIOS:
            kinds = SCENARIOS[name]
            for kind in kinds:
                scenario = kind(folder, np.random.default_rng(parsed.seed), signal.Signals[f"SIG{parsed.signal}"])
                try:
                    tally = series(scenario, -(-parsed.kills // len(kinds)))
                except WrongError as error:
                    failed = True
                    print(f"{kind.__name__}: {error}", file=sys.stderr)
                    continue
                said = f"{tally.kills} kills, {tally.at_events} of them at a change of a file; {tally.ended} runs ended"
                line = {"what": kind.__name__, **vars(tally)}
                print(
                    json.dumps(line) if parsed.json else f"{kind.__name__}: {said}; {tally.seconds:.0f} s", flush=True
                )
    return failed


if __name__ == "__main__":
    sys.exit(main())
