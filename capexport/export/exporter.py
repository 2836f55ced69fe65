"""A captioner on its way to bundles; what several formats and recipes have in common is done once."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, cast

from ..bundle import Bundle, write_bundle
from ..captioner.config import CaptionerConfig
from ..captioner.measures import image_size, measure
from ..captioner.reference import references
from ..captioner.weights import decoder_variables, encoder_variables, fingerprint, output_bias
from ..errors import MissingExtraError, QualityError
from ..image import Photo, Pixels, load_image
from ..manifest import CAPTIONER, PARITY, SCHEMA, VOCABULARY, Check, Graph, Manifest, Preprocessing
from ..parity.checks import whole_captions, within_bounds
from ..parity.comparison import compare_all
from ..parity.vectors import ParityVector, pack
from ..progress import track
from ..recipes import FORMATS, RECIPES, Bounds, Precision
from ..runtime.backend import Runner, Tensors
from ..runtime.captioner import load
from ..sense import special_tokens
from ..shipped import sample_photos
from ..vocabulary import Vocabulary
from .calibration import random_captions, sample_views, stretched_views
from .check import check_split
from .graphs import DecoderGraph, EncoderGraph, describe, describe_fused
from .layers import Format
from .lowering import Lowering, decode, encode, guess
from .sensitivity import Choice, Outputs

PARITY_PHOTOS = 3
CAPTIONED = 48  # the most photos that Keras captions: so many to learn the decoder's ranges, so many to measure
TRIED = 3  # every third of the photos to measure is used where layers are tried one by one


@dataclass(frozen=True)
class Export:
    """A bundle that is not written yet, and the layers' precisions by graph and step."""

    bundle: Bundle
    choices: dict[str, tuple[Choice, ...]]

    def write(self, out: Path, force: bool = False, gate: bool = True) -> Bundle:
        """Write the bundle; raises QualityError if it is outside its recipe's bounds, unless there is no gate."""
        failed = [check for check in self.bundle.manifest.gate if not check.holds]
        if gate and failed:
            found = "; ".join(f"{check.name} {check.found} ({check.allowed})" for check in failed)
            raise QualityError(
                f"The recipe {self.bundle.manifest.recipe} costs this captioner too much on the calibration photos: "
                f"{found}. To get the bundle anyway, convert without the gate (--no-gate)."
            )
        return write_bundle(out, self.bundle.manifest, self.bundle.files, force=force)


class Exporter:
    """Makes bundles of one live captioner.

    photos  for calibration. From one half of them ranges of activations are learnt; on the other half layers are tried
            out, and a recipe is measured. None: views of the photos that ship
    """

    def __init__(self, captioner: Any, photos: Sequence[Photo] = ()) -> None:
        self._captioner = captioner
        self._photos = photos
        self._shape = measure(captioner)
        self._preprocessing = _preprocessing(captioner)
        self._vocabulary = Vocabulary.from_words(captioner.tokenizer.get_vocabulary())
        photos = sample_photos()[:PARITY_PHOTOS]
        vectors = references(captioner, [self._load(p) for p in photos], [p.name for p in photos])
        self._vectors = [dataclasses.replace(one, vocabulary=self._vocabulary.sha256) for one in vectors]
        self._lowerings: dict[tuple[str, str, Precision], Lowering] = {}
        check_split(captioner, self._vocabulary.start, self._vectors)

    def export(self, to: str, recipe: str, fused: bool = False) -> Export:
        """A bundle of one of recipes.FORMATS and of recipes.RECIPES, measured on the calibration photos.

        fused  with a graph for whole captions, too
        """
        chosen, chosen_format, module = RECIPES[recipe], FORMATS[to], format_module(to)
        lowerings = {
            name: self._lowering(chosen_format.engine, name, chosen.precision(name)) for name in ("encoder", "decoder")
        }
        lowered = {name: lowering.lower(chosen.steps(name)) for name, lowering in lowerings.items()}
        finished = {name: module.finish(graph.model) for name, graph in lowered.items()}
        graphs = {name: lowering.graph for name, lowering in lowerings.items()}
        if fused:
            longest = self._shape.max_length
            whole = module.fuse(graphs, finished, self._vocabulary, longest)
            finished = {CAPTIONER: whole} if chosen_format.one_file else {**finished, CAPTIONER: whole}
            graphs[CAPTIONER] = describe_fused(graphs["encoder"], graphs["decoder"], longest, module.DIALECT)
        models = {name: module.write(model) for name, model in finished.items()}
        graphs = {
            name: dataclasses.replace(graph, file=(name if name in models else CAPTIONER) + chosen_format.suffix)
            for name, graph in graphs.items()
        }
        files = {
            VOCABULARY: self._vocabulary.to_text().encode(),
            PARITY: pack([_of_outputs(vector, graphs["encoder"]) for vector in self._vectors]),
            **{name + chosen_format.suffix: model for name, model in models.items()},
            **module.companions(models),
        }
        manifest = Manifest(
            schema=SCHEMA,
            format=to,
            recipe=recipe,
            shape=self._shape,
            preprocessing=self._preprocessing,
            special_tokens=special_tokens(self._vocabulary),
            graphs=graphs,
            files={},
            gate=(),
            made_with={name: importlib.metadata.version(name) for name in ("capexport", *module.TOOLS)},
            source_sha256=source_fingerprint(self._captioner),
        )
        bundle = Bundle(Path(f"{to}-{recipe}{'-fused' * fused}"), manifest, self._vocabulary, files)
        manifest = dataclasses.replace(manifest, gate=tuple(self._measured(bundle, chosen.bounds)))
        choices = {name: graph.choices for name, graph in lowered.items()}
        return Export(dataclasses.replace(bundle, manifest=manifest), choices)

    def _measured(self, bundle: Bundle, bounds: Bounds) -> list[Check]:
        captioner = load(bundle)
        parity = compare_all(captioner, self._measured_on)
        whole = whole_captions(captioner, [photo.pixels for photo in self._measured_on])
        return [Check("photos", str(len(self._measured_on))), *within_bounds(parity, bounds), *whole]

    @cached_property
    def _learnt_from(self) -> list[ParityVector]:
        """Photos with Keras' captions, and each once more with words drawn at random."""
        captioned = self._captioned(self._photos_to_learn_from)
        return [*captioned, *random_captions(captioned, output_bias(self._captioner))]

    @cached_property
    def _measured_on(self) -> list[ParityVector]:
        """Other photos with Keras' captions."""
        photos = [self._load(photo) for photo in self._photos[1::2]]
        return self._captioned(photos or sample_views(self._preprocessing))

    @cached_property
    def _photos_to_learn_from(self) -> list[Pixels]:
        photos = [self._load(photo) for photo in self._photos[::2]]
        return photos or stretched_views(self._preprocessing)

    def _captioned(self, photos: Sequence[Pixels]) -> list[ParityVector]:
        some = photos[:: -(-len(photos) // CAPTIONED)]
        engine = next(iter(self._lowerings))[0]  # any will do
        encoder, decoder = (self._lowering(engine, name, Precision.FLOAT) for name in ("encoder", "decoder"))
        guesses = guess(encoder, decoder, some, self._vocabulary, self._shape.max_length)
        return list(track(references(self._captioner, some, guesses=guesses), len(some), "captioning with Keras"))

    def _lowering(self, to: str, name: str, precision: Precision) -> Lowering:
        words = _of_embeddings(precision) if name == "decoder" else Precision.FLOAT
        key = (to, name, words)
        if key not in self._lowerings:
            self._lowerings[key] = self._encoder(to) if name == "encoder" else self._decoder(to, words)
        return self._lowerings[key]

    def _encoder(self, to: str) -> Lowering:
        def try_out(run: Runner) -> list[Outputs]:
            tried = self._measured_on[::TRIED]
            features = encode(run, [photo.pixels for photo in tried])
            decoder = self._lowering(to, "decoder", Precision.FLOAT)
            return decode(decoder.run, decoder.graph, tried, features, self._vocabulary.start)

        module = EncoderGraph(self._captioner)
        graph = describe(module, "encoder")
        model = format_module(to).export(module)
        return Lowering(
            to, format_module(to), graph, model, lambda run: encode(run, self._photos_to_learn_from), try_out
        )

    def _decoder(self, to: str, words: Precision) -> Lowering:
        def encoded(photos: Sequence[ParityVector]) -> Tensors:
            return encode(self._lowering(to, "encoder", Precision.FLOAT).run, [photo.pixels for photo in photos])

        @cache
        def tried() -> Tensors:  # of photos on which layer after layer is tried
            return encoded(self._measured_on[::TRIED])

        def rehearse(run: Runner, photos: Sequence[ParityVector], features: Tensors) -> list[Outputs]:
            return decode(run, graph, photos, features, self._vocabulary.start)

        module = DecoderGraph(self._captioner, format_module(to).DIALECT, words)
        graph = describe(module, "decoder")
        model = format_module(to).export(module)
        return Lowering(
            to,
            format_module(to),
            graph,
            model,
            lambda run: rehearse(run, self._learnt_from, encoded(self._learnt_from)),
            lambda run: rehearse(run, self._measured_on[::TRIED], tried()),
        )

    def _load(self, photo: Photo) -> Pixels:
        return load_image(photo, self._preprocessing.size, self._preprocessing.resize)


def source_fingerprint(captioner: Any) -> str:
    """The hash (sha256, hexadecimal) of a live captioner's weights and words that a manifest states."""
    return fingerprint(
        encoder_variables(captioner.feature_extractor) | decoder_variables(captioner),
        output_bias(captioner).tobytes(),
        Vocabulary.from_words(captioner.tokenizer.get_vocabulary()).to_text().encode(),
    )


def format_module(to: str) -> Format:
    """The module that makes files of a format; raises MissingExtraError for a package that it lacks."""
    try:
        return cast("Format", importlib.import_module(f".{to}", __package__))
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or to, f"convert,{FORMATS[to].extra}") from error


def _of_embeddings(precision: Precision) -> Precision:
    """What a decoder's embeddings are kept in where its layers go down to this precision: int8 at the lowest."""
    return precision if precision in (Precision.FLOAT, Precision.HALF) else Precision.STORED


def _of_outputs(vector: ParityVector, encoder: Graph) -> ParityVector:
    """The vector with what this encoder gives, of all that one may give."""
    return dataclasses.replace(vector, memory={each.name: vector.memory[each.name] for each in encoder.outputs})


def _preprocessing(captioner: Any) -> Preprocessing:
    """As the captioner was trained; a notebook's own model resized with tf.image.resize."""
    config = getattr(captioner, "config", None)
    resize = config.resize if isinstance(config, CaptionerConfig) else "bilinear"
    return Preprocessing(size=image_size(captioner), resize=resize)
