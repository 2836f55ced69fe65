"""Rows as a table: CSV, or Parquet through pyarrow, which is imported only when it is asked for."""

from __future__ import annotations

import csv
import io
import itertools
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import MissingExtraError, OutputError
from ..plain import open_plain, shortened
from .rows import Row

COLUMNS = ("path", "text", "confidence", "words", "tokens", "log_probabilities", "alternatives", "error", "run")
FORMULAS = ("=", "+", "-", "@")  # with BLANKS as OWASP's page on CSV injection lists them
BLANKS = ("\t", "\r", "\n")
LONGEST = 1 << 24  # characters of a line that are read at once
GROUP = 10_000  # rows of a Parquet file that are in memory together
Writer = Callable[[Iterable[Row], Path], None]
Reader = Callable[[Path], Iterable[Row]]


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """A table with a header, in UTF-8; lists are JSON, alternatives their texts, null is empty.

    Names of files that are no UTF-8 keep their bytes. A text that a spreadsheet would take for a formula, as a file's
    name or a word may be, has an apostrophe before it.
    """
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in map(_cells, rows):
            writer.writerow([json.dumps(cell) if isinstance(cell, list) else _inert(cell) for cell in row.values()])


def write_parquet(rows: Iterable[Row], path: Path) -> None:
    """A table of typed columns, lists among them, null where a photo could not be read.

    Raises MissingExtraError without pyarrow.
    """
    parquet = load_parquet()
    import pyarrow as pa

    kinds = {
        "confidence": pa.float64(),
        "words": pa.list_(pa.string()),
        "tokens": pa.list_(pa.int32()),
        "log_probabilities": pa.list_(pa.float64()),
        "alternatives": pa.list_(pa.string()),
    }
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    waiting = map(_cells, rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while group := list(itertools.islice(waiting, GROUP)):
            for row in group:  # file names that are no UTF-8, which Parquet cannot hold
                row["path"] = row["path"].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            writer.write_table(pa.Table.from_pylist(group, schema))


def load_parquet() -> Any:
    """pyarrow's module for Parquet; raises MissingExtraError if pyarrow is not installed."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "parquet") from error
    return pyarrow.parquet


def _inert(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    first = next((sign for sign in cell if sign.isprintable() and not sign.isspace()), "")
    # Full-width signs are formulas', too, where people type them.
    formula = cell.startswith(BLANKS) or unicodedata.normalize("NFKC", first).startswith(FORMULAS)
    return f"'{cell}" if formula else cell


def _cells(row: Row) -> dict[str, Any]:
    others = row["alternatives"]
    return {**{name: row[name] for name in COLUMNS}, "alternatives": others and [other["text"] for other in others]}


def write_jsonl(rows: Iterable[Row], path: Path) -> None:
    """One JSON object a line."""
    with path.open("w", encoding="ascii") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)


def outcomes_of_csv(path: Path) -> Iterator[Row]:
    """The `error` and `run` of each row; raises OutputError for what write_csv did not write."""
    with _ours(path), open_plain(path) as file:
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        rows = csv.reader(iter(lambda: text.readline(LONGEST), ""))
        _check_columns(next(rows, []))
        for *_, error, run in rows:
            yield {"error": error or None, "run": run}


def outcomes_of_parquet(path: Path) -> Iterator[Row]:
    """As outcomes_of_csv, of what write_parquet writes."""
    parquet = load_parquet()
    with _ours(path), open_plain(path) as file, parquet.ParquetFile(file) as table:
        _check_columns(table.schema_arrow.names)
        for batch in table.iter_batches(GROUP, columns=["error", "run"]):
            yield from batch.to_pylist()


@contextmanager
def _ours(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's own are ValueErrors or OSErrors
        raise OutputError(f"{path} is no table of captions that a run has finished: {shortened(error)}.") from error


def _check_columns(names: Sequence[str]) -> None:
    if tuple(names) != COLUMNS:
        raise ValueError("its columns are others")


WRITERS: dict[str, Writer] = {".csv": write_csv, ".parquet": write_parquet}
OUTCOMES: dict[str, Reader] = {".csv": outcomes_of_csv, ".parquet": outcomes_of_parquet}
