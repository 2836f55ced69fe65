"""CIDEr-D (Vedantam et al., 2015) of many captions at once, on the device; capexport.captioner.cider in tensors.

P photos, C candidates each, K references each, T tokens. Captions are ids with zeros after their end.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LONGEST, SIGMA, BASE = 4, 6.0, 8192  # words in an n-gram; of the length penalty; above any id


class Cider:
    """Scores candidates against the references of photos, which also say how frequent n-grams are.

    references  (all photos, K, T); a row of zeros is none
    """

    def __init__(self, references: Tensor) -> None:
        self._references = references
        self._unseen = math.log(len(references))
        self._grams, self._rarity = [], []
        for n in range(1, LONGEST + 1):
            grams = _grams(references, n).flatten(1)  # (photos, K * T)
            ordered = grams.sort(1).values
            first = torch.ones_like(ordered, dtype=torch.bool)
            first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
            known, counts = ordered[first & (ordered > 0)].unique(return_counts=True)
            self._grams.append(known)
            self._rarity.append(self._unseen - counts.double().log())

    def __call__(self, photos: Tensor, candidates: Tensor) -> Tensor:
        """Scores (P, C) of 0 to 10 for candidates (P, C, T) of the photos of these indices (P,)."""
        references = self._references[photos]  # (P, K, T)
        there = (references > 0).any(-1)
        total = torch.zeros(*candidates.shape[:2], references.shape[1], dtype=torch.float64, device=candidates.device)
        for n in range(1, LONGEST + 1):
            ours, our_norms = self._weighed(candidates, n)
            theirs, their_norms = self._weighed(references, n)
            mine, other = _grams(candidates, n)[:, :, None, :, None], _grams(references, n)[:, None, :, None, :]
            alike = (mine == other) & (mine > 0)  # (P, C, K, T, T)
            product = torch.minimum(ours[:, :, None, :, None], theirs[:, None, :, None, :])
            product = (product * theirs[:, None, :, None, :] * alike).sum((-1, -2))  # (P, C, K)
            norms = our_norms[:, :, None] * their_norms[:, None, :]
            total += torch.where(norms > 0, product / norms.clamp_min(1e-12), 0.0)
        # A caption's length is counted in bigrams, as pycocoevalcap does.
        lengths = [((one > 0).sum(-1) - 1).clamp_min(0).double() for one in (candidates, references)]
        penalty = torch.exp(-((lengths[0][:, :, None] - lengths[1][:, None]) ** 2) / (2 * SIGMA**2))
        score = (total * penalty * there[:, None]).sum(-1) / there.sum(-1)[:, None]
        return (10.0 / LONGEST * score).float()

    def _weighed(self, captions: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Of captions (P, X, T) the weight of each n-gram where it first stands, zero elsewhere, and their norms."""
        grams = _grams(captions, n)
        same = (grams[..., :, None] == grams[..., None, :]) & (grams > 0)[..., None]
        again = same.tril(-1).any(-1)
        place = torch.searchsorted(self._grams[n - 1], grams.contiguous()).clamp_max(len(self._grams[n - 1]) - 1)
        known = self._grams[n - 1][place] == grams
        rarity = torch.where(known, self._rarity[n - 1][place], self._unseen)
        weights = torch.where(again | (grams == 0), 0.0, same.sum(-1) * rarity)
        return weights, weights.square().sum(-1).sqrt()


def _grams(captions: Tensor, n: int) -> Tensor:
    """Each place's n-gram as one number (..., T), zero where it would reach past the end."""
    captions, length = captions.long(), captions.shape[-1]
    padded = torch.nn.functional.pad(captions, (0, n - 1))
    parts = [padded[..., k : k + length] for k in range(n)]
    number = torch.zeros_like(captions)
    for part in parts:
        number = number * BASE + part
    return torch.where(parts[-1] > 0, number, 0)
