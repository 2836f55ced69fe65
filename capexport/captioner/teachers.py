"""Captioners that teach another one together: their mean probabilities at people's words, and at words of their own.

Distillation of an ensemble (Hinton et al., 2015, "Distilling the Knowledge in a Neural Network"), some of whose
captions are drawn (Kim and Rush, 2016, "Sequence-Level Knowledge Distillation").

P photos, C captions each, T text positions, R of them real (not padding), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from ..errors import SourceError
from .decoder import Cross, Decoder
from .model import Captioner
from .storage import load_captioner


class Teachers:
    """Captioners of the student's words and photo size, whose weights stay as they are.

    Raises SourceError for one that knows other words or wants other photos.
    """

    def __init__(self, directories: Sequence[str], student: Captioner, dtype: tf.DType = tf.float32) -> None:
        captioners = [load_captioner(directory) for directory in directories]
        for directory, one in zip(directories, captioners, strict=True):
            if one.tokenizer.get_vocabulary() != student.tokenizer.get_vocabulary():
                raise SourceError(f"The teacher {directory} knows other words than this data set's.")
            if (one.config.image_size, one.config.resize) != (student.config.image_size, student.config.resize):
                raise SourceError(f"The teacher {directory} wants photos of another size, or resized otherwise.")
        self._extractors = [one.feature_extractor for one in captioners]
        self._decoders = [Decoder(one, dtype) for one in captioners]

    def look(self, images: tf.Tensor) -> list[Cross]:
        """What each of them attends to in float32 images (P, h, w, 3)."""
        seen = (extractor(images, training=False) for extractor in self._extractors)
        return [decoder.cross(features) for decoder, features in zip(self._decoders, seen, strict=True)]

    def chances(self, crosses: list[Cross], tokens: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
        """Their mean probabilities (R, V) of what follows tokens (P, C, T) at the real places."""
        pairs = zip(self._decoders, crosses, strict=True)
        return tf.add_n([tf.nn.softmax(one.logits(cross, tokens, real)) for one, cross in pairs]) / len(crosses)

    def draw(self, crosses: list[Cross], turn: tf.Tensor, captions: int, length: int, seed: tf.Tensor) -> tf.Tensor:
        """So many captions of each photo by the teacher whose turn it is, as of Decoder.sample."""
        pairs = zip(self._decoders, crosses, strict=True)
        draws = [lambda one=one, cross=cross: one.sample(cross, captions, length, seed) for one, cross in pairs]
        return tf.switch_case(tf.cast(turn % len(draws), tf.int32), draws)
