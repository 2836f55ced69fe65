"""Photos in JavaScript, in Node: files and pixels become Python's pixels, to the last bit, or are refused as there."""

import base64
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from capexport import ImageError
from capexport.image import RESIZERS, load_image
from tests.javascript import SOURCES, UNPACKED, evaluate, needs_node, packed

pytestmark = needs_node

# Both orders of Pillow's passes, and next to where it changes from one to the other for (224, 224) and (64, 96).
SHAPES = [
    (8, 300),
    (331, 9),
    (224, 224),
    (400, 300),
    (448, 335),
    (448, 336),
    (94, 110),
    (94, 111),
    (225, 223),
    (64, 400),
]


def preprocessed(
    arrays: list[np.ndarray], size: tuple[int, int], tmp_path: Path, resize: str = "bilinear-antialias"
) -> list[np.ndarray]:
    script = f"""
        {UNPACKED}
        const {{ preprocess }} = await from_("image.js");
        const sized = photo => preprocess(unpacked(photo), given.size, given.resize);
        const pixels = await Promise.all(given.photos.map(sized));
        return pixels.map(one => Buffer.from(one).toString("base64"));
    """
    given = {"photos": [packed(array) for array in arrays], "size": size, "resize": resize}
    found = evaluate(SOURCES, script, given, tmp_path)
    return [np.frombuffer(base64.b64decode(one), np.uint8).reshape(*size, 3) for one in found]


@pytest.mark.parametrize("size", [(224, 224), (64, 96), (600, 700), (1, 3)])
@pytest.mark.parametrize("resize", RESIZERS)
def test_pixels_are_pythons_to_the_last_bit(resize, size, photos, tmp_path):
    arrays = [np.asarray(Image.open(photo).convert("RGB")) for photo in photos]
    arrays += [np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]
    for found, array in zip(preprocessed(arrays, size, tmp_path, resize), arrays, strict=True):
        np.testing.assert_array_equal(found, load_image(array, size, resize))


def test_transparency_is_laid_over_white_as_pillow_does(tmp_path):
    level, cover = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    array = np.stack([level, level, level, cover], axis=-1)
    [found] = preprocessed([array], (256, 256), tmp_path)
    np.testing.assert_array_equal(found, load_image(array, (256, 256)))


def jpegs(photos: list[Path]) -> list[tuple[bytes, int]]:
    """JPEG files of every kind that is decoded here, and the least sides that they are asked for."""
    image = Image.open(photos[0]).convert("RGB")
    kinds: list[tuple[Image.Image, dict[str, object], tuple[int, ...]]] = [
        (image.crop((3, 5, 300, 262)), {"subsampling": s, "progressive": p}, (9999, 120, 60, 20))
        for s in (0, 1, 2)
        for p in (False, True)
    ]
    kinds += [
        (image.convert("L").crop((0, 0, 99, 77)), {"quality": 50}, (9999, 20)),
        (image.crop((0, 0, 9, 40)), {"subsampling": 2}, (9999,)),
        (image.crop((0, 0, 17, 13)), {"subsampling": 2}, (9999, 8, 4)),
        (image, {"quality": 95, "restart_marker_blocks": 7}, (9999, 100)),
        (image, {"progressive": True, "restart_marker_rows": 1, "optimize": True}, (200,)),
        (image.crop((0, 0, 200, 150)), {"keep_rgb": True}, (9999,)),
    ]
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        kinds.append((image.crop((0, 0, 70, 50)), {"exif": exif}, (9999,)))
    for order in "<>":  # as some write it: a number of 32 bits
        head = b"Exif\0\0" + {"<": b"II", ">": b"MM"}[order]
        exif = head + struct.pack(f"{order}HIHHHIII", 42, 8, 1, 0x112, 4, 1, 6, 0)
        kinds.append((image.crop((0, 0, 70, 50)), {"exif": exif}, (9999,)))
    made = []
    for one, saved, leasts in kinds:
        stream = io.BytesIO()
        one.save(stream, "JPEG", **saved)
        made += [(stream.getvalue(), least) for least in leasts]
    return made


def test_jpeg_files_are_decoded_to_pillows_last_bit(photos, tmp_path):
    files = jpegs(photos) + [(photo.read_bytes(), 9999) for photo in photos]
    script = """
        const { decodeJpeg } = await from_("jpeg.js");
        return given.files.map(([data, least]) => {
            const image = decodeJpeg(Uint8Array.from(Buffer.from(data, "base64")), least);
            return [image.height, image.width, Buffer.from(image.data).toString("base64")];
        });
    """
    values = {"files": [(base64.b64encode(data).decode(), least) for data, least in files]}
    for (height, width, pixels), (data, least) in zip(evaluate(SOURCES, script, values, tmp_path), files, strict=True):
        image = Image.open(io.BytesIO(data))
        image.draft(None, (least, least))
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        found = np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(height, width, 3)
        np.testing.assert_array_equal(found, expected)


def test_files_in_node(photos, tmp_path):
    """A JPEG file's pixels are Python's; damaged ones and other formats are refused with a sentence."""
    whole = photos[0].read_bytes()
    odd = [whole[:2000], whole[:-40], b"\xff\xd8\xff\xe0", b"\x89PNG\r\n", b"%PDF-1.4", b""]
    odd += [bytes(b ^ 255 if i == k else b for i, b in enumerate(whole)) for k in range(0, 700, 7)]
    script = """
        const { preprocess } = await from_("image.js");
        const bytes = data => Uint8Array.from(Buffer.from(data, "base64"));
        const whole = Buffer.from(await preprocess(bytes(given.whole), [224, 224])).toString("base64");
        const odd = given.odd.map(data => preprocess(bytes(data), [64, 64]).then(() => "", error => error.name));
        return [whole, await Promise.all(odd), await preprocess(bytes(given.odd[0]), [64, 64]).catch(String)];
    """
    values = {"whole": base64.b64encode(whole).decode(), "odd": [base64.b64encode(data).decode() for data in odd]}
    pixels, names, cut = evaluate(SOURCES, script, values, tmp_path)
    assert base64.b64decode(pixels) == load_image(photos[0]).tobytes()
    assert names[:6] == ["CaptionError"] * 6
    assert {*names} <= {"", "CaptionError"}
    assert "is cut off" in cut


def test_what_is_no_photo(tmp_path):
    script = """
        const { preprocess } = await from_("image.js");
        const reason = photo => preprocess(photo, [64, 64]).catch(error => [error.name, error.message]);
        return Promise.all([
            { data: new Uint8Array(3 * 70), width: 7, height: 10 },
            { data: new Uint8Array(0), width: 0, height: 0 },
            { data: new Uint8Array(5), width: 10, height: 10 },
            { data: new Uint8Array(5), width: 20000, height: 10000 },
        ].map(reason));
    """
    found = evaluate(SOURCES, script, {}, tmp_path)
    assert [name for name, _ in found] == ["CaptionError"] * 4
    for (_, message), part in zip(found, ("7x10", "no pixels", "RGB or RGBA", "178 million"), strict=True):
        assert part in message


def test_jpeg_files_that_would_take_for_ever(tmp_path):
    data = jpeg(progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    place = data.index(b"\xff\xc2") + 5
    files = {
        "more than 100 scans": data[:-2] + scan * 1000 + data[-2:],
        "more than 5000 segments": data[:-2] + b"\xff\xfe\0\2" * 6000 + data[-2:],
        "13000x13000 pixels": data[:place] + struct.pack(">HH", 13000, 13000) + data[place + 4 :],
    }
    script = """
        const { preprocess } = await from_("image.js");
        const reason = data => preprocess(Uint8Array.from(Buffer.from(data, "base64")), [64, 64])
            .then(() => "", error => `${error.name}: ${error.message}`);
        return Promise.all(given.files.map(reason));
    """
    values = {"files": [base64.b64encode(one).decode() for one in files.values()]}
    for said, reason in zip(evaluate(SOURCES, script, values, tmp_path), files, strict=True):
        assert said.startswith("CaptionError: ")
        assert reason in said
    for reason, one in files.items():
        with pytest.raises(ImageError, match=reason):
            load_image(one)


def jpeg(**saved):
    stream = io.BytesIO()
    Image.new("L", (512, 512)).save(stream, "JPEG", **saved)
    return stream.getvalue()
