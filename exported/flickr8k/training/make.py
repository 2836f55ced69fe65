"""The captioner that ships, trained on one GPU in minutes: make.py PREPARED PHOTOS OUT (as of prepare.py)

1. Teachers, from the ImageNet encoder: words, encoder and decoder together, each with its own draws and dropout;
   then CIDEr; of each the mean of its weights before and after. Beside them an encoder learns from random weights to
   give the ImageNet encoder's feature maps.
2. Two students, one with the ImageNet encoder and one with the other, learn the teachers' mean probabilities at the
   words of people and of the teachers.
3. CIDEr for both, from which dev chooses how much of it to take.

OUT/distilled-best is the captioner that ships, OUT/imagenet-best its like with the ImageNet encoder; OUT/log.jsonl has
every figure.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from learners import Learner, Plan, cider_learner, encoder_learner, learn_together, taught_learner, word_learner
from learning import AdamW, augmented, copy_of, encoded, mean_of, sampled
from network import Weights, cross_of, encode, new_encoder, to_torch
from torch import Tensor
from world import LENGTH, World


def make_teachers(world: World, plan: Plan) -> tuple[list[Weights], Weights]:
    """The teachers, and an encoder that began with random weights."""
    teachers = [copy_of(world.imagenet) | world.new_decoder(seed) for seed in range(plan.teachers)]
    student = {n: to_torch(n, a, world.device) for n, a in new_encoder(np.random.default_rng(99)).items()}
    encoder, encoder_optimizer = encoder_learner(world, plan, student)
    dropouts = [plan.dropouts[k % len(plan.dropouts)] for k in range(plan.teachers)]
    learners = [word_learner(world, plan, one, rate) for one, rate in zip(teachers, dropouts, strict=True)]
    begun = best_of(world, "words", plan.word_epochs, learners, teachers, [(encoder, plan.encoder_epochs)])
    distilled = encoder_optimizer.averaged(student)
    settle(world, distilled)
    error, cosine = feature_error(world, distilled)
    world.log(phase="encoder", dev_error=error, dev_cosine=cosine)
    world.log(phase="words together", greedy=world.score(begun), beams=world.score(begun, 3))
    teachers = [copy_of(one) for one in begun]
    learners = [cider_learner(world, plan, one, plan.cider_rate) for one in teachers]
    ended = best_of(world, "cider", plan.cider_epochs, learners, teachers)
    world.log(phase="cider together", greedy=world.score(ended), beams=world.score(ended, 3))
    means = [mean_of(pair, (0.5, 0.5)) for pair in zip(begun, ended, strict=True)]
    for k, one in enumerate(means):
        world.log(phase="mean", teacher=k, greedy=world.score([one]), beams=world.score([one], 3))
    world.log(phase="means together", greedy=world.score(means), beams=world.score(means, 3))
    return means, distilled


def best_of(
    world: World,
    phase: str,
    epochs: int,
    learners: list[tuple[Learner, AdamW]],
    weights: list[Weights],
    beside: list[tuple[Learner, int]] = (),
) -> list[Weights]:
    """Run learners; of each the moving average of the epoch in which greedy CIDEr on dev was best."""
    best, scores = [copy_of(one) for one in weights], [0.0] * len(weights)

    def after(epoch: int) -> None:
        if epoch % 3 and epoch != epochs:
            return
        figures = []
        for k, ((_, optimizer), one) in enumerate(zip(learners, weights, strict=True)):
            averaged = optimizer.averaged(one)
            figures.append(world.score([averaged]))
            if figures[-1] > scores[k]:
                scores[k], best[k] = figures[-1], averaged
        world.log(phase=phase, epoch=epoch, greedy=[round(f, 3) for f in figures], loss=world.loss(averaged))

    learn_together([(learner, epochs) for learner, _ in learners] + list(beside), after)
    return best


@torch.no_grad()
def settle(world: World, encoder: Weights, batch: int = 200) -> None:
    """Estimate the batch norms' statistics anew, as the mean over the photos of train."""
    for k, part in enumerate(world.pixels.split(batch), start=1):
        if len(part) == batch or k == 1:
            encode(encoder, part.float(), 1 - 1 / k)


def feature_error(world: World, encoder: Weights) -> tuple[float, float]:
    """Mean squared error and mean cosine of dev's features, beside the ImageNet encoder's."""
    theirs, ours = (encoded(one, world.dev_pixels) for one in (world.imagenet, encoder))
    cosine = torch.nn.functional.cosine_similarity(theirs, ours, dim=-1).mean()
    return float((theirs - ours).square().mean()), float(cosine)


def make_students(world: World, plan: Plan, teachers: list[Weights], distilled: Weights) -> dict[str, Weights]:
    pool = draw_pool(world, plan, teachers)
    bias = {"output_layer.bias": world.imagenet["output_layer.bias"]}
    starts = {"imagenet": copy_of(world.imagenet), "distilled": distilled | bias}
    students = {name: encoder | world.new_decoder(50) for name, encoder in starts.items()}
    learner, optimizers = taught_learner(world, plan, teachers, pool, list(students.values()))

    def averaged() -> dict[str, Weights]:
        pairs = zip(students.items(), optimizers, strict=True)
        return {name: optimizer.averaged(student) for (name, student), optimizer in pairs}

    def after(epoch: int) -> None:
        if epoch % 10 == 0 or epoch == plan.taught_epochs:
            for name, one in averaged().items():
                figures = {"greedy": world.score([one]), "beams": world.score([one], 3), "loss": world.loss(one)}
                world.log(phase="taught", epoch=epoch, student=name, **figures)

    learn_together([(learner, plan.taught_epochs)], after)
    return averaged()


def draw_pool(world: World, plan: Plan, teachers: list[Weights]) -> Tensor:
    """Captions (photos, pool, LENGTH + 1) drawn from the teachers in turn, photos cropped and tinted each time."""
    drawn = []
    with torch.no_grad():
        for k in range(plan.pool):
            teacher, rows = teachers[k % len(teachers)], []
            for part in world.pixels.split(250):
                cross = cross_of(teacher, encode(teacher, augmented(part, plan.taught_crop, plan.gain))[0])
                rows.append(sampled(teacher, cross, 1, LENGTH, world.start, world.end, draw=True))
            drawn.append(torch.cat(rows))
    return torch.cat(drawn, 1)


def finish(world: World, plan: Plan, students: dict[str, Weights]) -> None:
    ended = [copy_of(one) for one in students.values()]
    learners = [cider_learner(world, plan, one, plan.end_rate) for one in ended]
    best = best_of(world, "end", plan.end_epochs, learners, ended)
    for (name, begun), end in zip(students.items(), best, strict=True):
        mixed = {}
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            one = mean_of((begun, end), (1 - share, share))
            greedy, beams = world.score([one]), world.score([one], 3)
            world.log(phase="end mean", student=name, share=share, greedy=greedy, beams=beams)
            mixed[greedy + beams] = one
        world.save(f"{name}-best", mixed[max(mixed)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("prepared", "photos", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--limit", type=int, help="photos of each split, to try it out")
    for name, value in vars(Plan()).items():
        if not isinstance(value, tuple):
            parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parsed = parser.parse_args()
    plan = Plan(**{name: getattr(parsed, name) for name in vars(Plan()) if hasattr(parsed, name)})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    parsed.out.mkdir(parents=True, exist_ok=True)
    world = World(parsed.prepared, parsed.photos, parsed.out, device, parsed.limit)
    world.log(phase="begun", photos=len(world.pixels), dev=len(world.dev_pixels), device=str(device))
    teachers, distilled = make_teachers(world, plan)
    students = make_students(world, plan, teachers, distilled)
    finish(world, plan, students)


if __name__ == "__main__":
    main()
