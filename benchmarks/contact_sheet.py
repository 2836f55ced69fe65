"""The sample photos with what a captioner says of them, greedy: python benchmarks/contact_sheet.py [BUNDLE]

Without BUNDLE the captioner that ships is asked. Writes contact_sheet.png beside this file.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from PIL import Image

import capexport
from capexport.cli.default_bundle import default_bundle
from capexport.plot import INK, PALE_INK, new_figure, save_figure
from capexport.shipped import sample_photos

COLUMNS, WIDTH = 3, 38  # photos a row; characters a line


def main(bundle: Path) -> None:
    photos = sample_photos()
    captions = capexport.load(bundle).caption(photos)
    rows = -(-len(photos) // COLUMNS)
    figure = new_figure(3.6 * COLUMNS, 4.2 * rows)
    for axis, photo, caption in zip(figure.subplots(rows, COLUMNS).flat, photos, captions, strict=False):
        with Image.open(photo) as image:
            axis.imshow(image.convert("RGB"))
        axis.set(xticks=[], yticks=[])
        axis.set_title(textwrap.fill(caption.text, WIDTH), loc="left", color=INK, fontsize=10)
        axis.set_xlabel(f"confidence {caption.confidence:.2f}", loc="left", color=PALE_INK, fontsize=9)
    save_figure(figure, Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default_bundle())
