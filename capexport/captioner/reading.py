"""Photos as TensorFlow itself reads them, for comparison with image.py."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from ..image import Photo, Pixels
from ..manifest import Preprocessing


def read_with_tensorflow(photo: Photo, preprocessing: Preprocessing) -> Pixels | None:
    """The photo by `tf.io.decode_image` and `tf.image.resize`, rounded: uint8 (height, width, 3).

    None for what is no file, and for files that TensorFlow does not read, an animated WebP for one. EXIF orientation
    and transparency are ignored.
    """
    if not isinstance(photo, str | bytes | os.PathLike):
        return None
    data = photo if isinstance(photo, bytes) else Path(photo).read_bytes()
    try:
        image = tf.io.decode_image(data, channels=3, expand_animations=False)
    except tf.errors.InvalidArgumentError:
        return None
    resized = tf.image.resize(image, preprocessing.size, antialias=preprocessing.resize == "bilinear-antialias")
    return (resized.numpy() + np.float32(0.5)).astype(np.uint8)
