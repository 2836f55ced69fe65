"""hotspots.py: what it makes of profiles, and a small bundle profiled for real."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.hotspots import Share, _by_operator, _kind, _shares, main

SCRIPT = Path(__file__).parents[2] / "benchmarks/hotspots.py"


def event(operator, microseconds):
    return {"cat": "Node", "name": f"{operator}_3_kernel_time", "dur": microseconds, "args": {"op_name": operator}}


def test_operators_are_added_up_over_all_runs():
    events = [event("Conv", 600), event("MatMul", 200), event("Conv", 100), {"name": "model_run", "dur": 1000}]
    events += [{"cat": "Session", "name": "session_initialization", "dur": 5000}]
    assert _by_operator(events, runs=2) == [
        Share("Conv", 0.7, 0.35),
        Share("MatMul", 0.2, 0.1),
        Share("between operators, and the profiler", 0.1, 0.05),
    ]


def test_what_takes_next_to_nothing_is_among_the_others():
    assert _shares(Counter(much=995, little=3, less=2), 1000) == [Share("much", 0.995), Share("others", 0.005)]


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (
            "libpywrap_litert_common.so [.] xnn_qd8_f32_qc8w_gemm_minmax_ukernel_1x64c4",
            "products and convolutions in int8",
        ),
        ("libpywrap_litert_common.so [.] xnn_f32_gemm_minmax_ukernel_7x32", "products and convolutions in float"),
        ("libpywrap_litert_common.so [.] xnn_f32_dwconv_minmax_ukernel_25p16c", "depthwise convolutions"),
        ("libpywrap_litert_common.so [.] xnn_x32_packw_gemm_goi_ukernel_x32", "packing of weights and activations"),
        ("libpywrap_litert_common.so [.] tflite::Subgraph::InvokeImpl", "the rest of the engine"),
        ("onnxruntime_pybind11_state.so [.] 0x0000000000f1", "the rest of the engine"),
        ("libpython3.11.so.1.0 [.] _PyEval_EvalFrameDefault", "Python and numpy, between the engine's runs"),
        ("libc.so.6 [.] __memmove_avx512_unaligned_erms", "copies of memory"),
        ("[kernel.kallsyms] [k] finish_task_switch.isra.0", "the rest (system, C library)"),
    ],
)
def test_code_is_told_by_its_name(function, kind):
    assert _kind(function) == kind


def test_a_bundle_is_profiled(tiny_bundle, tmp_path, monkeypatch, capsys):
    out = tmp_path / "hotspots"
    monkeypatch.setattr("benchmarks.hotspots.shutil.which", lambda _: None)  # perf is not everywhere
    monkeypatch.setattr(sys, "argv", ["hotspots.py", str(tiny_bundle.directory), "--out", str(out)])
    main()
    table = out.with_suffix(".md").read_text()
    assert table in capsys.readouterr().out
    assert "| encoder, a run | ms | share |" in table and "| decoder, a run | ms | share |" in table
    assert "| Conv | " in table and "| whole captions, code |" not in table


def test_it_runs_from_the_command_line():
    done = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=True)
    assert "BUNDLE" in done.stdout
