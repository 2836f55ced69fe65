"""JPEG files as TensorFlow's decode_jpeg reads them: with libjpeg's fast integer DCT, where Pillow takes the slow one.

The two differ by a level in most pixels, which is enough for a captioner to choose another word now and then.
Pillow offers the fast DCT in its draft mode alone, which repeats the chroma samples instead of interpolating them; so
the chroma is taken back to its own resolution and interpolated here ("fancy upsampling", Independent JPEG Group).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

STRIP = 2**20  # pixels of a photo that are worked on at once: its copies would be many times as large as itself
Plane = NDArray[np.int32]

SUBSAMPLING = {
    (1, 1): (),
    (2, 1): (1,),
    (2, 2): (0, 1),
}  # luma's sampling factors -> the axes on which chroma is halved


def decode_fast(image: Image.Image) -> Image.Image:
    """The pixels of a JPEG file that is open and not loaded yet, RGB or greyscale; anything else comes back as it is.

    Anything else: other formats, and JPEGs that are neither greyscale nor YCbCr with whole or halved chroma.
    Raises OSError for a damaged file.
    """
    if not isinstance(image, JpegImageFile):
        return image
    factors = [tuple(layer[1:3]) for layer in image.layer]
    colour = len(factors) == 3 and factors[1:] == [(1, 1), (1, 1)] and image.info.get("adobe_transform", 1) == 1
    if image.mode != ("RGB" if colour else "L") or factors[0] not in SUBSAMPLING:
        return image
    image.draft("YCbCr" if colour else "L", None)
    image.decoderconfig = (1, 1)  # scale 1, draft
    image.load()
    return _in_colour(image, SUBSAMPLING[factors[0]]) if colour else image


def strips(image: Image.Image, margin: int = 0) -> Iterator[tuple[int, int, Image.Image]]:
    """Strips of all of an image's rows, an even number each but in the last, with up to `margin` rows on both sides.

    Each after its first row in the image and the number of rows of the margin above it.
    """
    rows = max(STRIP // image.width // 2 * 2, 2)
    for top in range(0, image.height, rows):
        first, last = max(top - margin, 0), min(top + rows + margin, image.height)
        whole = (first, last) == (0, image.height)
        yield top, top - first, image if whole else image.crop((0, first, image.width, last))


def _upsampled(plane: NDArray[np.uint8], axes: tuple[int, ...]) -> Plane:
    """Interpolate chroma whose samples are repeated along the axes: 3/4 of the nearer sample, 1/4 of the farther."""
    samples = plane[tuple(slice(None, None, 2 if axis in axes else 1) for axis in (0, 1))].astype(np.int32)
    for axis in axes:
        before = np.concatenate([samples.take([0], axis), samples.take(range(samples.shape[axis] - 1), axis)], axis)
        after = np.concatenate([samples.take(range(1, samples.shape[axis]), axis), samples.take([-1], axis)], axis)
        last = axis == axes[-1]  # rounded once, at the end, upwards and downwards in turn
        bits, up, down = (2 * len(axes), *((1, 2) if len(axes) == 1 else (8, 7))) if last else (0, 0, 0)
        pair = [(3 * samples + before + up) >> bits, (3 * samples + after + down) >> bits]
        shape = list(samples.shape)
        shape[axis] *= 2
        samples = np.stack(pair, axis + 1).reshape(shape)
    return samples[: plane.shape[0], : plane.shape[1]]


def _rgb(luma: Plane, blue: Plane, red: Plane) -> NDArray[np.uint8]:
    """JFIF's colours in 16-bit fixed point, as libjpeg rounds them."""
    half = 1 << 15
    channels = (
        luma + ((91881 * red + half) >> 16),  # 1.402
        luma + ((-22554 * blue - 46802 * red + half) >> 16),  # 0.34414, 0.71414
        luma + ((116130 * blue + half) >> 16),  # 1.772
    )
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


def _in_colour(image: Image.Image, axes: tuple[int, ...]) -> Image.Image:
    """The RGB pixels of an image in YCbCr whose chroma is repeated along the axes."""
    decoded = Image.new("RGB", image.size)
    for top, above, strip in strips(image, margin=2):  # rows that share a sample of chroma
        planes = np.asarray(strip)
        blue, red = (_upsampled(planes[..., i], axes) for i in (1, 2))
        pixels = _rgb(planes[..., 0].astype(np.int32), blue - 128, red - 128)
        converted = Image.fromarray(pixels[above:])
        if strip is image:
            decoded = converted
        else:
            decoded.paste(converted, (0, top))
    decoded.info = image.info  # the orientation is in there
    return decoded
