"""Graphs for whole captions: what they say is what the encoder and the decoder's steps say."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest

import capexport
from capexport import BundleError, DecodingOptions
from capexport.bundle import write_bundle
from capexport.cli.main import main
from capexport.export import tflite_fused
from capexport.export.exporter import format_module
from capexport.manifest import VOCABULARY
from capexport.recipes import FORMATS
from capexport.runtime import backend
from capexport.runtime.backend import PLACES
from capexport.runtime.captioner import Captioner
from capexport.runtime.greedy import GreedyGraph
from capexport.sense import special_tokens
from capexport.vocabulary import END, UNKNOWN, Vocabulary
from tests.conftest import FUSED, VARIANTS

OFTEN = 16  # what the tiny captioner says now at once, now later, now never
OFTEN_TOO = 7
ONNX = ("onnx", "dynamic-int8", "fused")
TFLITE = ("tflite", "fp32", "fused")


@pytest.fixture(scope="module")
def pixels(photos):
    """Photos and noise, uint8 (B, 64, 64, 3), of which the tiny captioner says different things."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), np.uint8)
    return np.concatenate([np.stack([capexport.load_image(photo, (64, 64)) for photo in photos]), noise])


@pytest.fixture(scope="module")
def ending(tiny_bundles, tmp_path_factory):
    """Makes fused bundles of a variant in which OFTEN is the id of [END] and OFTEN_TOO that of [UNK], which is banned.

    The tiny captioner hardly says its own [END], and its decoder itself bans its own [UNK]. Where TFLite's loop has a
    number of places, captions that have more words go on in another one.
    """
    root, made = tmp_path_factory.mktemp("ending"), {}

    def make(variant, places=PLACES):
        if (variant, places) not in made:
            to, recipe, _ = variant
            bundle, module = tiny_bundles[variant], format_module(to)
            words = list(bundle.vocabulary.words)
            for often, special in ((OFTEN, END), (OFTEN_TOO, UNKNOWN)):
                words[words.index(special)], words[often] = words[often], special
            vocabulary = Vocabulary(tuple(words))
            finished = {name: tiny_bundles[FORMATS[to].engine, recipe].graph(name) for name in ("encoder", "decoder")}
            graphs, longest = bundle.manifest.graphs, bundle.manifest.shape.max_length
            with pytest.MonkeyPatch.context() as changed:
                changed.setattr(tflite_fused, "PLACES", places)
                whole = module.write(module.fuse(graphs, finished, vocabulary, longest))
            files = {VOCABULARY: vocabulary.to_text().encode(), graphs["captioner"].file: whole}
            manifest = dataclasses.replace(bundle.manifest, special_tokens=special_tokens(vocabulary))
            made[variant, places] = write_bundle(root / f"{'-'.join(variant)}-{places}", manifest, bundle.files | files)
        return made[variant, places]

    return make


def captions(caption, pixels, batch):
    """What a function makes of photos in batches."""
    parts = [pixels[start : start + batch] for start in range(0, len(pixels), batch)]
    return [one for part in parts for one in caption(part)]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("variant", FUSED)
def test_it_says_what_the_steps_say(variant, batch, tiny_bundles, ending, pixels):
    # An activation in int8 that is half-way between two levels goes either way, by what float32 loses. onnxruntime adds
    # up one row's product by weights that it has not packed, as of ORT's weight-int8, in another order than of several
    # rows' (2.2e-5 of a log-probability between the decoder's own batches of 1 and 3): rows that end leave the steps'
    # batch, and stay in the graph's.
    wider = {("onnx", "dynamic-int8"): 2e-3, ("ort", "dynamic-int8"): 2e-3, ("ort", "weight-int8"): 3e-5}
    near = wider.get(variant[:2], 1e-5)
    lengths = []
    for bundle in (tiny_bundles[variant], ending(variant)):
        captioner = capexport.load(bundle)
        assert captioner.greedy is not None
        whole = captions(captioner.greedy.caption, pixels, batch)
        by_steps = Captioner(bundle, captioner.backend)
        steps = captions(
            lambda part, by_steps=by_steps: by_steps.caption_pixels(part, DecodingOptions()), pixels, batch
        )
        for one, other in zip(whole, steps, strict=True):
            assert (one.tokens, one.words, one.text) == (other.tokens, other.words, other.text)
            for ours, theirs in (
                (one.log_probabilities, other.log_probabilities),
                (one.cross_attention, other.cross_attention),
            ):
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=near)
                assert np.median(np.abs(np.subtract(ours, theirs))) <= 1e-5
        lengths.append({len(caption.tokens) for caption in whole})
    longest = tiny_bundles[variant].manifest.shape.max_length
    assert longest in lengths[0]  # where [END] comes because it must
    assert min(lengths[1]) < longest
    assert not any(OFTEN_TOO in caption.tokens for caption in whole)
    assert any(
        OFTEN_TOO in caption.tokens
        for caption in captions(capexport.load(tiny_bundles[variant]).greedy.caption, pixels, batch)
    )


def test_onnx_bans_only_words_that_the_decoder_does_not_ban_itself(tiny_bundles, ending):
    for bundle, banning in ((tiny_bundles[ONNX], False), (ending(ONNX), True)):
        [loop] = [
            node for node in onnx.load_from_string(bundle.graph("captioner")).graph.node if node.op_type == "Loop"
        ]
        [body] = [attribute.g for attribute in loop.attribute if attribute.name == "body"]
        assert any("step_logits" in node.input and node.op_type == "Add" for node in body.node) == banning


@pytest.mark.parametrize("places", [1, 3, 8, 9])
def test_captions_that_outgrow_their_places(places, ending, pixels, monkeypatch):
    """In the steps' caches, too."""
    captioner, fewer = capexport.load(ending(TFLITE)), capexport.load(ending(TFLITE, places))
    whole = captions(captioner.greedy.caption, pixels, 1)
    assert {len(caption.tokens) for caption in whole} >= {1, 9}
    for options in (DecodingOptions(), DecodingOptions(beams=3)):
        by_steps = captions(lambda part, options=options: captioner.caption_part(part, options), pixels, 4)
        with monkeypatch.context() as changed:
            changed.setattr(backend, "PLACES", places)
            with_fewer = captions(lambda part, options=options: captioner.caption_part(part, options), pixels, 4)
        check_near(with_fewer, by_steps)
    check_near(captions(fewer.greedy.caption, pixels, 1), whole)


def check_near(some, others):
    for one, other in zip(some, others, strict=True):
        assert one.tokens == other.tokens
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, rtol=0, atol=1e-5)
        np.testing.assert_allclose(one.cross_attention, other.cross_attention, rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", FUSED)
def test_the_graph_gives_what_the_manifest_states_and_zeros_after_the_end(variant, ending, pixels):
    bundle = ending(variant)
    graph = bundle.manifest.graphs["captioner"]
    photos = 3 if "B" in graph.varying else 1
    outputs = capexport.load(bundle).greedy.run(pixels[:photos])
    lengths = {"B": photos, "T": outputs["tokens"].shape[1]}
    assert {name: (tensor.dtype.name, tensor.shape) for name, tensor in outputs.items()} == {
        tensor.name: (tensor.dtype, tuple(lengths.get(n, n) for n in tensor.shape)) for tensor in graph.outputs
    }
    assert np.count_nonzero(outputs["tokens"] == OFTEN, axis=1).tolist() == [1] * photos
    after = np.cumsum(outputs["tokens"] == OFTEN, axis=1) - (outputs["tokens"] == OFTEN) > 0
    assert not outputs["tokens"][after].any()
    assert not outputs["log_probabilities"][after].any()
    assert outputs["log_probabilities"][~after].all()
    if "T" in graph.outputs[0].shape:
        assert not after[:, -1].all()


def test_rows_that_have_ended_wait_for_the_others(ending, pixels):
    greedy = capexport.load(ending(ONNX)).greedy
    ends = (greedy.run(pixels)["tokens"] == OFTEN).argmax(axis=1)
    first, last = int(ends.argmin()), int(ends.argmax())
    assert greedy.run(pixels[[first]])["tokens"].shape[1] == ends[first] + 1 < ends[last] + 1
    tokens = greedy.run(pixels[[first, last]])["tokens"]
    assert tokens.shape[1] == ends[last] + 1
    assert np.flatnonzero(tokens[0] == OFTEN).tolist() == [ends[first]]


@pytest.mark.parametrize("recipe", [recipe for to, recipe, _ in FUSED if to == "onnx"])
def test_onnx_has_known_operators_alone_and_its_weights_once(recipe, tiny_bundles):
    import onnx

    bundle = tiny_bundles["onnx", recipe, "fused"]
    model = onnx.load_from_string(bundle.graph("captioner"))
    onnx.checker.check_model(model, full_check=True)
    [loop] = [node for node in model.graph.node if node.op_type == "Loop"]
    nodes = [*model.graph.node, *loop.attribute[0].g.node]
    assert {node.domain for node in nodes} <= ({"", "com.microsoft"} if recipe in ("dynamic-int8", "int8") else {""})
    parts = len(bundle.graph("encoder")) + len(bundle.graph("decoder"))
    assert len(bundle.graph("captioner")) < 1.05 * parts


@pytest.mark.parametrize("variant", FUSED)
def test_the_encoder_and_decoder_are_those_of_a_bundle_without(variant, tiny_bundles):
    fused, plain = tiny_bundles[variant], tiny_bundles[variant[:2]]
    if not FORMATS[variant[0]].one_file:
        assert [fused.graph(name) for name in ("encoder", "decoder")] == [
            plain.graph(name) for name in ("encoder", "decoder")
        ]
    assert fused.manifest.gate[:-1] == plain.manifest.gate
    assert fused.manifest.gate[-1].holds
    assert capexport.load(plain).greedy is None


def damaged(bundle, **graphs):
    """The bundle with other bytes for some graphs, in memory: read from a disk it would be refused at once."""
    files = {bundle.manifest.graphs[name].file: data for name, data in graphs.items()}
    return dataclasses.replace(bundle, files=bundle.files | files)


def test_the_steps_are_opened_for_other_options_alone(tiny_bundles, photos):
    bundle = tiny_bundles[ONNX]
    captioner = capexport.load(damaged(bundle, decoder=b"no graph"))
    assert captioner.caption(photos[0]).text == capexport.load(bundle).caption(photos[0]).text
    for options in ({"beams": 2}, {"temperature": 1.0}, {"max_length": 4}, {"min_length": 3}, {"banned_words": ["a"]}):
        with pytest.raises(BundleError, match="cannot load the decoder"):
            captioner.caption(photos[0], **options)
    with pytest.raises(BundleError, match="cannot load the decoder"):
        list(captioner.stream(photos[0]))


def test_other_options_mean_what_they_did_for_threads_that_come_at_once(tiny_bundles, photos):
    fused, plain = (capexport.load(tiny_bundles[variant]) for variant in (ONNX, ONNX[:2]))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda photo: fused.caption(photo, beams=2, max_length=5).tokens, photos))
    assert found == [plain.caption(photo, beams=2, max_length=5).tokens for photo in photos]


def test_a_graph_that_takes_one_photo_is_given_one_at_a_time(tiny_bundles, pixels):
    bundle = tiny_bundles[ONNX]
    [image] = bundle.manifest.graphs["captioner"].inputs
    single = dataclasses.replace(image, shape=(1, *image.shape[1:]))
    graph = dataclasses.replace(bundle.manifest.graphs["captioner"], inputs=(single,))
    manifest = dataclasses.replace(bundle.manifest, graphs=bundle.manifest.graphs | {"captioner": graph})
    whole, batches = capexport.load(bundle).greedy, []

    def run(inputs):
        batches.append(len(inputs["image"]))
        return whole.run(inputs["image"])

    one_by_one = GreedyGraph(dataclasses.replace(bundle, manifest=manifest), run).caption(pixels[:3])
    assert batches == [1, 1, 1]
    assert [caption.tokens for caption in one_by_one] == [caption.tokens for caption in whole.caption(pixels[:3])]


def test_verify_holds_for_it_and_sees_another_captioners(tiny_bundles):
    bundle = tiny_bundles[ONNX]
    checks = {check.name: check for check in capexport.verify(bundle).checks}
    assert checks["tensors as in the manifest"].holds
    assert checks["whole captions as step by step"].holds
    other = dataclasses.replace(
        bundle, files=bundle.files | {"captioner.onnx": tiny_bundles["onnx", "fp32", "fused"].graph("captioner")}
    )
    checks = {check.name: check for check in capexport.verify(other).checks}
    assert not checks["whole captions as step by step"].holds


def test_a_captioner_graph_that_is_missing_swapped_or_of_no_engine_is_refused(tiny_bundles, tmp_path):
    bundle = tiny_bundles[ONNX]
    graphs, files = bundle.manifest.graphs, dict(bundle.files)
    for one, other in (("captioner", "decoder"), ("captioner", "encoder")):
        swapped = {one: graphs[other].file, other: graphs[one].file}
        manifest = dataclasses.replace(
            bundle.manifest, graphs={n: dataclasses.replace(g, file=swapped.get(n, g.file)) for n, g in graphs.items()}
        )
        with pytest.raises(BundleError, match=r"graph of the captioner of .* another than the manifest describes"):
            capexport.load(write_bundle(tmp_path / other, manifest, files))
    with pytest.raises(BundleError, match="cannot load the captioner"):
        capexport.load(damaged(bundle, captioner=b"no graph"))
    (tmp_path / "decoder" / "captioner.onnx").unlink()
    with pytest.raises(BundleError, match=r"lacks the file captioner\.onnx"):
        capexport.load(tmp_path / "decoder")
    del files["captioner.onnx"]
    with pytest.raises(BundleError, match="lacks a graph"):
        write_bundle(tmp_path / "less", bundle.manifest, files)
    more = dataclasses.replace(bundle.manifest, graphs=graphs | {"translator": graphs["decoder"]})
    with pytest.raises(BundleError, match="graph"):
        write_bundle(tmp_path / "more", more, bundle.files)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o.update(tokens=np.where(o["tokens"] == 4, 5, o["tokens"])), r"never says \[END\]"),
        (lambda o: o.update(log_probabilities=o["log_probabilities"] * np.nan), "not numbers"),
        (lambda o: o.update(attention=o["attention"][1:]), "other shapes"),
        (lambda o: o.update(tokens=o["tokens"][0]), "other shapes"),
    ],
)
def test_what_is_no_caption_is_refused(change, message, tiny_bundles, pixels):
    bundle = tiny_bundles[ONNX]
    outputs = capexport.load(bundle).greedy.run(pixels[:2])
    change(outputs)
    with pytest.raises(BundleError, match=message):
        GreedyGraph(bundle, lambda _: outputs).caption(pixels[:2])


def test_the_command_makes_one(tiny_source, photos, tmp_path, capsys):
    out, calibration = tmp_path / "out", str(photos[0].parent)
    arguments = ["--fused", "--no-gate", "--calibration", calibration, "--out", str(out)]
    assert main(["convert", str(tiny_source), *arguments]) == 0
    assert "captioner.onnx: static shapes but for B" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} >= {"captioner.onnx", "encoder.onnx", "decoder.onnx"}
    assert capexport.load(out).greedy is not None


def test_variants_without_it_stay_as_they_were(tiny_bundles):
    for variant in VARIANTS:
        assert tiny_bundles[variant].manifest.graphs.keys() == {"encoder", "decoder"}
