"""verify: what holds, what does not, and what a broken bundle is told."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import capexport
from capexport import BundleError, ImageError, OptionError, SourceError
from capexport.bundle import write_bundle
from capexport.cli.main import main
from capexport.parity.vectors import pack, unpack
from tests.conftest import VARIANTS


@pytest.mark.parametrize("variant", VARIANTS)
def test_bundles_hold_by_their_own_vectors(variant, shipped_bundles):
    result = capexport.verify(shipped_bundles[variant])
    assert result.holds, result.checks
    assert len(result.parity.comparisons) == 3
    assert [check.name for check in result.checks if check.allowed] == ["tensors as in the manifest", *CHANGES]


def test_against_keras(tiny, tiny_source, tiny_bundle, photos):
    result = capexport.verify(tiny_bundle, against=tiny_source, images=photos)
    assert result.holds, result.checks
    assert len(result.parity.comparisons) == len(photos)
    live = capexport.verify(tiny_bundle, against=tiny)
    assert live.holds, live.checks


def test_against_another_captioner(tiny_source, tiny_bundle):
    other = capexport.load_captioner(tiny_source)
    other.output_layer.bias = other.output_layer.bias[::-1].copy()
    failed = {check.name for check in capexport.verify(tiny_bundle, against=other).checks if not check.holds}
    assert {"made from this captioner", "largest error of a logit"} <= failed


def test_against_a_captioner_of_another_shape(shipped, tiny_bundle):
    with pytest.raises(SourceError, match="another shape"):
        capexport.verify(tiny_bundle, against=shipped)


def test_pixels_beside_tensorflow(tiny, tiny_bundle, photos, tmp_path):
    """Of the files that TensorFlow reads; one that EXIF turns around is read otherwise on purpose."""
    image = Image.open(photos[0])
    image.convert("1").save(tmp_path / "bits.bmp")
    exif = image.getexif()
    exif[0x0112] = 3
    image.save(tmp_path / "turned.png", exif=exif)
    images = [photos[0], photos[1].read_bytes(), tmp_path / "bits.bmp", image]
    found = {check.name: check for check in capexport.verify(tiny_bundle, against=tiny, images=images).checks}
    beside = found["pixels beside TensorFlow's"]
    assert beside.found.startswith("2 photos")
    assert (beside.allowed, beside.holds) == ("", True)
    turned = capexport.verify(tiny_bundle, against=tiny, images=[tmp_path / "turned.png"])
    [beside] = [check for check in turned.checks if check.name == "pixels beside TensorFlow's"]
    assert int(beside.found.split()[-3]) > 100
    assert turned.holds, turned.checks


@pytest.mark.parametrize("name", ["", "missing.jpg", "../photos/cat.jpg"])
def test_photos_that_are_not_installed_are_not_read(name, tiny_bundle, tmp_path):
    other = changed(tiny_bundle, tmp_path / "other", lambda v: dataclasses.replace(v, photo=name))
    result = capexport.verify(other)
    assert result.holds
    assert "pixels as when converted" not in {check.name for check in result.checks}


def test_other_photos_need_keras(tiny_bundle, photos):
    with pytest.raises(OptionError, match="name its captioner"):
        capexport.verify(tiny_bundle, images=photos)


def changed(bundle, directory, change):
    """The bundle with its parity vectors changed, correctly signed."""
    vectors = [change(vector) for vector in unpack(bundle.files["parity.npz"], bundle.manifest)]
    return write_bundle(directory, bundle.manifest, {**bundle.files, "parity.npz": pack(vectors)})


CHANGES = {
    "pixels as when converted": lambda v: {"pixels": v.pixels ^ 2},
    "relative error of features": lambda v: {"memory": {k: m * np.float32(1.001) for k, m in v.memory.items()}},
    "largest error of a logit": lambda v: {"logits": v.logits + np.float32(0.01)},
    "identical captions": lambda v: {"tokens": np.append((v.tokens[:-1] - 4) % 25 + 5, v.tokens[-1:])},
    "largest error of attention": lambda v: {"attention": v.attention + np.float32(0.001)},
    "most attended cell the same": lambda v: {"attention": v.attention[:, ::-1, ::-1]},
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_does_not_hold(name, tiny_bundle, tmp_path, capsys):
    wrong = changed(tiny_bundle, tmp_path / "wrong", lambda v: dataclasses.replace(v, **CHANGES[name](v)))
    failed = {check.name for check in capexport.verify(wrong).checks if not check.holds}
    assert name in failed
    assert "tensors as in the manifest" not in failed
    assert main(["verify", str(tmp_path / "wrong")]) == 1
    out, err = capsys.readouterr()
    assert f"FAIL  {name}" in out
    assert err == ""


def test_a_manifest_that_promises_other_tensors(tiny_bundle, tmp_path):
    graphs = dict(tiny_bundle.manifest.graphs)
    first, *others = graphs["encoder"].outputs
    graphs["encoder"] = dataclasses.replace(
        graphs["encoder"], outputs=(dataclasses.replace(first, shape=(*first.shape[:-1], 7)), *others)
    )
    manifest = dataclasses.replace(tiny_bundle.manifest, graphs=graphs)
    with pytest.raises(BundleError, match=f"{first.name}' of another type or shape"):
        write_bundle(tmp_path / "wrong", manifest, tiny_bundle.files)
    wrong = dataclasses.replace(tiny_bundle, manifest=manifest)  # as a program may have made it
    with pytest.raises(BundleError, match=f"has '{first.name}' of another type or shape"):
        capexport.verify(wrong)


def test_the_command(tiny_bundle, tiny_source, photos, capsys, tmp_path):
    arguments = ["verify", str(tiny_bundle.directory)]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines if line[:4] != "  - "] == ["ok  "] * 7
    assert [line[6:].split("  ")[0] for line in lines if line[:4] == "  - "] == [
        "rms error of logits",
        "Jensen-Shannon divergence",
    ]
    assert main([*arguments, "--against", str(tiny_source), "--images", str(photos[0].parent), "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["holds"] is True
    assert len(out["parity"]["comparisons"]) == len(photos)
    assert main([*arguments, "--against", str(tiny_source), "--images", str(tmp_path)]) == 2
    assert "no photos in" in capsys.readouterr().err
    with pytest.raises(ImageError):
        capexport.verify(tiny_bundle, against=tiny_source, images=["missing.jpg"])


def graph_bytes(bundle):
    return len(bundle.graph("encoder")) + len(bundle.graph("decoder"))


@pytest.mark.parametrize(("to", "recipe"), VARIANTS)
def test_the_shipped_captioner_shrinks_and_stays_within_bounds(to, recipe, shipped_bundles):
    share = {"fp32": 1.0, "fp16": 0.55}.get(recipe, 0.3)
    assert graph_bytes(shipped_bundles[to, recipe]) <= share * graph_bytes(shipped_bundles[to, "fp32"])
    assert all(check.holds for check in shipped_bundles[to, recipe].manifest.gate)
