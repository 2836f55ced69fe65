"""Fuzzing of whatever reads bytes that others made, guided by coverage (atheris, which drives libFuzzer).

    python -m tests.attacks.fuzz TARGET BUNDLE... [--runs 20000 | --minutes 60] [--corpus DIR]
    python -m tests.attacks.fuzz all BUNDLE... [--runs 20000 | --minutes 60] [--corpus DIR]

BUNDLE gives the first inputs, of its own format; --corpus keeps what reaches further from one run to the next, for each
target in a folder of its own. What a target may raise is an error of capexport, in printable words; all else ends the
run with exit code 1 (libFuzzer's own: 77) and leaves the input as crash-... in the working directory.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

try:
    import atheris
except ModuleNotFoundError:  # which has wheels for Linux on x86-64 alone
    sys.exit("atheris is not installed; install it with: pip install 'capexport[dev]', on Linux, x86-64")

with atheris.instrument_imports(include=["capexport"]):
    import capexport.batch.journal
    import capexport.bundle
    import capexport.datasets.folder
    import capexport.image
    import capexport.manifest
    import capexport.parity.vectors
    import capexport.reach
    import capexport.sense
    import capexport.structure.archive
    import capexport.structure.jpeg
    import capexport.structure.onnx
    import capexport.structure.ort
    import capexport.structure.tflite
    import capexport.vocabulary
from capexport import CapexportError
from capexport.manifest import MANIFEST, PARITY, VOCABULARY
from capexport.structure.limits import MalformedError
from tests.web import jpeg

Target = Callable[[bytes], object]
SECONDS = 20  # for one input


@cache
def scratch() -> Path:
    """A folder for inputs that are read as files."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    (folder / "a.jpg").write_bytes(jpeg())
    return folder


def written(name: str, data: bytes) -> Path:
    """A file of these bytes."""
    path = scratch() / name
    path.write_bytes(data)
    return path


def manifest(data: bytes) -> None:
    """The manifest, against the vocabulary that it asks for."""
    parsed = capexport.manifest.parse_manifest(data)
    count = min(max(parsed.shape.vocabulary, 4), 1000)
    words = capexport.vocabulary.Vocabulary(("", "[UNK]", "[START]", "[END]", *(f"w{k}" for k in range(count - 4))))
    capexport.sense.check_sense(parsed, words)


def vocabulary(data: bytes) -> None:
    """A word list that is read is one that can be written, and printed."""
    words = capexport.vocabulary.Vocabulary.from_text(data.decode("utf-8", "surrogateescape"))
    assert capexport.vocabulary.Vocabulary.from_text(words.to_text()) == words
    assert "\x1b" not in words.to_text()


def vectors(data: bytes) -> None:
    """Vectors are unpacked against a manifest, which the first BUNDLE gives."""
    capexport.parity.vectors.unpack(data, BUNDLE.manifest)


def photo(data: bytes) -> None:
    """A photo, of the size that is asked for in the seed; as a notebook reads it if its last byte is odd."""
    odd = bool(data) and data[-1] % 2 == 1
    capexport.image.load_image(data, (16, 16), "bilinear" if odd else "bilinear-antialias")


def captions(data: bytes) -> None:
    """captions.csv or, after an N, captions.jsonl."""
    for other in ("captions.csv", "captions.jsonl"):
        (scratch() / other).unlink(missing_ok=True)
    written("captions.jsonl" if data[:1] == b"N" else "captions.csv", data[1:])
    for photo in capexport.datasets.folder.load_folder(str(scratch()), "train"):
        assert all(text.isprintable() for text in photo.captions)
        assert scratch() in photo.path.parents


def journal(data: bytes) -> None:
    """What is read of a journal can be written as a table."""
    from capexport.batch.tables import write_csv

    rows = list(capexport.batch.journal.read_rows(written("rows.jsonl", data)))
    write_csv(rows, scratch() / "rows.csv")


def address(data: bytes) -> None:
    """An address that is public is not of this machine."""
    text = data.decode("latin-1")
    try:
        public = capexport.reach.is_public(text)
    except ValueError:
        return
    assert not (public and re.match(r"(127|10|0|169\.254|192\.168)\.", text))


TARGETS: dict[str, Target] = {
    "manifest": manifest,
    "vocabulary": vocabulary,
    "onnx": capexport.structure.onnx.check,
    "ort": capexport.structure.ort.check,
    "tflite": capexport.structure.tflite.check,
    "archive": capexport.structure.archive.check,
    "vectors": vectors,
    "jpeg": lambda data: capexport.structure.jpeg.check(io.BytesIO(data[2:])),
    "photo": photo,
    "captions": captions,
    "journal": journal,
    "address": address,
}
BUNDLE: capexport.bundle.Bundle


def seeds(target: str, bundles: Iterable[Path]) -> Iterable[bytes]:
    """Inputs that pass, to begin with."""
    row = {"text": "a", "words": ["a"], "tokens": [1], "log_probabilities": [-1.0], "confidence": 0.5}
    rows = [{"path": "a.jpg", **row, "alternatives": [{**row, "alternatives": []}], "error": None, "run": "0"}]
    known = {
        "captions": [
            b"Cfile_name,caption,split\na.jpg,a dog,train\n",
            b'N{"file_name": "a.jpg", "caption": ["a dog"], "split": "train"}\n',
        ],
        "journal": ["".join(json.dumps(one) + "\n" for one in rows).encode()],
        "jpeg": [jpeg(1, side=16)],
        "photo": [jpeg(1, side=16), jpeg(1, side=16) + b"\0"],
        "address": [b"127.0.0.1", b"8.8.8.8", b"::ffff:10.0.0.1", b"fe80::1%eth0", b"64:ff9b::7f00:1"],
    }
    for bundle in bundles:
        files = {path.name: path.read_bytes() for path in bundle.iterdir()}
        yield from {
            "manifest": [files[MANIFEST]],
            "vocabulary": [files[VOCABULARY]],
            "archive": [files[PARITY], _small_archive()],
            "vectors": [files[PARITY]],
        }.get(target, [data for name, data in files.items() if name.endswith(f".{target}")])
    yield from known.get(target, [])


def _small_archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("0.tokens.npy", b"x" * 20)
    return stream.getvalue()


def guarded(target: Target) -> Target:
    """The target, whose errors are those that a user may see."""

    def once(data: bytes) -> None:
        try:
            target(data)
        except (CapexportError, MalformedError) as error:
            assert isinstance(error, MalformedError) or str(error).isprintable()

    return once


def fuzz(name: str, bundles: list[Path], runs: int, minutes: float, corpus: Path) -> None:
    """Fuzz one target; libFuzzer ends this process."""
    global BUNDLE
    BUNDLE = capexport.bundle.read_bundle(bundles[0])
    corpus.mkdir(parents=True, exist_ok=True)
    longest = 4096
    for k, seed in enumerate(seeds(name, bundles)):
        (corpus / f"seed-{k}").write_bytes(seed)
        longest = max(longest, len(seed))
    limits = [f"-max_total_time={int(60 * minutes)}"] if minutes else [f"-runs={runs}"]
    arguments = [f"-max_len={longest}", f"-timeout={SECONDS}", "-rss_limit_mb=4096", "-seed=1", "-verbosity=1"]
    atheris.Setup([sys.argv[0], *limits, *arguments, str(corpus)], guarded(TARGETS[name]))
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=("all", *TARGETS))
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--runs", type=int, default=20_000, help="of each target (default: 20000)")
    parser.add_argument("--minutes", type=float, default=0.0, help="for each target, in place of --runs")
    parser.add_argument("--corpus", type=Path, metavar="DIR")
    parsed = parser.parse_args()
    if parsed.target != "all":
        with tempfile.TemporaryDirectory() as folder:
            corpus = (parsed.corpus or Path(folder)) / parsed.target
            fuzz(parsed.target, parsed.bundles, parsed.runs, parsed.minutes, corpus)
    worst = 0
    for name in TARGETS:
        command = [sys.executable, "-m", "tests.attacks.fuzz", name, *sys.argv[2:]]
        done = subprocess.run(command, capture_output=True, text=True)
        said = re.search(r"Done (\d+) runs in (\d+) second", done.stderr)
        fine = said is not None and done.returncode == 0
        print(f"{name}: {f'{int(said[1]):,} runs, {said[2]} s' if said else ''}{'' if fine else ' FAILED'}", flush=True)
        if not fine:
            print(done.stderr[-3000:], file=sys.stderr)
            worst = 1
    return worst


if __name__ == "__main__":
    sys.exit(main())
