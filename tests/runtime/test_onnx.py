"""What only onnxruntime needs."""

import os
import subprocess
import sys

import numpy as np
import pytest

import capexport
from capexport.runtime import onnx


@pytest.mark.parametrize("found", [["AVX512_ICL", "X86_V4"], ["X86_V3"], []])
def test_only_where_products_would_saturate_the_other_way_is_taken(found, monkeypatch):
    monkeypatch.setattr(np, "show_config", lambda mode: {"SIMD Extensions": {"found": found}} if found else {})
    options, key = onnx.session_options(None), "session.x64quantprecision"
    if "AVX512_ICL" in found:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry(key)
    else:
        assert options.get_session_config_entry(key) == "1"


def test_either_way_int8_products_are_the_same(tiny_bundles, photos, monkeypatch):
    bundle = tiny_bundles["onnx", "int8"]
    first = capexport.load(bundle)
    monkeypatch.setattr(onnx, "_multiplies_exactly", lambda: False)
    second = capexport.load(bundle)
    pixels = np.stack([first.preprocess(photo) for photo in photos[:4]])
    features, others = (captioner.backend.encode(pixels) for captioner in (first, second))
    tokens = np.full(len(pixels), bundle.vocabulary.start, np.int32)
    cache = first.backend.empty_cache(len(pixels))
    for name, tensor in features.items():
        np.testing.assert_array_equal(others[name], tensor)
    steps = [captioner.backend.step(tokens, 0, features, cache) for captioner in (first, second)]
    np.testing.assert_array_equal(steps[0].logits, steps[1].logits)


def test_onnxruntime_keeps_and_sends_no_telemetry(tiny_bundle, photos, tmp_path):
    code = "import capexport, os, sys; capexport.load(sys.argv[1]).caption(sys.argv[2]); print(os.environ[sys.argv[3]])"
    command = [sys.executable, "-c", code, tiny_bundle.directory, photos[0], "ORT_DISABLE_TELEMETRY"]
    places = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "TMPDIR"), str(tmp_path))
    done = subprocess.run(command, env=os.environ | places, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr, list(tmp_path.iterdir())) == ("1\n", "", [])
