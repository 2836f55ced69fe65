"""A short run of the fuzzer, on each of its targets."""

import importlib.util
import re
import subprocess
import sys

import pytest

RUNS = 1000  # of each target; the script's own number is for long runs


@pytest.mark.skipif(not importlib.util.find_spec("atheris"), reason="atheris has wheels for Linux on x86-64 alone")
def test_nothing_but_errors_of_capexport(tiny_bundles):
    bundles = [str(tiny_bundles[to, "fp32"].directory) for to in ("onnx", "ort", "tflite")]
    command = [sys.executable, "-m", "tests.attacks.fuzz", "all", *bundles, "--runs", str(RUNS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"^(\w+): 1,000 runs", done.stdout, re.MULTILINE)
    assert {"manifest", "vocabulary", "onnx", "ort", "tflite", "vectors", "photo", "captions", "journal"} <= {*found}
