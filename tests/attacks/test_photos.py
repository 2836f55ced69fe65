"""Photos made to do harm: bombs, rare formats, files that are two things at once."""

import io
import os
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from capexport import ImageError, load_image
from capexport.cli.main import main
from capexport.image import MOST_BYTES, held
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


def hole(path, head=b"", size=2**32):
    path.write_bytes(head)
    os.truncate(path, size)
    return path


def test_files_with_holes(tmp_path):
    """A hole takes no room on a disk and all of the memory."""
    image = Image.new("RGB", (64, 64))
    progressive = saved(image.convert("L"), "JPEG", progressive=True)
    ends = 33 + 8  # where the data of a PNG's second chunk begin
    heads = [progressive, saved(image, "WEBP"), saved(image, "PNG")[:33] + struct.pack(">I", 2**31 - 1) + b"tEXt"]
    assert len(heads[-1]) == ends
    for head in heads:
        path = hole(tmp_path / "photo", head)
        tracemalloc.start()
        refused(path, "more than 256 MiB")
        for buffering in (-1, 0):
            with path.open("rb", buffering) as file:
                refused(file, "more than 256 MiB")
        assert tracemalloc.get_traced_memory()[1] < 3 * MOST_BYTES
        tracemalloc.stop()
    refused(bytes(MOST_BYTES + 1), "more than 256 MiB")
    photo = progressive + bytes(2**20)
    np.testing.assert_array_equal(load_image(io.BytesIO(photo)), load_image(photo))
    assert load_image(held(io.BytesIO(photo))).shape == (224, 224, 3)


def test_what_is_no_plain_file(tmp_path):
    """Who opens a pipe waits for its other end, and a device may have none."""
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", "/dev/zero", "/dev/urandom", tmp_path):
        refused(path, "not a plain file")


@pytest.mark.parametrize("junk", [b"\0", b"\xff", b"\xff\0", b"x"])
def test_what_is_between_segments(junk):
    """Decoders pass over it byte by byte."""
    data = jpeg(2, side=48)
    started = time.monotonic()
    refused(data[:2] + junk * 20_000_000 + data[2:], "bytes between two segments")
    assert time.monotonic() - started < 1
    np.testing.assert_array_equal(load_image(data[:3] + b"\xff" * 20 + data[3:]), load_image(data))


def test_segments_behind_what_decoders_pass_over():
    data, text = jpeg(1, side=48), b"Exif\0\0 a text"
    segment = b"\xff\xe1" + bytes([0, len(text) + 2]) + text
    refused(data[:2] + b"\xff\0" + segment * 6000 + data[2:], "more than 5000 segments")
    scans = saved(Image.new("L", (512, 512)), "JPEG", progressive=True)
    refused(scans[:-2] + b"\xff\xfe\0\2" * 6000 + scans[-2:], "more than 5000 segments")


def traced(work):
    """The most memory that Python and NumPy have held meanwhile."""
    tracemalloc.start()
    work()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_16_bit_grey(mode):
    """Rounded to 8 bits as ever, in strips."""
    samples = np.arange(-9000, 74_000, dtype=np.int32) if mode == "I" else np.arange(65536, dtype=np.uint16)
    image = Image.fromarray(np.resize(samples, (64, 40_000)))
    assert image.mode == mode
    expected = (np.asarray(image, np.int64).clip(0, 65535) / 257 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(load_image(image, (64, 40_000))[..., 1], expected)
    large = Image.fromarray(np.zeros((4000, 4000), np.uint16))
    assert traced(lambda: load_image(large)) < 40e6


def test_transparency_in_strips():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1500, 1500, 4), np.uint8)
    image = Image.fromarray(pixels)
    white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    np.testing.assert_array_equal(load_image(image, (1500, 1500)), np.asarray(white))
    palette = image.convert("RGB").quantize(64)
    palette.info["transparency"] = bytes(range(64))
    whole = palette.convert("RGBA")
    white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), whole).convert("RGB")
    np.testing.assert_array_equal(load_image(palette, (1500, 1500)), np.asarray(white))


def test_bilinear_takes_the_rows_and_columns_that_it_needs():
    image = Image.new("RGB", (2_000_000, 8), "red")
    assert traced(lambda: load_image(image, resize="bilinear")) < 120e6
    data = saved(Image.new("RGB", (5000, 5000), "red"), "JPEG")
    assert traced(lambda: load_image(data, resize="bilinear")) < 120e6


def exif(tag, kind):
    """A JPEG file with orientation 6 and an odd entry in its EXIF."""
    entries = struct.pack("<HHII", 0x112, 3, 1, 6) + struct.pack("<HHII", tag, kind, 1, 8)
    data = b"Exif\0\0II*\0\x08\0\0\0\2\0" + entries + bytes(4)
    photo = jpeg(4, side=64)
    return photo[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data + photo[2:]


@pytest.mark.parametrize(("tag", "kind"), [(0x11A, 2), (0xA005, 5), (0x10E, 12), (0x8769, 2), (0x112, 2)])
def test_odd_entries_beside_the_orientation(tag, kind):
    upright = Image.open(io.BytesIO(jpeg(4, side=64))).transpose(Image.Transpose.ROTATE_270)
    pixels = load_image(exif(tag, kind), (64, 64))
    if tag not in (0x8769, 0x112):
        np.testing.assert_array_equal(pixels, np.asarray(upright))


SMALL = chunk(b"IDAT", zlib.compress((b"\0" + bytes(48)) * 16))
BLACK = {
    "a text called transparency": png(16, 16, chunk(b"tEXt", b"transparency\0x"), SMALL),
    "a text called xmp": png(16, 16, chunk(b"tEXt", b"xmp\0x"), SMALL),
    "a text called exif": png(16, 16, chunk(b"iTXt", b"exif\0\0\0\0\0x"), SMALL),
    "a profile that is no number": png(16, 16, chunk(b"tEXt", b"Raw profile type exif\0\n\n\nxyz"), SMALL),
}


@pytest.mark.parametrize("name", BLACK)
def test_texts_that_decoders_take_for_something_else(name):
    assert not load_image(BLACK[name]).any()


def test_a_decoder_that_trips(monkeypatch):
    refused(png(16, 16, SMALL, chunk(b"iCCP", b"")), "cannot be read")
    with pytest.raises(MemoryError), monkeypatch.context() as changed:
        changed.setattr(Image.Image, "load", lambda _: (_ for _ in ()).throw(MemoryError))
        load_image(Image.new("RGB", (16, 16)))


def test_a_bad_photo_beside_a_good_one(tmp_path, tiny_bundle, capsys):
    (tmp_path / "bad.png").write_bytes(png(16, 16, SMALL, chunk(b"iCCP", b"")))
    (tmp_path / "good.jpg").write_bytes(jpeg(1))
    paths = [str(tmp_path / name) for name in ("bad.png", "good.jpg")]
    assert main(["caption", *paths, "--bundle", str(tiny_bundle.directory)]) == 2
    said = capsys.readouterr()
    assert "good.jpg: " in said.out
    assert "bad.png cannot be read" in said.err


def test_warnings_of_decoders_are_not_said(tmp_path):
    """Of animated PNG without frames, damaged EXIF and large photos."""
    (tmp_path / "a.png").write_bytes(png(16, 16, chunk(b"acTL", bytes(8)), SMALL))
    (tmp_path / "b.jpg").write_bytes(
        exif(0x10E, 7).replace(struct.pack("<HHI", 0x10E, 7, 1), b"\x0e\1\2\0\x0f\x27\0\0")
    )
    Image.new("1", (10_000, 9_000)).save(tmp_path / "c.bmp")
    code = f"import capexport; [capexport.load_image(f'{tmp_path}/{{name}}') for name in ('a.png', 'b.jpg', 'c.bmp')]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
