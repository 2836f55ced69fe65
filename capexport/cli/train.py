"""capexport train"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..captioner.backbone import build_backbone
from ..captioner.best import BestOptions, train_best
from ..captioner.config import CaptionerConfig
from ..captioner.storage import load_captioner
from ..captioner.training import TrainingOptions, train
from .dataset import add_dataset_options, read_photos
from .options import add_options, read_options


def configure(parser: argparse.ArgumentParser) -> None:
    add_dataset_options(parser, "train", "dev")
    parser.add_argument(
        "--encoder-weights",
        default="imagenet",
        metavar="FILE",
        help="the frozen encoder's weights, as Keras saves them; imagenet downloads Keras' own (default: imagenet)",
    )
    parser.add_argument("--init", type=Path, metavar="DIR", help="start from the decoder of this captioner")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="resumed if it holds the same run")
    parser.add_argument("--image-size", type=int, default=CaptionerConfig.image_size[0], metavar="PIXELS")
    add_options(parser, CaptionerConfig, without=("image_size",))
    parser.add_argument("--recipe", choices=("tutorial", "best"), default="tutorial", help="(default: tutorial)")
    add_options(parser, TrainingOptions)
    add_options(parser, BestOptions, without=("seed",))
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> None:
    config = read_options(CaptionerConfig, parsed, image_size=(parsed.image_size, parsed.image_size))
    train_photos, dev_photos = (read_photos(parsed, split) for split in ("train", "dev"))
    if Path(parsed.encoder_weights).is_dir():
        encoder = load_captioner(parsed.encoder_weights).feature_extractor
    else:
        encoder = build_backbone(
            config.backbone, config.image_size, parsed.encoder_weights, config.include_preprocessing
        )
    if parsed.recipe == "best":
        options = read_options(BestOptions, parsed)
        train_best(config, encoder, train_photos, dev_photos, parsed.out, options, initial=parsed.init)
    else:
        options = read_options(TrainingOptions, parsed)
        train(config, encoder, train_photos, dev_photos, parsed.out, options, initial=parsed.init)
    print(f"{parsed.out}: a captioner; next: capexport convert {parsed.out} --to onnx")
