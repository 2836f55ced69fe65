"""Steps of training: the optimizer with its moving average, CUDA graphs, augmentation, objectives, search.

P photos, C captions each, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from network import Cross, Stepper, Weights, cross_of, encode, is_encoder, is_statistic, logits_of
from torch import Tensor

BETAS, EPSILON, CLIP, DECAY = (0.9, 0.98), 1e-9, 1.0, 0.01
AVERAGE = 0.998  # of the moving average, once it has seen some steps


class AdamW:
    """Of Loshchilov and Hutter, 2019, all on the device, so that a CUDA graph can hold its step.

    slower  the encoder's learning rate, times the decoder's
    """

    def __init__(self, weights: Weights, slower: float = 1.0, average: float = AVERAGE) -> None:
        self.names = [name for name in weights if not is_statistic(name) and name != "output_layer.bias"]
        self.values = [weights[name].requires_grad_() for name in self.names]
        device = self.values[0].device
        self.rate, self._steps = torch.zeros((), device=device), torch.zeros((), device=device)
        self._first, self._second = ([torch.zeros_like(v) for v in self.values] for _ in range(2))
        self._means, self._average = [v.detach().clone() for v in self.values], average
        self._groups = [
            ([k for k, name in enumerate(self.names) if is_encoder(name) == encoder], slower if encoder else 1.0)
            for encoder in (True, False)
        ]
        self._matrices = [k for k, name in enumerate(self.names) if name.endswith("kernel")]

    def step(self, loss: Tensor) -> None:
        gradients = list(torch.autograd.grad(loss, self.values))
        with torch.no_grad():
            norm = torch.stack(torch._foreach_norm(gradients)).norm()
            torch._foreach_mul_(gradients, (CLIP / (norm + 1e-6)).clamp_max(1.0))
            self._steps += 1
            torch._foreach_lerp_(self._first, gradients, 1 - BETAS[0])
            torch._foreach_mul_(self._second, BETAS[1])
            torch._foreach_addcmul_(self._second, gradients, gradients, 1 - BETAS[1])
            spread = torch._foreach_sqrt(self._second)
            torch._foreach_div_(spread, (1 - BETAS[1] ** self._steps).sqrt())
            torch._foreach_add_(spread, EPSILON)
            change = torch._foreach_div(self._first, spread)
            torch._foreach_div_(change, 1 - BETAS[0] ** self._steps)
            matrices = [[those[k] for k in self._matrices] for those in (change, self.values)]
            torch._foreach_add_(*matrices, alpha=DECAY)
            for group, share in self._groups:
                if group:
                    chosen = [change[k] for k in group]
                    torch._foreach_mul_(chosen, -self.rate * share)
                    torch._foreach_add_([self.values[k] for k in group], chosen)
            late = (self._steps / (10 + self._steps)).clamp_max(self._average)
            gap = torch._foreach_sub(self.values, self._means)
            torch._foreach_mul_(gap, 1 - late)
            torch._foreach_add_(self._means, gap)

    def averaged(self, weights: Weights) -> Weights:
        """A copy of the weights with the moving average of those that learn."""
        return copy_of(weights) | {n: m.clone() for n, m in zip(self.names, self._means, strict=True)}


def copy_of(weights: Weights) -> Weights:
    return {name: value.detach().clone() for name, value in weights.items()}


def mean_of(many: Iterable[Weights], shares: Iterable[float]) -> Weights:
    pairs = list(zip(many, shares, strict=True))
    return {name: sum(one[name] * share for one, share in pairs).detach() for name in pairs[0][0]}


def rate_at(step: int, steps: int, highest: float, warm_up: float = 0.1) -> float:
    """Linear warm-up, then a cosine down to zero."""
    begun = max(warm_up * steps, 1)
    late = (step - begun) / (steps - begun)
    return highest * (step / begun if step < begun else 0.5 + 0.5 * math.cos(math.pi * late))


def captured(step: Callable[[], object], stream: torch.cuda.Stream | None) -> Callable[[], object]:
    """The step as one CUDA graph; without a stream as it is. It is taken three times, so its rate should be zero."""
    if stream is None:
        return step
    stream.wait_stream(torch.cuda.current_stream())
    torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 4
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step()
    torch.cuda.synchronize()
    torch.backends.cudnn.benchmark = False
    return graph.replay


def augmented(pixels: Tensor, smallest: float, gain: float) -> Tensor:
    """uint8 (B, h, w, 3) cropped to `smallest` of each side at least, half of them flipped, tinted: float32, 0..255."""
    count, device = len(pixels), pixels.device
    sides = smallest + (1 - smallest) * torch.rand(count, 2, device=device)
    centres = (2 * torch.rand(count, 2, device=device) - 1) * (1 - sides)
    flips = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0)
    places = torch.zeros(count, 2, 3, device=device)
    places[:, 0, 0], places[:, 1, 1], places[:, :, 2] = sides[:, 0] * flips, sides[:, 1], centres
    images = pixels.permute(0, 3, 1, 2).float()
    grid = torch.nn.functional.affine_grid(places, list(images.shape), align_corners=True)
    images = torch.nn.functional.grid_sample(images, grid, align_corners=True, padding_mode="border")
    if gain:
        mean = images.mean((1, 2, 3), keepdim=True)
        images = mean + (images - mean) * (1 + gain * (2 * torch.rand(count, 1, 1, 1, device=device) - 1))
        images = images * (1 + gain * (2 * torch.rand(count, 3, 1, 1, device=device) - 1))
    return images.clamp(0, 255).permute(0, 2, 3, 1)


def word_loss(logits: Tensor, labels: Tensor, smoothing: float, unknown: int) -> Tensor:
    """Cross-entropy a word (nats) of logits (P, C, T, V) and labels (P, C, T); padding and [UNK] are not learnt.

    smoothing  share of a label spread over the words that may be said
    """
    real = (labels != 0) & (labels != unknown)
    allowed = logits.detach().flatten(0, -2)[0] > -1e8
    chances = logits.log_softmax(-1)
    losses = -(1 - smoothing) * chances.gather(-1, labels[..., None])[..., 0]
    if smoothing:
        losses = losses - smoothing * torch.where(allowed, chances, 0.0).sum(-1) / allowed.sum()
    return torch.where(real, losses, 0.0).sum() / real.sum().clamp_min(1)


def taught_loss(logits: Tensor, chances: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy a word of the teachers' mean probabilities (P, C, T, V), at the places that are not padding."""
    real = labels != 0
    losses = -(chances * logits.log_softmax(-1).clamp_min(-100)).sum(-1)
    return torch.where(real, losses, 0.0).sum() / real.sum()


def policy_loss(logits: Tensor, labels: Tensor, rewards: Tensor) -> Tensor:
    """REINFORCE with the mean of a photo's other samples as the baseline (Luo, 2020); rewards (P, C)."""
    count = rewards.shape[1]
    advantages = (rewards - rewards.mean(1, keepdim=True)) * count / (count - 1)
    real = labels != 0
    losses = -logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    return torch.where(real, losses * advantages[..., None], 0.0).sum() / real.sum()


@torch.no_grad()
def sampled(weights: Weights, cross: Cross, captions: int, length: int, start: int, end: int, draw: bool) -> Tensor:
    """Ids (P, C, T + 1) from [START] up to [END], zeros after it; drawn, or else the likeliest each time."""
    photos = len(cross[0][0])
    stepper = Stepper(weights, cross, captions, length)
    said = [torch.full((photos * captions,), start, device=cross[0][0].device)]
    over = torch.zeros_like(said[0], dtype=torch.bool)
    for _ in range(length):
        logits = stepper(said[-1])
        if draw:
            logits = logits - torch.rand_like(logits).clamp_min(1e-20).log().neg().log()
        following = torch.where(over, 0, logits.argmax(-1))
        over = over | (following == end)
        said.append(following)
    return torch.stack(said, 1).unflatten(0, (photos, captions))


@torch.no_grad()
def searched(many: list[Weights], crosses: list[Cross], beams: int, length: int, start: int, end: int, penalty: float):
    """Beam search by the mean probabilities of several captioners; ids (P, T) after [START], zeros after [END]."""
    photos, device = len(crosses[0][0][0]), crosses[0][0][0].device
    steppers = [Stepper(one, cross, beams, length) for one, cross in zip(many, crosses, strict=True)]
    said = torch.zeros(photos, beams, length, dtype=torch.long, device=device)
    scores = torch.full((photos, beams), -1e9, device=device)
    scores[:, 0] = 0.0
    best, best_scores = torch.zeros_like(said[:, 0]), torch.full((photos,), -1e9, device=device)
    last = torch.full((photos * beams,), start, device=device)
    base = torch.arange(photos, device=device)[:, None] * beams
    for t in range(length):
        chances = sum(stepper(last).softmax(-1) for stepper in steppers) / len(steppers)
        logs = chances.clamp_min(1e-30).log().unflatten(0, (photos, beams))  # (P, beams, V)
        ended = (scores + logs[..., end]) / (t + 1) ** penalty
        found, which = ended.max(1)
        better = found > best_scores
        done = said[torch.arange(photos, device=device), which].clone()
        done[:, t] = end
        best, best_scores = torch.where(better[:, None], done, best), torch.where(better, found, best_scores)
        logs[..., end] = -1e9
        scores, chosen = (scores[..., None] + logs).flatten(1).topk(beams)
        rows, words = chosen // logs.shape[-1], chosen % logs.shape[-1]
        said = said.gather(1, rows[..., None].expand(-1, -1, length)).clone()
        said[..., t] = words
        last = words.flatten()
        for stepper in steppers:
            stepper.take((base + rows).flatten())
    return best


@torch.no_grad()
def encoded(weights: Weights, pixels: Tensor, batch: int = 250) -> Tensor:
    """Features (B, N, F) of photos (B, h, w, 3) as they are."""
    return torch.cat([encode(weights, part.float())[0] for part in pixels.split(batch)])


def crosses_of(many: list[Weights], images: Tensor) -> list[Cross]:
    return [cross_of(one, encode(one, images)[0]) for one in many]


@torch.no_grad()
def mean_chances(many: list[Weights], images: Tensor, tokens: Tensor) -> Tensor:
    """The mean of several captioners' probabilities (P, C, T, V)."""
    total = torch.zeros((), device=images.device)
    for one, cross in zip(many, crosses_of(many, images), strict=True):
        total = total + logits_of(one, cross, tokens).softmax(-1)
    return total / len(many)
