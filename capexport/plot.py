"""Figures (matplotlib, the extra `plot`): where the model looked while it said each word."""

from __future__ import annotations

import math
import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from .atomic import new_file
from .errors import MissingExtraError
from .heat import light, light_range, lit, shares
from .image import Photo, read_photo
from .runtime.caption import Caption
from .vocabulary import END

if TYPE_CHECKING:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

DPI = 120
FONT = "DejaVu Sans"  # matplotlib's own
INK, PALE_INK = "#151a24", "#667085"

# The figure of attention, in pixels
PANEL = 220  # the side of a square photo, any other has its area; smaller where there are more words than MANY
MANY = 20
LONGEST_SIDE = 480
NARROWEST_CELL = 120  # room for a word over a narrow photo
NARROWEST = 480  # room for the caption over few words
MARGIN, GAP, LEADING = 40, 24, 12
LEAST = 0.65  # a long word is shrunk to this part of its size before it is broken
LEGEND = (300, 14)
FIGURE_ASPECT = 1.6


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches; raises MissingExtraError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path, force: bool = True) -> None:
    """Write a figure as PNG, whole or not at all; raises OutputError."""
    canvas = cast("FigureCanvasAgg", figure.canvas)
    canvas.draw()
    with new_file(path, force=force, tidy=True) as partial:
        # Not savefig: an alpha channel would be a tenth of the file.
        Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(partial, format="png")


def draw_attention(
    photo: Photo, caption: Caption, path: Path, force: bool = False, layer: int | None = None, head: int | None = None
) -> None:
    """Draw the photo once for each word, lit where the model looked, the caption above: the tutorial's figure.

    layer, head  the one to draw, counted from 0; None: the mean of all

    Over each panel stand its word and the word's probability; heat.py says how the light is meant. Raises OutputError
    if `path` exists, unless force, OptionError for a layer or head that the model has not, ImageError for a photo that
    cannot be read, MissingExtraError without matplotlib.
    """
    grey = _panel(photo, len(caption.words))
    fields = shares(caption.attention_of(layer, head), grey.shape)
    extent = light_range(fields)
    panels = [lit(grey, light(field, extent)) for field in fields]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a letter that no installed font has is drawn as a box
        figure = _attention_figure(caption, panels, _which(caption, layer, head), extent)
        save_figure(figure, path, force)


def _attention_figure(caption: Caption, panels: list[np.ndarray], note: str, extent: float) -> Figure:
    figure = new_figure(1, 1)
    height, width, _ = panels[0].shape
    cell = max(width, NARROWEST_CELL)
    columns = _columns(len(panels), cell + GAP, height + 2 * GAP)
    content = max(columns * (cell + GAP) - GAP, NARROWEST)
    title = _text(figure, caption.text, content, 17, weight="bold")
    under = _text(figure, note, content, 10, color=PALE_INK)
    chances = [_text(figure, f"{math.exp(p):.0%}", cell, 9, color=PALE_INK) for p in caption.log_probabilities]
    labels = [
        _text(figure, word, cell - _size(chance)[0] - LEADING, 12, LEAST, color=PALE_INK if word == END else INK)
        for word, chance in zip(caption.words, chances, strict=True)
    ]

    row = max(_size(label)[1] for label in labels) + LEADING + height + GAP
    header = MARGIN + _size(title)[1] + LEADING + _size(under)[1] + GAP
    total = math.ceil(header + math.ceil(len(panels) / columns) * row) + 2 * MARGIN
    figure.set_size_inches((content + 2 * MARGIN) / DPI, total / DPI)
    _place(title, MARGIN, total - MARGIN, "left", "top")
    _place(under, MARGIN, total - MARGIN - _size(title)[1] - LEADING, "left", "top")
    for i, (panel, label, chance) in enumerate(zip(panels, labels, chances, strict=True)):
        x = MARGIN + i % columns * (cell + GAP)
        y = int(total - header - (i // columns + 1) * row + GAP)
        figure.figimage(panel, x, y, origin="upper")
        _place(label, x, y + height + LEADING, "left", "baseline")
        _place(chance, x + cell, y + height + LEADING, "right", "baseline")
    _legend(figure, extent)
    return figure


def _panel(photo: Photo, count: int) -> np.ndarray:
    """The photo in grey at the size it has in each of `count` panels: float64 (height, width)."""
    image = read_photo(photo).convert("L")
    side = max(PANEL * min(1, math.sqrt(MANY / count)), NARROWEST_CELL, NARROWEST / count)
    shrink = min(side / math.sqrt(image.width * image.height), LONGEST_SIDE / max(image.size))
    size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS), np.float64)


def _columns(count: int, width: float, height: float) -> int:
    """In how many columns that many panels make a figure of a pleasant shape with few places left empty."""

    def cost(columns: int) -> float:
        rows = math.ceil(count / columns)
        return abs(math.log(columns * width / (rows * height) / FIGURE_ASPECT)) + (rows * columns - count) / columns

    return min(range(1, count + 1), key=cost)


def _which(caption: Caption, layer: int | None, head: int | None) -> str:
    """What is drawn, in words."""
    counts = caption.cross_attention.shape[1:3]
    parts = [
        f"mean of {total} {kind}s" if chosen is None and total > 1 else f"{kind} {chosen or 0}"
        for kind, chosen, total in zip(("layer", "head"), (layer, head), counts, strict=True)
    ]
    return f"Attention: {', '.join(parts)}"


def _text(figure: Figure, content: str, width: float, size: float, least: float = 1.0, **style: Any) -> Text:
    """Text that is not placed yet, in a width in pixels: shrunk, and broken where `least` of its size is too large."""
    style = {"color": INK, "family": _families(content), "parse_math": False, **style}
    text = figure.text(0, 0, content, transform=None, size=size, **style)
    wide = _size(text)[0] * least
    if wide > width:
        text.set_text(textwrap.fill(content, max(1, int(len(content) * width / wide))))
    text.set_fontsize(size * min(1.0, width / max(1.0, _size(text)[0])))
    return text


def _families(text: str) -> list[str]:
    """The font families for a text: matplotlib's own, and installed ones for letters that it lacks."""
    from matplotlib.font_manager import fontManager, get_font

    families = [FONT]
    missing = {ord(letter) for letter in text} - {ord("\n")}
    for font in sorted(fontManager.ttflist, key=lambda font: (font.name != FONT, font.name)):
        if not missing:
            break
        found = missing & get_font(font.fname).get_charmap().keys()
        if found and font.name != "Last Resort High-Efficiency":  # boxes, which matplotlib falls back to anyway
            families.append(font.name)
            missing -= found
    return list(dict.fromkeys(families))


def _size(text: Text) -> tuple[float, float]:
    """Width and height in pixels."""
    box = text.get_window_extent()
    return box.width, box.height


def _place(text: Text, x: float, y: float, horizontal: str, vertical: str) -> None:
    text.set(position=(x, y), horizontalalignment=horizontal, verticalalignment=vertical)


def _legend(figure: Figure, extent: float) -> None:
    """The scale of the light in the lower left corner, over the mid grey of a photo."""
    width, height = LEGEND
    bar = np.tile(np.linspace(-1, 1, width), (height, 1))
    figure.figimage(lit(np.full(bar.shape, 128.0), bar), MARGIN, MARGIN, origin="upper")
    labels = {"left": f"÷ {extent:.2g}", "center": "an even share", "right": f"× {extent:.2g}"}
    for place, (align, label) in zip((0, width / 2, width), labels.items(), strict=True):
        _place(_text(figure, label, width, 9, color=PALE_INK), MARGIN + place, MARGIN - LEADING / 2, align, "top")
