"""The encoder: any tf_keras.applications backbone without its classifier, preprocessing inside."""

from __future__ import annotations

from pathlib import Path

import tf_keras

from ..errors import OptionError, SourceError


def build_backbone(name: str, image_size: tuple[int, int], weights: str | Path | None) -> tf_keras.Model:
    """A frozen feature extractor: RGB pixels 0..255, (B, height, width, 3) -> features (B, h, w, C).

    name     a class of tf_keras.applications that normalises its own input, e.g. MobileNetV3Small
    weights  "imagenet" (downloaded by Keras), the path of a weights file, or None for random ones

    Raises OptionError for an unknown backbone, SourceError for weights that do not fit it.
    """
    try:
        application = getattr(tf_keras.applications, name)
    except AttributeError:
        raise OptionError(f"tf_keras.applications has no backbone {name!r}.") from None
    shape = (*image_size, 3)
    options = {"include_preprocessing": True} if name.startswith(("MobileNetV3", "EfficientNetV2")) else {}
    downloaded = "imagenet" if weights == "imagenet" else None
    model = application(input_shape=shape, include_top=False, weights=downloaded, **options)
    if weights is not None and weights != "imagenet":
        _load_weights(model, Path(weights))
    model.trainable = False
    return model


def _load_weights(model: tf_keras.Model, path: Path) -> None:
    if not path.is_file():
        raise SourceError(f"There is no weights file at {path}.")
    try:
        model.load_weights(path)
    except (ValueError, OSError) as error:
        raise SourceError(f"The weights in {path} do not fit {model.name}: {error}.") from error
