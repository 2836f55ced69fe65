"""The programs in exported/apps: compiled and run here, as far as there are a compiler, headers and engines."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import capexport
from tests.javascript import NODE, ROOT, RUNTIME, SOURCES, needs_node, needs_runtime

APPS = ROOT / "exported/apps"
HEADERS = next(
    (folder for folder in map(Path, (ROOT / "build/onnxruntime/usr/include/onnxruntime", "/usr/include/onnxruntime"))
     if (folder / "onnxruntime_cxx_api.h").is_file()),
    None,
)  # fmt: skip
COMPILER = shutil.which("c++")

needs_headers = pytest.mark.skipif(
    HEADERS is None or COMPILER is None or sys.platform != "linux",
    reason="needs a C++ compiler and onnxruntime's headers (libonnxruntime-dev, or .ci/headers build/onnxruntime)",
)


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """The folder of the Python package's own onnxruntime, under the name that programs look for."""
    import onnxruntime

    [found] = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    folder = tmp_path_factory.mktemp("library")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(found)
    return folder


def built(source: str, library: Path, out: Path) -> Path:
    strict = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-isystem", str(HEADERS)]
    command = [str(COMPILER), *strict, str(APPS / "cpp" / source), "-L", str(library), "-lonnxruntime", "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def said(program: Path, library: Path, bundle: capexport.Bundle, photo: Path) -> str:
    command = [str(program), str(bundle.directory), str(photo)]
    done = subprocess.run(command, capture_output=True, text=True, env={"LD_LIBRARY_PATH": str(library)}, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_headers
def test_cpp_says_what_python_says(tiny_bundles, photos, library, tmp_path):
    bundle = tiny_bundles["onnx", "fp32"]
    program, captioner = built("caption.cpp", library, tmp_path / "caption"), capexport.load(bundle)
    for photo in photos:
        image = Image.open(photo).convert("RGB")
        image.save(tmp_path / "photo.ppm")
        assert said(program, library, bundle, tmp_path / "photo.ppm") == captioner.caption(image).text


@needs_headers
def test_cpp_with_one_graph_for_whole_captions(tiny_bundles, photos, library, tmp_path):
    bundle = tiny_bundles["onnx", "fp32", "fused"]
    program, captioner = built("caption_whole.cpp", library, tmp_path / "caption"), capexport.load(bundle)
    for photo in photos[:3]:
        image = Image.open(photo).convert("RGB")
        image.save(tmp_path / "photo.ppm")
        assert said(program, library, bundle, tmp_path / "photo.ppm") == captioner.caption(image).text


@needs_node
@needs_runtime
def test_node_says_what_python_says(tiny_bundles, photos, tmp_path):
    """With onnxruntime-web; onnxruntime-node is run by hand."""
    bundle = tiny_bundles["onnx", "fp32"]
    shutil.copy(APPS / "node/caption.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(RUNTIME.parent)
    for photo in photos[:2]:
        command = [str(NODE), "caption.mjs", str(SOURCES), str(bundle.directory), str(photo), "onnxruntime-web"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == capexport.load(bundle).caption(photo).text
