"""What the best recipe asks of dev after each epoch: the loss on people's captions, and greedy captions' CIDEr."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import tensorflow as tf

from .cider import Cider
from .decoder import Cross, Decoder
from .groups import Groups
from .model import Captioner
from .objectives import cross_entropy

BATCH = 50  # photos


class Dev:
    """Measures a captioner, as it is at the time, on the photos of a split."""

    def __init__(self, captioner: Captioner, groups: Groups) -> None:
        self._captioner, self._groups = captioner, groups
        self._decoder = Decoder(captioner)
        self._end = self._decoder.end
        captions = [groups.captions(photo) for photo in range(len(groups))]
        self._cider = Cider([[words[:-1] for words in one] for one in captions])

    def measure(self, anew: bool = False) -> tuple[float, float]:
        """The mean loss a word (nats), and CIDEr of greedy captions, nearly pycocoevalcap's.

        anew  encode the photos, since the encoder changes; else their features come from the cache
        """
        losses, scores = [], []
        features = None if anew else self._groups.features(1)[0]
        for group in self._groups.batches(BATCH):
            maps = self._encoded(group.photos) if features is None else features.take(group.photos)
            loss, said = self._measure(maps, group.tokens)
            losses.append(float(loss))
            for photo, row in zip(group.photos.tolist(), said.numpy()[:, 0].tolist(), strict=True):
                scores.append(self._cider.score(photo, [word for word in row[1:] if word not in (0, self._end)]))
        return float(np.mean(losses)), float(np.mean(scores))

    def _encoded(self, photos: np.ndarray) -> tf.Tensor:
        return self._captioner.feature_extractor(tf.cast(self._pixels[photos], tf.float32), training=False)

    @cached_property
    def _pixels(self) -> np.ndarray:
        return self._groups.pixels()

    @cached_property
    def _measure(self):
        loss = cross_entropy(self._decoder, 0.0)

        def measure(features: tf.Tensor, tokens: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            cross: Cross = self._decoder.cross(features)
            return loss(cross, tokens), self._decoder.sample(cross, 1, self._captioner.max_length)

        specs = [tf.TensorSpec([None, *self._captioner.feature_extractor.output_shape[1:]])]
        return tf.function(measure, [*specs, tf.TensorSpec([None, None, None], tf.int32)], autograph=False)
