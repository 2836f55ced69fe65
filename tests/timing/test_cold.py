"""Cold starts: real processes, their own memory, and what is said of those that fail."""

import resource
import sys

import numpy as np
import pytest

from capexport import BundleError
from capexport.timing.cold import cold_start, cold_starts


@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_a_cold_start(to, tiny_bundles, photos):
    [runs] = cold_starts([tiny_bundles[to, "fp32"].directory], photos[0], runs=2, threads=1)
    for start in runs:
        assert min(start.importing, start.loading, start.captioning) > 0
        assert start.seconds == start.importing + start.loading + start.captioning < 60
        assert 20e6 < start.peak_bytes < 300e6


def test_the_memory_is_the_processes_own(tiny_bundle, photos):
    """Not that of the process which started it, which Linux counts in ru_maxrss."""
    ballast = np.ones(400_000_000 // 8)
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    assert ours > ballast.nbytes
    assert cold_start(tiny_bundle.directory, photos[0]).peak_bytes < 300e6


def test_a_process_that_fails(tiny_bundle, tmp_path):
    with pytest.raises(BundleError, match=r"captions nothing in a new process: There is no photo at .*none\.jpg"):
        cold_start(tiny_bundle.directory, tmp_path / "none.jpg")
    with pytest.raises(BundleError, match="There is no bundle at"):
        cold_start(tmp_path / "none", tmp_path / "none.jpg")


def test_a_process_that_dies(tiny_bundle, photos, monkeypatch):
    monkeypatch.setattr("capexport.timing.cold.PROCESS", "import os; os.abort()")
    with pytest.raises(BundleError, match="exit code -6"):
        cold_start(tiny_bundle.directory, photos[0])
