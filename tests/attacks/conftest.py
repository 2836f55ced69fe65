"""What several attacks begin with."""

import shutil

import pytest


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    """A bundle on disk, to be damaged."""
    target = tmp_path / "bundle"
    shutil.copytree(tiny_bundle.directory, target)
    return target
