"""JPEG files decoded by libjpeg-turbo with nothing around it (simplejpeg): Pillow's pixels in a half of Pillow's time,
or TensorFlow's, whose decode_jpeg takes libjpeg's fast integer DCT, where Pillow takes the slow one.

With the fast one most pixels differ by a level, which is enough for a captioner to choose another word now and then.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

MODES = ("RGB", "L")


def decode(image: Image.Image, body: bytes, fast: bool = False) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG file: uint8, RGB, (height, width, 3); None for what is left to Pillow, as CMYK is.

    image   the file, opened by Pillow and not loaded yet
    body    its bytes
    fast    whether they are TensorFlow's pixels or Pillow's

    Raises OSError for a file that is cut off.
    """
    if image.mode not in MODES:
        return None
    for strict in (True, False):
        if not strict:  # damaged: what Pillow makes do with is read
            image.load()
        with suppress(ValueError):
            buffer = np.empty((image.height, image.width, 3), np.uint8)
            pixels = simplejpeg.decode_jpeg(body, fastdct=fast, buffer=buffer, strict=strict)
            return pixels if pixels.shape == buffer.shape else None
    return None
