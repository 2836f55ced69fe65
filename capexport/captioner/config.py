"""What a captioner is built from, as it stands in config.json."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SourceError
from ..image import RESIZERS
from ..plain import read_plain

MAX_CONFIG = 100_000  # bytes
MOST = 2**20  # of any size: what is built of larger ones would not fit into memory


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
        key_dim = self.units if self.key_dim is None else self.key_dim
        sizes = (self.num_layers, self.num_heads, key_dim, self.units, self.max_length, self.vocabulary_size)
        if any(type(size) is not int or not 1 <= size <= MOST for size in (*self.image_size, *sizes)):
            raise SourceError(f"A captioner's sizes must be whole numbers above zero, up to {MOST}: {str(self)[:500]}.")
        if not isinstance(self.tied_embeddings, bool):
            raise SourceError(f"A captioner's tied_embeddings is true or false, not {self.tied_embeddings!r:.80}.")
        if not isinstance(self.backbone, str):
            raise SourceError(f"A captioner's backbone must be a name, not {self.backbone!r:.80}.")
        if self.resize not in RESIZERS:
            raise SourceError(f"Unknown resizer {self.resize!r}; there are: {', '.join(RESIZERS)}.")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> CaptionerConfig:
        """Read config.json; raises SourceError if it is missing, malformed or has unknown keys."""
        try:
            values: dict[str, Any] = json.loads(read_plain(path, MAX_CONFIG))
            return cls(**values | {"image_size": tuple(values["image_size"])})
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise SourceError(f"{path} is not a captioner's config: {error}.") from error
