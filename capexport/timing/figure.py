"""A bench as a figure: what a caption takes, on a scale of powers of ten."""

from __future__ import annotations

from pathlib import Path

from ..plot import INK, PALE_INK, new_figure, save_figure
from .bench import Bench

WIDTH, ROW, MARGIN = 8.0, 0.3, 1.4  # inches


def draw_bench(result: Bench, path: Path, force: bool = False) -> None:
    """Draw each row's median caption as a bar, a line to its 90th and a dot at its 99th percentile.

    Rows without measures are left out. Raises OutputError if `path` exists, unless force, MissingExtraError without
    matplotlib.
    """
    measured = [(row, row.measures) for row in result.rows if row.measures]
    figure = new_figure(WIDTH, MARGIN + ROW * len(measured))
    axes = figure.subplots()
    places = range(len(measured))
    p50, p90, p99 = ([1000 * getattr(one, name) for _, one in measured] for name in ("p50", "p90", "p99"))
    colours = ["#98a2b3" if row.graph_bytes is None else "#2f6690" for row, _ in measured]
    axes.barh(places, p50, color=colours)
    axes.hlines(places, p50, p90, color=INK, linewidth=1)
    axes.plot(p99, places, linestyle="", marker=".", color=INK)
    for place, value, far in zip(places, p50, p99, strict=True):
        text = f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"
        axes.text(1.1 * far, place, text, va="center", size=8, color=INK)
    axes.set_yticks(places, [row.label for row, _ in measured], size=8)
    axes.set(xscale="log", ylim=(len(measured) - 0.4, -0.6), xlim=(min(p50) / 2, 4 * max(p99)))
    axes.set_xlabel("milliseconds a caption: median, to the 90th percentile, and the 99th (dot)", color=INK)
    axes.tick_params(colors=PALE_INK)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path, force)
