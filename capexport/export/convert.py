"""convert: from a captioner, on disk or live, to a bundle."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..atomic import check_absent
from ..bundle import Bundle, special_tokens, write_bundle
from ..captioner.config import CaptionerConfig
from ..captioner.measures import image_size, measure
from ..captioner.reference import references
from ..captioner.storage import load_captioner
from ..captioner.weights import decoder_variables, encoder_variables, fingerprint, output_bias
from ..errors import MissingExtraError
from ..image import Pixels, load_image
from ..manifest import PARITY, SCHEMA, VOCABULARY, Manifest, Preprocessing
from ..parity_vectors import pack
from ..recipes import FORMATS, check_recipe
from ..shipped import sample_photos
from ..vocabulary import Vocabulary
from .check import check_split
from .graphs import ONNX, TFLITE, DecoderGraph, EncoderGraph, describe

PARITY_PHOTOS = 3
TOOLS = {"onnx": ("tensorflow", "tf2onnx", "onnx"), "tflite": ("tensorflow", "ai-edge-quantizer")}


def convert(
    source: str | os.PathLike[str] | Any,
    out: str | os.PathLike[str],
    to: str = "onnx",
    recipe: str = "fp32",
    force: bool = False,
) -> Bundle:
    """Export a captioner to a new bundle directory and return the bundle.

    source  the directory of a source captioner, a live captioner with the tutorial's attributes, or None for
            the captioner that ships
    to, recipe  one of recipes.FORMATS and of recipes.RECIPES
    force   replace a bundle that is there already

    Raises OptionError for a recipe the format lacks, OutputError if `out` is in the way, SourceError for a
    captioner that cannot be read, MissingExtraError for a package that is not installed.
    """
    check_recipe(to, recipe)
    check_absent(Path(out), force)
    export, quantize = _exporter(to)
    captioner = _captioner(source)
    shape = measure(captioner)
    preprocessing = _preprocessing(captioner)
    vocabulary = Vocabulary.from_words(captioner.tokenizer.get_vocabulary())
    vectors = list(references(captioner, _parity_pixels(preprocessing)))
    check_split(captioner, vocabulary.start, vectors)
    quantized = recipe == "dynamic-int8"
    dialect = {"onnx": ONNX, "tflite": TFLITE}[to]
    modules: dict[str, Any] = {
        "encoder": EncoderGraph(captioner),
        "decoder": DecoderGraph(captioner, dialect, int8_embedding=quantized),
    }
    suffix = FORMATS[to].suffix
    graphs = {name: export(module) for name, module in modules.items()}
    if quantized:
        graphs = {name: quantize(graph, name) for name, graph in graphs.items()}
    files = {
        VOCABULARY: vocabulary.to_text().encode(),
        PARITY: pack(vectors),
        **{name + suffix: graph for name, graph in graphs.items()},
    }
    manifest = Manifest(
        schema=SCHEMA,
        format=to,
        recipe=recipe,
        shape=shape,
        preprocessing=preprocessing,
        special_tokens=special_tokens(vocabulary),
        graphs={name: describe(module.function, name + suffix) for name, module in modules.items()},
        files={},
        made_with={name: importlib.metadata.version(name) for name in ("capexport", *TOOLS[to])},
        source_sha256=source_fingerprint(captioner),
    )
    return write_bundle(Path(out), manifest, files, force=force)


def source_fingerprint(captioner: Any) -> str:
    """The hash (sha256, hexadecimal) of a live captioner's weights and words that a manifest states."""
    return fingerprint(
        encoder_variables(captioner.feature_extractor) | decoder_variables(captioner),
        output_bias(captioner).tobytes(),
        Vocabulary.from_words(captioner.tokenizer.get_vocabulary()).to_text().encode(),
    )


def _exporter(to: str) -> tuple[Callable[[Any], bytes], Callable[[bytes, str], bytes]]:
    try:
        if to == "onnx":
            from .onnx import export_onnx, quantize_onnx

            return export_onnx, quantize_onnx
        from .tflite import export_tflite, quantize_tflite

        return export_tflite, quantize_tflite
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or to, f"convert,{FORMATS[to].extra}") from error


def _captioner(source: Any) -> Any:
    return load_captioner(source) if source is None or isinstance(source, str | os.PathLike) else source


def _preprocessing(captioner: Any) -> Preprocessing:
    """As the captioner was trained; a notebook's own model resized with tf.image.resize."""
    config = getattr(captioner, "config", None)
    resize = config.resize if isinstance(config, CaptionerConfig) else "bilinear"
    return Preprocessing(size=image_size(captioner), resize=resize)


def _parity_pixels(preprocessing: Preprocessing) -> list[Pixels]:
    return [load_image(path, preprocessing.size, preprocessing.resize) for path in sample_photos()[:PARITY_PHOTOS]]
