"""Photos made to do harm: bombs, rare formats, files that are two things at once."""

import io
import struct
import time
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from capexport import ImageError, load_image
from capexport.structure.jpeg import check
from tests.web import jpeg


def refused(data, match="is not a photo|cannot be read|too large"):
    with pytest.raises(ImageError, match=match):
        load_image(data)


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "ICO", "TGA", "PCX", "SGI", "JPEG2000", "EPS", "PDF", "DDS", "IM"])
def test_formats_that_are_not_opened(kind):
    image = Image.new("RGB", (64, 64), "red")
    try:
        data = saved(image, kind)
    except (OSError, KeyError):
        pytest.skip(f"this Pillow writes no {kind}")
    refused(data, "is not a photo")


@pytest.mark.parametrize(
    "data",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(touch evil) system\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"GIF89a<?php system('id'); ?>",
        b"",
        b"\xff\xd8\xff",
        b"RIFF\xff\xff\xff\xffWEBPVP8X",
        b"BM" + b"\xff" * 60,
    ],
)
def test_text_and_headers_alone(data):
    refused(data)


def test_bombs_are_not_decoded():
    refused(png(60_000, 60_000, chunk(b"IDAT", zlib.compress(bytes(10**7)))), "too large")
    refused(png(2**31 - 1, 2**31 - 1), "too large|cannot be read")
    refused(png(64, 64, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))), "cannot be read")
    refused(b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0), "large")
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
    refused(b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + frame)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_of_many_frames(kind):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ["red", *["blue"] * 300]]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=10)
    started = time.monotonic()
    pixels = load_image(data)
    assert time.monotonic() - started < 5
    assert pixels[..., 0].mean() > 200
    assert pixels[..., 2].mean() < 60


def test_a_photo_that_is_an_archive_or_a_page_too():
    """What is behind a photo's end is never looked at, and what is before it makes it none."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("evil.py", "raise SystemExit")
    photo = jpeg(3, side=64)
    for tail in (archive.getvalue(), b"<script>alert(1)</script>", b"\0" * 10**6):
        np.testing.assert_array_equal(load_image(photo + tail), load_image(photo))
        refused(tail + photo, "is not a photo")


def test_exif_that_is_huge_or_circular_or_absurd():
    plain = Image.open(io.BytesIO(jpeg(5, side=64)))
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    exif[0x0112] = 6
    assert load_image(saved(plain, "JPEG", exif=exif)).shape == (224, 224, 3)
    for orientation in (0, 9, 255, 65535):
        exif[0x0112] = orientation
        assert load_image(saved(plain, "JPEG", exif=exif)).shape == (224, 224, 3)
    circular = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"
    assert load_image(saved(plain, "JPEG", exif=circular)).shape == (224, 224, 3)


@settings(max_examples=150)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "GIF"]),
    place=st.floats(0, 1, exclude_max=True),
    junk=st.binary(min_size=1, max_size=8),
    cut=st.booleans(),
)
def test_damage_gives_pixels_or_an_image_error(kind, place, junk, cut):
    data = saved(Image.open(io.BytesIO(jpeg(1, side=48))), kind)
    start = int(place * len(data))
    changed = data[:start] if cut else data[:start] + junk + data[start + len(junk) :]
    try:
        assert load_image(changed).shape == (224, 224, 3)
    except ImageError as error:
        assert str(error).isprintable()


@settings(max_examples=150)
@given(st.binary(max_size=300))
def test_any_bytes(data):
    refused(data)


def test_a_scan_after_the_other():
    """A decoder goes through the whole picture for each: a dozen bytes can take seconds."""
    data = saved(Image.new("L", (512, 512)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert load_image(data[:-2] + scan * 20 + data[-2:]).shape == (224, 224, 3)
    refused(data[:-2] + scan * 1000 + data[-2:], "more than 100 scans")
    assert load_image(data + scan * 1000).shape == (224, 224, 3)  # what is behind the end is not looked at


@pytest.mark.parametrize("marker", [0xE1, 0xFE])
def test_segments_without_end(marker):
    data, text = jpeg(1, side=48), b"Exif\0\0 a text"
    segment = bytes([0xFF, marker, 0, len(text) + 2]) + text
    assert load_image(data[:2] + segment * 100 + data[2:]).shape == (224, 224, 3)
    refused(data[:2] + segment * 6000 + data[2:], "more than 5000 segments")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_files_that_unpack_to_thousands_of_times_their_size(kind):
    side = 5000
    data = saved(Image.new("L", (side, side)), kind, **({"lossless": True, "method": 0} if kind == "WEBP" else {}))
    assert len(data) < side * side / 200
    refused(data, "too large for a photo")


def test_a_large_photo_is_no_bomb():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (450, 450, 3), np.uint8)).resize((4500, 4500))
    assert load_image(saved(image, "JPEG", quality=60)).shape == (224, 224, 3)


@settings(max_examples=150)
@given(st.binary(max_size=300), st.binary(max_size=20))
def test_any_segments(data, head):
    check(io.BytesIO(head + data))
