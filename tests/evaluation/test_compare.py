"""compare: what a row says is what one finds by hand, and what becomes of a bundle that does not run."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import capexport
from capexport import BundleError, MissingExtraError, OptionError
from capexport.bundle import write_bundle
from capexport.cli.compare import table
from capexport.cli.main import main
from capexport.datasets import CaptionedPhoto
from capexport.evaluation.compare import compare


@pytest.fixture(scope="module", autouse=True)
def hurried():
    """Fewer cold starts, and no rests; nothing else is left out. No Java, which takes seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("capexport.evaluation.compare.COLD_STARTS", 2)
        patch.setattr("capexport.timing.latency.REST", 0)
        patch.setattr("capexport.evaluation.quality.shutil.which", lambda _: None)
        yield


@pytest.fixture(scope="module")
def captioned(photos):
    return [CaptionedPhoto(photo, ("a word3 and a word5", f"word{k} word9 word3")) for k, photo in enumerate(photos)]


@pytest.fixture(scope="module")
def fp32(tiny_bundles):
    return tiny_bundles["onnx", "fp32"]


@pytest.fixture(scope="module")
def int8(tiny_bundles):
    return tiny_bundles["onnx", "dynamic-int8"]


@pytest.fixture(scope="module")
def copied(fp32, tmp_path_factory):
    return shutil.copytree(fp32.directory, tmp_path_factory.mktemp("copied") / "copy")


@pytest.fixture(scope="module")
def comparison(int8, fp32, refused, copied, captioned):
    return compare([int8.directory, fp32, refused.directory, copied], captioned, threads=1)


def forced_cells(captioner, photo, tokens) -> list[int]:
    """The most attended cell of each word that the captioner is fed, step by step."""
    backend = captioner.backend
    features, cache = backend.encode(captioner.preprocess(photo)[np.newaxis]), backend.empty_cache(batch=1)
    cells = []
    for position, token in enumerate([captioner.bundle.vocabulary.start, *tokens[:-1]]):
        step = backend.step(np.array([token], np.int32), position, features, cache)
        cache = step.cache
        cells.append(step.attention.mean(axis=(0, 1, 2)).argmax())
    return cells


def test_rows_are_as_given(comparison, int8, fp32, refused, copied):
    assert [row.bundle for row in comparison.rows] == [
        str(d) for d in (int8.directory, fp32.directory, refused.directory, copied)
    ]
    assert [row.label for row in comparison.rows] == [
        "onnx dynamic-int8",
        "onnx fp32",
        "refused (tflite fp32)",
        "copy (onnx fp32)",
    ]
    assert comparison.reference == str(fp32.directory)
    assert (comparison.photos, comparison.threads) == (6, 1)


def test_quality_and_likeness_are_what_one_finds_by_hand(comparison, int8, fp32, captioned):
    quantised, reference = capexport.load(int8, threads=1), capexport.load(fp32, threads=1)
    measures = comparison.rows[0].measures
    assert measures.scores == capexport.evaluate(int8, captioned, threads=1).quality.scores
    pairs = [(quantised.caption(photo.path), reference.caption(photo.path)) for photo in captioned]
    assert measures.identical == np.mean([ours.text == theirs.text for ours, theirs in pairs])
    same = []
    for photo, (_, theirs) in zip(captioned, pairs, strict=True):
        cells = (forced_cells(captioner, photo.path, theirs.tokens) for captioner in (quantised, reference))
        same += np.equal(*cells).tolist()
    assert measures.same_cell == np.mean(same)


def test_the_reference_and_its_copy_are_alike(comparison):
    _, reference, _, copy = (row.measures for row in comparison.rows)
    for measures in (reference, copy):
        assert (measures.identical, measures.same_cell) == (1, 1)
        assert measures.scores == reference.scores


def test_costs(comparison, fp32, captioned):
    row = comparison.rows[1]
    graphs = [fp32.directory / fp32.manifest.graphs[name].file for name in ("encoder", "decoder")]
    assert row.graph_bytes == sum(path.stat().st_size for path in graphs) < row.bundle_bytes == fp32.size
    tokens = np.median([len(capexport.load(fp32).caption(photo.path).tokens) for photo in captioned])
    encode, token = row.measures.latencies.encode, row.measures.latencies.token
    assert row.measures.caption_ms == pytest.approx(encode.median + tokens * token.median)
    assert 0 < row.measures.cold_start < 60
    assert 20e6 < row.measures.memory_bytes < 300e6


def test_a_bundle_that_is_refused_stays_in_the_table(comparison):
    row = comparison.rows[2]
    assert row.measures is None
    assert "LiteRT cannot load the decoder" in row.error
    assert not comparison.complete
    assert "LiteRT cannot load the decoder" in table(comparison)


def test_a_missing_engine(tmp_path, monkeypatch, tiny_bundles, fp32, captioned):
    (tmp_path / "ai_edge_litert.py").write_text("raise ModuleNotFoundError('none', name='ai_edge_litert')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    missing, there = compare([tiny_bundles["tflite", "fp32"], fp32], captioned[:2], threads=1).rows
    assert "pip install 'capexport[tflite]'" in missing.error
    assert there.measures


def test_the_reference_can_be_chosen(int8, fp32, refused, captioned):
    one = compare([fp32.directory], captioned[:2], against=int8.directory, threads=1)
    assert [row.label for row in one.rows] == ["onnx fp32", "onnx dynamic-int8"]
    assert one.reference == str(int8.directory)
    both = compare([refused, int8], captioned[:2], threads=1)
    assert both.reference == str(int8.directory)
    with pytest.raises(BundleError, match="LiteRT cannot load"):
        compare([int8], captioned[:2], against=refused, threads=1)


def test_what_cannot_be_compared(fp32, copied, captioned, tmp_path, monkeypatch):
    manifest = dataclasses.replace(fp32.manifest, source_sha256="0" * 64)
    other = write_bundle(tmp_path / "other", manifest, fp32.files)
    with pytest.raises(OptionError, match="are of two captioners"):
        compare([fp32, other], captioned)
    with pytest.raises(OptionError, match="a bundle and a photo at least"):
        compare([], captioned)
    with pytest.raises(OptionError, match="a bundle and a photo at least"):
        compare([fp32], [])
    with pytest.raises(BundleError, match="no bundle at"):
        compare([fp32, tmp_path / "none"], captioned)
    monkeypatch.setitem(__import__("sys").modules, "pycocoevalcap.bleu.bleu", None)
    with pytest.raises(MissingExtraError, match=r"capexport\[evaluate\]"):
        compare([copied], captioned[:1], threads=1)


def test_the_command(capsys, int8, fp32, small_flickr8k, tmp_path):
    bundles = [str(bundle.directory) for bundle in (fp32, int8)]
    arguments = ["compare", *bundles, "--data", str(small_flickr8k), "--limit", "3", "--beams", "2", "--threads", "1"]
    picture = tmp_path / "variants.png"
    assert main([*arguments, "--markdown", "--plot", str(picture)]) == 0
    out, err = capsys.readouterr()
    header, line, *rows, blank, note = out.splitlines()
    assert "| BLEU-4 | CIDEr | identical captions |" in header
    assert len({text.count("|") for text in (header, line, *rows)}) == 1
    assert [row.split(" |")[0] for row in rows] == ["| onnx fp32", "| onnx dynamic-int8"]
    assert (blank, err) == ("", "")
    assert "3 photos (beams 2); the reference is onnx fp32" in note
    assert picture.exists()
    assert main([*arguments, "--plot", str(picture)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_command_where_a_bundle_fails(capsys, fp32, refused, small_flickr8k):
    arguments = ["compare", str(refused.directory), str(fp32.directory), "--data", str(small_flickr8k), "--json"]
    assert main([*arguments, "--limit", "2", "--threads", "1"]) == 1
    out, err = capsys.readouterr()
    bad, good = json.loads(out)["rows"]
    assert "LiteRT" in bad["error"]
    assert bad["measures"] is None
    assert {"BLEU-4", "CIDEr"} <= good["measures"]["scores"].keys()
    assert err == ""


def test_bad_input(capsys, fp32, small_flickr8k, monkeypatch, tmp_path):
    arguments = ["compare", str(fp32.directory), "--data", str(small_flickr8k)]
    for more, match in (
        (["--against", str(tmp_path)], "manifest.json cannot be read"),
        (["--limit", "0"], "at least 1"),
        (["--split", "none"], "no split 'none'"),
        (["--temperature", "1", "--beams", "2"], "no temperature above 0"),
    ):
        assert main([*arguments, *more]) == 2
        out, err = capsys.readouterr()
        assert match in err
        assert (out, err.count("\n")) == ("", 1)
    with pytest.raises(SystemExit):
        main([*arguments, "--json", "--markdown"])
    capsys.readouterr()
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert main([*arguments, "--plot", str(tmp_path / "a.png")]) == 2
    assert "capexport[plot]" in capsys.readouterr().err
