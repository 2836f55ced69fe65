"""What is learnt from and what it is measured by: Flickr8k's photos and captions on the device, and CIDEr on dev."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from learning import crosses_of, searched, word_loss
from network import Weights, cross_of, encode, logits_of, new_decoder, to_array, to_torch
from rewards import Cider
from safetensors.numpy import save_file

from capexport.image import load_image

LENGTH, SAMPLED_LENGTH = 24, 20  # tokens that are learnt from people's captions (99 % of them end by then), and sampled
PENALTY = 0.7  # of beam search, as capexport.DecodingOptions has it


class World:
    """The photos, their captions and what is measured on dev."""

    def __init__(self, prepared: Path, photos: Path, out: Path, device: torch.device, limit: int | None) -> None:
        self.device, self.out, self.began = device, out, time.monotonic()
        with np.load(prepared / "prepared.npz") as arrays:
            given = {name: arrays[name] for name in arrays.files}
        self._prepared = prepared
        words = (prepared / "vocabulary.txt").read_text().split("\n")
        self.start, self.end, self.unknown = (words.index(word) for word in ("[START]", "[END]", "[UNK]"))
        tokens = {split: given.pop(f"tokens.{split}").astype(np.int64) for split in ("train", "dev")}
        names = [Path(line).name for line in (prepared / "photos.txt").read_text().splitlines()]
        counts = {split: min(limit or 10**9, len(tokens[split])) for split in tokens}
        firsts = {"train": 0, "dev": len(tokens["train"])}

        def read(name: str) -> np.ndarray:
            return load_image(photos / name, (224, 224))

        with ThreadPoolExecutor() as pool:
            pixels = {s: np.stack(list(pool.map(read, names[firsts[s] :][: counts[s]]))) for s in tokens}
        self.pixels, self.dev_pixels = (torch.from_numpy(pixels[split]).to(device) for split in tokens)
        train, dev = (torch.from_numpy(tokens[split][: counts[split]]).to(device) for split in tokens)
        self.tokens = train[..., : LENGTH + 1].contiguous()
        self.reward = Cider(train[..., 1:].contiguous())
        self.dev_cider = Cider(torch.where(dev == self.end, 0, dev)[..., 1:].contiguous())
        self.dev_tokens = dev[..., : LENGTH + 1]
        self.imagenet = {name: to_torch(name, array, device) for name, array in given.items()}
        self.bias = given["output_layer.bias"]

    def new_decoder(self, seed: int) -> Weights:
        arrays = new_decoder(np.random.default_rng(seed), len(self.bias))
        return {name: to_torch(name, array, self.device) for name, array in arrays.items()}

    def score(self, many: list[Weights], beams: int = 1) -> float:
        """CIDEr on dev of captions by the mean probabilities of captioners, by the tokenizer's words."""
        scores = []
        with torch.no_grad():
            for photos in torch.arange(len(self.dev_pixels), device=self.device).split(250):
                crosses = crosses_of(many, self.dev_pixels[photos].float())
                said = searched(many, crosses, beams, SAMPLED_LENGTH, self.start, self.end, PENALTY)
                scores.append(self.dev_cider(photos, torch.where(said == self.end, 0, said)[:, None]))
        return float(torch.cat(scores).mean())

    def loss(self, weights: Weights) -> float:
        """Nats a word of people's captions of dev."""
        losses = []
        with torch.no_grad():
            for photos in torch.arange(len(self.dev_pixels), device=self.device).split(100):
                cross = cross_of(weights, encode(weights, self.dev_pixels[photos].float())[0])
                tokens = self.dev_tokens[photos]
                logits = logits_of(weights, cross, tokens[..., :-1])
                losses.append(word_loss(logits, tokens[..., 1:], 0.0, self.unknown))
        return float(torch.stack(losses).mean())

    def log(self, **record: object) -> None:
        record = {key: round(value, 4) if isinstance(value, float) else value for key, value in record.items()}
        line = json.dumps(record | {"seconds": round(time.monotonic() - self.began, 1)})
        print(line, flush=True)
        with (self.out / "log.jsonl").open("a") as file:
            file.write(line + "\n")

    def save(self, name: str, weights: Weights) -> None:
        """A captioner as capexport.load_captioner reads it, its matrices and kernels in half precision."""
        (self.out / name).mkdir(exist_ok=True)
        for file in ("config.json", "vocabulary.txt"):
            shutil.copyfile(self._prepared / file, self.out / name / file)
        arrays = {key: to_array(key, value) for key, value in weights.items()}
        half = {key: array.astype(np.float16) if array.ndim > 1 else array for key, array in arrays.items()}
        save_file(half, self.out / name / "weights.safetensors")
