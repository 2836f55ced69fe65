"""The figure of a comparison: every label readable, for any bundles."""

import itertools

import pytest
from PIL import Image

from capexport import DecodingOptions, OutputError
from capexport.evaluation import compare_figure
from capexport.evaluation.compare import Comparison, Measures, Row
from capexport.evaluation.compare_figure import draw_comparison
from capexport.timing.latency import Latencies, Latency

LATENCIES = Latencies(Latency(5, 6), Latency(1, 2))
TEN = [
    *(("onnx", "fp32", 27.2, 0.356, 17), ("tflite", "fp32", 27.2, 0.356, 23)),
    *(("onnx", "fp16", 13.6, 0.356, 18), ("tflite", "fp16", 13.6, 0.356, 24)),
    *(("onnx", "dynamic-int8", 7.9, 0.357, 9), ("tflite", "dynamic-int8", 7.9, 0.356, 12)),
    *(("onnx", "weight-int8", 7.0, 0.355, 19), ("tflite", "weight-int8", 7.1, 0.356, 22)),
    *(("onnx", "int8", 6.9, 0.349, 8), ("tflite", "int8", 7.0, 0.341, 7)),
]
ALL_ALIKE = [("onnx", f"a-rather-long-name-{k}", 10.0, 0.3, 5) for k in range(12)]


def made(bundles) -> Comparison:
    """A comparison with these formats, recipes, megabytes, CIDEr and milliseconds."""
    rows = tuple(
        Row(
            bundle=f"{to}-{recipe}",
            label=f"{to} {recipe}",
            format=to,
            graph_bytes=int(size * 1e6),
            bundle_bytes=int(size * 1e6) + 1,
            measures=Measures({"CIDEr": cider}, 1.0, 1.0, LATENCIES, ms, 0.5, 100_000_000),
            error="",
        )
        for to, recipe, size, cider, ms in bundles
    )
    failed = Row("failed", "failed (onnx int8)", "onnx", 1, 2, None, "No engine.")
    return Comparison((*rows, failed), rows[0].bundle, 1000, DecodingOptions(), None, 2)


@pytest.mark.parametrize(
    "bundles", [TEN, TEN[:1], ALL_ALIKE, [("onnx", "fp32", 0.1, 0.0, 1), ("onnx", "x", 90, 2.5, 900)]]
)
def test_labels_are_readable(bundles, tmp_path, monkeypatch):
    figures = []
    save = compare_figure.save_figure
    monkeypatch.setattr(
        compare_figure, "save_figure", lambda figure, *rest: (figures.append(figure), save(figure, *rest))
    )
    draw_comparison(made(bundles), tmp_path / "figure.png")
    [axes] = figures[0].axes
    labels = {text.get_text(): text.get_window_extent().extents for text in axes.texts}
    assert labels.keys() == {f"{to} {recipe}, {ms:.3g} ms" for to, recipe, _, _, ms in bundles}
    width, height = Image.open(tmp_path / "figure.png").size
    for left, bottom, right, top in labels.values():
        assert 0 <= left < right <= width
        assert 0 <= bottom < top <= height
    for one, other in itertools.combinations(labels.values(), 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_nothing_is_replaced_unasked(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        draw_comparison(made(TEN), path)
    assert path.read_bytes() == b"mine"
    draw_comparison(made(TEN), path, force=True)
    assert Image.open(path).mode == "RGB"
