"""What is public, and what importing it costs."""

import subprocess
import sys

import pytest

import capexport

HEAVY = ("tensorflow", "tf_keras", "keras", "onnx", "tf2onnx", "matplotlib", "rich")


def loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*(n for n in {HEAVY!r} if n in sys.modules), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-len(HEAVY) :]) & set(HEAVY)


def test_every_public_name_exists():
    for _ in range(2):  # a submodule of the same name would be in the way once it is imported
        assert all(callable(getattr(capexport, name)) for name in capexport.__all__)
    assert sorted(dir(capexport)) == sorted(capexport.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = capexport.nonsense


def test_every_error_has_the_same_root():
    errors = [getattr(capexport, name) for name in capexport.__all__ if name.endswith("Error")]
    assert len(errors) == 10
    assert all(issubclass(error, capexport.CapexportError) for error in errors)


def test_what_a_notebook_shows_of_them_is_short(tiny_bundle, photos):
    captioner = capexport.load(tiny_bundle)
    caption = captioner.caption(photos[0])
    assert repr(tiny_bundle) == f"<Bundle {tiny_bundle.label} at {tiny_bundle.directory}>"
    assert repr(captioner) == f"<Captioner {tiny_bundle.label}>"
    assert repr(tiny_bundle.vocabulary) == "<Vocabulary of 30 words>"
    assert f"text={caption.text!r}" in repr(caption)
    assert len(repr(caption)) < 2000


def test_importing_loads_nothing_heavy():
    assert loaded_after("import capexport, capexport.runtime, capexport.cli.main, capexport.download") == set()


@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_captioning_loads_nothing_heavy(to, tiny_bundles, photos):
    arguments = ["caption", str(photos[0]), "--bundle", str(tiny_bundles[to, "fp32"].directory)]
    assert loaded_after(f"from capexport.cli.main import main; assert main({arguments!r}) == 0") == set()


def test_the_attention_figure_alone_loads_matplotlib(tiny_bundle, photos, tmp_path):
    arguments = ["caption", str(photos[0]), "--bundle", str(tiny_bundle.directory)]
    arguments += ["--attention", str(tmp_path / "a.png")]
    assert loaded_after(f"from capexport.cli.main import main; assert main({arguments!r}) == 0") == {"matplotlib"}
