"""The one preprocessing: a photo in any of its forms becomes uint8 RGB pixels of the captioner's size.

Training, calibration and the runtime all call `load_image`, so they see the same pixels.
"""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from .errors import CapexportError, ImageError, OptionError
from .jpeg import decode as decode_jpeg
from .plain import open_plain
from .structure.jpeg import check as check_jpeg
from .structure.limits import MalformedError

Pixels = NDArray[np.uint8]
Upright = Image.Image | Pixels  # RGB, the array (height, width, 3)
T = TypeVar("T")


@runtime_checkable
class Readable(Protocol):
    """A binary file or the like."""

    def read(self) -> bytes:
        """All of its bytes."""


@dataclass(frozen=True)
class Held:
    """A photo whose bytes are in memory already, or what went wrong when they were read."""

    name: str
    body: bytes | Exception

    def __str__(self) -> str:
        return self.name

    def read(self) -> bytes:
        """Its bytes; raises what went wrong."""
        if isinstance(self.body, Exception):
            raise self.body
        return self.body


FilePhoto = str | os.PathLike[str] | bytes
Photo = FilePhoto | Readable | Image.Image | NDArray[Any]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
MIN_SIDE = 8
SPARE = 3  # how many times larger than the target a photo stays until it is resized
MOST_BYTES = 2**28  # of a photo's file; what is larger is not read
MAX_PIXELS = 178_956_970  # Pillow's own bound against decompression bombs
SMALL = 2**24  # pixels that any file may have
DENSEST = 100  # pixels a byte of a file that has more: a photo's have less than ten
JPEG = b"\xff\xd8"
BUFFER = 2**18  # bytes of a file that are read at once
STRIP = 2**20  # pixels of a photo that are worked on at once: its copies would be many times as large as itself
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF's orientation -> what makes such a photo upright

_alone = threading.Lock()  # Pillow reads an image when it is first asked for, and fails if two threads ask

# Of what Pillow makes do with, and of large photos: a photo is read or refused, and MAX_PIXELS is checked here.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def load_image(photo: Photo, size: tuple[int, int] = (224, 224), resize: str = "bilinear-antialias") -> Pixels:
    """Read a photo and return its pixels: uint8, RGB, (height, width, 3).

    photo   the path or bytes of a JPEG, PNG, WebP, BMP or GIF file, such a file opened in binary mode, a PIL image,
            or a uint8 array (H, W), (H, W, 3) or (H, W, 4)
    size    (height, width) in pixels; the aspect ratio is not kept, as in the tutorial
    resize  one of RESIZERS; "bilinear" loads a photo as the tutorial does, with TensorFlow's pixels of a JPEG file

    EXIF orientation is applied (of a PIL image also what its XMP says, as Pillow has it) and transparency is laid over
    white. JPEG files of several times the size are decoded to a half, a quarter or an eighth of their sides, which
    takes as much less time; what is then resized is still SPARE times as large. Raises ImageError for anything that is
    not a readable photo, OptionError for an unknown resizer.
    """
    if resize not in RESIZERS:
        raise OptionError(f"Unknown resizer {resize!r}; there are: {', '.join(RESIZERS)}.")
    fast = resize == "bilinear"

    def decoded(image: Image.Image, file: BinaryIO) -> Upright:
        if not isinstance(image, JpegImageFile):
            return _flatten(image)
        if not fast and _size(image) != tuple(size):  # which Pillow resizes, and no array
            image.draft(None, (SPARE * max(size),) * 2)
            return _flatten(image)
        file.seek(0)
        pixels = decode_jpeg(image, file.read(MOST_BYTES), fast)
        return _flatten(image) if pixels is None else _turned(pixels, _turn(image))

    upright = _read(photo, decoded)
    return np.asarray(upright) if _size(upright) == tuple(size) else RESIZERS[resize](upright, size)


def read_photo(photo: Photo, decode: Callable[[Image.Image], Image.Image] = lambda image: image) -> Image.Image:
    """The photo, in any form load_image takes, as an upright RGB image, itself if it is one; raises ImageError.

    decode  what is done to a photo's file that is open and not decoded yet
    """
    return _read(photo, lambda image, _: _flatten(decode(image)))


def _read(photo: Photo, decode: Callable[[Image.Image, BinaryIO], T]) -> T | Image.Image:
    """What `decode` makes of a photo's file that Pillow has opened; of a photo that is in no file an image."""
    name = _name(photo)
    with _refused(name):
        if isinstance(photo, Image.Image):
            with _alone:
                return _flatten(_checked_size(photo, name))
        if isinstance(photo, np.ndarray):
            return _flatten(_checked_size(_from_array(photo), name))
        if _in_file(photo):
            return _decode(cast("FilePhoto", photo), name, decode)
        if isinstance(photo, Readable):
            return _decode(_body(photo), name, decode)
    raise ImageError(f"A photo is a path, bytes, a binary file, a PIL image or an array, not {photo!r:.80}.")


@contextmanager
def _refused(name: str) -> Iterator[None]:
    """Whatever is wrong with a photo becomes an ImageError: what decoders trip over has no common base."""
    try:
        yield
    except (CapexportError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise ImageError(f"There is no photo at {name}.") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not a photo: expected one of {', '.join(FORMATS)}.") from error
    except Image.DecompressionBombError as error:
        raise ImageError(_too_large(name)) from error
    except (OSError, SyntaxError, ValueError, EOFError, MalformedError) as error:
        raise ImageError(f"{name} cannot be read: {error}.") from error
    except Exception as error:
        raise ImageError(f"{name} cannot be read: it is damaged ({type(error).__name__}).") from error


def held(photo: Photo) -> Photo:
    """The photo, its bytes read if it is a stream: for who wants to wait for them, and decode it elsewhere."""
    if _in_file(photo) or isinstance(photo, Image.Image | np.ndarray | Held) or not isinstance(photo, Readable):
        return photo
    try:
        return Held(_name(photo), _body(photo))
    except Exception as error:  # it is raised when the photo is decoded, as if the stream were read then
        return Held(_name(photo), error)


def _in_file(photo: Any) -> bool:
    """Whether it is a path or bytes; asked before whether it is Readable, which takes long to ask."""
    return isinstance(photo, str | bytes | os.PathLike)


def _body(photo: Readable) -> bytes:
    body: Any = _of_file(photo) if isinstance(photo, io.IOBase) else photo.read()
    if not isinstance(body, bytes | bytearray | memoryview):
        raise ImageError(f"{_name(photo)} gives text, not bytes: open it in binary mode.")
    return bytes(body)


def _of_file(file: Any) -> Any:
    """What is left of a file, and no more than is too much for a photo: it may be of nothing but holes."""
    parts, size = [], 0
    while size <= MOST_BYTES and (part := file.read(BUFFER)):
        parts.append(part)
        size += len(part)
    return parts[0] if len(parts) == 1 else type(parts[0])().join(parts) if parts else b""


def _decode(photo: FilePhoto, name: str, decode: Callable[[Image.Image, BinaryIO], T]) -> T:
    with io.BytesIO(photo) if isinstance(photo, bytes) else open_plain(photo, whole=BUFFER) as file:
        size = file.seek(0, os.SEEK_END)
        if size > MOST_BYTES:
            raise ImageError(f"{name} is too large: more than {MOST_BYTES >> 20} MiB.")
        with _opened(file) as image:
            _checked_size(image, name)
            pixels = image.width * image.height
            if pixels > max(SMALL, DENSEST * size):
                shape = f"{image.width}x{image.height}"
                raise ImageError(f"{name} is too large for a photo: {shape} pixels in {size} bytes.")
            return decode(image, file)


def _opened(file: BinaryIO) -> Image.Image:
    file.seek(0)
    if file.read(2) == JPEG:
        check_jpeg(file)
    file.seek(0)
    image = Image.open(file, formats=FORMATS)
    image.info.pop("xmp", None)  # in which Pillow finds an orientation, too, but no browser does
    return image


def _checked_size(image: Image.Image, name: str) -> Image.Image:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(_too_large(name))
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{name} is too small to caption: {width}x{height} pixels, at least {MIN_SIDE} a side.")
    return image


def _too_large(name: str) -> str:
    return f"{name} is too large: more than {MAX_PIXELS // 1_000_000} million pixels; shrink it first."


def _flatten(image: Image.Image) -> Image.Image:
    image.load()  # while its file is open
    turn = _turn(image)
    upright = image if turn is None else image.transpose(turn)  # a copy takes a sixth of the whole preprocessing
    if isinstance(upright.info.get("transparency"), str):  # a text of that name in a PNG file
        upright = upright.copy()
        del upright.info["transparency"]
    if upright.mode.startswith("I"):  # 16-bit greyscale: Pillow would clip it to white
        return _in_strips(upright, _of_16_bits)
    if upright.has_transparency_data:
        return _in_strips(upright, _on_white)
    return upright if upright.mode == "RGB" else upright.convert("RGB")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes the photo upright; nothing where its EXIF is damaged."""
    try:
        return UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:  # Pillow's readers of EXIF and XMP raise whatever odd values in there lead to
        return None


def _turned(pixels: Pixels, turn: Image.Transpose | None) -> Upright:
    return pixels if turn is None else Image.fromarray(pixels).transpose(turn)


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Strips of all of an image's rows, each after its first row."""
    rows = max(STRIP // image.width, 1)
    for top in range(0, image.height, rows):
        end = min(top + rows, image.height)
        yield top, image if end - top == image.height else image.crop((0, top, image.width, end))


def _in_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """The image in RGB, converted strip by strip, which each have the pixels that the whole would have."""
    converted = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        if strip is image:
            return convert(image)
        converted.paste(convert(strip), (0, top))
    return converted


def _of_16_bits(image: Image.Image) -> Image.Image:
    samples = np.asarray(image).astype(np.int32).clip(0, 65535)
    return Image.fromarray(((samples + 128) // 257).astype(np.uint8)).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _from_array(array: NDArray[Any]) -> Image.Image:
    colour = array.ndim == 3 and array.shape[2] in (3, 4)
    if array.dtype != np.uint8 or not (array.ndim == 2 or colour) or 0 in array.shape:
        raise ImageError(
            f"An array must be uint8 (H, W), (H, W, 3) or (H, W, 4); this one is {array.dtype} {array.shape}."
        )
    return Image.fromarray(array)


def _name(photo: Photo) -> str:
    if isinstance(photo, bytes):
        return f"The photo ({len(photo)} bytes)"
    if isinstance(photo, str | os.PathLike):
        return str(photo)
    return str(getattr(photo, "name", "The photo"))


def _bilinear(image: Upright, size: tuple[int, int]) -> Pixels:
    """`tf.image.resize`'s default, which is the tutorial's: half-pixel centres, no antialiasing, then rounded."""
    near = [_neighbours(source, target) for source, target in zip(_size(image), size, strict=True)]
    seen = [np.unique(np.concatenate([low, high])) for low, high, _ in near]  # rows, columns
    pixels: NDArray[Any] = _picked(image, *seen)
    for axis, (low, high, weight) in enumerate(near):
        weight = weight.reshape([-1 if i == axis else 1 for i in range(3)])
        places = (np.searchsorted(seen[axis], one) for one in (low, high))
        first, second = (pixels.take(place, axis).astype(np.float32) for place in places)
        pixels = first + (second - first) * weight
    return (pixels + np.float32(0.5)).astype(np.uint8)


def _size(image: Upright) -> tuple[int, int]:
    """Its height and width."""
    return (image.height, image.width) if isinstance(image, Image.Image) else image.shape[:2]


def _picked(image: Upright, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Pixels:
    """The pixels where the rows and the columns, each in ascending order, meet: (rows, columns, 3)."""
    if not isinstance(image, Image.Image):
        return image.take(rows, 0).take(columns, 1)
    parts = []
    for top, strip in _strips(image):
        first, last = np.searchsorted(rows, (top, top + strip.height))
        parts.append(np.asarray(strip).take(rows[first:last] - top, 0).take(columns, 1))
    return np.concatenate(parts)


def _neighbours(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each target position its two source positions and the weight of the second."""
    centre = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * np.float32(source / target) - np.float32(0.5)
    floor = np.floor(centre)
    low = np.clip(floor, 0, source - 1).astype(np.intp)
    high = np.clip(np.ceil(centre), 0, source - 1).astype(np.intp)
    return low, high, (centre - floor).astype(np.float32)


def _bilinear_antialias(image: Upright, size: tuple[int, int]) -> Pixels:
    whole = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return np.asarray(whole.resize(size[::-1], Image.Resampling.BILINEAR))


RESIZERS: dict[str, Callable[[Upright, tuple[int, int]], Pixels]] = {
    "bilinear-antialias": _bilinear_antialias,
    "bilinear": _bilinear,
}
