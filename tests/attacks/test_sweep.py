"""A short run of the sweep: damage of all kinds to every file, signed anew."""

import json
import subprocess
import sys

CASES = 60  # for each bundle; the script's own number is for long runs


def test_damage_is_refused_or_harmless(tiny_bundles):
    directories = [str(tiny_bundles[to, "fp32"].directory) for to in ("onnx", "ort", "tflite")]
    command = [sys.executable, "-m", "tests.attacks.sweep", *directories, "--cases", str(CASES), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    said = json.loads(done.stdout)
    assert said["bad"] == []
    assert [sum(found.values()) for found in said["found"].values()] == [CASES] * 3
    assert any("refused before an engine" in what for found in said["found"].values() for what in found)
