"""The demo: convert the captioner that ships to every format, caption the sample photos, draw an attention figure.

Run as `python -m capexport.cli.demo FOLDER`; every step is a command line that a user could type.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from ..recipes import DEFAULT_RECIPE, FORMATS
from ..shipped import sample_photos
from .main import main

FIGURE_PHOTO = "hopper"


def demo(out: Path) -> int:
    """Run the steps, each command shown; returns the first exit code that is not 0."""
    photos = [str(photo) for photo in sample_photos()]
    shown = next(photo for photo in photos if FIGURE_PHOTO in photo)
    bundles = {to: str(out / f"{to}-{DEFAULT_RECIPE}") for to in FORMATS}
    figure = str(out / "attention.png")
    steps = [["convert", "--to", ",".join(FORMATS), "--recipe", DEFAULT_RECIPE, "--out", str(out), "--force"]]
    steps += [["caption", *photos, "--bundle", path] for path in bundles.values()]
    steps += [["caption", shown, "--bundle", bundles["onnx"], "--attention", figure, "--force"]]
    for step in steps:
        print(f"\n$ capexport {shlex.join(step)}", flush=True)
        code = main(step)
        if code:
            return code
    print("\nIt is all here:")
    for label, path in (*bundles.items(), ("attention", figure), ("photos", str(Path(photos[0]).parent))):
        print(f"    {label:10} {path}")
    return 0


if __name__ == "__main__":
    sys.exit(demo(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output")))
