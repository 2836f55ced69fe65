"""Keras: the tutorial's own loop, and its model as TensorFlow's functions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import capexport

from .base import Peer, Pixels, SplitPeer, Task, greedy


def load_captioner(task: Task, threads: int) -> Any:
    """The captioner in Keras; TensorFlow must not have computed anything before."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return capexport.load_captioner(task.source)


def on_gpu() -> str:
    """What the note says of the device where TensorFlow sees a GPU: it computes there."""
    return "on the GPU" if tf.config.list_physical_devices("GPU") else ""


class SimpleGen(Peer):
    """simple_gen, eagerly."""

    def load(self, folder: Path, threads: int) -> None:
        self._captioner = load_captioner(Task.read(folder), threads)
        extract = self._captioner.feature_extractor

        def timed(image: Any) -> Any:
            started = time.perf_counter()
            features = extract(image)
            features.numpy()  # a GPU is not done yet
            self.encode_seconds = time.perf_counter() - started
            return features

        self._captioner.feature_extractor = timed
        self.note = on_gpu()

    def caption(self, pixels: Pixels) -> list[int]:
        return self._captioner.simple_gen_tokens(pixels, temperature=0)


class Functions(SplitPeer):
    """The encoder and the decoder as functions; the whole prefix goes through the decoder at every step.

    jit  XLA compiles them for one shape, so prefixes are padded to max_length. Where it cannot, they are padded all
         the same, and the note says so. Otherwise the decoder is traced once for prefixes of any length.
    """

    def __init__(self, jit: bool) -> None:
        self._jit = jit

    def load(self, folder: Path, threads: int) -> None:
        self._task = Task.read(folder)
        self._captioner = load_captioner(self._task, threads)
        if not self._jit:
            self._define(None, jit_compile=False)
            self.note = on_gpu()
            return
        self._define(self._task.max_length, jit_compile=True)
        try:
            self.caption(np.zeros([*self._captioner.feature_extractor.input_shape[1:]], np.uint8))
            self.note = " ".join(["jit_compile=True", on_gpu()]).strip()
        except tf.errors.OpError as error:
            self._define(self._task.max_length, jit_compile=False)
            self.note = f"without jit_compile, which fails: {type(error).__name__}"

    def _define(self, length: int | None, jit_compile: bool) -> None:
        extractor = self._captioner.feature_extractor
        image = tf.TensorSpec([1, *extractor.input_shape[1:]], tf.uint8)
        features = tf.TensorSpec([1, *extractor.output_shape[1:]])
        prefix = tf.TensorSpec([1, length], tf.int64)

        def encode(image: tf.Tensor) -> tf.Tensor:
            return extractor(tf.cast(image, tf.float32), training=False)

        def step(features: tf.Tensor, prefix: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
            logits = self._captioner((features, prefix), training=False)  # (1, T, V)
            return tf.argmax(logits[0, last])

        options = {"jit_compile": jit_compile, "autograph": False}
        self._padded = length is not None
        self._encode = tf.function(encode, [image], **options)
        self._step = tf.function(step, [features, prefix, tf.TensorSpec([], tf.int32)], **options)

    def encode(self, pixels: Pixels) -> tf.Tensor:
        features = self._encode(tf.constant(pixels[np.newaxis]))
        features.numpy()  # a GPU is not done yet
        return features

    def decode(self, features: tf.Tensor) -> list[int]:
        return greedy(lambda said: self._following(features, said), self._task)

    def _following(self, features: tf.Tensor, said: list[int]) -> int:
        padding = [0] * (self._task.max_length - len(said)) if self._padded else []
        return int(self._step(features, tf.constant([said + padding], tf.int64), tf.constant(len(said) - 1)))
