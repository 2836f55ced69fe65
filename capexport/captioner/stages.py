"""One stage of the best recipe: its steps, its optimizer, and the moving average of its weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf
import tf_keras

from ..bounds import check_number, check_whole
from ..errors import OptionError
from .augmentation import augment
from .decoder import Cross, Decoder, Dropout
from .groups import Group, Groups
from .model import Captioner
from .objectives import SelfCritic, advantages, cross_entropy, policy_loss, taught
from .teachers import Teachers

SAMPLED_LENGTH = 20  # tokens; people's captions have 12 on average
CLIP = 1.0  # the gradient's global norm


@dataclass(frozen=True)
class StageOptions:
    """What all stages of the best recipe share.

    photos           photos a batch, each with all of its captions
    samples          captions sampled of each photo in self-critical training, and drawn from the teachers
    views            features cached of each photo: as it is, and in other crops and flips, one of them an epoch
    label_smoothing  share of a word's label that is spread over all words
    weight_decay     of matrices, times the learning rate (AdamW)
    warm_up          share of a stage's steps in which the learning rate grows
    average          what of the weights' moving average stays at each step
    precision        of products with the decoder's weights in training: float32, bfloat16, or auto, which is bfloat16
                     where there is a GPU; CPUs with AVX512_BF16 gain from it, too
    people           share of people's words in what is learnt from teachers
    seed             of everything that is drawn
    """

    photos: int = 16
    samples: int = 5
    views: int = 3
    label_smoothing: float = 0.1
    weight_decay: float = 0.01
    warm_up: float = 0.1
    average: float = 0.998
    precision: str = "auto"
    people: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise OptionError(f"Unknown precision {self.precision!r}; there are: auto, float32, bfloat16.")
        if min(self.photos, self.views) < 1 or self.samples < 2:
            raise OptionError("A batch has at least 1 photo, a photo 1 view, and self-critical training 2 samples.")
        check_whole("seed", self.seed, least=0)
        check_number("weight_decay", self.weight_decay, least=0)
        for name in ("label_smoothing", "warm_up", "average", "people"):
            check_number(name, getattr(self, name), least=0, most=1)


@dataclass(frozen=True)
class Stage:
    """A part of the recipe: so many epochs with one objective.

    encoder        whether the encoder learns, too, and so sees photos instead of cached features
    sampled        whether sampled captions' CIDEr counts, not the cross-entropy of people's
    taught         whether the cross-entropy is mostly that of teachers' probabilities
    smallest_crop  and gain of the photos that the encoder sees, see augmentation.augment
    """

    name: str
    epochs: int
    learning_rate: float
    encoder: bool = False
    sampled: bool = False
    taught: bool = False
    smallest_crop: float = 0.8
    gain: float = 0.1


class Trainer:
    """Takes the steps of a stage. The draws of a step depend on the seed, the stage and the step's number alone."""

    def __init__(
        self, stage: Stage, captioner: Captioner, groups: Groups, options: StageOptions, teachers: Sequence[str] = ()
    ) -> None:
        self._stage, self._captioner, self._groups, self._options = stage, captioner, groups, options
        self.steps = math.ceil(len(groups) / options.photos)
        self._decoder = Decoder(captioner, _dtype(options.precision))
        self._teachers = Teachers(teachers, captioner, _dtype(options.precision)) if stage.taught else None
        self._variables = list(self._decoder.variables.values())
        if stage.encoder:
            captioner.feature_extractor.trainable = True
            self._variables += captioner.feature_extractor.trainable_variables
            captioner.feature_extractor.trainable = False
        self._views: list[Callable[[np.ndarray], np.ndarray]] = (
            [groups.pixels().__getitem__] if stage.encoder else [cache.take for cache in groups.features(options.views)]
        )
        self._rate = captioner.config.dropout_rate
        self._words = cross_entropy(self._decoder, options.label_smoothing)
        self.optimizer = self._new_optimizer()

    def epoch(self, number: int) -> Iterator[float]:
        """Take the steps of an epoch and yield their losses; a sampled stage's is minus the samples' mean CIDEr.

        Raises OptionError when the objective is no number any more.
        """
        stage_seed = sum(self._stage.name.encode())
        rng = np.random.default_rng((self._options.seed, stage_seed, number))
        for group in self._groups.batches(self._options.photos, (self._options.seed, stage_seed, number, 1)):
            inputs = self._views[rng.integers(len(self._views))](group.photos)
            seed = tf.constant([self._options.seed + stage_seed, int(self.optimizer.iterations)], tf.int32)
            step = self._self_critical if self._stage.sampled else self._plain
            loss, reported = step(group, inputs, seed)
            if not math.isfinite(loss):
                raise OptionError(
                    f"Training came apart in epoch {number + 1} of the {self._stage.name} stage: its loss is no "
                    f"number. Begin anew with less than {self._stage.learning_rate:g} for --{self._stage.name}-rate."
                )
            yield reported

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The moving average in the place of the weights."""
        raw = [variable.numpy() for variable in self._variables]
        self.optimizer.finalize_variable_values(self._variables)
        yield
        for variable, value in zip(self._variables, raw, strict=True):
            variable.assign(value)

    def _plain(self, group: Group, inputs: np.ndarray, seed: tf.Tensor) -> tuple[float, float]:
        step = self._taught_step if self._teachers else self._word_step
        loss = float(step(inputs, group.tokens, seed))
        return loss, loss

    def _self_critical(self, group: Group, inputs: np.ndarray, seed: tf.Tensor) -> tuple[float, float]:
        sampled = self._sample(inputs, seed)
        rewards = self._critic.rewards(group, sampled.numpy())
        return float(self._policy_step(inputs, sampled, advantages(rewards), seed)), -float(rewards.mean())

    @cached_property
    def _critic(self) -> SelfCritic:
        return SelfCritic([self._groups.captions(photo) for photo in range(len(self._groups))])

    @cached_property
    def _word_step(self):
        def step(inputs: tf.Tensor, tokens: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            images = self._images(inputs, seed)
            return self._learn(lambda: self._words(self._cross(images), tokens, Dropout(self._rate, seed)))

        return self._compiled(step, tf.int32)

    @cached_property
    def _taught_step(self):
        teachers, objective = self._teachers, taught(self._decoder, self._options.people)

        def step(inputs: tf.Tensor, tokens: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            images = self._images(inputs, seed)
            crosses = teachers.look(images)
            drawn = teachers.draw(crosses, self.optimizer.iterations, self._options.samples, self._length, seed)
            people, tokens = tf.shape(tokens)[1], _side_by_side(tokens, drawn)
            chances = teachers.chances(crosses, tokens[..., :-1], tokens[..., 1:] != 0)
            drop = Dropout(self._rate, seed)
            return self._learn(lambda: objective(self._cross(images), tokens, people, chances, drop))

        return self._compiled(step, tf.int32)

    @cached_property
    def _policy_step(self):
        def step(inputs: tf.Tensor, tokens: tf.Tensor, weights: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            images = self._images(inputs, seed)
            return self._learn(lambda: policy_loss(self._decoder, self._cross(images), tokens, weights))

        return self._compiled(step, tf.int32, weighted=True)

    @cached_property
    def _sample(self):
        def sample(inputs: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            cross = self._cross(self._images(inputs, seed))
            return self._decoder.sample(cross, self._options.samples, self._length, seed)

        return self._compiled(sample)

    def _compiled(self, function, tokens: tf.DType | None = None, weighted: bool = False):
        example = self._views[0](np.array([0]))
        specs = [tf.TensorSpec([None, *example.shape[1:]], example.dtype)]
        specs += [tf.TensorSpec([None, None, None], tokens)] if tokens else []
        specs += [tf.TensorSpec([None, None], tf.float32)] if weighted else []
        return tf.function(function, [*specs, tf.TensorSpec([2], tf.int32)], autograph=False)

    @property
    def _length(self) -> int:
        """The most tokens that are sampled."""
        return min(SAMPLED_LENGTH, self._captioner.max_length)

    def _images(self, inputs: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Photos as the encoder is to see them; features as they are."""
        return augment(inputs, seed, self._stage.smallest_crop, self._stage.gain) if self._stage.encoder else inputs

    def _cross(self, images: tf.Tensor) -> Cross:
        if self._stage.encoder:  # its batch norms keep their statistics
            images = self._captioner.feature_extractor(images, training=False)
        return self._decoder.cross(images)

    def _learn(self, objective) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = objective()
        gradients = tape.gradient(loss, self._variables)
        self.optimizer.apply_gradients(zip(gradients, self._variables, strict=True))
        return loss

    def _new_optimizer(self) -> tf_keras.optimizers.Optimizer:
        total = self._stage.epochs * self.steps
        warm = math.ceil(total * self._options.warm_up)
        rate = tf_keras.optimizers.schedules.CosineDecay(
            0.0, max(total - warm, 1), warmup_target=self._stage.learning_rate, warmup_steps=warm
        )
        optimizer = tf_keras.optimizers.AdamW(
            rate,
            weight_decay=self._options.weight_decay,
            global_clipnorm=CLIP,
            use_ema=True,
            ema_momentum=self._options.average,
        )
        vectors = [variable for name, variable in self._decoder.variables.items() if "kernel" not in name]
        vectors += [variable for variable in self._variables[len(self._decoder.variables) :] if len(variable.shape) < 2]
        optimizer.exclude_from_weight_decay(var_list=vectors)
        optimizer.build(self._variables)
        return optimizer


def _side_by_side(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Captions (P, C, T + 1) of two kinds, zeros after the shorter ones."""
    length = tf.maximum(tf.shape(first)[2], tf.shape(second)[2])
    padded = [tf.pad(one, [[0, 0], [0, 0], [0, length - tf.shape(one)[2]]]) for one in (first, second)]
    return tf.concat(padded, axis=1)


def _dtype(precision: str) -> tf.DType:
    quick = precision == "bfloat16" or (precision == "auto" and tf.config.list_physical_devices("GPU"))
    return tf.bfloat16 if quick else tf.float32
