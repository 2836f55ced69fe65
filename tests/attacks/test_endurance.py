"""Short runs of the script for long ones."""

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "arguments", [["captions", "--captions", "300"], ["threads", "--minutes", "0.05"], ["engines", "--minutes", "0.05"]]
)
def test_words_and_file_handles_stay(arguments, tiny_bundles):
    """Memory settles in more time than a test has: that is for the long run."""
    bundles = [str(tiny_bundles[to, "fp32"].directory) for to in ("onnx", "tflite")]
    command = [sys.executable, "-m", "tests.endurance", *arguments, *bundles, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == (1 if arguments[0] == "engines" else 2), done.stderr
    for one in found:
        assert one["captions"] > 20
        assert one["wrong"] == 0
        assert one["handles"][1] <= one["handles"][0]
        assert one["threads"][1] <= one["threads"][0]
