"""What a captioner is built from, as it stands in config.json."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SourceError
from ..image import RESIZERS
from ..plain import read_plain
from ..sense import MOST as OF_MANIFESTS

MAX_CONFIG = 100_000  # bytes
MOST = {
    **{name: OF_MANIFESTS[name] for name in ("key_dim", "units", "max_length")},
    "num_layers": OF_MANIFESTS["layers"],
    "num_heads": OF_MANIFESTS["heads"],
    "vocabulary_size": OF_MANIFESTS["vocabulary"],
    "height": 2**12,
    "width": 2**12,
}  # what is built of larger ones would not fit into memory
MOST_WEIGHTS = 2**28  # of the decoder, which is a GiB
NAME = 80  # characters of a backbone's


@dataclass(frozen=True)
class CaptionerConfig:
    """The shape of a captioner; the defaults are the tutorial's. Raises SourceError for an impossible one."""

    backbone: str = "MobileNetV3Small"
    include_preprocessing: bool = True  # the backbone normalises its pixels itself
    image_size: tuple[int, int] = (224, 224)  # height, width
    resize: str = "bilinear-antialias"
    num_layers: int = 2
    num_heads: int = 2
    key_dim: int | None = None  # of each head; None: like units, as in the tutorial
    units: int = 256
    max_length: int = 50
    vocabulary_size: int = 5000
    dropout_rate: float = 0.5
    tied_embeddings: bool = False  # the words' vectors are the weights of their logits, too

    def __post_init__(self) -> None:
        if not isinstance(self.image_size, tuple) or len(self.image_size) != 2:
            raise SourceError(f"A captioner's image_size is a height and a width, not {self.image_size!r:.80}.")
        for name, size in self._sizes().items():
            if type(size) is not int or not 1 <= size <= MOST[name]:
                problem = f"{name} up to {MOST[name]}, not {size!r:.80}"
                raise SourceError(f"A captioner's sizes must be whole numbers above zero, {problem}.")
        if self._weights() > MOST_WEIGHTS:
            raise SourceError(f"A captioner of these sizes has more than {MOST_WEIGHTS} weights: {self!s:.500}.")
        for name in ("include_preprocessing", "tied_embeddings"):
            if not isinstance(getattr(self, name), bool):
                raise SourceError(f"A captioner's {name} is true or false, not {getattr(self, name)!r:.80}.")
        if type(self.dropout_rate) not in (int, float) or not 0 <= self.dropout_rate <= 1:  # NaN is neither
            raise SourceError(f"A captioner's dropout_rate is a number from 0 to 1, not {self.dropout_rate!r:.80}.")
        if not isinstance(self.backbone, str) or len(self.backbone) > NAME:
            raise SourceError(f"A captioner's backbone must be a name, not {self.backbone!r:.80}.")
        if not isinstance(self.resize, str) or self.resize not in RESIZERS:
            raise SourceError(f"Unknown resizer {self.resize!r:.80}; there are: {', '.join(RESIZERS)}.")

    def _sizes(self) -> dict[str, int]:
        names = ("num_layers", "num_heads", "units", "max_length", "vocabulary_size")
        key_dim = self.units if self.key_dim is None else self.key_dim
        height, width = self.image_size
        return {name: getattr(self, name) for name in names} | {"key_dim": key_dim, "height": height, "width": width}

    def _weights(self) -> int:
        """About how many the decoder has, on top of a backbone with as many channels as units."""
        sizes = self._sizes()
        attention = 4 * math.prod(sizes[name] for name in ("units", "num_heads", "key_dim"))
        layer = 2 * attention + 4 * self.units**2
        return self.num_layers * layer + self.units * (2 * self.vocabulary_size + self.max_length)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> CaptionerConfig:
        """Read config.json; raises SourceError if it is missing, malformed or has unknown keys."""
        try:
            values: dict[str, Any] = json.loads(read_plain(path, MAX_CONFIG))
            return cls(**values | {"image_size": tuple(values["image_size"])})
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise SourceError(f"{path} is not a captioner's config: {error!s:.200}.") from error
