"""How a bundle on disk is changed, and that it is refused."""

import hashlib
import json

import pytest

from capexport import BundleError, read_bundle


def edit(bundle, change):
    """Change the object that a bundle's manifest holds."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def sign(bundle, name, data):
    """Put these bytes in the place of a file, with their hash in the manifest."""
    (bundle / name).write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    edit(bundle, lambda manifest: manifest["files"].update({name: entry}))


def refused(bundle, match):
    """The bundle is refused when it is read, in words that can be printed."""
    with pytest.raises(BundleError, match=match) as caught:
        read_bundle(bundle)
    assert str(caught.value).isprintable()
