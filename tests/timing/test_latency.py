"""Latencies: whose time they are, and that captioners take turns."""

import time

import pytest

from capexport.runtime.captioner import Captioner, load
from capexport.timing import latency
from capexport.timing.latency import TURN, latencies

ROUNDS = 2


class Slowed:
    """A backend that takes some milliseconds more, and tells whose turn it was."""

    def __init__(self, backend, turns, encode=0.0, step=0.0):
        self._backend, self._turns, self._encode, self._step = backend, turns, encode, step
        self.empty_cache = backend.empty_cache

    def encode(self, images):
        self._turns.append(self)
        time.sleep(self._encode / 1000)
        return self._backend.encode(images)

    def step(self, *arguments):
        time.sleep(self._step / 1000)
        return self._backend.step(*arguments)


@pytest.fixture(autouse=True)
def restless(monkeypatch):
    monkeypatch.setattr(latency, "REST", 0)


def test_each_graph_has_its_own_time(tiny_bundle, photos):
    turns = []
    backends = [Slowed(load(tiny_bundle, threads=1).backend, turns, **ms) for ms in ({}, {"encode": 40}, {"step": 15})]
    plain, slow_encoder, slow_decoder = latencies([Captioner(tiny_bundle, b) for b in backends], photos, ROUNDS)
    for measured in (plain, slow_encoder, slow_decoder):
        assert 0 < measured.encode.median <= measured.encode.p90
        assert 0 < measured.token.median <= measured.token.p90
    assert slow_encoder.encode.median >= 40 > plain.encode.median
    assert slow_decoder.token.median >= 15 > slow_encoder.token.median
    turn = [backend for backend in backends for _ in range(1 + TURN)]  # the first of each is not timed
    assert turns == turn * ROUNDS
