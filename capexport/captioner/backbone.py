"""The encoder: a tf_keras.applications backbone without its classifier, preprocessing inside."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras

from ..errors import DownloadError, OptionError, SourceError

# Backbones without preprocessing of their own whose pixels go from -1 to 1 (Keras' mode "tf").
SCALED = (
    *("InceptionResNetV2", "InceptionV3", "MobileNet", "MobileNetV2", "NASNetLarge", "NASNetMobile"),
    *("ResNet50V2", "ResNet101V2", "ResNet152V2", "Xception"),
)


def build_backbone(
    name: str, image_size: tuple[int, int], weights: str | Path | None, include_preprocessing: bool = True
) -> tf_keras.Model:
    """A frozen feature extractor: RGB pixels 0..255, (B, height, width, 3) -> features (B, h, w, C).

    name     a class of tf_keras.applications, e.g. MobileNetV3Small
    weights  "imagenet" (downloaded by Keras), the path of a weights file, or None for random ones
    include_preprocessing  normalise the pixels inside, as the application was trained

    Raises OptionError for an unknown backbone, one whose preprocessing is unknown here, and photos too small for it,
    SourceError for weights that do not fit it, DownloadError for such as cannot be had.
    """
    shape = (*image_size, 3)
    options: dict[str, Any] = {"include_top": False, "weights": "imagenet" if weights == "imagenet" else None}
    application = getattr(tf_keras.applications, name, None)
    if not inspect.isfunction(application):
        raise OptionError(f"tf_keras.applications has no backbone {name!r}.")
    if "include_preprocessing" in inspect.signature(application).parameters:
        options["include_preprocessing"] = include_preprocessing
    elif include_preprocessing and name in SCALED:
        options["input_tensor"] = tf_keras.layers.Rescaling(1 / 127.5, offset=-1)(tf_keras.Input(shape))
    elif include_preprocessing and not name.startswith("EfficientNetB"):  # those always do it themselves
        raise OptionError(f"How {name} wants its pixels is not known here; choose another backbone, e.g. MobileNetV2.")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras says there what it downloads
            model = application(input_shape=shape, **options)
        if not all(model.output_shape[1:]):
            raise ValueError("they are too small for it")
    except ValueError as error:
        size = "x".join(map(str, image_size))
        raise OptionError(f"{name} cannot be built for photos of {size} pixels: {error!s:.200}.") from error
    except Exception as error:  # as bare as that is what Keras raises
        if weights != "imagenet":
            raise
        what = f"The weights of {name} (imagenet)"
        raise DownloadError(what, f"{error!s:.300}; with --encoder-weights a file is read instead") from error
    if weights is not None and weights != "imagenet":
        _load_weights(model, Path(weights))
    model.trainable = False
    return model


def recognise_backbone(model: tf_keras.Model, image_size: tuple[int, int]) -> tuple[str, bool, tf_keras.Model]:
    """Which application a feature extractor is, by its name and its weights' shapes, and by what it computes.

    Returns the name and include_preprocessing for build_backbone, and the backbone that it builds with the
    feature extractor's weights. Raises SourceError if there is none that says the same of a photo.
    """
    shapes = [tuple(weight.shape) for weight in model.weights]
    pixels = np.random.default_rng(0).integers(0, 256, (1, *image_size, 3)).astype(np.float32)
    expected = model(pixels, training=False).numpy()
    for name, preprocessing in itertools.product(_likely(model), (True, False)):
        try:
            candidate = build_backbone(name, image_size, None, preprocessing)
        except OptionError:  # preprocessing unknown, or photos too small for it
            continue
        if [tuple(weight.shape) for weight in candidate.weights] == shapes:
            candidate.set_weights(model.get_weights())
            if np.allclose(candidate(pixels, training=False), expected, rtol=0, atol=1e-3 * np.abs(expected).max()):
                return name, preprocessing, candidate
    raise SourceError(
        f"The captioner's feature_extractor ({model.name}) is none of the backbones of tf_keras.applications, so it "
        "cannot be saved; convert takes the live captioner as it is."
    )


def _likely(model: tf_keras.Model) -> list[str]:
    """The applications whose name the model or one of its layers bears, the longest first."""
    borne = {_squeezed(layer.name) for layer in (model, *model.layers)}
    names = [name for name, value in vars(tf_keras.applications).items() if inspect.isfunction(value)]
    return sorted((n for n in names if any(_squeezed(n) in name for name in borne)), key=len, reverse=True)


def _squeezed(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _load_weights(model: tf_keras.Model, path: Path) -> None:
    if not path.is_file():
        raise SourceError(f"There is no weights file at {path}.")
    try:
        model.load_weights(path)
    except (ValueError, OSError) as error:
        raise SourceError(f"The weights in {path} do not fit {model.name}: {error}.") from error
