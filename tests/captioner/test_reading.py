"""TensorFlow's own reading of photos beside image.py's."""

import numpy as np
from PIL import Image

from capexport import load_image
from capexport.captioner.reading import read_with_tensorflow
from capexport.manifest import Preprocessing


def test_bilinear_is_tensorflows(photos):
    for photo in photos:
        theirs = read_with_tensorflow(photo, Preprocessing((97, 131), "bilinear"))
        assert np.abs(load_image(photo, (97, 131), "bilinear").astype(int) - theirs).max() <= 1


def test_antialiased_is_tensorflows_but_for_the_jpeg_decoder(photos, tmp_path):
    Image.open(photos[0]).save(tmp_path / "photo.png")
    for photo, most in ((photos[0], 8), (tmp_path / "photo.png", 1)):
        theirs = read_with_tensorflow(photo, Preprocessing((97, 131), "bilinear-antialias"))
        assert np.abs(load_image(photo, (97, 131)).astype(int) - theirs).max() <= most


def test_what_tensorflow_does_not_read(photos, tmp_path):
    Image.open(photos[0]).convert("1").save(tmp_path / "bits.bmp")
    for photo in (tmp_path / "bits.bmp", b"no photo", Image.open(photos[0])):
        assert read_with_tensorflow(photo, Preprocessing((64, 64), "bilinear")) is None
