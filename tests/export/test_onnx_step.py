"""The decoder in the loop of ONNX's graph for whole captions: in every form what its steps say, with few operators."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

import capexport
from capexport.export.exporter import Exporter
from tests.conftest import tiny_captioner

TIED = "embeddings that are the logits' weights"
UNBIASED = "logits without a bias"
VARIANTS = [  # what a decoder keeps of words and looks at in photos is by the length of its keys
    ("keys of words and of the photo", 4, "fp32"),
    ("states of words, features of the photo", 64, "dynamic-int8"),
    (UNBIASED, 16, "fp32"),
    (TIED, None, "fp32"),
    (TIED, None, "dynamic-int8"),
]
SHAPING = {"Reshape", "Squeeze", "Unsqueeze", "Transpose"}


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda variant: f"{variant[0]} in {variant[2]}")
def variant(request):
    return request.param


@pytest.fixture
def form(variant):
    return variant[0]


@pytest.fixture(scope="module")
def bundle(variant, lively_encoder, tied, photos, tmp_path_factory):
    form, key_dim, recipe = variant
    captioner = tied if form == TIED else tiny_captioner(lively_encoder, key_dim=key_dim)
    if form == UNBIASED:  # which bans no word 0; Keras masks those that were said, so it must not be the likeliest
        captioner.output_layer.bias = np.zeros_like(captioner.output_layer.bias)
        kernel = captioner.output_layer.dense.kernel
        kernel.assign(kernel * (np.arange(kernel.shape[1]) > 0))
    export = Exporter(captioner, photos[:2]).export("onnx", recipe, fused=True)
    return export.write(tmp_path_factory.mktemp("bundles") / "bundle", gate=False)


def body(model):
    """The operators of the loop's step."""
    [loop] = [node for node in onnx.load_from_string(model).graph.node if node.op_type == "Loop"]
    return Counter(node.op_type for node in next(one.g for one in loop.attribute if one.name == "body").node)


def test_the_steps_words(bundle, form, photos):
    graphs = bundle.manifest.graphs
    given = {tensor.name for tensor in graphs["decoder"].inputs}
    assert ("self_keys_0" in given) == form.startswith("keys")
    assert ("cross_features" in given) == form.endswith("features of the photo")
    captioner = capexport.load(bundle)
    pixels = np.stack([captioner.preprocess(photo) for photo in photos[:3]])
    steps = captioner.caption_part(pixels, capexport.DecodingOptions())
    for one, other in zip(captioner.greedy.caption(pixels), steps, strict=True):
        assert one.tokens == other.tokens
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, rtol=0, atol=1e-5)
        np.testing.assert_allclose(one.cross_attention, other.cross_attention, rtol=0, atol=1e-5)


def test_only_the_last_vector_and_the_attention_are_reshaped(bundle, form):
    """But for vectors of words that are taken out of the logits' weights, column by column or block by block."""
    shaping = {name: count for name, count in body(bundle.graph("captioner")).items() if name in SHAPING}
    if form == TIED:
        assert (shaping["Squeeze"], shaping["Transpose"] + shaping.get("Reshape", 0)) == (2, 2)
    else:
        assert shaping == {"Squeeze": 1, "Transpose": 1}


def test_onnxruntime_joins_no_sums_with_norms(bundle, tmp_path):
    """It would compute them slower so."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4  # it warns that the file is for processors like this one
    onnxruntime.InferenceSession(bundle.graph("captioner"), options, providers=["CPUExecutionProvider"])
    found = body((tmp_path / "optimised.onnx").read_bytes())
    assert (found["LayerNormalization"], found["SkipLayerNormalization"]) == (6, 0)
