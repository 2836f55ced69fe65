"""How a bundle on disk is changed, and that it is refused."""

import json

import pytest

from capexport import BundleError, read_bundle


def edit(bundle, change):
    """Change the object that a bundle's manifest holds."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def refused(bundle, match):
    """The bundle is refused when it is read, in words that can be printed."""
    with pytest.raises(BundleError, match=match) as caught:
        read_bundle(bundle)
    assert str(caught.value).isprintable()
