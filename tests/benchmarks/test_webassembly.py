"""The table of recipes in the JavaScript runtime."""

from benchmarks.webassembly import HEADER, markdown, measure
from tests.javascript import RUNTIME, needs_node, needs_runtime


@needs_node
@needs_runtime
def test_recipes_are_measured_and_held_against_keras(tiny_bundles, tmp_path):
    bundles = {name: tiny_bundles["onnx", name] for name in ("fp32", "weight-int8")}
    rows = measure(bundles, RUNTIME, 3, tmp_path)
    assert rows["fp32"]["off"] < 1e-4 < rows["weight-int8"]["off"]
    assert all(len(times) == 3 and min(times) > 0 for row in rows.values() for times in row["times"].values())
    table = markdown(rows)
    assert table.startswith(HEADER + "| `fp32` | ")
    assert f"{rows['fp32']['photos']} of {rows['fp32']['photos']} |" in table
