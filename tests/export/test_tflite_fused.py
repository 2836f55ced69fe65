"""The whole caption as one TFLite model: it says what the runtime says with the two graphs."""

import dataclasses

import numpy as np
import pytest

import capexport
from capexport import BundleError
from capexport.runtime.backend import GraphBackend
from capexport.runtime.captioner import Captioner
from capexport.runtime.options import DecodingOptions
from capexport.runtime.tflite import Model
from capexport.vocabulary import END, UNKNOWN, Vocabulary
from tests.conftest import VARIANTS

RECIPES = [recipe for to, recipe in VARIANTS if to == "tflite"]
OUTPUTS = ("tokens", "log_probabilities", "attention")


def fused(bundle, max_length=None):
    from capexport.export.tflite import fuse

    models = {name: bundle.graph(name) for name in ("encoder", "decoder")}
    return fuse(bundle.manifest.graphs, models, bundle.vocabulary, max_length or bundle.manifest.shape.max_length)


def with_special_words(bundle, **places):
    """The bundle with special words at the ids of others, which trade places with them: the graphs stay as they are."""
    words = list(bundle.vocabulary.words)
    for word, place in places.items():
        old = words.index(f"[{word}]")
        words[old], words[place] = words[place], words[old]
    return dataclasses.replace(bundle, vocabulary=Vocabulary(tuple(words)))


def many_pixels(captioner, photos):
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    return [*(captioner.preprocess(photo) for photo in photos), *noise]


def assert_same_captions(bundle, pixels, max_length=None):
    """The lengths of the captions, if the fused model says them, too, and nothing after them."""
    caption = Model(fused(bundle, max_length), 1, "the fused model").runner(OUTPUTS, "caption")
    steps = capexport.load(bundle, threads=1)
    lengths = []
    for image in pixels:
        [expected] = steps.caption_pixels(image[np.newaxis], DecodingOptions(max_length=max_length))
        given = caption({"image": image[np.newaxis]})
        length = len(expected.tokens)
        assert tuple(given["tokens"][0, :length].tolist()) == expected.tokens
        np.testing.assert_allclose(given["log_probabilities"][0, :length], expected.log_probabilities, atol=1e-5)
        maps = given["attention"][:length].reshape(expected.cross_attention.shape)
        np.testing.assert_allclose(maps, expected.cross_attention, atol=1e-6)
        assert not any(given[name][0, length:].any() for name in ("tokens", "log_probabilities"))
        assert not given["attention"][length:].any()
        lengths.append(length)
    return lengths


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_says_the_same_up_to_the_last_position(recipe, tiny_bundles, photos):
    bundle = tiny_bundles["tflite", recipe]
    pixels = many_pixels(capexport.load(bundle), photos)
    assert set(assert_same_captions(bundle, pixels)) == {bundle.manifest.shape.max_length}
    assert set(assert_same_captions(bundle, pixels[:2], max_length=1)) == {1}


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_ends_where_the_caption_does_and_says_no_banned_word(recipe, tiny_bundles, photos):
    """Once with [END] at the id of a word that is said, once with [UNK] there, which the graphs do not know of."""
    bundle = tiny_bundles["tflite", recipe]
    captioner = capexport.load(bundle)
    pixels = many_pixels(captioner, photos)
    said = captioner.caption_pixels(pixels[0][np.newaxis], DecodingOptions())[0].tokens
    later = next(token for token in said if token not in said[:2])
    lengths = assert_same_captions(with_special_words(bundle, END=later), pixels)
    assert lengths[0] == said.index(later) + 1 < bundle.manifest.shape.max_length
    banned = with_special_words(bundle, UNK=said[1])
    assert banned.vocabulary.words[said[1]] == UNKNOWN != END
    assert_same_captions(banned, pixels)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_other_signatures_are_the_two_graphs(recipe, tiny_bundles, photos):
    """For every batch, also after a caption and with it in one interpreter: beams drop and repeat rows."""
    bundle = tiny_bundles["tflite", recipe]
    graphs, model = bundle.manifest.graphs, Model(fused(bundle), 1, "the fused model")
    encode, decode = (
        model.runner([tensor.name for tensor in graphs[graph].outputs], signature)
        for graph, signature in (("encoder", "encode"), ("decoder", "decode"))
    )
    whole = model.runner(OUTPUTS, "caption")
    ours = Captioner(bundle, GraphBackend(graphs["decoder"], encode, decode))
    theirs = capexport.load(bundle, threads=1)
    pixels = np.stack(many_pixels(theirs, photos))
    first = whole({"image": pixels[:1]})
    for batch in (pixels[:1], pixels[:3], pixels[1:2], pixels):
        for options in (DecodingOptions(), DecodingOptions(beams=3)):
            pairs = zip(ours.caption_pixels(batch, options), theirs.caption_pixels(batch, options), strict=True)
            for one, other in pairs:
                assert one.tokens == other.tokens
                np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-5)
                np.testing.assert_allclose(one.cross_attention, other.cross_attention, atol=1e-6)
        again = whole({"image": pixels[:1]})
        assert all(np.array_equal(again[name], first[name]) for name in OUTPUTS)


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_is_one_file_of_built_in_operators_and_one_set_of_weights(recipe, tiny_bundles):
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    bundle = tiny_bundles["tflite", recipe]
    model = fused(bundle)
    assert model == fused(bundle)
    assert len(model) <= 1.05 * bundle.graph_bytes
    content = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    codes = {content.operatorCodes[op.opcodeIndex].builtinCode for graph in content.subgraphs for op in graph.operators}
    assert schema.BuiltinOperator.WHILE in codes and schema.BuiltinOperator.CUSTOM not in codes


def test_a_program_that_knows_no_signatures_gets_captions(tiny_bundles, photos):
    from ai_edge_litert.interpreter import Interpreter

    bundle = tiny_bundles["tflite", "dynamic-int8"]
    steps, interpreter = capexport.load(bundle), Interpreter(model_content=fused(bundle))
    interpreter.allocate_tensors()
    [image], outputs = interpreter.get_input_details(), interpreter.get_output_details()
    pixels = steps.preprocess(photos[0])[np.newaxis]
    interpreter.set_tensor(image["index"], pixels)
    interpreter.invoke()
    tokens = next(output for output in outputs if output["dtype"] == np.int32)
    [expected] = steps.caption_pixels(pixels, DecodingOptions())
    assert tuple(interpreter.get_tensor(tokens["index"])[0].tolist()) == expected.tokens


def test_a_batch_and_a_signature_that_is_not_there_are_refused(tiny_bundles):
    model = Model(fused(tiny_bundles["tflite", "fp32"]), 1, "the fused model")
    for signature in (None, "translate"):
        with pytest.raises(BundleError, match="cannot load the fused model"):
            model.runner(OUTPUTS, signature)
    with pytest.raises(BundleError, match="cannot run the fused model"):
        model.runner(OUTPUTS, "caption")({"image": np.zeros((2, 64, 64, 3), np.uint8)})
