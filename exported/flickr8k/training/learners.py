"""What learns, and how: each kind of learner has its step, and they learn side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from learning import AdamW, augmented, captured, mean_chances, policy_loss, rate_at, sampled, taught_loss, word_loss
from network import Weights, cross_of, encode, logits_of
from torch import Tensor
from world import SAMPLED_LENGTH, World


@dataclass(frozen=True)
class Plan:
    """How much of everything; a batch is so many photos, each with its captions.

    dropouts  of the teachers in turn
    slower    the encoder's learning rate, times the decoder's
    people    share of people's words in what the students learn
    """

    batch: int = 64
    teachers: int = 6
    dropouts: tuple[float, ...] = (0.2, 0.3, 0.4)
    word_epochs: int = 22
    word_rate: float = 1e-3
    slower: float = 0.3
    smoothing: float = 0.1
    crop: float = 0.6
    gain: float = 0.2
    cider_epochs: int = 9
    cider_rate: float = 1.5e-4
    samples: int = 6
    encoder_batch: int = 128
    encoder_epochs: int = 129
    encoder_rate: float = 3e-3
    pool: int = 10
    taught_epochs: int = 31
    taught_captions: int = 3  # of people's and of the pool's each
    taught_rate: float = 1e-3
    taught_dropout: float = 0.1
    taught_crop: float = 0.5
    people: float = 0.1
    end_epochs: int = 12
    end_rate: float = 1e-4


class Learner:
    """A captioner, or several, learning on a stream of its own.

    learn  a step, given the photos' indices; it calls the optimizers'
    """

    def __init__(
        self, world: World, photos: int, rate: float, optimizers: list[AdamW], learn: Callable[[Tensor], None]
    ):
        self._world, self._rate, self._optimizers = world, rate, optimizers
        self._photos = torch.zeros(photos, dtype=torch.long, device=world.device)
        self._stream = torch.cuda.Stream() if world.device.type == "cuda" else None
        self._photos.copy_(torch.randperm(len(world.pixels), device=world.device)[:photos])
        self._step = captured(lambda: learn(self._photos), self._stream)
        self.steps = len(world.pixels) // photos

    def epoch(self, number: int, epochs: int) -> Callable[[int], None]:
        """Takes the step of a number, of as many as there are."""
        order = torch.randperm(len(self._world.pixels), device=self._world.device)
        if self._stream:
            self._stream.wait_stream(torch.cuda.current_stream())
            order.record_stream(self._stream)

        def step(place: int) -> None:
            with torch.cuda.stream(self._stream):
                count = len(self._photos)
                self._photos.copy_(order[place * count : (place + 1) * count])
                rate = rate_at(number * self.steps + place, epochs * self.steps, self._rate)
                for optimizer in self._optimizers:
                    optimizer.rate.fill_(rate)
                self._step()

        return step


def learn_together(learners: list[tuple[Learner, int]], after: Callable[[int], None]) -> None:
    """Each learner for so many epochs, side by side; after(n) follows the n-th of the first one's epochs."""
    lead, epochs = learners[0]
    plans = [_steps(*one) for one in learners]
    shares = [learner.steps * count / (lead.steps * epochs) for learner, count in learners]
    due = [0.0] * len(learners)
    for number in range(epochs):
        for _ in range(lead.steps):
            for k, plan in enumerate(plans):
                due[k] += shares[k] + 1e-9
                while due[k] >= 1:
                    due[k] -= 1
                    next(plan, None)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        after(number + 1)


def _steps(learner: Learner, epochs: int) -> Iterator[None]:
    for number in range(epochs):
        step = learner.epoch(number, epochs)
        for place in range(learner.steps):
            yield step(place)


def word_learner(world: World, plan: Plan, weights: Weights, dropout: float) -> tuple[Learner, AdamW]:
    optimizer = AdamW(weights, plan.slower)

    def learn(photos: Tensor) -> None:
        tokens = world.tokens[photos]
        cross = cross_of(weights, encode(weights, augmented(world.pixels[photos], plan.crop, plan.gain))[0])
        logits = logits_of(weights, cross, tokens[..., :-1], dropout)
        optimizer.step(word_loss(logits, tokens[..., 1:], plan.smoothing, world.unknown))

    return Learner(world, plan.batch, plan.word_rate, [optimizer], learn), optimizer


def cider_learner(world: World, plan: Plan, weights: Weights, rate: float) -> tuple[Learner, AdamW]:
    optimizer = AdamW(weights, 0.5)

    def learn(photos: Tensor) -> None:
        cross = cross_of(weights, encode(weights, augmented(world.pixels[photos], plan.crop, plan.gain))[0])
        seen = [(keys.detach(), values.detach()) for keys, values in cross]
        said = sampled(weights, seen, plan.samples, SAMPLED_LENGTH, world.start, world.end, draw=True)
        rewards = world.reward(photos, said[..., 1:])
        optimizer.step(policy_loss(logits_of(weights, cross, said[..., :-1]), said[..., 1:], rewards))

    return Learner(world, plan.batch, rate, [optimizer], learn), optimizer


def taught_learner(
    world: World, plan: Plan, teachers: list[Weights], pool: Tensor, students: list[Weights]
) -> tuple[Learner, list[AdamW]]:
    optimizers = [AdamW(student, plan.slower) for student in students]
    people = plan.taught_captions

    def some(tokens: Tensor) -> Tensor:
        return tokens[:, torch.rand(tokens.shape[1], device=world.device).argsort()[:people]]

    def learn(photos: Tensor) -> None:
        images = augmented(world.pixels[photos], plan.taught_crop, plan.gain)
        tokens = torch.cat([some(world.tokens[photos]), some(pool[photos])], 1)
        given, labels = tokens[..., :-1], tokens[..., 1:]
        chances = mean_chances(teachers, images, given)
        for student, optimizer in zip(students, optimizers, strict=True):
            cross = cross_of(student, encode(student, images)[0])
            logits = logits_of(student, cross, given, plan.taught_dropout)
            words = word_loss(logits[:, :people], labels[:, :people], 0.0, world.unknown)
            optimizer.step((1 - plan.people) * taught_loss(logits, chances, labels) + plan.people * words)

    return Learner(world, plan.batch, plan.taught_rate, optimizers, learn), optimizers


def encoder_learner(world: World, plan: Plan, student: Weights) -> tuple[Learner, AdamW]:
    """Feature maps of the same crops, half of them blends of two photos (Beyer et al., 2022), at every size."""
    optimizer = AdamW(student, average=0.999)

    def learn(photos: Tensor) -> None:
        images = augmented(world.pixels[photos], 0.35, 0.3)
        shares = torch.rand(len(images), 1, 1, 1, device=world.device)
        shares = torch.where(torch.rand_like(shares) < 0.5, 1.0, shares)
        images = shares * images + (1 - shares) * images.flip(0)
        with torch.no_grad():
            targets = encode(world.imagenet, images)[1]
        maps = encode(student, images, 0.97)[1]
        losses = [(m.float() - t.float()).square().mean() / t.float().var() for m, t in zip(maps, targets, strict=True)]
        optimizer.step(4 * losses[-1] + sum(losses[:-1]))

    return Learner(world, plan.encoder_batch, plan.encoder_rate, [optimizer], learn), optimizer
