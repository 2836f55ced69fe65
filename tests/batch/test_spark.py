"""CaptionBatch as Spark's predict_batch_udf, in Spark's local mode."""

import json
import os
import shutil
import sys

import pytest

import capexport
from capexport.batch.caption_batch import CaptionBatch

pytest.importorskip("pyspark", reason="needs pyspark (pip install 'capexport[spark]')")
if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
    pytest.skip("needs Java", allow_module_level=True)

from capexport.batch.spark import caption_udf


@pytest.fixture(scope="module")
def spark():
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    quiet = {"spark.ui.enabled": "false", "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
    builder = SparkSession.builder.master("local[2]").appName("captions")
    for name, value in {**quiet, "spark.sql.shuffle.partitions": "2"}.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


@pytest.mark.parametrize("column", ["content", "path"])
def test_its_captions_are_those_without_spark(column, spark, folder, tiny_bundle):
    """Of photos' files, as Spark's reader of binary files gives them, and of their paths."""
    from pyspark.sql.functions import regexp_replace

    photos = spark.read.format("binaryFile").load(str(folder)).repartition(3)
    photos = photos.withColumn("path", regexp_replace("path", "^file:/*", "/"))
    caption = caption_udf(CaptionBatch(tiny_bundle, batch=4), rows=8)
    frame = photos.select("path", caption(column).alias("caption")).select("path", "caption.*")
    found = {row["path"]: row for row in frame.collect()}
    assert sorted(found) == sorted(str(photo) for photo in folder.iterdir())
    captioner = capexport.load(tiny_bundle)
    for path, row in found.items():
        [alone] = captioner.caption([path], on_error="skip")
        if isinstance(alone, capexport.ImageError):
            assert row["text"] == ""
            assert "cannot be read" in row["error"]
        else:
            assert (row["text"], row["error"]) == (alone.text, "")
            assert row["confidence"] == pytest.approx(alone.confidence, rel=1e-4)
            assert tuple(json.loads(row["row"])["tokens"]) == alone.tokens
