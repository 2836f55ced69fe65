"""capexport distill"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ..atomic import check_absent, new_file
from ..captioner.backbone import build_backbone
from ..captioner.config import CaptionerConfig
from ..captioner.distillation import DistillationOptions, distill
from ..image import load_image
from ..progress import track
from .dataset import add_dataset_options, read_photos
from .options import add_options, read_options


def configure(parser: argparse.ArgumentParser) -> None:
    add_dataset_options(parser, "train")
    parser.add_argument("--teacher-weights", default="imagenet", metavar="FILE", help="(default: imagenet)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="resumed if it holds a run")
    parser.add_argument("--backbone", default=CaptionerConfig.backbone, metavar="S")
    parser.add_argument("--image-size", type=int, default=CaptionerConfig.image_size[0], metavar="PIXELS")
    add_options(parser, DistillationOptions)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> None:
    options = read_options(DistillationOptions, parsed)
    weights = parsed.out / "encoder.weights.h5"
    check_absent(weights, force=False)
    size = (parsed.image_size, parsed.image_size)
    photos = read_photos(parsed, "train")
    pixels = np.stack([load_image(photo.path, size) for photo in track(photos, len(photos), "reading photos")])
    teacher = build_backbone(parsed.backbone, size, parsed.teacher_weights)
    student = build_backbone(parsed.backbone, size, weights=None)
    distill(student, teacher, pixels, parsed.out, options)
    with new_file(weights, tidy=True) as partial:
        student.save_weights(partial, save_format="h5")
    print(f"{weights}: an encoder; next: capexport train --encoder-weights {weights}")
