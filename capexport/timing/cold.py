"""Cold starts: new Python processes that import capexport, load a bundle and caption their first photo."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError
from ..progress import track

PROCESS = """
import sys, time
started = time.perf_counter()
import capexport
imported = time.perf_counter()
bundle, photo, threads = sys.argv[1:]
try:
    captioner = capexport.load(bundle, int(threads) if threads else None)
    loaded = time.perf_counter()
    captioner.caption(photo)
except capexport.CapexportError as error:
    sys.exit(str(error))
captioned = time.perf_counter()
from capexport.timing.memory import peak_bytes
print([imported - started, loaded - imported, captioned - loaded, peak_bytes()])
"""


@dataclass(frozen=True)
class ColdStart:
    """Seconds that importing, loading and the first caption took, and the most bytes of memory that were resident."""

    importing: float
    loading: float
    captioning: float
    peak_bytes: int

    @property
    def seconds(self) -> float:
        """All three together."""
        return self.importing + self.loading + self.captioning


def cold_start(bundle: Path, photo: Path, threads: int | None = None) -> ColdStart:
    """One cold start; raises BundleError where the process fails, with the last it said.

    threads  of the engine; None leaves the choice to it
    """
    command = [sys.executable, "-c", PROCESS, str(bundle.resolve()), str(photo.resolve()), str(threads or "")]
    here = Path(__file__).parents[2]  # where this very capexport is imported from
    done = subprocess.run(command, capture_output=True, text=True, cwd=here, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise BundleError(f"{bundle} captions nothing in a new process: {said[-1]}")
    return ColdStart(*json.loads(done.stdout))


def cold_starts(
    bundles: Sequence[Path], photo: Path, runs: int, threads: int | None = None
) -> list[tuple[ColdStart, ...]]:
    """So many cold starts of each bundle; they take turns, so that what else the machine does falls on all of them."""
    rounds = [
        [cold_start(bundle, photo, threads) for bundle in bundles] for _ in track(range(runs), runs, "cold starts")
    ]
    return list(zip(*rounds, strict=True))
