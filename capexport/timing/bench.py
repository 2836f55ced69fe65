"""bench: what captioning costs with each bundle and with Keras, all rows in one run.

How it is measured is written down in benchmarks/README.md.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bounds import check_whole
from ..bundle import Bundle, read_bundle
from ..errors import OptionError
from ..image import load_image
from ..progress import track
from ..runtime.engines import formats_on
from ..runtime.workers import cores
from .latency import REST
from .machine import Machine, measure_machine
from .processes import Worker, ask, started
from .subjects import EAGER, FUNCTION, Timing

ROUNDS, TURN = 10, 5  # turns of each row, and the captions that are timed in a turn
BATCHES = (1, 2, 4, 8, 16, 32)
BATCH_ROUNDS = 3


@dataclass(frozen=True)
class Measures:
    """What one row's captions cost; times in seconds, memory in bytes.

    load, cold_start  the captioner's loading; a new process' first caption, from its first line of Python on
    preprocess, encode, first_token, per_token  medians; the first token's after the encoder, a later token's. None but
                      the first where one graph makes whole captions
    p50, p90, p99     of whole captions, from file to words
    from_pixels       the median of whole captions without preprocessing
    throughput        captions a second by batch size, without preprocessing; none where there are no batches
    peak_bytes        the most memory, up to and including single captions
    tokens            of a caption, [END] included, on average
    same_words        the share of captions that are Keras', token for token
    roofline          the time that the machine's limits allow, over from_pixels; None for Keras, on a GPU, and where
                      the encoder and the decoder share a file
    over_eager, over_function  how many times as fast as Keras, eager and under tf.function, by from_pixels
    """

    load: float
    cold_start: float
    preprocess: float
    encode: float | None
    first_token: float | None
    per_token: float | None
    p50: float
    p90: float
    p99: float
    from_pixels: float
    throughput: dict[int, float]
    peak_bytes: int
    tokens: float
    same_words: float | None
    roofline: float | None
    over_eager: float | None
    over_function: float | None


@dataclass(frozen=True)
class Row:
    """A bundle or Keras: its name, device and bytes of graphs; its measures, or why there are none."""

    name: str
    device: str
    graph_bytes: int | None
    measures: Measures | None
    error: str = ""

    @property
    def label(self) -> str:
        """The name, and the device where that is not the usual one."""
        return self.name if self.device == "cpu" else f"{self.name} ({self.device})"


@dataclass(frozen=True)
class Bench:
    """The rows, and what they were measured with.

    machine  the medians of a measurement in each round
    """

    rows: tuple[Row, ...]
    photos: int
    captions: int
    threads: int | None
    cores: int
    machine: Machine


def bench(
    bundles: Sequence[str | os.PathLike[str] | Bundle],
    photos: Sequence[Path],
    source: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    device: str = "cpu",
    rounds: int = ROUNDS,
) -> Bench:
    """Time bundles and the Keras captioner, side by side.

    source   the captioner's directory, for Keras; None: the one that ships
    threads  of every engine; None leaves the choice to it
    device   cpu or cuda, for bundles; Keras takes a GPU if TensorFlow sees one
    rounds   of TURN captions of each row

    A row that fails keeps its place, with the reason. Raises OptionError where there is nothing to time or no such
    device, BundleError for a bundle that is damaged, ImageError for a photo that is.
    """
    if not photos or rounds < 1:
        raise OptionError("A bench needs a photo and a round at least.")
    check_whole("threads", threads, least=1)
    photos = photos[: rounds * TURN]
    for photo in photos:
        load_image(photo)
    read = [one if isinstance(one, Bundle) else read_bundle(Path(one)) for one in bundles]
    if device != "cpu":
        formats_on(device, [one.manifest.format for one in read])
    where = None if source is None else str(Path(source).resolve())
    paths = {EAGER: where, FUNCTION: where}
    labels = {
        one.label if [each.label for each in read].count(one.label) == 1 else str(one.directory): one for one in read
    }
    paths |= {label: str(one.directory.resolve()) for label, one in labels.items()}
    files = [str(photo.resolve()) for photo in photos]
    common = {"threads": threads, "device": device, "photo": files[0]}
    specs = {name: {"row": name, "path": path, **common} for name, path in paths.items()}
    with started(specs) as (workers, errors):
        timings, machine = _time(workers, errors, files, rounds, threads)
        peaks = {name: ask(workers, errors, name) for name in list(workers)}
        batches = _throughput(workers, errors, files)
        starts = {name: worker.start for name, worker in workers.items()}
    rows = []
    for name in paths:
        named = labels.get(name)
        size = named.graph_bytes if named else None
        if name in errors:
            rows.append(Row(name, device if named else "cpu", size, None, errors[name]))
            continue
        measures = _measures(timings, name, starts[name], batches[name], peaks[name])
        if named and device == "cpu":
            limit = machine.limit(named.manifest, measures.tokens)
            measures = dataclasses.replace(measures, roofline=limit / measures.from_pixels if limit else None)
        rows.append(Row(name, starts[name]["device"], size, measures))
    return Bench(tuple(rows), len(photos), rounds * TURN, threads, cores(), machine)


def _time(
    workers: dict[str, Worker], errors: dict[str, str], photos: Sequence[str], rounds: int, threads: int | None
) -> tuple[dict[str, list[Timing]], Machine]:
    """The rows and the machine itself take turns, so that what else it does falls on all of them."""
    timings: dict[str, list[Timing]] = {name: [] for name in workers}
    machines = []
    for k in track(range(rounds), rounds, "captions"):
        chosen = [photos[i % len(photos)] for i in range(k * TURN, (k + 1) * TURN)]
        machines.append(measure_machine(threads or cores()))
        for name in list(workers):
            time.sleep(REST)
            answer = ask(workers, errors, name, photos=chosen)
            timings[name] += [Timing(**{**one, "tokens": tuple(one["tokens"])}) for one in answer or ()]
    return {name: timings[name] for name in workers}, Machine.usual(machines)


def _throughput(
    workers: dict[str, Worker], errors: dict[str, str], photos: Sequence[str]
) -> dict[str, dict[int, float]]:
    """The best of some rounds by batch size."""
    found: dict[str, dict[int, float]] = {name: {} for name in workers}
    for _ in track(range(BATCH_ROUNDS), BATCH_ROUNDS, "batches"):
        for name in list(workers):
            time.sleep(REST)
            for batch in BATCHES:
                rate = ask(workers, errors, name, photos=photos, batch=batch)
                if rate is None:
                    break
                found[name][batch] = max(rate, found[name].get(batch, 0.0))
    return found


def _measures(
    timings: Mapping[str, Sequence[Timing]], name: str, start: dict[str, Any], throughput: dict[int, float], peak: int
) -> Measures:
    own, truth = timings[name], timings.get(EAGER) or timings.get(FUNCTION)
    p50, p90, p99 = np.percentile([one.caption for one in own], [50, 90, 99]).tolist()
    from_pixels = _from_pixels(own)
    later = [seconds for one in own for seconds in one.later]
    return Measures(
        load=start["load"],
        cold_start=start["cold_start"],
        preprocess=float(np.median([one.preprocess for one in own])),
        encode=_median([one.encode for one in own]),
        first_token=_median([one.first for one in own]),
        per_token=_median(later),
        p50=p50,
        p90=p90,
        p99=p99,
        from_pixels=from_pixels,
        throughput=throughput,
        peak_bytes=peak,
        tokens=float(np.mean([len(one.tokens) for one in own])),
        same_words=_same(own, truth) if truth else None,
        roofline=None,
        over_eager=_times_as_fast(from_pixels, timings.get(EAGER)),
        over_function=_times_as_fast(from_pixels, timings.get(FUNCTION)),
    )


def _median(values: Sequence[float | None]) -> float | None:
    """Of those that there are, None if there are none."""
    there = [value for value in values if value is not None]
    return float(np.median(there)) if there else None


def _from_pixels(timings: Sequence[Timing]) -> float:
    return float(np.median([one.from_pixels for one in timings]))


def _times_as_fast(from_pixels: float, others: Sequence[Timing] | None) -> float | None:
    return _from_pixels(others) / from_pixels if others else None


def _same(timings: Sequence[Timing], truth: Sequence[Timing]) -> float:
    return float(np.mean([one.tokens == other.tokens for one, other in zip(timings, truth, strict=True)]))
