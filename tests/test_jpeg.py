"""JPEG files decoded to TensorFlow's pixels."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from capexport import ImageError, load_image
from capexport.jpeg import decode_fast


def encoded(photo, mode="RGB", size=(77, 53), **options):
    file = io.BytesIO()
    Image.open(photo).convert(mode).resize(size).save(file, "JPEG", **options)
    return file.getvalue()


def check_same_pixels(data):
    ours = np.asarray(decode_fast(Image.open(io.BytesIO(data))).convert("RGB"))
    np.testing.assert_array_equal(ours, tf.io.decode_jpeg(data, channels=3))


@pytest.mark.parametrize("size", [(8, 9), (77, 53), (200, 131), (224, 224)])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_same_pixels_as_tensorflow(photos, size, subsampling, progressive):
    for photo, quality in zip(photos, (10, 30, 50, 75, 90, 97), strict=True):
        check_same_pixels(encoded(photo, size=size, subsampling=subsampling, progressive=progressive, quality=quality))


def test_greyscale(photos):
    check_same_pixels(encoded(photos[0], "L"))


def test_other_kinds_are_left_to_pillow(photos):
    for data in (encoded(photos[0], "CMYK"), encoded(photos[0], keep_rgb=True)):
        image = Image.open(io.BytesIO(data))
        assert decode_fast(image) is image


def test_orientation_is_kept(photos):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    data = encoded(photos[0], exif=exif)
    turned = np.rot90(tf.io.decode_jpeg(data, channels=3).numpy(), -1)
    np.testing.assert_array_equal(load_image(data, turned.shape[:2], "bilinear"), turned)


def test_a_damaged_file(photos):
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(encoded(photos[0])[:600], (64, 64), "bilinear")
