"""Tensors that stay on a device, here the memory of the processor: the words are those that arrays give."""

import numpy as np
import onnxruntime
import pytest

import capexport
from capexport import BundleError, DecodingOptions
from capexport.runtime import onnx
from capexport.runtime.backend import GraphBackend
from capexport.runtime.captioner import Captioner
from capexport.runtime.onnx import OnDevice, bound


@pytest.fixture(scope="module")
def plain(tiny_bundles):
    return capexport.load(tiny_bundles["onnx", "dynamic-int8"], threads=1)


@pytest.fixture(scope="module")
def on_device(plain):
    bundle = plain.bundle
    graphs = bundle.manifest.graphs
    encode, decode = (
        bound(
            onnxruntime.InferenceSession(bundle.graph(name), providers=["CPUExecutionProvider"]),
            [tensor.name for tensor in graphs[name].outputs],
            "cpu",
        )
        for name in ("encoder", "decoder")
    )
    return Captioner(bundle, GraphBackend(graphs["decoder"], encode, decode))


@pytest.mark.parametrize("options", [{}, {"beams": 3, "captions": 2}, {"temperature": 1.0, "seed": 2, "captions": 3}])
def test_the_same_words(options, plain, on_device, photos):
    for batch in (1, 4):
        ours, theirs = (one.caption(photos, batch=batch, **options) for one in (on_device, plain))
        for one, other in zip(ours, theirs, strict=True):
            assert [one.tokens, *(each.tokens for each in one.alternatives)] == [
                other.tokens,
                *(each.tokens for each in other.alternatives),
            ]
            np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-5)


def test_what_only_the_next_step_reads_stays_there(on_device, plain, photos):
    backend = on_device.backend
    pixels = np.stack([plain.preprocess(photo) for photo in photos[:2]])
    features = backend.encode(pixels)
    step = backend.step(np.full(2, 3, np.int32), 0, features, backend.empty_cache(2))
    assert all(
        isinstance(tensor, OnDevice) and len(tensor) == 2 for tensor in (*features.values(), *step.cache.values())
    )
    assert isinstance(step.logits, np.ndarray)
    expected = plain.backend.encode(pixels)
    for name, tensor in features.items():
        np.testing.assert_allclose(tensor[np.array([1])], expected[name][[1]], atol=1e-5)


def test_options_are_checked_before_anything_runs(on_device):
    with pytest.raises(capexport.OptionError):
        on_device.caption_pixels(np.zeros((1, 64, 64, 3), np.uint8), DecodingOptions(max_length=99))


def test_what_a_device_refuses_is_one_sentence(plain, monkeypatch):
    """Here the processor stands in for it, and photos of another size for what it refuses."""
    monkeypatch.setattr(onnx, "PROVIDERS", {"cuda": "CPUExecutionProvider"})
    monkeypatch.setattr(onnx, "PROVIDER_OPTIONS", {})
    model = onnx.Model(plain.bundle.graph("encoder"), None, "an encoder", "cuda")
    encode = model.runner([tensor.name for tensor in plain.bundle.manifest.graphs["encoder"].outputs])
    with pytest.raises(BundleError, match="onnxruntime cannot run an encoder: "):
        encode({"image": np.zeros((1, 8, 8, 3), np.uint8)})


def test_a_gpu_multiplies_as_the_processor_does(monkeypatch):
    """Not in TensorFloat-32; and no search for the fastest algorithms delays a first batch."""
    given = []
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, providers, **__: given.extend(providers))
    onnx.Model(b"", None, "a graph", "cuda")
    onnx.Model(b"", None, "a graph", "cpu")
    options = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    assert given == [("CUDAExecutionProvider", options), ("CPUExecutionProvider", {})]


@pytest.mark.parametrize(
    ("to", "device", "message"),
    [
        ("onnx", "tpu", "Bundles of onnx run on cpu or cuda, not on tpu."),
        ("ort", "cuda", "Bundles of ort run on cpu, not on cuda; those of onnx can."),
        ("tflite", "cuda", "Bundles of tflite run on cpu, not on cuda; those of onnx can."),
    ],
)
def test_a_format_that_does_not_run_there(to, device, message, tiny_bundles):
    with pytest.raises(capexport.OptionError) as caught:
        capexport.load(tiny_bundles[to, "fp32"], device=device)
    assert str(caught.value) == message
