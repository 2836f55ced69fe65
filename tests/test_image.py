"""The one preprocessing: every kind of photo, exact pixels, and refusals."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from capexport import ImageError, OptionError, load_image

SIZE = (224, 224)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def gradient(width=320, height=200) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def test_bilinear_is_what_tensorflow_decodes_and_resizes(photos):
    import tensorflow as tf

    for path in photos:
        for size in (SIZE, (97, 331), (600, 600)):
            theirs = tf.image.resize(tf.io.decode_jpeg(path.read_bytes(), channels=3), size).numpy()
            ours = load_image(path, size, "bilinear").astype(np.float64)
            assert np.abs(ours - theirs).max() <= 0.5 + 1e-3


def test_antialiased_resizing_averages_what_plain_bilinear_skips():
    stripes = np.zeros((448 * 4, 448 * 4, 3), np.uint8)
    stripes[:, ::8] = 255
    assert load_image(stripes, SIZE, "bilinear").max() == 0
    assert 25 < load_image(stripes, SIZE, "bilinear-antialias").mean() < 40


def test_every_form_of_a_photo_gives_the_same_pixels(photos):
    path = photos[0]
    expected = load_image(path)
    assert expected.shape == (*SIZE, 3)
    assert expected.dtype == np.uint8
    decoded = Image.open(path)
    for form in (str(path), path.read_bytes(), decoded, np.asarray(decoded)):
        np.testing.assert_array_equal(load_image(form), expected)


@pytest.mark.parametrize("factor", [1, 2, 5.9, 6, 8, 12, 17])
@pytest.mark.parametrize("orientation", [1, 6])
def test_large_jpeg_files_are_decoded_small_and_look_the_same(photos, factor, orientation):
    photo = Image.open(photos[0]).convert("RGB").resize((int(224 * factor * 4 / 3), int(224 * factor)))
    exif = Image.Exif()
    exif[274] = orientation
    file = encoded(photo, "JPEG", quality=95, exif=exif)
    decoded = Image.open(io.BytesIO(file))
    decoded.load()  # an open file that is decoded already stays so
    whole, small = (load_image(form).astype(int) for form in (decoded, file))
    difference = np.abs(small - whole)
    assert (difference.max() > 0) == (factor >= 6)
    assert difference.mean() < 1
    assert difference.max() < 32


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_formats(kind):
    pixels = load_image(encoded(gradient(), kind))
    np.testing.assert_allclose(pixels.astype(int), load_image(gradient()).astype(int), atol=12)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    upright = gradient(64, 48)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = load_image(encoded(stored, "PNG", exif=exif))
    np.testing.assert_array_equal(pixels, load_image(upright))


def test_modes_become_rgb():
    grey = gradient().convert("L")
    np.testing.assert_array_equal(load_image(encoded(grey, "PNG")), load_image(grey.convert("RGB")))
    assert load_image(encoded(gradient().convert("CMYK"), "JPEG")).shape == (*SIZE, 3)
    assert load_image(encoded(gradient().quantize(16), "PNG")).std() > 20


def test_transparency_lies_over_white():
    clear = Image.new("RGBA", (32, 32), (10, 20, 30, 0))
    assert (load_image(encoded(clear, "PNG")) == 255).all()
    palette = Image.new("P", (32, 32), 0)
    assert (load_image(encoded(palette, "PNG", transparency=0)) == 255).all()


def test_sixteen_bit_grey_keeps_its_shades():
    deep = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels = load_image(encoded(Image.fromarray(deep), "PNG"))
    assert pixels.min() < 10
    assert pixels.max() > 245
    assert 100 < pixels.mean() < 155


def test_a_truncated_photo(photos):
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(photos[0].read_bytes()[:5000])


def test_a_missing_photo(tmp_path):
    with pytest.raises(ImageError, match=r"no photo at .*missing\.jpg"):
        load_image(tmp_path / "missing.jpg")


def test_a_folder(tmp_path):
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(tmp_path)


def test_text_named_as_a_photo(tmp_path):
    path = tmp_path / "text.jpg"
    path.write_text("hello")
    with pytest.raises(ImageError, match="is not a photo"):
        load_image(path)


def test_formats_that_are_not_opened():
    with pytest.raises(ImageError, match="is not a photo"):
        load_image(encoded(gradient(), "TIFF"))


def test_one_pixel():
    with pytest.raises(ImageError, match="too small"):
        load_image(encoded(Image.new("RGB", (1, 1)), "PNG"))


def test_four_hundred_million_pixels_are_refused_before_they_are_decoded():
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )
    with pytest.raises(ImageError, match="too large"):
        load_image(bomb)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((9, 9, 3), np.float32),
        np.zeros((9, 9, 2), np.uint8),
        np.zeros((0, 9, 3), np.uint8),
        np.zeros(9, np.uint8),
    ],
)
def test_arrays_that_are_no_photos(array):
    with pytest.raises(ImageError, match="An array must be"):
        load_image(array)


def test_an_unknown_resizer():
    with pytest.raises(OptionError, match="lanczos"):
        load_image(gradient(), resize="lanczos")


@settings(max_examples=150)
@given(st.data())
def test_any_damage_to_a_photo_is_an_image_error_or_pixels(data):
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP"]))
    photo = bytearray(encoded(gradient(40, 30), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        photo[data.draw(st.integers(0, len(photo) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(photo)))
    try:
        assert load_image(bytes(photo[:cut]), (16, 16)).shape == (16, 16, 3)
    except ImageError as error:
        assert str(error)


def test_a_file_opened_as_text_is_no_path(photos, tmp_path):
    (tmp_path / "list.txt").write_text(str(photos[0]))
    with (tmp_path / "list.txt").open() as file, pytest.raises(ImageError, match=r"list\.txt gives text, not bytes"):
        load_image(file)


def test_a_binary_file(photos):
    with photos[0].open("rb") as file:
        np.testing.assert_array_equal(load_image(file), load_image(photos[0]))
    with pytest.raises(ImageError, match=r"letter\.txt is not a photo"):
        file = io.BytesIO(b"dear")
        file.name = "letter.txt"
        load_image(file)


@pytest.mark.parametrize("thing", [None, 7, ["a.jpg"]])
def test_what_is_no_form_of_a_photo(thing):
    with pytest.raises(ImageError, match="A photo is a path"):
        load_image(thing)
