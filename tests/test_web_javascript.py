"""The JavaScript runtime in Node beside Python's: random numbers, words under every option, errors."""

import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

import capexport
from capexport.image import load_image
from capexport.runtime.options import DecodingOptions
from capexport.web.page import write_page
from tests.javascript import RUNTIME, SOURCES, UNPACKED, evaluate, needs_node, needs_runtime, packed, run_node

pytestmark = needs_node
NEAR = 1e-3  # of log-probabilities
LOAD = """
    const { readFileSync } = await import("node:fs"), { join } = await import("node:path");
    const { load, CaptionError } = await from_("captioner.js");
    const ort = await from_("runtime/ort.wasm.bundle.min.mjs");
    Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: readFileSync(given.wasm) });
    const names = ["manifest.json", "vocabulary.txt", "encoder.onnx", "decoder.onnx"];
    const files = Object.fromEntries(names.map(name => [name, readFileSync(join(given.bundle, name))]));
    const outcome = async action => {
        try { return await action(); } catch (error) { return [error.name, error.message]; }
    };
"""
OPTIONS = [
    {},
    {"max_length": 4},
    {"min_length": 9},
    {"banned_words": ["word3", "word7", "a"]},
    {"beams": 3},
    {"beams": 8, "length_penalty": 0.0},
    {"beams": 5, "length_penalty": 1.0, "min_length": 4, "max_length": 7},
    *({"temperature": 1.0, "seed": seed} for seed in range(4)),
    {"temperature": 1.5, "seed": 2**40, "top_k": 5},
    {"temperature": 1.5, "seed": 5, "top_p": 0.7},
    {"temperature": 2.0, "seed": 6, "top_k": 12, "top_p": 0.9, "banned_words": ["word1"]},
    {"repetition_penalty": 1.8},
    {"no_repeat_ngram": 1},
    {"no_repeat_ngram": 2, "temperature": 1.2, "seed": 9},
    {"prefix": "a word3"},
    {"prefix": "word9", "temperature": 1.0, "seed": 3, "repetition_penalty": 1.3},
    {"forced_words": ["word4"]},
    {"forced_words": ["word4", "word11", "word2"], "beams": 3, "captions": 3, "max_length": 6},
    {"forced_words": ["word5"], "beams": 2, "prefix": "word7 word5", "no_repeat_ngram": 2},
    {"beams": 4, "captions": 4, "repetition_penalty": 1.5},
    {"temperature": 1.0, "seed": 12, "captions": 3},
    {"temperature": 1.3, "seed": 2, "captions": 2, "top_k": 8, "max_length": 5},
]
CONTRADICTIONS = [
    ({"beams": 2, "temperature": 1}, "take no temperature"),
    ({"top_k": 3}, "narrow down random draws"),
    ({"beams": 0}, "beams must be a whole number from 1 up, not 0"),
    ({"beams": 29}, "more than the 27 words"),
    ({"temperature": -1}, "temperature must be a number from 0 up"),
    ({"length_penalty": 11}, "length_penalty must be a number from -10 to 10"),
    ({"top_p": 1.5, "temperature": 1}, "top_p must be a number above 0"),
    ({"seed": 1.5}, "seed must be a whole number"),
    ({"max_length": 10}, "made for 9 tokens"),
    ({"min_length": 5, "max_length": 4}, "more than max_length"),
    ({"banned_words": ["zebra"]}, "has no word 'zebra'"),
    ({"banned_words": ["[END]"]}, "has no word '[END]'"),
    ({"captions": 2}, "2 captions a photo need as many beams"),
    ({"no_repeat_ngram": 0}, "no_repeat_ngram must be a whole number"),
    ({"repetition_penalty": 0}, "repetition_penalty must be a number above 0"),
    ({"prefix": ["a"]}, "prefix must be words separated by spaces"),
    ({"prefix": "a zebra"}, "has no word 'zebra'"),
    ({"forced_words": "a"}, "forced_words must be a list"),
    ({"forced_words": ["a"], "temperature": 1}, "take no temperature"),
    ({"forced_words": ["a"], "banned_words": ["a"]}, "'a' is banned and asked for"),
    ({"forced_words": ["word1", "word2", "word3"], "max_length": 3}, "do not fit into 3 tokens"),
    ({"toString": 2}, "There is no option toString"),
    ({"beam": 2}, "There is no option beam; there are: temperature"),
]


def test_random_numbers_are_numpys(tmp_path):
    seeds = [[0, 0], [1, 0], [2**32 - 1, 3], [2**32, 0], [2**53 - 1, 0], [1, 2, 3, 4, 5, 6]]
    script = """
        const { Random } = await from_("random.js");
        const drawn = random => Array.from({ length: 50 }, () => random.next());
        return given.seeds.map(seeds => drawn(new Random(seeds)));
    """
    found = evaluate(SOURCES, script, {"seeds": seeds}, tmp_path)
    assert found == [np.random.default_rng(seed).random(50).tolist() for seed in seeds]


@pytest.fixture(scope="module")
def site(tiny_bundles, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site") / "page"
    write_page(tiny_bundles["onnx", "fp32"], out, RUNTIME)
    return out


def given(site: Path, **more: object) -> dict[str, object]:
    wasm = site / "runtime" / "ort-wasm-simd-threaded.wasm"
    return {"wasm": str(wasm), "bundle": str(site / "bundle"), **more}


@needs_runtime
def test_words_under_every_option_are_pythons(site, tiny_bundle, photos, tmp_path):
    arrays = [load_image(photo, (300, 200)) for photo in photos[:3]]
    script = f"""
        {LOAD} {UNPACKED}
        const captioner = await load(files, ort), rows = [];
        for (const photo of given.photos.map(unpacked)) for (const options of given.options) {{
            const caption = await captioner.caption(photo, options), streamed = [];
            for await (const word of captioner.stream(photo, options)) streamed.push(word.text);
            rows.push({{
                text: caption.text, tokens: caption.tokens, likelihoods: caption.log_probabilities, streamed,
                alternatives: caption.alternatives.map(other => other.tokens),
                confidence: caption.confidence, attention: caption.words.map(word => [...word.attention]),
                head: caption.words.map(word => [...word.attentionOf(1, 0)]),
            }});
        }}
        return rows;
    """
    values = given(site, photos=[packed(array) for array in arrays], options=OPTIONS)
    found = evaluate(site, script, values, tmp_path)
    captioner = capexport.load(tiny_bundle)
    expected = [captioner.caption(array, **options) for array in arrays for options in OPTIONS]
    assert len({caption.tokens for caption in expected}) > len(OPTIONS)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["text"] == theirs.text
        assert tuple(ours["tokens"]) == theirs.tokens
        assert tuple(ours["streamed"]) == theirs.words
        assert [tuple(other) for other in ours["alternatives"]] == [other.tokens for other in theirs.alternatives]
        assert ours["confidence"] == pytest.approx(theirs.confidence, abs=NEAR)
        np.testing.assert_allclose(ours["likelihoods"], theirs.log_probabilities, atol=NEAR)
        maps = theirs.attention.reshape(len(theirs.words), -1)
        np.testing.assert_allclose(ours["attention"], maps, atol=1e-5)
        np.testing.assert_allclose(ours["head"], theirs.attention_of(1, 0).reshape(maps.shape), atol=1e-5)


def test_options_and_their_defaults_are_pythons(tmp_path):
    script = """
        const { DEFAULTS } = await from_("options.js");
        return DEFAULTS;
    """
    fields = dataclasses.fields(DecodingOptions)
    python = {field.name: list(field.default) if field.default == () else field.default for field in fields}
    assert evaluate(SOURCES, script, {}, tmp_path) == python


@needs_runtime
def test_options_that_make_no_sense(site, tmp_path):
    script = f"""
        {LOAD}
        const captioner = await load(files, ort);
        const photo = {{ data: new Uint8Array(3 * 64 * 64), width: 64, height: 64 }};
        return Promise.all(given.options.map(options => outcome(() => captioner.caption(photo, options))));
    """
    values = given(site, options=[options for options, _ in CONTRADICTIONS])
    for (name, message), (_, part) in zip(evaluate(site, script, values, tmp_path), CONTRADICTIONS, strict=True):
        assert name == "CaptionError"
        assert part in message


@needs_runtime
def test_bundles_that_are_refused(site, tmp_path):
    script = f"""
        {LOAD}
        const edited = (name, edit) => ({{ ...files, [name]: Buffer.from(edit(Buffer.from(files[name]))) }});
        const manifest = edit => edited("manifest.json", bytes => edit(String(bytes)));
        const flipped = bytes => (bytes[1000] ^= 1, bytes);
        const {{ "vocabulary.txt": _, ...lacking }} = files;
        const bundles = [
            edited("decoder.onnx", flipped), edited("encoder.onnx", bytes => bytes.subarray(0, 99)), lacking,
            manifest(text => text.replace('"schema": 3', '"schema": 4')), manifest(text => text.slice(9)),
            manifest(text => text.replace('"decoder": ', '"coder": ')),
            manifest(text => text.replace('"format": "onnx"', '"format": "tflite"')),
            manifest(text => text.replace('"bilinear-antialias"', '"nearest"')),
        ];
        return Promise.all(bundles.map(bundle => outcome(() => load(bundle, ort))));
    """
    parts = ["decoder.onnx is damaged", "encoder.onnx is damaged", "lacks the file vocabulary.txt"]
    parts += [
        "schema version 4",
        "not JSON",
        "manifest lacks something",
        "not of tflite",
        "resizer nearest has no twin",
    ]
    for (name, message), part in zip(evaluate(site, script, given(site), tmp_path), parts, strict=True):
        assert name == "CaptionError"
        assert part in message


@needs_runtime
@pytest.mark.parametrize("recipe", ["fp32", "dynamic-int8"])
def test_parity_in_node(recipe, tiny_bundles, tmp_path):
    write_page(tiny_bundles["onnx", recipe], tmp_path / "page", RUNTIME)
    script = f"""
        {LOAD}
        const {{ checkParity }} = await from_("parity.js");
        const parity = JSON.parse(readFileSync(given.parity));
        return checkParity(await load(files, ort), parity);
    """
    values = given(tmp_path / "page", parity=str(tmp_path / "page" / "parity.json"))
    result = evaluate(tmp_path / "page", script, values, tmp_path)
    assert len(result["rows"]) == 3
    assert all(math.isfinite(row["log_probability_error"]) for row in result["rows"])
    if recipe == "fp32":
        assert result["identical"] == 3
        assert max(row["log_probability_error"] for row in result["rows"]) < NEAR
        assert min(row["same_cell"] for row in result["rows"]) == 1
        assert result["holds"]


def test_attention_is_held_to_the_bound_over_all_photos_as_in_python(tmp_path):
    """One word of seven that looks elsewhere in one photo of three: 95.2 %; in two of three: 90.5 %."""
    script = """
        const { checkParity } = await from_("parity.js");
        const bounds = { identical: 1, log_probability_error: 1, same_cell: 0.95, near_tie: 0, levels: null };
        const vector = { pixels: "", photo: "", tokens: [1, 2, 3, 4, 5, 6, 7], log_probabilities: Array(7).fill(0),
            attention: Array(7).fill([0, 1]), margins: Array(7).fill(1) };
        return Promise.all([1, 2].map(wrong => {
            let photo = 0;
            const captioner = { encode: async () => photo++, async* streamFeatures(photo) {
                for (const token of vector.tokens) {
                    const attention = token === 1 && photo < wrong ? [1, 0] : [0, 1];
                    yield { token, text: "", log_probability: 0, attention };
                }
            } };
            return checkParity(captioner, { vectors: [vector, vector, vector], bounds });
        }));
    """
    one, two = evaluate(SOURCES, script, {}, tmp_path)
    assert (round(one["same_cell"], 3), one["holds"]) == (0.952, True)
    assert (round(two["same_cell"], 3), two["holds"]) == (0.905, False)


@needs_runtime
def test_parity_as_a_command(site, tmp_path):
    done = run_node(site / "parity.js")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("same words, same pixels, ") == 3
    shutil.copytree(site, tmp_path / "page")
    path = tmp_path / "page" / "parity.json"
    text = path.read_text()
    path.write_text(text.replace('"log_probabilities":[', '"log_probabilities":[-9.5,'))
    done = run_node(tmp_path / "page" / "parity.js")
    assert done.returncode == 1
    assert "it does not hold" in done.stdout
