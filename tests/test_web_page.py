"""capexport web: what is in the folder, and what it refuses."""

import hashlib
import json
import re
import shutil
import threading
import urllib.request

import pytest

from capexport.cli.main import main
from capexport.errors import OptionError, OutputError
from capexport.parity.vectors import unpack
from capexport.web import page
from capexport.web.page import UNKEPT, page_files, write_page
from capexport.web.runtime import BUILDS, PACKAGE, pinned, read_runtime
from capexport.web.serve import page_server
from tests.javascript import ROOT, RUNTIME, needs_runtime

NO_RUNTIME = {"ort-wasm-simd-threaded.wasm": b"wasm"}


def test_the_readme_names_the_pinned_version():
    assert f"npm install {PACKAGE}@{pinned()[0]}\n" in (ROOT / "README.md").read_text()


def test_the_folder_is_whole_and_the_same_every_time(tiny_bundle):
    files = page_files(tiny_bundle, NO_RUNTIME)
    assert files == page_files(tiny_bundle, NO_RUNTIME)
    assert not [name for name in files if name.endswith(".py")]
    for name, data in files.items():
        if name.endswith(".js"):
            for target in re.findall(r'^(?:import|export) .* from "\./([^"]+)";', data.decode(), re.M):
                assert target in files
    manifest = json.loads(files["bundle/manifest.json"])
    for name in ("vocabulary.txt", "encoder.onnx", "decoder.onnx"):
        assert hashlib.sha256(files[f"bundle/{name}"]).hexdigest() == manifest["files"][name]["sha256"]
    kept = json.loads(re.search(r"FILES = (\[.*?\])\.filter", files["worker.js"].decode())[1])
    assert {*kept} == {"./", *files} - UNKEPT


def test_a_changed_file_is_another_version(tiny_bundle):
    worker = page_files(tiny_bundle, NO_RUNTIME)["worker.js"]
    assert worker != page_files(tiny_bundle, {"ort-wasm-simd-threaded.wasm": b"mask"})["worker.js"]
    assert b"{{" not in worker


def test_parity_in_json_is_that_of_the_bundle(tiny_bundle):
    found = page.parity(tiny_bundle)["vectors"]
    vectors = unpack(tiny_bundle.files["parity.npz"], tiny_bundle.manifest)
    assert [row["tokens"] for row in found] == [vector.tokens.tolist() for vector in vectors]
    assert [row["log_probabilities"] for row in found] == [vector.log_probabilities.tolist() for vector in vectors]


def test_nothing_from_elsewhere_is_asked_for(tiny_bundle):
    html = page_files(tiny_bundle, NO_RUNTIME)["index.html"].decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)[1]
    sources = {source for rule in policy.split("; ") for source in rule.split()[1:]}
    assert sources == {"'none'", "'self'", "'wasm-unsafe-eval'"}
    assert policy.startswith("default-src 'none'; ")
    assert "http://" not in html
    assert "https://" not in html
    assert " style=" not in html


@needs_runtime
def test_the_command(tiny_bundle, tmp_path, capsys):
    out = tmp_path / "page"
    arguments = ["web", str(tiny_bundle.directory), "--out", str(out), "--runtime", str(RUNTIME)]
    assert main(arguments) == 0
    assert re.fullmatch(rf"{re.escape(str(out))}: \d+\.\d MB\n", capsys.readouterr().out)
    assert (out / "index.html").is_file()
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


@needs_runtime
def test_a_recipe_that_is_slow_there_is_named(tiny_bundles, tmp_path, capsys):
    for recipe in ("dynamic-int8", "weight-int8"):
        bundle = str(tiny_bundles["onnx", recipe].directory)
        assert main(["web", bundle, "--out", str(tmp_path / recipe), "--runtime", str(RUNTIME)]) == 0
        assert ("convert with --recipe weight-int8" in capsys.readouterr().err) == (recipe == "dynamic-int8")


@needs_runtime
def test_force_replaces_pages_only(tiny_bundle, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutputError, match=r"has no site\.json"):
        write_page(tiny_bundle, tmp_path / "mine", RUNTIME, force=True)


def test_without_the_runtime(tiny_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    version, _ = pinned()
    monkeypatch.setattr("capexport.cli.web.default_bundle", None)  # nothing is converted before
    assert main(["web", "--out", "page"]) == 2
    assert f"npm install {PACKAGE}@{version}" in capsys.readouterr().err
    with pytest.raises(OptionError, match=re.escape(f"npm install {PACKAGE}@{version}")):
        write_page(tiny_bundle, tmp_path / "page")
    assert not list(tmp_path.iterdir())


@needs_runtime
def test_another_runtime_than_the_pinned_one(tmp_path):
    version, hashes = pinned()
    (tmp_path / "dist").mkdir()
    for name in hashes:
        shutil.copy(RUNTIME / "dist" / name, tmp_path / "dist")
    assert read_runtime(tmp_path).keys() == {*BUILDS["wasm"]}
    assert read_runtime(tmp_path, tuple(BUILDS)).keys() == hashes.keys()
    script = tmp_path / "dist" / BUILDS["wasm"][0]
    script.write_bytes(script.read_bytes() + b"\n")
    with pytest.raises(OptionError, match=f"is not that of {PACKAGE} {re.escape(version)}"):
        read_runtime(tmp_path)


def test_bundles_that_no_page_runs(tiny_bundles, tmp_path):
    with pytest.raises(OptionError, match="is of tflite: convert the captioner with --to onnx"):
        write_page(tiny_bundles["tflite", "fp32"], tmp_path / "page", RUNTIME)


def test_what_is_served(tmp_path):
    (tmp_path / "a.mjs").write_text("1")
    (tmp_path / "a.wasm").write_bytes(b"1")
    with page_server(tmp_path) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        for name, kind in (("a.mjs", "text/javascript"), ("a.wasm", "application/wasm")):
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/{name}") as answer:
                assert answer.headers["Content-Type"] == kind
                assert answer.read() == b"1"
        for port in (server.server_port, 2**16):
            with pytest.raises(OutputError, match=f"Port {port} cannot be used"):
                page_server(tmp_path, port)
        server.shutdown()
