"""The command line, as its user meets it: what it prints, what it refuses, what it leaves behind."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from capexport.bundle import read_bundle
from capexport.cli.default_bundle import default_bundle
from capexport.cli.main import COMMANDS, main
from capexport.recipes import RECIPES
from tests.web import sends


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys, match, *arguments):
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert match in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


def test_caption_one_photo(capsys, tiny_bundle, photos):
    code, out, err = run(capsys, "caption", photos[0], "--bundle", tiny_bundle.directory)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 1


def test_python_runs_the_command_as_a_module():
    command = [sys.executable, "-m", "capexport", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("capexport ")


def test_caption_json(capsys, tiny_bundle, photos):
    code, out, _ = run(capsys, "caption", *photos[:2], "--bundle", tiny_bundle.directory, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["path"] for row in rows] == [str(photo) for photo in photos[:2]]
    for row in rows:
        assert row["text"] == " ".join(word for word in row["words"] if word != "[END]")
        assert len(row["words"]) == len(row["tokens"]) == len(row["log_probabilities"]) == len(row["attention"])


def test_seeds_and_temperature(capsys, tiny_bundle, photos):
    arguments = ["caption", photos[0], "--bundle", tiny_bundle.directory, "--temperature", "1"]
    first = run(capsys, *arguments, "--seed", "3")
    assert first == run(capsys, *arguments, "--seed", "3")
    assert len({run(capsys, *arguments, "--seed", seed)[1] for seed in range(8)}) > 1


def test_attention_figure(capsys, tiny_bundle, photos, tmp_path):
    figure = tmp_path / "attention.png"
    arguments = ["caption", photos[0], "--bundle", tiny_bundle.directory, "--attention", figure]
    assert run(capsys, *arguments)[0] == 0
    assert Image.open(figure).size[0] > 300
    before = figure.read_bytes()
    code, _, err = run(capsys, *arguments)
    assert (code, "exists already" in err, figure.read_bytes() == before) == (2, True, True)
    assert run(capsys, *arguments, "--force")[0] == 0
    refused(capsys, "just one", "caption", *photos, "--bundle", tiny_bundle.directory, "--attention", figure)


def test_attention_page(capsys, tiny_bundle, photos, tmp_path):
    page = tmp_path / "where.html"
    arguments = ["caption", photos[0], "--bundle", tiny_bundle.directory, "--attention-html", page]
    assert run(capsys, *arguments, "--beams", "2", "--captions", "2", "--layer", "1", "--head", "0")[0] == 0
    text = page.read_text()
    assert text.count('"words":[') == 2
    assert '"layer":1,"head":0' in text
    refused(capsys, "exists already", *arguments)
    refused(capsys, "no layer 2", *arguments[:-1], tmp_path / "other.html", "--layer", "2")
    assert [path.name for path in tmp_path.iterdir()] == ["where.html"]


def test_one_broken_photo_among_others(capsys, tiny_bundle, photos, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(photos[0].read_bytes()[:3000])
    code, out, err = run(capsys, "caption", photos[0], broken, photos[1], "--bundle", tiny_bundle.directory)
    assert code == 2
    assert len(out.splitlines()) == 2
    assert "broken.jpg cannot be read" in err


def test_one_broken_photo_among_others_as_json(capsys, tiny_bundle, photos, tmp_path):
    missing = tmp_path / "missing.jpg"
    code, out, _ = run(capsys, "caption", photos[0], missing, "--bundle", tiny_bundle.directory, "--json")
    good, bad = (json.loads(line) for line in out.splitlines())
    assert code == 2
    assert good["text"]
    assert bad["path"] == str(missing)
    assert "no photo at" in bad["error"]


def test_every_option_of_decoding_is_an_option(capsys, tiny_bundle, photos):
    arguments = ["caption", photos[0], "--bundle", tiny_bundle.directory]
    searched = "--beams 3 --captions 2 --length-penalty 0.5 --forced-words word3,word4 --banned-words word1,word2"
    code, out, _ = run(capsys, *arguments, *searched.split())
    assert (code, len(out.splitlines())) == (0, 2)
    assert all("word3" in line and "word4" in line and "word1 " not in line for line in out.splitlines())
    drawn = "--temperature 1 --top-k 9 --top-p 0.9 --seed 3 --captions 3 --min-length 3 --max-length 8"
    drawn += " --repetition-penalty 1.5 --no-repeat-ngram 2 --prefix word5"
    code, out, _ = run(capsys, *arguments, *drawn.split())
    assert (code, len(out.splitlines())) == (0, 3)
    assert all(line.startswith("word5") for line in out.splitlines())
    row = json.loads(run(capsys, *arguments, *drawn.split(), "--json")[1])
    assert [row["text"], *(other["text"] for other in row["alternatives"])] == out.splitlines()


def test_streamed_words(capsys, tiny_bundle, photos):
    arguments = ["caption", *photos[:2], "--bundle", tiny_bundle.directory]
    whole = [line.split(": ", 1)[1] for line in run(capsys, *arguments)[1].splitlines()]
    assert run(capsys, *arguments, "--stream")[1].splitlines() == whole
    refused(capsys, "--stream prints words alone", *arguments, "--stream", "--json")
    refused(capsys, "can be streamed", *arguments, "--stream", "--beams", "2")


def test_photos_on_the_web(capsys, tiny_bundle, photos, web):
    web.answers |= {"/a.jpg": sends(photos[0].read_bytes()), "/text": sends(b"hello")}
    arguments = ["caption", "--bundle", tiny_bundle.directory]
    local = run(capsys, *arguments, photos[0])
    assert run(capsys, *arguments, "--private-hosts", web.url("/a.jpg")) == local
    assert run(capsys, *arguments, "--private-hosts", web.url("/a.jpg"), "--stream") == local
    code, out, err = run(capsys, *arguments, "--private-hosts", web.url("/gone"), web.url("/a.jpg"), web.url("/text"))
    assert (code, out) == (2, f"{web.url('/a.jpg')}: {local[1]}")
    assert "HTTP 404" in err
    assert f"{web.url('/text')} is not a photo" in err
    refused(capsys, "HTTP 404", *arguments, "--private-hosts", web.url("/gone"))


def test_a_photo_on_the_web_is_fetched_once(capsys, tiny_bundle, photos, web, tmp_path):
    web.answers["/a.jpg"] = sends(photos[0].read_bytes())
    pictures = ["--attention", tmp_path / "a.png", "--attention-html", tmp_path / "a.html"]
    arguments = ["caption", "--private-hosts", web.url("/a.jpg"), "--bundle", tiny_bundle.directory]
    assert run(capsys, *arguments, *pictures)[0] == 0
    assert web.requests["/a.jpg"] == 1


def test_photos_that_are_refused(capsys, tiny_bundle, tmp_path):
    text, dot = tmp_path / "text.jpg", tmp_path / "dot.png"
    text.write_text("hello")
    Image.new("RGB", (1, 1)).save(dot)
    for photo, match in ((tmp_path / "no.jpg", "no photo at"), (text, "not a photo"), (dot, "too small")):
        refused(capsys, match, "caption", photo, "--bundle", tiny_bundle.directory)


def test_bundles_that_are_refused(capsys, photos, tmp_path):
    refused(capsys, "no bundle at", "caption", photos[0], "--bundle", tmp_path / "none")


def test_options_that_are_refused(capsys, photos, tiny_bundle):
    arguments = ["caption", photos[0], "--bundle", tiny_bundle.directory]
    refused(capsys, "temperature", *arguments, "--temperature", "-1")
    refused(capsys, "made for 9", *arguments, "--max-length", "10")
    refused(capsys, "seed", *arguments, "--seed", "-3")
    refused(capsys, "top_p", *arguments, "--temperature", "1", "--top-p", "1.5")
    refused(capsys, "no word 'zebra'", *arguments, "--banned-words", "zebra")
    refused(capsys, "batch must be", *arguments, "--batch", "0")


def test_convert(capsys, tiny_source, tmp_path, photos):
    out = tmp_path / "bundle"
    code, text, err = run(capsys, "convert", tiny_source, "--to", "tflite", "--out", out)
    assert (code, err) == (0, "")
    assert str(out) in text
    assert "MB" in text
    assert run(capsys, "caption", photos[0], "--bundle", out)[0] == 0
    before = sorted((path, path.stat().st_mtime_ns) for path in out.iterdir())
    refused(capsys, "exists already", "convert", tiny_source, "--out", out)
    assert before == sorted((path, path.stat().st_mtime_ns) for path in out.iterdir())


def test_several_bundles_at_once(capsys, tiny_source, tmp_path):
    around = tmp_path / "bundles"
    arguments = ["convert", tiny_source, "--to", "onnx, tflite", "--recipe", "fp32,fp16", "--no-gate", "--out", around]
    code, text, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    names = ["onnx-fp32", "onnx-fp16", "tflite-fp32", "tflite-fp16"]
    assert sorted(path.name for path in around.iterdir()) == sorted(names)
    assert [line.split(":")[0] for line in text.splitlines() if line[0] != " "] == [str(around / n) for n in names]
    for name in names:
        manifest = read_bundle(around / name).manifest
        assert f"{manifest.format}-{manifest.recipe}" == name
    refused(capsys, "exists already", *arguments[:-1], around)
    refused(capsys, "no format 'core'", "convert", tiny_source, "--to", "onnx,core", "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_convert_is_refused_before_any_work(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(capsys, "Did you mean 'dynamic-int8'", "convert", "--recipe", "dynamic-int")
    refused(capsys, "no format 'core'", "convert", "--to", "core")
    refused(capsys, "no captioner at", "convert", tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_data_that_is_refused(capsys, tmp_path):
    photos, texts = tmp_path / "data/Flicker8k_Dataset", tmp_path / "data/Flickr8k_text"
    photos.mkdir(parents=True)
    texts.mkdir()
    for split in ("train", "dev"):
        (texts / f"Flickr_8k.{split}Images.txt").write_text("a.jpg\n")
    arguments = ["train", "--data", tmp_path / "data", "--out", tmp_path / "out"]
    (texts / "Flickr8k.token.txt").write_text("a.jpg#0\ta dog\n")
    refused(capsys, "missing", *arguments)
    (texts / "Flickr8k.token.txt").write_text("a.jpg a dog\n")
    refused(capsys, "line 1", *arguments)
    refused(capsys, "no data set at", "train", "--data", tmp_path / "none", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def strict(monkeypatch):
    """Bounds that nothing keeps but float."""
    for name in ("int8", "fp16"):
        bounds = dataclasses.replace(RECIPES[name].bounds, logits_error=1e-9)
        monkeypatch.setitem(RECIPES, name, dataclasses.replace(RECIPES[name], bounds=bounds))


@pytest.mark.usefixtures("strict")
def test_the_gate_refuses_with_the_figures_and_explain_tells_of_every_layer(capsys, tiny_source, photos, tmp_path):
    out, figure = tmp_path / "out", tmp_path / "out-layers.png"
    arguments = ["convert", tiny_source, "--explain", "--out", out, "--calibration", photos[0].parent, "--recipe"]
    code, said, err = run(capsys, *arguments, "int8")
    assert (code, err.count("\n")) == (2, 1)
    assert "costs this captioner too much" in err
    assert "largest error of a logit" in err
    assert [path.name for path in tmp_path.iterdir()] == [figure.name]
    assert Image.open(figure).size[1] > 1000
    lines = [line.split() for line in said.splitlines()]
    assert sum(line[-1:] in (["static"], ["stored"], ["half"], ["float"], ["dynamic"]) for line in lines) == 56 + 13
    assert [line[0] for line in lines if line[-1:] == ["now"]] == ["encoder", "decoder"]
    refused(capsys, "exists already", *arguments, "int8")
    figure.unlink()
    code, said, err = run(capsys, *arguments, "fp16", "--no-gate", "--json")
    assert (code, json.loads(said)["recipe"], figure.exists()) == (0, "fp16", True)
    assert "layer_0/self_attention/query" in err
    checks = {check["name"]: check["holds"] for check in json.loads((out / "manifest.json").read_text())["gate"]}
    assert not checks["largest error of a logit"]


@pytest.mark.usefixtures("strict")
def test_the_gate_keeps_no_other_recipe_back(capsys, tiny_source, photos, tmp_path):
    arguments = ["convert", tiny_source, "--out", tmp_path, "--calibration", photos[0].parent, "--recipe", "int8,fp32"]
    code, said, err = run(capsys, *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert "The recipe int8 costs this captioner too much" in err
    assert said.startswith(f"{tmp_path / 'onnx-fp32'}: onnx, fp32")
    assert [path.name for path in tmp_path.iterdir()] == ["onnx-fp32"]


def test_what_convert_refuses_before_the_work(capsys, tiny_source, tmp_path):
    refused(capsys, "There are no photos in", "convert", tiny_source, "--calibration", tmp_path)
    refused(capsys, "nothing to explain", "convert", tiny_source, "--out", tmp_path / "float", "--explain")
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").touch()
    refused(capsys, "has no manifest.json", "convert", "none", "--out", tmp_path / "notes", "--force")
    refused(capsys, "file is no folder", "convert", "none", "--out", tmp_path / "file/deep/bundle")


def test_recipes(capsys):
    assert "dynamic-int8" in run(capsys, "recipes")[1]
    assert {row["name"] for row in json.loads(run(capsys, "recipes", "--json")[1])} == RECIPES.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert "usage: capexport" in capsys.readouterr().out


def test_no_command_is_a_usage_error():
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2


def test_a_real_process_says_nothing_it_should_not(tiny_source, photos, tmp_path):
    """Conversion and captioning in fresh processes: results on standard output, nothing on standard error."""
    program = Path(sys.executable).with_name("capexport")
    out = tmp_path / "bundle"
    lines = {}
    for arguments in (["convert", tiny_source, "--to", "onnx", "--out", out], ["caption", photos[0], "--bundle", out]):
        done = subprocess.run([program, *arguments], capture_output=True, text=True, env=os.environ, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        lines[arguments[0]] = done.stdout.splitlines()
    assert lines["convert"][0].startswith(f"{out}: onnx, fp32, ")
    assert [line.strip() for line in lines["convert"][1:]] == [
        "encoder.onnx: static shapes but for B",
        "decoder.onnx: static shapes but for B, P",
    ]
    assert len(lines["caption"]) == 1


def test_without_a_bundle_the_one_that_ships_is_used(capsys, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code, text, said = run(capsys, "caption", photos[0])
    assert (code, said) == (0, "") and len(text.split()) > 2
    assert not list(tmp_path.iterdir())


def test_in_a_recipe_that_does_not_ship_the_captioner_is_converted_once(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle = default_bundle("onnx", "fp32")
    assert "once" in capsys.readouterr().err
    assert default_bundle("onnx", "fp32") == bundle
    assert (bundle.parent, capsys.readouterr().err) == (tmp_path / "capexport", "")


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ({"onnxruntime", "ai_edge_litert"}, "onnx"),
        ({"onnxruntime"}, "onnx"),
        ({"ai_edge_litert"}, "tflite"),
        (set(), "onnx"),
    ],
)
def test_without_a_bundle_one_is_taken_that_an_engine_here_runs(installed, expected, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in installed else None)
    assert read_bundle(default_bundle()).manifest.format == expected


def test_names_that_the_output_cannot_encode(tiny_bundle, photos, tmp_path):
    named = tmp_path / "\u65e5.jpg"
    named.write_bytes(photos[0].read_bytes())
    command = [sys.executable, "-m", "capexport", "caption", named, photos[1], "--bundle", tiny_bundle.directory]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "\\u65e5.jpg" in done.stdout.splitlines()[0]
    assert len(done.stdout.splitlines()) == 2


TERMINATED_AS_IT_WRITES = """
import os, pathlib, signal, sys
from capexport.cli.main import main
write_bytes = pathlib.Path.write_bytes
def terminated(path, data):
    if ".part" in str(path):
        os.kill(os.getpid(), signal.SIGTERM)
    return write_bytes(path, data)
pathlib.Path.write_bytes = terminated
sys.exit(main(sys.argv[1:]))
"""


def test_sigterm_leaves_nothing_half_written(tiny_source, tmp_path):
    command = [sys.executable, "-c", TERMINATED_AS_IT_WRITES, "convert", tiny_source, "--out", tmp_path / "out/bundle"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, "")
    assert list((tmp_path / "out").iterdir()) == []
