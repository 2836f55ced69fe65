"""A comparison as a figure: what quality costs in megabytes and milliseconds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..plot import DPI, INK, PALE_INK, new_figure, save_figure
from .compare import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 9.0, 5.5  # inches
COLOURS = ("#b85c1e", "#2f6690", "#4f772d", "#7b4b94")  # of the formats, by name
AREA = 900  # of the slowest bundle's disc, in square points
LEAST_RANGE = 0.04  # of CIDEr that is shown at the least, so that what is nearly the same looks so
GAP, LEADING, LINES = 8, 3, 20  # pixels beside a disc, and around a label; the most lines up and down from a disc

Box = tuple[float, float, float, float]  # left, bottom, right and top in pixels


def draw_comparison(comparison: Comparison, path: Path, force: bool = False) -> None:
    """Draw each bundle's size against its CIDEr, as a disc whose area is the time that a caption takes.

    Rows without measures are left out. Raises OutputError if `path` exists, unless force, MissingExtraError without
    matplotlib.
    """
    measured = [(row, row.measures) for row in comparison.rows if row.measures]
    measured.sort(key=lambda pair: -pair[1].caption_ms)  # small discs lie on large ones
    sizes = [row.graph_bytes / 1e6 for row, _ in measured]
    scores = [measures.scores["CIDEr"] for _, measures in measured]
    times = [measures.caption_ms for _, measures in measured]
    areas = [AREA * ms / times[0] for ms in times]
    formats = sorted({row.format for row, _ in measured})
    colours = [COLOURS[formats.index(row.format) % len(COLOURS)] for row, _ in measured]
    middle, half = (max(scores) + min(scores)) / 2, 0.7 * max(max(scores) - min(scores), LEAST_RANGE)

    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    axes.scatter(sizes, scores, areas, [(colour, 0.35) for colour in colours], edgecolors=colours, zorder=2)
    axes.set(xlim=(0, 1.25 * max(sizes)), ylim=(middle - half, middle + half))
    axes.set_xlabel("size of both graphs (MB)", color=INK)
    axes.set_ylabel(f"CIDEr on {comparison.photos:,} photos", color=INK)
    axes.set_title("A disc's area is the time that a caption takes", color=PALE_INK, size=10, loc="left")
    axes.tick_params(colors=PALE_INK)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.canvas.draw()
    figure.set_layout_engine("none")  # the axes stay where they are now while labels look for their places
    labels = [f"{row.label}, {ms:.3g} ms" for (row, _), ms in zip(measured, times, strict=True)]
    _place_labels(axes, list(zip(sizes, scores, strict=True)), areas, labels)
    save_figure(figure, path, force)


def _place_labels(
    axes: Axes, points: Sequence[tuple[float, float]], areas: Sequence[float], labels: Sequence[str]
) -> None:
    """Put each label beside its disc, as near to its height as it covers no disc and no other label."""
    centres = axes.transData.transform(points)
    radii = [math.sqrt(area / math.pi) * DPI / 72 for area in areas]
    taken = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(centres, radii, strict=True)]
    left, bottom, right, top = axes.bbox.extents
    # From the right to the left, since labels go to the right if they can.
    for (x, y), radius, label in sorted(zip(centres.tolist(), radii, labels, strict=True), reverse=True):
        text = axes.text(x, y, label, transform=None, size=9, color=INK, va="center", parse_math=False)
        extent = text.get_window_extent()
        for side, near_x, near_y in _places(x, y, radius + GAP, extent.height + LEADING):
            far_x = near_x + side * (extent.width + LEADING)
            box = (min(near_x, far_x), near_y - extent.height / 2, max(near_x, far_x), near_y + extent.height / 2)
            inside = left <= box[0] and bottom <= box[1] and box[2] <= right and box[3] <= top
            if inside and not any(_overlap(box, other) for other in taken):
                break
        text.set(position=(near_x + side * LEADING, near_y), horizontalalignment="left" if side > 0 else "right")
        axes.plot([x, near_x], [y, near_y], transform=None, color=PALE_INK, linewidth=0.7, zorder=3)
        taken.append(box)


def _places(x: float, y: float, beside: float, line: float) -> Iterator[tuple[int, float, float]]:
    """Where a label of the disc at (x, y) may begin: to the right (1) or left (-1) of it, ever more lines away."""
    for step in range(2 * LINES + 1):
        height = (step + 1) // 2 * line * (1 if step % 2 else -1)
        for side in (1, -1):
            yield side, x + side * beside, y + height


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
