"""Photos seen otherwise: a random crop, flip and gain of each channel."""

from __future__ import annotations

import tensorflow as tf


def augment(pixels: tf.Tensor, seed: tf.Tensor | tuple[int, int], smallest_crop: float, gain: float = 0.0) -> tf.Tensor:
    """uint8 or float32 (B, h, w, 3) -> float32 of that shape, 0..255; the same seed does the same.

    seed           int32 (2,)
    smallest_crop  share of the photo's side; both sides are drawn from here up to the whole
    gain           each channel is multiplied by 1 - gain ... 1 + gain
    """
    count, height, width = tf.shape(pixels)[0], pixels.shape[1], pixels.shape[2]
    seeds = tf.random.experimental.stateless_split(seed, 4)
    sides = tf.random.stateless_uniform([count, 2], seeds[0], smallest_crop, 1.0)
    corners = tf.random.stateless_uniform([count, 2], seeds[1]) * (1.0 - sides)
    boxes = tf.concat([corners, corners + sides], axis=1)  # y1, x1, y2, x2
    flip = tf.random.stateless_uniform([count, 1], seeds[2]) < 0.5
    boxes = tf.where(flip, tf.gather(boxes, [0, 3, 2, 1], axis=1), boxes)
    images = tf.image.crop_and_resize(tf.cast(pixels, tf.float32), boxes, tf.range(count), [height, width])
    if gain:
        gains = tf.random.stateless_uniform([count, 1, 1, 3], seeds[3], 1.0 - gain, 1.0 + gain)
        images = tf.clip_by_value(images * gains, 0.0, 255.0)
    return images
