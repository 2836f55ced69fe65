"""The captioner that ships and its bundles belong together."""

import pytest

import capexport
from capexport.bundle import read_bundle
from capexport.export.exporter import source_fingerprint
from capexport.recipes import DEFAULT_RECIPE, RECIPES
from capexport.shipped import shipped_bundle, shipped_captioner

READY = ["onnx", "tflite"]


@pytest.fixture(scope="module")
def fingerprint():
    return source_fingerprint(capexport.load_captioner())


@pytest.mark.parametrize("to", READY)
def test_a_shipped_bundle_is_of_the_captioner_beside_it(to, fingerprint):
    bundle = read_bundle(shipped_bundle(to, DEFAULT_RECIPE))
    assert (bundle.manifest.format, bundle.manifest.recipe) == (to, DEFAULT_RECIPE)
    assert bundle.manifest.source_sha256 == fingerprint
    assert all(check.holds for check in bundle.manifest.gate)


@pytest.mark.parametrize("to", READY)
def test_a_shipped_bundle_says_what_keras_said(to):
    checks = capexport.verify(shipped_bundle(to, DEFAULT_RECIPE)).checks
    assert all(check.holds for check in checks), [check for check in checks if not check.holds]


def test_all_that_ships_is_small():
    """7.2 MB are the goal for the graphs of a bundle, 32 MB for everything."""
    folders = [shipped_captioner(), *(shipped_bundle(to, DEFAULT_RECIPE) for to in READY)]
    sizes = {path: path.stat().st_size for folder in folders for path in folder.iterdir()}
    assert sum(sizes.values()) <= 32e6
    for folder in folders[1:]:
        graphs = [size for path, size in sizes.items() if path.parent == folder and path.suffix in (".onnx", ".tflite")]
        assert 0 < sum(graphs) <= 7.2e6


def test_a_recipe_that_does_not_ship_is_not_there():
    assert shipped_bundle("onnx", "fp32") is None
    assert DEFAULT_RECIPE in RECIPES
