"""A bundle on disk: a flat directory with a manifest, graphs, the vocabulary and parity vectors.

Reading checks everything before any engine sees a byte, and the engines get the very bytes that were checked.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .atomic import new_directory
from .errors import BundleError, VocabularyError
from .manifest import CAPTIONER, MANIFEST, MAX_BYTES, PARITY, VOCABULARY, File, Manifest, parse_manifest
from .plain import quoted, read_plain, shortened
from .sense import MOST, check_sense
from .structure import check_archive, check_graph
from .vocabulary import BANNED, Vocabulary

MAX_FILE = 2**31  # bytes, which graphs' formats cannot have more of
MAX_VOCABULARY = 2**26
MAX_NAME = 255  # characters of a file's name, as of file systems


@dataclass(frozen=True)
class Bundle:
    """A checked bundle: where it lies, its manifest, its vocabulary and its files' bytes."""

    directory: Path
    manifest: Manifest
    vocabulary: Vocabulary
    files: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"<Bundle {self.label} at {self.directory}>"

    def graph(self, name: str) -> bytes:
        """The bytes of the file of the graph "encoder", "decoder" or, where there is one, "captioner"."""
        return self.files[self.manifest.graphs[name].file]

    @property
    def label(self) -> str:
        """The format and recipe, and whether it is fused, after the directory's name where that says something else."""
        fused = " fused" if CAPTIONER in self.manifest.graphs else ""
        variant = f"{self.manifest.format} {self.manifest.recipe}{fused}"
        return variant if self.directory.name == variant.replace(" ", "-") else f"{self.directory.name} ({variant})"

    @property
    def graph_bytes(self) -> int:
        """Bytes of the graphs' files on disk."""
        return sum(self.manifest.files[file].bytes for file in {graph.file for graph in self.manifest.graphs.values()})

    @property
    def size(self) -> int:
        """Bytes on disk, without the manifest."""
        return sum(file.bytes for file in self.manifest.files.values())


def banned_ids(vocabulary: Vocabulary) -> list[int]:
    """The ids that no caption may contain."""
    return [vocabulary.words.index(word) for word in BANNED]


def write_bundle(directory: Path, manifest: Manifest, files: Mapping[str, bytes], force: bool = False) -> Bundle:
    """Write a bundle, whole or not at all, and read it back; `manifest.files` is filled in here.

    Raises OutputError if the directory exists (with force: if it is not a bundle) or cannot be written.
    """
    listed = {name: File(hashlib.sha256(data).hexdigest(), len(data)) for name, data in sorted(files.items())}
    manifest = dataclasses.replace(manifest, files=listed)
    with new_directory(directory, mark=MANIFEST, force=force) as partial:
        for name, data in files.items():
            (partial / name).write_bytes(data)
        (partial / MANIFEST).write_text(manifest.to_json(), encoding="utf-8", newline="\n")
        read_bundle(partial)
    return read_bundle(directory)


def read_bundle(directory: str | Path) -> Bundle:
    """Read and check a bundle; raises BundleError with what is wrong and in which file."""
    directory = Path(directory)
    there = _listed(directory)
    manifest = parse_manifest(_read(directory / MANIFEST, MAX_BYTES))
    _check_names(directory, manifest, there)
    files = {name: _read_checked(directory / name, file) for name, file in manifest.files.items()}
    vocabulary = _vocabulary(directory, files[VOCABULARY], manifest.shape.vocabulary)
    check_sense(manifest, vocabulary)
    check_archive(files[PARITY], f"{directory / PARITY}")
    for name in sorted({graph.file for graph in manifest.graphs.values()}):
        check_graph(manifest.format, files[name], str(directory / name))
    return Bundle(directory, manifest, vocabulary, files)


def _listed(directory: Path) -> set[str]:
    """The names of a directory's files."""
    try:
        if directory.is_dir():
            return set(os.listdir(directory))
    except OSError as error:  # is_dir raises it, too, e.g. for a path that is too long
        raise BundleError(f"{shortened(directory)} cannot be read: {error.strerror}.") from error
    raise BundleError(f"There is no bundle at {directory}.")


def _vocabulary(directory: Path, text: bytes, words: int) -> Vocabulary:
    if text.count(b"\n") > min(words, MOST["vocabulary"]):  # before they are made, for millions take long
        raise BundleError(f"The bundle {directory} has more words in its vocabulary than its manifest or any may have.")
    try:
        return Vocabulary.from_text(text.decode("utf-8"))
    except (VocabularyError, UnicodeDecodeError) as error:
        raise BundleError(f"The bundle {directory} has an unusable {VOCABULARY}: {error}") from error


def _check_names(directory: Path, manifest: Manifest, there: set[str]) -> None:
    for name in manifest.files:
        odd = any(sign in name for sign in "/\\:\0") or not name.isprintable() or len(name) > MAX_NAME
        if odd or name in ("", ".", "..", MANIFEST):
            raise BundleError(f"The bundle {directory} names a file {quoted(name)}, which is not a bare file name.")
    needed = {VOCABULARY, PARITY, *(graph.file for graph in manifest.graphs.values())}
    if manifest.graphs.keys() - {CAPTIONER} != {"encoder", "decoder"} or not needed <= manifest.files.keys():
        raise BundleError(f"The bundle {directory} lacks a graph, {VOCABULARY} or {PARITY} in its manifest.")
    missing, extra = manifest.files.keys() - there, there - manifest.files.keys() - {MANIFEST}
    if missing:
        raise BundleError(f"The bundle {directory} lacks the file {sorted(missing)[0]}; copy or convert it again.")
    if extra:
        raise BundleError(f"The bundle {directory} has a file that is not in its manifest: {quoted(sorted(extra)[0])}.")


def _read_checked(path: Path, expected: File) -> bytes:
    most = MAX_VOCABULARY if path.name == VOCABULARY else MAX_FILE
    if expected.bytes > most:
        raise BundleError(f"{path} is to have {expected.bytes} bytes; a bundle's may have {most}.")
    data = _read(path, expected.bytes + 1)
    if len(data) != expected.bytes or hashlib.sha256(data).hexdigest() != expected.sha256:
        raise BundleError(f"{path} is damaged: it is not the file its manifest describes; copy or convert it again.")
    return data


def _read(path: Path, most: int) -> bytes:
    try:
        return read_plain(path, most, links=False)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from error
