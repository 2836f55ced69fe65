"""A folder that was captioned, and its review, served."""

from __future__ import annotations

import threading

import pytest

import capexport
from capexport import DecodingOptions
from capexport.batch.run import Folder, caption_folder
from capexport.review.captions import open_captions
from capexport.review.pictures import Pictures
from capexport.review.server import ReviewServer
from tests.batch.conftest import folder  # noqa: F401


@pytest.fixture
def captioned(tiny_bundle, folder, tmp_path):  # noqa: F811
    """30 rows, two of them broken."""
    out = tmp_path / "captions.jsonl"
    caption_folder(capexport.load(tiny_bundle, threads=2), Folder(folder, out), DecodingOptions())
    return out


@pytest.fixture
def captions(captioned):
    with open_captions(captioned) as opened:
        yield opened


@pytest.fixture
def server(captions, tiny_bundle):
    pictures = Pictures(captions.path.parent, lambda: capexport.load(tiny_bundle))
    with ReviewServer(captions, pictures) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield running
        running.shutdown()
