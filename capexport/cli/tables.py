"""Tables of cells, for a terminal and for the docs; a row that is shorter than the header ends with its error."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

Cells = Sequence[str]

HEADER_WIDTH = 10


def markdown_table(header: Cells, rows: Sequence[Cells]) -> str:
    """As Markdown, all columns but the first to the right."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *escaped]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def aligned_table(header: Cells, rows: Sequence[Cells]) -> str:
    """In aligned columns, the header's words above each other."""
    stacked = [textwrap.wrap(name, HEADER_WIDTH, break_long_words=False) for name in header]
    height = max(map(len, stacked))
    above = [[*[""] * (height - len(words)), *words] for words in stacked]
    lines = [*map(list, zip(*above, strict=True)), *rows]
    complete = [line for line in lines if len(line) == len(header)]
    widths = [max(map(len, column)) for column in zip(*complete, strict=True)]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: Cells, widths: Sequence[int]) -> str:
    first, *others = line
    cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=False)]
    return "  ".join([first.ljust(widths[0]), *cells]).rstrip()
