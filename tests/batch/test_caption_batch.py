"""The captioner as a function of columns that can be pickled."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import capexport
from capexport import DecodingOptions, OptionError
from capexport.batch.caption_batch import CaptionBatch
from capexport.batch.run import Folder, caption_folder


@pytest.fixture
def paths(folder):
    return np.array([str(photo) for photo in sorted(folder.iterdir())], object)


def test_its_rows_are_those_of_the_folder(tiny_bundle, folder, paths, tmp_path):
    caption_folder(capexport.load(tiny_bundle, threads=2), Folder(folder, tmp_path / "a.jsonl"), DecodingOptions())
    expected = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    batch = CaptionBatch(tiny_bundle.directory, run=expected[0]["run"])
    bodies = np.array([Path(path).read_bytes() for path in paths], object)
    tags = np.arange(30)
    for columns in ({"path": paths, "tag": tags}, {"path": paths, "bytes": bodies, "tag": tags}):
        found = pickle.loads(pickle.dumps(batch))(columns)
        assert set(found) == {"path", "tag", "text", "confidence", "error", "row"}
        assert found["tag"] is tags
        for row, one in zip(expected, map(json.loads, found["row"]), strict=True):
            assert {**one, "error": bool(one["error"])} == {**row, "error": bool(row["error"])}
        assert [text or None for text in found["text"]] == [row["text"] for row in expected]
        assert np.flatnonzero(np.isnan(found["confidence"])).tolist() == [5, 22]
        assert [bool(error) for error in found["error"]] == [row["error"] is not None for row in expected]


def test_it_travels_with_its_bundle_and_without_its_engine(tiny_bundle, paths):
    batch = CaptionBatch(tiny_bundle, min_confidence=1.0)
    assert list(batch({"path": paths[:1]})["text"]) == [""]
    assert pickle.loads(pickle.dumps(batch)).__dict__["_loaded"] is None
    missing = CaptionBatch(tiny_bundle)({"path": np.array(["none.jpg"], object), "bytes": np.array([None], object)})
    assert missing["error"][0] == "none.jpg cannot be read: the row has no photo."


def test_what_is_refused(tiny_bundle):
    with pytest.raises(OptionError, match="column bytes or path"):
        CaptionBatch(tiny_bundle)({"image": np.zeros(1)})
    with pytest.raises(OptionError, match="batch must be"):
        CaptionBatch(tiny_bundle, batch=0)


def test_neither_ray_nor_spark_nor_arrow_is_imported_unasked(tiny_bundle, folder, tmp_path):
    arguments = ["caption", str(folder), "--out", str(tmp_path / "a.jsonl"), "--bundle", str(tiny_bundle.directory)]
    code = (
        "import sys; from capexport.cli.main import main; from capexport.batch import caption_batch, shard_run\n"
        f"assert main({arguments!r}) == 1\n"
        "print(*{'ray', 'pyspark', 'pyarrow', 'pandas', 'fsspec', 'sqlite3'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize(("module", "package"), [("ray_engine", "ray"), ("spark", "pyspark")])
def test_a_missing_extra_is_named(module, package):
    code = f"import sys; sys.modules[{package!r}] = None; from capexport.batch import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"pip install 'capexport[{package.removeprefix('py')}]'" in done.stderr
