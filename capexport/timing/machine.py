"""What the machine can do: the limits that arithmetic and the reading of weights set to speed (Williams et al., 2009).

S. Williams, A. Waterman, D. Patterson: "Roofline: An Insightful Visual Performance Model for Multicore Architectures".
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ..errors import OptionError
from ..manifest import Manifest

GEMM = 1024  # rows and columns of the matrices
STREAM = 64_000_000  # bytes that each thread reads
TRIES = 7
PROCESS = f"""
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np

def best(run):
    times = []
    for _ in range({TRIES}):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)

threads = int(sys.argv[1])
one, other = (np.random.default_rng(k).random(({GEMM}, {GEMM}), np.float32) for k in (0, 1))
gemm = best(lambda: one @ other)
with ThreadPoolExecutor(threads) as pool:
    parts = [np.ones({STREAM} // 8) for _ in range(threads)]
    stream = best(lambda: list(pool.map(np.sum, parts)))
print(json.dumps([{GEMM} ** 3 / gemm, threads * {STREAM} / stream]))
"""
BLAS_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
BLAS_KERNELS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # which may ask for those of an older processor


@dataclass(frozen=True)
class Machine:
    """The most that so many threads reach: multiplications of float32 a second, and bytes read from memory a second."""

    multiplications: float
    bytes: float

    @classmethod
    def usual(cls, measured: Sequence[Machine]) -> Machine:
        """The medians."""
        return cls(median(one.multiplications for one in measured), median(one.bytes for one in measured))

    def limit(self, manifest: Manifest, tokens: float) -> float | None:
        """The seconds that a caption takes at least: each graph's arithmetic or its reading, whichever takes longer.

        None where the graphs share a file, which does not tell what each of them reads.

        tokens  of the caption. Weights are read once at each run, but for embeddings, of which a step reads two rows;
                activations are not counted.
        """
        if manifest.graphs["encoder"].file == manifest.graphs["decoder"].file:
            return None
        tables = (manifest.shape.vocabulary + manifest.shape.max_length) * manifest.shape.units
        looked_up = tables / (tables + manifest.graphs["decoder"].multiplications)  # of the decoder's weights
        return self._seconds(manifest, "encoder", 1) + tokens * self._seconds(manifest, "decoder", 1 - looked_up)

    def _seconds(self, manifest: Manifest, name: str, read: float) -> float:
        graph = manifest.graphs[name]
        size = manifest.files[graph.file].bytes * read
        return max(graph.multiplications / self.multiplications, size / self.bytes)


def measure_machine(threads: int) -> Machine:
    """Measure it in a process of its own, whose matrix library gets so many threads.

    Raises OptionError where that fails, as without memory for so many threads.
    """
    environment = {name: value for name, value in os.environ.items() if name not in BLAS_KERNELS}
    environment |= dict.fromkeys(BLAS_THREADS, str(threads))
    command = [sys.executable, "-c", PROCESS, str(threads)]
    here = Path(__file__).parents[2]  # not where the user's files may have modules' names
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=here, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise OptionError(f"What the machine can do with {threads} threads cannot be measured: {said[-1]}.")
    return Machine(*json.loads(done.stdout))
