"""The tables that are shown are those of the measurements beside them."""

import json
from pathlib import Path

from benchmarks import hotspots, length
from benchmarks.peer import rows as peers
from capexport.cli.bench import HEADER, cells
from capexport.cli.tables import markdown_table
from capexport.timing import bench

FOLDER = Path(__file__).parents[2] / "benchmarks"


def measured(name):
    """JSON's keys are text: those that are sizes of batches are numbers again."""

    def numbered(found):
        return {int(key) if key.isdigit() else key: value for key, value in found.items()}

    return json.loads((FOLDER / f"{name}.json").read_text(), object_hook=numbered)


def shown(name):
    return (FOLDER / f"{name}.md").read_text()


def rebuilt(module, row):
    return module.Row(**row | {"measures": row["measures"] and module.Measures(**row["measures"])})


def test_bench():
    rows = [rebuilt(bench, row) for row in measured("bench")["rows"]]
    assert shown("bench").startswith(markdown_table(HEADER, [cells(row) for row in rows]) + "\n\n")


def test_peers():
    rows = [rebuilt(peers, row) for row in measured("peers")["rows"]]
    table = markdown_table(peers.HEADER, [peers.cells(row) for row in rows])
    assert shown("peers").startswith(f"{table}\n\n")
    assert shown("peers").rstrip("\n").endswith(f"\n\n{peers.legend(rows)}")


def test_length():
    found = measured("length")
    assert found["lengths"] == list(length.LENGTHS)
    assert shown("length") == length.table([length.Row(**row) for row in found["rows"]])


def test_hotspots():
    def shares(these):
        return [hotspots.Share(**one) for one in these]

    profiles = [
        hotspots.Profile(
            bundle=one["bundle"],
            operators={graph: shares(these) for graph, these in one["operators"].items()},
            reached=one["reached"],
            code=shares(one["code"]),
        )
        for one in measured("hotspots")
    ]
    assert shown("hotspots") == hotspots.table(profiles)
