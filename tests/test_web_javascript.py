"""The JavaScript runtime in Node beside Python's: pixels, random numbers, words under every option, errors."""

import base64
import dataclasses
import io
import math
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import capexport
from capexport import ImageError
from capexport.image import RESIZERS, load_image
from capexport.runtime.options import DecodingOptions
from capexport.web.page import write_page
from tests.javascript import RUNTIME, SOURCES, evaluate, needs_node, needs_runtime, run_node

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


# Both orders of Pillow's passes, and next to where it changes from one to the other for (224, 224) and (64, 96).
SHAPES = [
    (8, 300),
    (331, 9),
    (224, 224),
    (400, 300),
    (448, 335),
    (448, 336),
    (94, 110),
    (94, 111),
    (225, 223),
    (64, 400),
]


def packed(array: np.ndarray) -> dict[str, object]:
    """An image's array for JavaScript, as `unpacked` there reads it."""
    return {"data": base64.b64encode(array.tobytes()).decode(), "width": array.shape[1], "height": array.shape[0]}


UNPACKED = "const unpacked = photo => ({ ...photo, data: Buffer.from(photo.data, 'base64') });"


def preprocessed(
    arrays: list[np.ndarray], size: tuple[int, int], tmp_path: Path, resize: str = "bilinear-antialias"
) -> list[np.ndarray]:
    script = f"""
        {UNPACKED}
        const {{ preprocess }} = await from_("image.js");
        const sized = photo => preprocess(unpacked(photo), given.size, given.resize);
        const pixels = await Promise.all(given.photos.map(sized));
        return pixels.map(one => Buffer.from(one).toString("base64"));
    """
    given = {"photos": [packed(array) for array in arrays], "size": size, "resize": resize}
    found = evaluate(SOURCES, script, given, tmp_path)
    return [np.frombuffer(base64.b64decode(one), np.uint8).reshape(*size, 3) for one in found]


@pytest.mark.parametrize("size", [(224, 224), (64, 96), (600, 700), (1, 3)])
@pytest.mark.parametrize("resize", RESIZERS)
def test_pixels_are_pythons_to_the_last_bit(resize, size, photos, tmp_path):
    arrays = [np.asarray(Image.open(photo).convert("RGB")) for photo in photos]
    arrays += [np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]
    for found, array in zip(preprocessed(arrays, size, tmp_path, resize), arrays, strict=True):
        np.testing.assert_array_equal(found, load_image(array, size, resize))


def test_transparency_is_laid_over_white_as_pillow_does(tmp_path):
    level, cover = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    array = np.stack([level, level, level, cover], axis=-1)
    [found] = preprocessed([array], (256, 256), tmp_path)
    np.testing.assert_array_equal(found, load_image(array, (256, 256)))


def jpegs(photos: list[Path]) -> list[tuple[bytes, int]]:
    """JPEG files of every kind that is decoded here, and the least sides that they are asked for."""
    image = Image.open(photos[0]).convert("RGB")
    kinds: list[tuple[Image.Image, dict[str, object], tuple[int, ...]]] = [
        (image.crop((3, 5, 300, 262)), {"subsampling": s, "progressive": p}, (9999, 120, 60, 20))
        for s in (0, 1, 2)
        for p in (False, True)
    ]
    kinds += [
        (image.convert("L").crop((0, 0, 99, 77)), {"quality": 50}, (9999, 20)),
        (image.crop((0, 0, 9, 40)), {"subsampling": 2}, (9999,)),
        (image.crop((0, 0, 17, 13)), {"subsampling": 2}, (9999, 8, 4)),
        (image, {"quality": 95, "restart_marker_blocks": 7}, (9999, 100)),
        (image, {"progressive": True, "restart_marker_rows": 1, "optimize": True}, (200,)),
        (image.crop((0, 0, 200, 150)), {"keep_rgb": True}, (9999,)),
    ]
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        kinds.append((image.crop((0, 0, 70, 50)), {"exif": exif}, (9999,)))
    for order in "<>":  # as some write it: a number of 32 bits
        head = b"Exif\0\0" + {"<": b"II", ">": b"MM"}[order]
        exif = head + struct.pack(f"{order}HIHHHIII", 42, 8, 1, 0x112, 4, 1, 6, 0)
        kinds.append((image.crop((0, 0, 70, 50)), {"exif": exif}, (9999,)))
    made = []
    for one, saved, leasts in kinds:
        stream = io.BytesIO()
        one.save(stream, "JPEG", **saved)
        made += [(stream.getvalue(), least) for least in leasts]
    return made


def test_jpeg_files_are_decoded_to_pillows_last_bit(photos, tmp_path):
    files = jpegs(photos) + [(photo.read_bytes(), 9999) for photo in photos]
    script = """
        const { decodeJpeg } = await from_("jpeg.js");
        return given.files.map(([data, least]) => {
            const image = decodeJpeg(Uint8Array.from(Buffer.from(data, "base64")), least);
            return [image.height, image.width, Buffer.from(image.data).toString("base64")];
        });
    """
    values = {"files": [(base64.b64encode(data).decode(), least) for data, least in files]}
    for (height, width, pixels), (data, least) in zip(evaluate(SOURCES, script, values, tmp_path), files, strict=True):
        image = Image.open(io.BytesIO(data))
        image.draft(None, (least, least))
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        found = np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(height, width, 3)
        np.testing.assert_array_equal(found, expected)


def test_files_in_node(photos, tmp_path):
    """A JPEG file's pixels are Python's; damaged ones and other formats are refused with a sentence."""
    whole = photos[0].read_bytes()
    odd = [whole[:2000], whole[:-40], b"\xff\xd8\xff\xe0", b"\x89PNG\r\n", b"%PDF-1.4", b""]
    odd += [bytes(b ^ 255 if i == k else b for i, b in enumerate(whole)) for k in range(0, 700, 7)]
    script = """
        const { preprocess } = await from_("image.js");
        const bytes = data => Uint8Array.from(Buffer.from(data, "base64"));
        const whole = Buffer.from(await preprocess(bytes(given.whole), [224, 224])).toString("base64");
        const odd = given.odd.map(data => preprocess(bytes(data), [64, 64]).then(() => "", error => error.name));
        return [whole, await Promise.all(odd), await preprocess(bytes(given.odd[0]), [64, 64]).catch(String)];
    """
    values = {"whole": base64.b64encode(whole).decode(), "odd": [base64.b64encode(data).decode() for data in odd]}
    pixels, names, cut = evaluate(SOURCES, script, values, tmp_path)
    assert base64.b64decode(pixels) == load_image(photos[0]).tobytes()
    assert names[:6] == ["CaptionError"] * 6
    assert {*names} <= {"", "CaptionError"}
    assert "is cut off" in cut


def test_what_is_no_photo(tmp_path):
    script = """
        const { preprocess } = await from_("image.js");
        const reason = photo => preprocess(photo, [64, 64]).catch(error => [error.name, error.message]);
        return Promise.all([
            { data: new Uint8Array(3 * 70), width: 7, height: 10 },
            { data: new Uint8Array(0), width: 0, height: 0 },
            { data: new Uint8Array(5), width: 10, height: 10 },
            { data: new Uint8Array(5), width: 20000, height: 10000 },
        ].map(reason));
    """
    found = evaluate(SOURCES, script, {}, tmp_path)
    assert [name for name, _ in found] == ["CaptionError"] * 4
    for (_, message), part in zip(found, ("7x10", "no pixels", "RGB or RGBA", "178 million"), strict=True):
        assert part in message


def test_jpeg_files_that_would_take_for_ever(tmp_path):
    data = jpeg(progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    place = data.index(b"\xff\xc2") + 5
    files = {
        "more than 100 scans": data[:-2] + scan * 1000 + data[-2:],
        "more than 5000 segments": data[:-2] + b"\xff\xfe\0\2" * 6000 + data[-2:],
        "13000x13000 pixels": data[:place] + struct.pack(">HH", 13000, 13000) + data[place + 4 :],
    }
    script = """
        const { preprocess } = await from_("image.js");
        const reason = data => preprocess(Uint8Array.from(Buffer.from(data, "base64")), [64, 64])
            .then(() => "", error => `${error.name}: ${error.message}`);
        return Promise.all(given.files.map(reason));
    """
    values = {"files": [base64.b64encode(one).decode() for one in files.values()]}
    for said, reason in zip(evaluate(SOURCES, script, values, tmp_path), files, strict=True):
        assert said.startswith("CaptionError: ")
        assert reason in said
    for reason, one in files.items():
        with pytest.raises(ImageError, match=reason):
            load_image(one)


def jpeg(**saved):
    stream = io.BytesIO()
    Image.new("L", (512, 512)).save(stream, "JPEG", **saved)
    return stream.getvalue()


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
