"""The folder that peers load from: made once, before any of them starts, from one captioner.

task.json and pixels.npy are there always; everything else is made for the peers that name it in the registry.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import capexport
from capexport.captioner.reference import references
from capexport.errors import OptionError
from capexport.export.exporter import Exporter, source_fingerprint
from capexport.progress import track
from capexport.vocabulary import END, START

from .base import Pixels, Task, reason
from .registry import BUNDLES, Entry

MAKERS = {  # the functions (captioner, path) that make the other files
    **{f"{part}.onnx": (".plain", "to_onnx") for part in ("whole", "encoder", "decoder")},
    **{f"{part}.tflite": (".plain", "to_tflite") for part in ("whole", "encoder", "decoder")},
    "features.onnx": (".cross", "export_features"),
    "anew.onnx": (".cross", "export_anew"),
    "projections.onnx": (".cross", "export_projections"),
    "attending.onnx": (".cross", "export_attending"),
    "network.npz": (".network", "save_network"),
}


def make_folder(
    folder: Path,
    captioner: Any,
    source: Path | None,
    pixels: Sequence[Pixels],
    entries: Iterable[Entry],
    bundles: Path | None = None,
) -> tuple[list[list[int]], dict[str, str]]:
    """Fill the folder with what these peers load.

    source   the captioner's directory, None: the one that ships
    bundles  where bundles are, or are made where they are not; None: in the folder, too

    Returns Keras' words for each photo, as ids without [START] and [END], and by name why a peer's files could not be
    made. Raises OptionError for a bundle of another captioner.
    """
    words, places = captioner.tokenizer.get_vocabulary(), captioner.seq_embedding.pos_embedding.input_dim
    where = None if source is None else str(source.resolve())
    kept = (bundles or folder).resolve()
    task = Task(where, str(kept), words.index(START), words.index(END), places)
    (folder / "task.json").write_text(json.dumps(dataclasses.asdict(task)), encoding="utf-8")
    np.save(folder / "pixels.npy", np.stack(pixels))
    errors: dict[str, str] = {}
    made: dict[str, str] = {}  # files, and why they could not be made
    wanted = [(entry.name, name) for entry in entries for name in entry.files]
    for peer, name in track(wanted, len(wanted), "preparing"):
        if name not in made:
            made[name] = _bundle(captioner, kept / name) if name in BUNDLES else _file(captioner, folder / name)
        if made[name]:
            errors[peer] = made[name]
    said = [vector.tokens.tolist() for vector in references(captioner, pixels)]
    return [[token for token in tokens if token != task.end] for tokens in said], errors


def _file(captioner: Any, path: Path) -> str:
    """Make a file; why it could not be made, or nothing."""
    module, function = MAKERS[path.name]
    try:
        getattr(importlib.import_module(module, __package__), function)(captioner, path)
    except Exception as error:  # whatever a converter raises is a result of the comparison, too
        return reason(error)
    return ""


def _bundle(captioner: Any, path: Path) -> str:
    """Convert a bundle, or look whether the one that is there is this captioner's; why it could not be made."""
    if path.exists():
        if capexport.read_bundle(path).manifest.source_sha256 != source_fingerprint(captioner):
            raise OptionError(f"The bundle {path} was made from another captioner; name another folder of bundles.")
        return ""
    try:
        _exporter(captioner).export(*BUNDLES[path.name]).write(path, gate=False)
    except capexport.CapexportError as error:
        return str(error)
    return ""


@functools.cache
def _exporter(captioner: Any) -> Exporter:
    """One for all bundles, since it keeps what it has measured of the captioner."""
    return Exporter(captioner)
