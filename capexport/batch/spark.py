"""Photos of a Spark table captioned by CaptionBatch; pyspark is imported only when this is."""

from __future__ import annotations

from typing import Any

from ..errors import MissingExtraError
from .caption_batch import CaptionBatch

try:
    from pyspark.ml.functions import predict_batch_udf
except ImportError as error:  # of pyspark itself, or of pandas and pyarrow, which its functions of batches need
    raise MissingExtraError(error.name or "pyspark", "spark") from error

SCHEMA = "text string, confidence double, error string, row string"
ROWS = 256  # handed over together


def caption_udf(captions: CaptionBatch, rows: int = ROWS) -> Any:
    """A function of a Spark column with photos' files (binary) or their paths (string); it gives SCHEMA's fields.

        frame.select("path", caption_udf(CaptionBatch("my-bundle"))("content").alias("caption"))

    rows  of a partition that are handed over together

    spark.task.cpus says how many cores a task has; give `captions` as many threads.
    """
    from pyspark.sql.types import StructType

    return predict_batch_udf(captions.predictor, return_type=StructType.fromDDL(SCHEMA), batch_size=rows)
