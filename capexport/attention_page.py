"""Where the model looked, as a page: one HTML file that shows a word's attention when one points at the word."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .atomic import new_file
from .heat import LEAST_RANGE, PALETTE
from .image import Photo, read_photo
from .runtime.caption import Caption
from .vocabulary import END

LONGEST_SIDE = 1000  # of the photo in the page, in pixels
DECIMALS = 5  # of an attention weight


def write_attention_page(
    photo: Photo, caption: Caption, path: Path, force: bool = False, layer: int | None = None, head: int | None = None
) -> None:
    """Write a page with the photo and the caption's words; pointing at a word lights the photo where the model looked.

    layer, head  the one shown at first, counted from 0; None: the mean of all

    The caption's alternatives stand below it. The page is one file, photo included, and may fetch nothing: its
    Content-Security-Policy says so. Raises OutputError if `path` exists, unless force, OptionError for a layer or head
    that the model has not, ImageError for a photo that cannot be read.
    """
    caption.attention_of(layer, head)
    image = read_photo(photo).copy()
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    data = {
        "captions": [_caption_data(one) for one in (caption, *caption.alternatives)],
        "layer": layer,
        "head": head,
        "end": END,
        "palette": PALETTE,
        "leastRange": LEAST_RANGE,
    }
    package = resources.files(__package__)
    light = re.sub("^export ", "", package.joinpath("web/light.js").read_text("utf-8"), flags=re.MULTILINE)
    template = package.joinpath("attention_page.html").read_text("utf-8").replace("{{light}}", light)
    values = {
        "policy": content_policy(template, {"img-src": "data:"}),
        "caption": html.escape(caption.text),
        "photo": _data_uri(image),
        "width": str(image.width),
        "height": str(image.height),
        # In a script element "<" could end it; in JSON it stands in strings alone, where it may be escaped.
        "data": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", r"\u003c"),
    }
    page = re.sub(r"{{(\w+)}}", lambda field: values[field[1]], template)
    with new_file(path, force=force, tidy=True) as partial:
        partial.write_bytes(page.encode())


def _caption_data(caption: Caption) -> dict[str, Any]:
    return {
        "words": caption.words,
        "probabilities": [round(math.exp(value), DECIMALS) for value in caption.log_probabilities],
        "confidence": round(caption.confidence, DECIMALS),
        "attention": np.round(caption.cross_attention.astype(np.float64), DECIMALS).tolist(),
    }


def _data_uri(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def content_policy(template: str, more: dict[str, str]) -> str:
    """A Content-Security-Policy (W3C, level 3): the template's own style and script, and `more`, but nothing else."""
    allowed = {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'", **more}
    for tag in ("style", "script"):
        content = template.split(f"<{tag}>")[1].split(f"</{tag}>")[0]
        digest = hashlib.sha256(content.encode()).digest()
        allowed[f"{tag}-src"] = f"'sha256-{base64.b64encode(digest).decode()}'"
    return "; ".join(f"{directive} {source}" for directive, source in allowed.items())
