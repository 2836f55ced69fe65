"""peers.py: turns of real processes with fake peers, the rows by hand, and peers of this environment end to end."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peer.base import Task, greedy
from benchmarks.peer.registry import BASELINE, PEERS, Entry, chosen
from benchmarks.peer.rows import HEADER, build_rows, cells, legend, measure
from benchmarks.peer.turns import Outcome, Said, take_turns
from capexport import OptionError
from capexport.bundle import write_bundle
from capexport.image import load_image

SCRIPT = Path(__file__).parents[2] / "benchmarks/peers.py"
FAKES = "tests.benchmarks.fakes"
START, END, LONGEST = 200, 201, 5
EXPECTED = [[0, 1], [10, 11], [20, 21]]  # what Counter says with two words


@pytest.fixture
def folder(tmp_path):
    """Three photos, whose first pixels are 0, 10 and 20."""
    (tmp_path / "task.json").write_text(
        json.dumps({"source": None, "bundles": "", "start": START, "end": END, "max_length": LONGEST})
    )
    np.save(tmp_path / "pixels.npy", np.stack([np.full((2, 2, 3), 10 * k, np.uint8) for k in range(3)]))
    return tmp_path


@pytest.fixture(autouse=True)
def restless(monkeypatch):
    monkeypatch.setattr("benchmarks.peer.turns.REST", 0)


def fake(name, kind="Counter", **options):
    return Entry(name, f"what {name} is", FAKES, kind, options=options)


def said(photo, tokens, caption=1.0, encode=None):
    return Said(photo, tuple(tokens), caption, encode)


def test_peers_take_turns_and_those_that_fail_keep_their_places(folder):
    entries = [
        fake("right", words=2),
        fake("no engine", "FailsToLoad"),
        Entry("no package", "", "capexport_without_such_a_module", "Peer"),
        fake("unready", words=2),
        fake("wrong", words=2, off=1),
        fake("fails later", "FailsLater"),
    ]
    outcomes = take_turns(entries, {"unready": "its file cannot be made"}, folder, 3, captions=7, threads=3)
    assert list(outcomes) == [entry.name for entry in entries]
    assert [one.photo for one in outcomes["right"].said] == [0, 1, 2, 0, 1, 2, 0]
    assert all(0 < one.encode < one.caption for one in outcomes["right"].said)
    right, engine, package, unready, wrong, later = build_rows(entries, outcomes, EXPECTED)
    assert (right.measures.captions, right.measures.equal, right.measures.differing) == (7, 7, 0)
    assert (wrong.measures.captions, wrong.measures.equal, wrong.measures.differing) == (7, 0, 3)
    assert (right.note, right.error) == ("3 threads", "")
    assert engine.error == "RuntimeError: there is no engine"
    assert package.error.startswith("capexport_without_such_a_module is not installed; install it with: pip install")
    assert "capexport[peers]" in package.error
    assert unready.error == "its file cannot be made"
    assert later.error == "its process ended with exit code 1: ValueError: this photo is black"
    for row in (engine, package, unready, later):
        assert row.measures is None
        assert cells(row) == [row.name, row.error]


def test_a_slow_peer_says_fewer(folder, monkeypatch):
    monkeypatch.setattr("benchmarks.peer.turns.SLOW", 0)
    outcomes = take_turns([fake("slow", words=2)], {}, folder, 3, captions=10, threads=1)
    assert [one.photo for one in outcomes["slow"].said] == [0, 1]


def test_measures_by_hand():
    captions = [said(0, [7, 8], 4.0, 1.0), said(1, [9], 8.0, 2.0), said(0, [7], 6.0, 3.0)]
    one = measure(captions, [[7, 8], [9]], base={0: 3.0, 1: 3.5})
    assert (one.captions, one.equal, one.differing) == (3, 2, 1)
    assert (one.p50, one.encode, one.ratio) == (6.0, 2.0, 2.0)
    assert one.p90 == pytest.approx(7.6)
    assert one.per_token == pytest.approx(1.5)  # of (4 - 1) / 3, (8 - 2) / 2 and (6 - 3) / 2, [END] being a token
    whole = measure([said(1, [9], 4.0)], [[7, 8], [9]], base=None)
    assert (whole.encode, whole.per_token, whole.ratio) == (None, 2.0, None)


def test_the_ratio_is_to_the_baseline_of_the_run():
    entries = [fake("a"), fake(BASELINE)]
    outcomes = {"a": Outcome((said(0, [7], 0.006),), "noted"), BASELINE: Outcome((said(0, [8], 0.004, 0.001),))}
    rows = build_rows(entries, outcomes, [[7]])
    assert cells(rows[0]) == ["a", "1 of 1", "6.0", "6.0", "", "3.00", "1.50"]
    assert cells(rows[1]) == [BASELINE, "0 of 1; 1 photo differs", "4.0", "4.0", "1.00", "1.50", "1.00"]
    assert len(cells(rows[0])) == len(HEADER)
    assert legend(rows).splitlines()[0] == "- a: what a is (noted)"
    outcomes[BASELINE] = Outcome((said(0, [8]),), error="it ended")
    assert build_rows(entries, outcomes, [[7]])[0].measures.ratio is None


def test_the_ratio_of_a_slow_peer_is_to_the_same_photos():
    fast = (said(0, [7], 0.001), said(1, [8], 0.004), said(0, [7], 0.003), said(1, [8], 0.004))
    outcomes = {"slow": Outcome((said(0, [7], 0.5),)), BASELINE: Outcome(fast)}
    slow, baseline = build_rows([fake("slow"), fake(BASELINE)], outcomes, [[7], [8]])
    assert slow.measures.ratio == pytest.approx(250)
    assert baseline.measures.ratio == 1


def test_the_loop_is_simple_gen_s(tiny, photos):
    words = tiny.tokenizer.get_vocabulary()
    task = Task(None, "", words.index("[START]"), words.index("[END]"), tiny.max_length)
    for photo in photos[:3]:
        pixels = load_image(photo, (64, 64))
        features = tiny.feature_extractor(pixels[np.newaxis].astype(np.float32))

        def step(prefix, features=features):
            return int(np.argmax(tiny((features, np.array([prefix])))[0, -1]))

        assert greedy(step, task) == tiny.simple_gen_tokens(pixels, temperature=0)
    assert greedy(lambda _: 7, task) == [7] * (tiny.max_length - 1)  # simple_gen's bound, too
    assert greedy(lambda _: task.end, task) == []


def test_peers_by_name():
    assert chosen([]) == PEERS
    assert [entry.name for entry in chosen(["jax", "keras-eager"])] == ["keras-eager", "jax"]
    with pytest.raises(OptionError, match="There is no peer 'pytorhc'; there are: keras-eager, "):
        chosen(["pytorhc"])
    assert BASELINE in [entry.name for entry in PEERS]


def run_script(*arguments):
    here = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=here, check=False)


def test_the_script(tiny_source, tiny_bundles, tmp_path):
    """Peers that need no other package than capexport's own, on a tiny captioner."""
    names = [
        "keras-function",
        "tf2onnx-whole",
        "tflite-split",
        "onnx-cross-anew",
        "onnx-cross-once",
        "capexport-onnx-fp32",
    ]
    files = {name: tmp_path / f"peers.{name}" for name in ("json", "markdown")}
    outputs = [argument for name, path in files.items() for argument in (f"--{name}", path)]
    bundles = tiny_bundles["onnx", "fp32"].directory.parent
    options = ["--source", tiny_source, "--bundles", bundles, "--captions", 6, "--only", ",".join(names), *outputs]
    done = run_script(*options)
    assert done.returncode == 0, done.stderr + done.stdout
    record = json.loads(files["json"].read_text())
    assert [row["name"] for row in record["rows"]] == names
    for row in record["rows"]:
        measures = row["measures"]
        assert 0 < measures["captions"] <= 6
        assert measures["equal"] == measures["captions"], row
        assert 0 < measures["p50"] <= measures["p90"]
        assert (measures["encode"] is None) == row["name"].endswith("-whole")
    assert files["markdown"].read_text().count("\n| ") == 1 + len(names)
    again = run_script(*options)
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_a_bundle_of_another_captioner(tiny_source, tiny_bundles, tmp_path):
    bundle = tiny_bundles["onnx", "fp32"]
    write_bundle(tmp_path / "onnx-fp32", dataclasses.replace(bundle.manifest, source_sha256=64 * "0"), bundle.files)
    done = run_script("--source", tiny_source, "--bundles", tmp_path, "--only", "capexport-onnx-fp32")
    assert done.returncode == 2
    assert "was made from another captioner" in done.stderr


@pytest.mark.parametrize(("package", "name"), [("torch", "pytorch"), ("jax", "jax"), ("openvino", "openvino")])
def test_another_framework(package, name, tiny_source, tmp_path):
    pytest.importorskip(package)
    done = run_script("--source", tiny_source, "--captions", 6, "--only", name, "--json", tmp_path / "peers.json")
    assert done.returncode == 0, done.stderr + done.stdout
    [row] = json.loads((tmp_path / "peers.json").read_text())["rows"]
    assert row["measures"]["equal"] == row["measures"]["captions"] == 6


def test_mistakes_are_one_sentence(tmp_path):
    for arguments, sentence in (
        (["--captions", 0], "must be 1 or more"),
        (["--only", "nobody"], "There is no peer 'nobody'"),
        (["--source", tmp_path / "none"], "There is no captioner at"),
        (["--photos", tmp_path], "There are no photos in"),
    ):
        done = run_script(*arguments)
        assert done.returncode == 2
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
