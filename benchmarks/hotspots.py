"""Where the time of a caption goes: by operator, as onnxruntime's own profiler says, and by machine code, as perf says.

    python benchmarks/hotspots.py BUNDLE... [--captions 1000] [--threads 1] [--out benchmarks/hotspots]

Writes OUT.json and OUT.md. ONNX bundles are profiled twice: each graph under onnxruntime's profiler, which tells its
operators, with what their arithmetic and reading of weights come to a second; and whole captions under Linux' perf, as
TFLite bundles are, whose engine has no profiler that Python can read. perf samples the process' clock while captions
are made, not while graphs are loaded; where it is not installed (Debian: linux-perf) its tables are left out.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import capexport
from capexport.bundle import Bundle, read_bundle
from capexport.shipped import sample_photos
from capexport.timing.machine import measure_machine

LEAST = 0.01  # share of the time below which an operator or a kind of code is among the others
# What names of functions and of libraries are about, the first that fits. XNNPACK's and MLAS' kernels name themselves.
KINDS = {
    "packing of weights and activations": ("packw", "packa", "pack_", "Pack", "CopyPack", "QuantizeRow", "QuantizeA"),
    "products and convolutions in int8": (
        "qd8",
        "qs8",
        "qc8",
        "qu8",
        "QGemm",
        "QNBit",
        "SQ8Bit",
        "Q8Bit",
        "VNNI",
        "Vnni",
    ),
    "depthwise convolutions": ("dwconv", "Depthwise", "depthwise"),
    "products and convolutions in float": ("gemm", "Gemm", "Sgemm", "ConvNchwc", "ConvPointwise", "Conv"),
    "activations, sums, norms, softmax": (
        "_v",
        "vhswish",
        "rsum",
        "rdsum",
        "softmax",
        "Softmax",
        "LayerNorm",
        "Elementwise",
    ),
    "copies of memory": ("memmove", "memcpy", "memset"),
    "Python and numpy, between the engine's runs": ("libpython", "_multiarray", "openblas", "_Py", "Py"),
    "the rest of the engine": ("onnxruntime", "libpywrap", "litert"),
    "the rest (system, C library)": ("",),
}
CAPTION = """
import sys, time
import numpy as np
import capexport
from capexport.shipped import sample_photos
captioner = capexport.load(sys.argv[1], threads=int(sys.argv[3]))
pixels = [captioner.preprocess(photo)[np.newaxis] for photo in sample_photos()]
options = capexport.DecodingOptions()
for photo in pixels:
    captioner.caption_pixels(photo, options)
print("ready", flush=True)
sys.stdin.readline()
for k in range(int(sys.argv[2])):
    captioner.caption_pixels(pixels[k % len(pixels)], options)
"""


@dataclass(frozen=True)
class Share:
    """A part of the time: of one run of a graph in milliseconds, or of samples (milliseconds None)."""

    name: str
    share: float
    milliseconds: float | None = None


@dataclass(frozen=True)
class Profile:
    """Of one bundle: its graphs' operators, what their products reach, and its code.

    reached  by graph: its multiplications and its file's bytes, each over the time of its products and convolutions,
             as shares of what the machine does at most
    """

    bundle: str
    operators: dict[str, list[Share]]
    reached: dict[str, tuple[float, float]]
    code: list[Share]


def profile(path: Path, captions: int, threads: int) -> Profile:
    bundle = read_bundle(path)
    operators = dict(_operators(bundle, threads)) if bundle.manifest.format == "onnx" else {}
    machine, reached = measure_machine(threads), {}
    for name, shares in operators.items():
        graph = bundle.manifest.graphs[name]
        seconds = sum(one.milliseconds or 0 for one in shares if _multiplies(one.name)) / 1e3
        size = bundle.manifest.files[graph.file].bytes
        reached[name] = (
            graph.multiplications / seconds / machine.multiplications,
            size / seconds / machine.bytes,
        )
    return Profile(path.name, operators, reached, _code(path, captions, threads))


def _multiplies(operator: str) -> bool:
    return any(kind in operator for kind in ("Conv", "MatMul", "Gemm"))


def _operators(bundle: Bundle, threads: int) -> Iterator[tuple[str, list[Share]]]:
    """Of the encoder and the decoder, which captions the sample photos."""
    from capexport.onnxruntime_setup import onnxruntime
    from capexport.runtime.onnx import session_options

    captioner = capexport.load(bundle, threads=threads)
    pixels = [captioner.preprocess(photo)[np.newaxis] for photo in sample_photos()]
    tokens = [captioner.caption_pixels(photo, capexport.DecodingOptions())[0].tokens for photo in pixels]
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for name in ("encoder", "decoder"):
            options = session_options(threads)
            options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / name)
            model = bundle.files[bundle.manifest.graphs[name].file]
            sessions[name] = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        runs = collections.Counter[str]()
        for _ in range(20):
            for photo, words in zip(pixels, tokens, strict=True):
                runs["encoder"] += 1
                features = _run(sessions["encoder"], {"image": photo})
                cache = captioner.backend.empty_cache(1)
                for position, token in enumerate([bundle.vocabulary.start, *words[:-1]]):
                    fed = {"tokens": np.array([token], np.int32), "position": np.array(position, np.int32)}
                    runs["decoder"] += 1
                    given = _run(sessions["decoder"], fed | features | cache)
                    cache = {name: given[name.replace("self_", "next_")] for name in cache}
        for name, session in sessions.items():
            events = json.loads(Path(session.end_profiling()).read_text())
            yield name, _by_operator(events, runs[name])


def _run(session, inputs):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def _by_operator(events: list[dict], runs: int) -> list[Share]:
    times = collections.Counter[str]()
    whole = sum(event["dur"] for event in events if event["name"] == "model_run")  # microseconds
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["args"]["op_name"]] += event["dur"]
    times["between operators, and the profiler"] = whole - times.total()
    return _shares(times, whole, runs * 1e3)


def _shares(times: collections.Counter[str], whole: float, runs: float | None = None) -> list[Share]:
    large = [(name, time) for name, time in times.most_common() if time >= LEAST * whole]
    rest = whole - sum(time for _, time in large)
    named = [*large, *([("others", rest)] if rest > 0 else [])]
    return [Share(name, time / whole, time / runs if runs else None) for name, time in named]


def _code(path: Path, captions: int, threads: int) -> list[Share]:
    """Samples by kind of code, from the moment when the captioner is loaded and warm."""
    perf = shutil.which("perf")
    if perf is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "perf.data")
        command = [sys.executable, "-c", CAPTION, str(path), str(captions), str(threads)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        record = [perf, "record", "--quiet", "-e", "cpu-clock", "-F", "4999", "-p", str(process.pid), "-o", data]
        with subprocess.Popen(record, stderr=subprocess.DEVNULL):
            time.sleep(1)  # until it looks
            process.stdin.write("go\n")
            process.stdin.close()
            process.wait()
        report = [
            perf,
            "report",
            "-i",
            data,
            "--no-children",
            "--sort",
            "dso,symbol",
            "-g",
            "none",
            "-F",
            "period,dso,sym",
        ]
        lines = subprocess.run(report, capture_output=True, text=True, check=True).stdout.splitlines()
    times = collections.Counter[str]()
    for line in lines:
        parts = line.split(maxsplit=1)
        if len(parts) == 2 and parts[0].isdigit():
            times[_kind(parts[1])] += int(parts[0])
    return _shares(times, times.total())


def _kind(function: str) -> str:
    return next(kind for kind, parts in KINDS.items() if any(part in function for part in parts))


def table(profiles: list[Profile]) -> str:
    lines = []
    for one in profiles:
        lines.append(f"### {one.bundle}\n")
        for graph, shares in one.operators.items():
            arithmetic, reading = one.reached[graph]
            lines += [f"| {graph}, a run | ms | share |", "|---|---:|---:|"]
            lines += [f"| {share.name} | {share.milliseconds:.3f} | {share.share:.0%} |" for share in shares]
            lines.append(
                f"\nWhile they multiply, its products and convolutions reach {arithmetic:.0%} of the machine's float32 "
                f"multiplications, and {reading:.0%} of its reading from memory.\n"
            )
        if one.code:
            lines += ["| whole captions, code | share of samples |", "|---|---:|"]
            lines += [f"| {share.name} | {share.share:.0%} |" for share in one.code]
            lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--captions", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/hotspots"))
    given = parser.parse_args()
    profiles = [profile(path, given.captions, given.threads) for path in given.bundles]
    found = json.dumps([dataclasses.asdict(one) for one in profiles], indent=1)
    given.out.with_suffix(".json").write_text(found + "\n")
    given.out.with_suffix(".md").write_text(table(profiles))
    print(table(profiles))


if __name__ == "__main__":
    main()
