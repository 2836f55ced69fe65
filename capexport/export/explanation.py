"""What each layer lost at each step down in precision, as a table and as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..plot import INK, PALE_INK, new_figure, save_figure
from ..recipes import Precision
from .sensitivity import Choice, Sensitivity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Choices = Mapping[str, Sequence[Choice]]  # by graph, one a step

SIGNS = """\
Errors are of logits and attention, root mean square, relative to how much these vary.
*  did not take the step: more would be lost than is allowed (inf: the engine refuses it)
-  was not tried: it has hardly any weights or multiplications, or gives the words' logits, whose ranges no
   calibration can learn
share: of the weights, or for static of the multiplications"""
WIDTH, ROW, MARGIN = 9.0, 0.17, 1.3  # inches
LEAST, MOST = 1e-5, 2.0  # of the errors that are drawn
COLOURS = {
    Precision.FLOAT: "#667085",
    Precision.HALF: "#2f6690",
    Precision.STORED: "#b8a11e",
    Precision.DYNAMIC: "#4f772d",
    Precision.STATIC: "#b85c1e",
}


def table(choices: Choices) -> str:
    """A block of lines a graph: its layers, what they lost, and what they are in now; then what the signs mean."""
    return "\n\n".join([*(_block(graph, steps) for graph, steps in choices.items() if steps), SIGNS])


def draw(choices: Choices, path: Path, force: bool = False) -> None:
    """Draw what each layer lost at its graph's last step, coloured by the precision that it has now.

    Raises OutputError if `path` exists, unless force, MissingExtraError without matplotlib.
    """
    drawn = {graph: steps[-1] for graph, steps in choices.items() if steps}
    counts = [len(choice.sensitivities) for choice in drawn.values()]
    figure = new_figure(WIDTH, MARGIN * len(counts) + ROW * sum(counts))
    panels = figure.subplots(len(counts), squeeze=False, height_ratios=[count + MARGIN / ROW for count in counts])
    for axes, (graph, choice) in zip(panels[:, 0], drawn.items(), strict=True):
        _panel(axes, graph, choice)
    save_figure(figure, path, force)


def _block(graph: str, steps: Sequence[Choice]) -> str:
    names = [choice.wanted.name.lower() for choice in steps]
    width = max(len(each.layer.name) for each in steps[0].sensitivities)
    lines = [f"{graph:{width}} {'weights':>9} " + "".join(f"{name:>11} " for name in names) + "  now"]
    for layer in zip(*(choice.sensitivities for choice in steps), strict=True):
        lost = "".join(_cell(each, choice) for each, choice in zip(layer, steps, strict=True))
        last = layer[-1]
        lines.append(f"{last.layer.name:{width}} {last.layer.weights:9,} {lost}  {last.precision.name.lower()}")
    for text, of in (
        ("all that took the step together", lambda choice: f"{choice.error:11.4f} "),
        ("allowed", lambda choice: f"{choice.budget:11.4f} "),
        ("their share (see below)", lambda choice: f"{choice.share:11.1%} "),
    ):
        lines.append(f"{text:{width + 10}} {''.join(map(of, steps))}".rstrip())
    return "\n".join(lines)


def _cell(each: Sensitivity, choice: Choice) -> str:
    if each.error is None:
        return f"{'-':>11} "
    return f"{each.error:11.4f}{' ' if each.precision is choice.wanted else '*'}"


def _panel(axes: Axes, graph: str, choice: Choice) -> None:
    layers = [(each, each.error) for each in choice.sensitivities if each.error is not None]
    places = range(len(layers))
    colours = [COLOURS[each.precision] for each, _ in layers]
    axes.barh(places, [min(max(error, LEAST), MOST) for _, error in layers], color=colours)
    axes.axvline(choice.budget, color=INK, linestyle=":")
    axes.set_yticks(places, [each.layer.name for each, _ in layers], size=7)
    axes.set(xscale="log", xlim=(LEAST, MOST), ylim=(len(layers) - 0.4, -0.6))
    axes.set_xlabel(f"error of the {graph} if this layer alone is {choice.wanted.name.lower()}", color=INK)
    taken = sum(each.precision is choice.wanted for each, _ in layers)
    axes.set_title(
        f"{graph}: {taken} of {len(layers)} layers are {choice.wanted.name.lower()}, {choice.share:.0%} of its cost; "
        f"together {choice.error:.2g} of {choice.budget:g} (dotted)",
        color=INK,
        size=10,
        loc="left",
    )
    for precision in sorted({each.precision for each, _ in layers}, key=list(Precision).index):
        axes.barh([0], [0], color=COLOURS[precision], label=precision.name.lower())
    axes.legend(loc="lower right", fontsize=8, frameon=False, labelcolor=PALE_INK)
    axes.tick_params(colors=PALE_INK)
    axes.spines[["top", "right"]].set_visible(False)
