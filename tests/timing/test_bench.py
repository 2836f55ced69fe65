"""bench: rows of real processes, what is said of those that fail, and the machine's limits by hand."""

import dataclasses
import json
import math
import os
import signal

import numpy as np
import onnx
import pytest
from PIL import Image

from capexport import ImageError, OptionError
from capexport.cli.bench import HEADER, cells
from capexport.cli.main import main
from capexport.recipes import FORMATS
from capexport.runtime.engines import formats_on
from capexport.runtime.onnx import PROVIDERS
from capexport.runtime.workers import cores
from capexport.timing.bench import BATCHES, TURN, Row, _measures, bench
from capexport.timing.machine import Machine, measure_machine
from capexport.timing.processes import RowError, started
from capexport.timing.subjects import EAGER, FUNCTION, SAMPLE, BundleSubject, Timing


@pytest.fixture(scope="module")
def result(tiny_source, tiny_bundles, refused, photos):
    variants = [("onnx", "fp32"), ("tflite", "fp32"), ("onnx", "fp32", "fused"), ("tflite", "fp32", "fused")]
    bundles = [*(tiny_bundles[one] for one in variants[:-1]), tiny_bundles[variants[-1]].directory, refused]
    return bench(bundles, photos, tiny_source, threads=1, rounds=1)


def test_every_row_is_there(result):
    *names, failed = [row.name for row in result.rows]
    bundles = ["onnx fp32", "tflite fp32", "onnx fp32 fused", "tflite fp32 fused"]
    assert names == ["keras eager", "keras tf.function", *bundles]
    assert failed == "refused (tflite fp32)"
    assert (result.photos, result.captions, result.threads, result.cores) == (TURN, TURN, 1, cores())
    *measured, failed = result.rows
    assert (failed.measures, [row.error for row in measured]) == (None, [""] * 6)
    assert "LiteRT cannot load the decoder" in failed.error


def test_the_parts_of_a_caption_make_the_whole(result):
    for row in result.rows[:6]:
        one = row.measures
        assert 0 < one.load < one.cold_start
        parts = (one.encode, one.first_token, one.per_token)
        if row.name.endswith("fused"):
            assert parts == (None, None, None)
            assert 0 < one.preprocess < one.p50
        else:
            assert min(one.preprocess, *parts) > 0
            assert one.preprocess + one.encode + one.first_token < one.p50
        assert one.p50 <= one.p90 <= one.p99
        assert 0 < one.from_pixels < one.p50
        assert 20e6 < one.peak_bytes < 5e9
        assert 1 < one.tokens <= 9


def test_rows_are_held_against_keras(result):
    eager, function, *bundles = (row.measures for row in result.rows[:6])
    assert (eager.over_eager, function.over_function) == (1, 1)
    for one in (eager, function, *bundles):
        assert one.same_words == 1
        assert one.over_eager == pytest.approx(eager.from_pixels / one.from_pixels)
        assert one.over_function == pytest.approx(function.from_pixels / one.from_pixels)
    for one in bundles:
        assert one.throughput.keys() == set(BATCHES)
    assert all(0 < one.roofline < 1 for one in bundles[:3])
    assert bundles[3].roofline is None  # its one file does not tell what each graph reads
    assert (eager.throughput, eager.roofline) == ({}, None)


def timings(*captions, tokens=((1, 2, 3),)):
    """Timings of so long captions, of which preprocessing, encoding and the tokens are known parts."""
    return [
        Timing(tokens[k % len(tokens)], 0.1 * one, 0.2 * one, 0.05 * one, (0.02 * one, 0.04 * one), one)
        for k, one in enumerate(captions)
    ]


def test_the_columns_by_hand():
    taken = {EAGER: timings(*range(200, 301)), FUNCTION: timings(*range(100, 201)), "mine": timings(*range(101))}
    start = {"load": 0.25, "cold_start": 0.75}
    one = _measures(taken, "mine", start, {1: 10.0, 8: 30.0, 32: 20.0}, 5_000_000)
    one = dataclasses.replace(one, roofline=0.5)
    header = dict(zip(HEADER, cells(Row("mine", "cpu", 7_000_000, one)), strict=True))
    assert header == {
        "row": "mine",
        "graphs, MB": "7.0",
        "load, s": "0.25",
        "cold start, s": "0.75",
        "preprocess, ms": "5000.00",
        "encode, ms": "10000.00",
        "first token, ms": "2500.00",
        "per token, ms": f"{1000 * np.median([k * share for k in range(101) for share in (0.02, 0.04)]):.2f}",
        "caption p50, ms": "50000.0",
        "p90": "90000.0",
        "p99": "99000.0",
        "from pixels, ms": "45000.0",
        "captions/s": "10",
        "best batch": "30 (8)",
        "peak memory, MB": "5",
        "same words": "100%",
        "of the roofline": "50%",
        "times Keras eager": "5.0",
        "times tf.function": "3.0",
    }
    taken["mine"] = timings(*range(101), tokens=((1, 2, 3), (1, 2, 4)))
    assert _measures(taken, "mine", start, {}, 0).same_words == pytest.approx(51 / 101)
    failed = cells(Row("keras eager", "GPU", None, None, "no memory"))
    assert failed == ["keras eager (GPU)", "", "no memory"]


def test_every_batch_size_captions_the_same_photos(tiny_bundle, photos, monkeypatch):
    subject, seen = BundleSubject(tiny_bundle.directory, 1, "cpu"), []
    monkeypatch.setattr(subject._captioner, "caption_pixels", lambda pixels, _: seen.append(len(pixels)))
    for batch in (1, 8, 32):
        seen.clear()
        assert subject.throughput(photos, batch) > 0
        assert seen == [batch] * (1 + SAMPLE // batch)  # one before the clock starts


def test_a_process_that_dies_meanwhile(tiny_bundle, photos):
    photo = str(photos[0])
    spec = {"row": "onnx", "path": str(tiny_bundle.directory), "threads": 1, "device": "cpu", "photo": photo}
    with started({"alive": spec, "dead": spec, "none": {**spec, "path": "/none"}}) as (workers, errors):
        assert errors == {"none": "There is no bundle at /none."}
        os.kill(workers["dead"]._process.pid, signal.SIGKILL)
        with pytest.raises(RowError, match="exit code -9"):
            workers["dead"].ask(photos=[photo])
        [timing] = workers["alive"].ask(photos=[photo])
        assert timing["tokens"]


def test_what_cannot_be_timed(tiny_bundle, photos, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    with pytest.raises(OptionError, match="needs a photo"):
        bench([tiny_bundle], [])
    with pytest.raises(OptionError, match=r"onnxruntime has no cuda here; .*capexport\[gpu\]"):
        bench([tiny_bundle], photos, device="cuda")
    with pytest.raises(OptionError, match="threads must be a whole number from 1 up"):
        bench([tiny_bundle], photos, threads=-1)
    with pytest.raises(ImageError, match=r"broken\.jpg is not a photo"):
        bench([tiny_bundle], [*photos, broken])


@pytest.mark.parametrize("options", [["--threads", "0"], ["--device", "cuda"], ["--rounds", "0"]])
def test_mistakes_are_found_before_anything_is_converted(options, capsys, monkeypatch):
    monkeypatch.setattr("capexport.export.exporter.Exporter.export", None)
    assert main(["bench", *options]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "from 1 up" in line or "onnxruntime has no cuda here" in line


def test_photos_that_are_not_timed_are_not_counted(tiny_bundle, tiny_source, photos):
    found = bench([tiny_bundle], [*photos[:TURN], *["none.jpg"] * 9], tiny_source, threads=1, rounds=1)
    assert found.photos == TURN


def test_a_device_that_the_engine_has_but_does_not_find(tiny_bundles, photos, monkeypatch):
    """As onnxruntime-gpu on a machine without a GPU: it falls back to the processor without a word."""
    bundles = [tiny_bundles["tflite", "fp32"], tiny_bundles["onnx", "fp32"]]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [*PROVIDERS.values()])
    with pytest.raises(OptionError, match="onnxruntime finds no cuda device that works here"):
        bench(bundles, photos, device="cuda")
    monkeypatch.setattr("capexport.runtime.onnx.check_device", lambda device: None)
    assert formats_on("cuda", FORMATS) == ["onnx"]


def test_the_machine(tmp_path, monkeypatch):
    (tmp_path / "queue.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    machine = measure_machine(1)
    assert 1e8 < machine.multiplications < 1e13
    assert 1e8 < machine.bytes < 1e12
    assert Machine.usual([machine, Machine(0, 0), Machine(math.inf, math.inf)]) == machine
    with pytest.raises(OptionError, match="with -1 threads cannot be measured: ValueError"):
        measure_machine(-1)


def test_the_limit_by_hand(tiny_bundle):
    """30 words, 9 places and 16 units of embeddings are not read but for a row."""
    manifest = tiny_bundle.manifest
    encoder, decoder = (manifest.graphs[name] for name in ("encoder", "decoder"))
    slow_memory, slow_arithmetic = Machine(1e30, 1.0), Machine(1.0, 1e30)
    expected = encoder.multiplications + 5 * decoder.multiplications
    assert slow_arithmetic.limit(manifest, tokens=5) == pytest.approx(expected)
    tables = (30 + 9) * 16
    read = manifest.files[decoder.file].bytes * decoder.multiplications / (tables + decoder.multiplications)
    expected = manifest.files[encoder.file].bytes + 5 * read
    assert slow_memory.limit(manifest, tokens=5) == pytest.approx(expected)


def test_the_multiplications_are_those_of_the_graphs(tiny_bundle):
    for name, graph in tiny_bundle.manifest.graphs.items():
        model = onnx.shape_inference.infer_shapes(onnx.load_from_string(tiny_bundle.graph(name))).graph
        shapes = {
            value.name: [dimension.dim_value or 1 for dimension in value.type.tensor_type.shape.dim]
            for value in (*model.value_info, *model.output)
        }
        weights = {tensor.name: list(tensor.dims) for tensor in model.initializer}
        total = 0
        for node in model.node:
            if node.op_type in ("Conv", "MatMul") and node.input[1] in weights:
                kernel = weights[node.input[1]]
                inner = kernel[1:] if node.op_type == "Conv" else kernel[:1]
                rows = 4 if node.op_type == "MatMul" and name == "encoder" else 1  # a feature map of 2 x 2
                total += rows * np.prod(shapes[node.output[0]]) * np.prod(inner)
        assert graph.multiplications == total


def test_the_command(capsys, tiny_source, tiny_bundle, refused, photos, tmp_path):
    files = {name: tmp_path / f"bench.{name}" for name in ("json", "markdown", "plot")}
    outputs = [argument for name, path in files.items() for argument in (f"--{name}", path)]
    arguments = ["bench", tiny_bundle.directory, refused.directory, "--source", tiny_source, "--rounds", 1, *outputs]
    assert main([str(argument) for argument in (*arguments, "--photos", photos[0].parent)]) == 1
    said = capsys.readouterr().out
    assert "LiteRT cannot load the decoder" in said
    record = json.loads(files["json"].read_text())
    assert [row["name"] for row in record["rows"]][2:] == ["onnx fp32", "refused (tflite fp32)"]
    assert record["rows"][2]["measures"]["p50"] > 0
    assert files["markdown"].read_text().count("\n| ") == 1 + 4  # below the header: a rule, and the rows
    assert Image.open(files["plot"]).size[0] > 500
    assert main([str(argument) for argument in arguments]) == 2
    assert "exists already" in capsys.readouterr().err
