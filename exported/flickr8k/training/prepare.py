"""What make.py needs of a data set, on a machine with TensorFlow: prepare.py FLICKR8K IMAGENET_WEIGHTS OUT

Writes OUT/prepared.npz: the captions as ids, the words' frequencies as a bias, the ImageNet encoder's weights;
OUT/photos.txt: the photos' paths, train's and then dev's; and the config and vocabulary of what is to be trained.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from capexport.captioner.backbone import build_backbone
from capexport.captioner.config import CaptionerConfig
from capexport.captioner.model import build_captioner
from capexport.captioner.tokenizer import learn_vocabulary
from capexport.captioner.weights import OUTPUT_BIAS, encoder_variables
from capexport.datasets import load_dataset
from capexport.vocabulary import Vocabulary


def main() -> None:
    data, weights, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    splits = [load_dataset("flickr8k", data, split) for split in ("train", "dev")]
    config = CaptionerConfig(dropout_rate=0.1)
    vocabulary = learn_vocabulary([text for photo in splits[0] for text in photo.captions], config.vocabulary_size)
    encoder = build_backbone(config.backbone, config.image_size, weights)
    captioner = build_captioner(config, vocabulary, encoder)
    tokens = [captioner.tokenizer([text for photo in split for text in photo.captions]) for split in splits]
    captioner.output_layer.adapt([tokens[0][:, 1:].to_tensor().numpy()])
    arrays = {name: variable.numpy() for name, variable in encoder_variables(encoder).items()}
    arrays[OUTPUT_BIAS] = captioner.output_layer.bias
    for name, split, ids in zip(("train", "dev"), splits, tokens, strict=True):
        arrays[f"tokens.{name}"] = _by_photo(ids.to_tensor().numpy(), [len(photo.captions) for photo in split])
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / "prepared.npz", **arrays)
    (out / "config.json").write_text(replace(config, vocabulary_size=len(vocabulary)).to_json())
    (out / "vocabulary.txt").write_text(Vocabulary.from_words(vocabulary).to_text(), encoding="utf-8", newline="\n")
    (out / "photos.txt").write_text("".join(f"{photo.path}\n" for split in splits for photo in split))


def _by_photo(ids: np.ndarray, counts: list[int]) -> np.ndarray:
    """(captions, T) -> int16 (photos, captions at most, T), zeros where a photo has fewer."""
    tokens = np.zeros((len(counts), max(counts), ids.shape[1]), np.int16)
    start = 0
    for photo, count in enumerate(counts):
        tokens[photo, :count] = ids[start : start + count]
        start += count
    return tokens


if __name__ == "__main__":
    main()
