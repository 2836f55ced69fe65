"""JPEG files decoded to Pillow's and to TensorFlow's pixels."""

import io

import numpy as np
import pytest
import simplejpeg
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from capexport import ImageError, image, load_image
from capexport.jpeg import decode
from tests.web import jpeg


def encoded(photo, mode="RGB", size=(77, 53), **options):
    file = io.BytesIO()
    Image.open(photo).convert(mode).resize(size).save(file, "JPEG", **options)
    return file.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data))


def check_same_pixels(data):
    np.testing.assert_array_equal(decode(opened(data), data, fast=True), tf.io.decode_jpeg(data, channels=3))
    np.testing.assert_array_equal(decode(opened(data), data), opened(data).convert("RGB"))


@pytest.mark.parametrize("size", [(8, 9), (77, 53), (200, 131), (224, 224)])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_same_pixels_as_tensorflow_and_pillow(photos, size, subsampling, progressive):
    for photo, quality in zip(photos, (10, 30, 50, 75, 90, 97), strict=True):
        check_same_pixels(encoded(photo, size=size, subsampling=subsampling, progressive=progressive, quality=quality))


@pytest.mark.parametrize("subsampling", ["440", "411"])
def test_rare_subsampling(photos, subsampling):
    pixels = np.array(Image.open(photos[0]).convert("RGB").resize((77, 53)))
    check_same_pixels(simplejpeg.encode_jpeg(pixels, colorsubsampling=subsampling))


def test_greyscale_and_rgb(photos):
    check_same_pixels(encoded(photos[0], "L"))
    check_same_pixels(encoded(photos[0], keep_rgb=True))


def test_other_kinds_are_left_to_pillow(photos):
    data = encoded(photos[0], "CMYK")
    assert decode(opened(data), data) is None
    np.testing.assert_array_equal(load_image(data, (53, 77)), opened(data).convert("RGB"))


def test_orientation_is_kept(photos):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    data = encoded(photos[0], exif=exif)
    for resize, pixels in (
        ("bilinear", tf.io.decode_jpeg(data, channels=3).numpy()),
        ("bilinear-antialias", np.asarray(opened(data))),
    ):
        turned = np.rot90(pixels, -1)
        np.testing.assert_array_equal(load_image(data, turned.shape[:2], resize), turned)


def test_what_is_before_a_marker(photos):
    """As some cameras leave it; libjpeg warns of it, and decodes on."""
    data = encoded(photos[0], progressive=True)
    place = data.rindex(b"\xff\xda")
    check_same_pixels(data[:place] + b"\0" * 7 + data[place:])


def test_a_damaged_file(photos):
    for resize in image.RESIZERS:
        with pytest.raises(ImageError, match="cannot be read: image file is truncated"):
            load_image(encoded(photos[0])[:1300], (64, 64), resize)


@settings(max_examples=300)
@given(
    kind=st.sampled_from([{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"keep_rgb": True}]),
    place=st.floats(0, 1, exclude_max=True),
    junk=st.binary(max_size=8),
    gone=st.integers(0, 99),
)
def test_damage_is_as_to_pillow(kind, place, junk, gone):
    """The same pixels or the same words of what is wrong."""
    file = io.BytesIO()
    opened(jpeg(1, side=64)).save(file, "JPEG", **kind)
    data = file.getvalue()
    start = int(place * len(data))
    data = data[:start] + junk + data[start + gone :]

    def result():
        try:
            return load_image(data, (64, 64)).tolist()
        except ImageError as error:
            return str(error)

    ours = result()
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(image, "decode_jpeg", lambda *_: None)
        assert ours == result()
