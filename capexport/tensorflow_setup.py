"""The one place through which TensorFlow is first imported: in silence, or with a clear error."""

from __future__ import annotations

import importlib
import os
import sys

from .errors import MissingExtraError
from .quiet import silenced_stderr, uninterrupted

EXTRA = "convert"
PACKAGES = ("tensorflow", "tf_keras", "einops", "safetensors")


def import_tensorflow() -> None:
    """Import TensorFlow and tf_keras without a word on standard error; raises MissingExtraError."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if all(package in sys.modules for package in PACKAGES):
        return
    with uninterrupted(), silenced_stderr():
        for package in PACKAGES:
            try:
                importlib.import_module(package)
            except ModuleNotFoundError as error:
                raise MissingExtraError(error.name or package, EXTRA) from error
        tensorflow = sys.modules["tensorflow"]
        tensorflow.config.list_physical_devices()  # the search for a GPU is what its log is loudest about
        tensorflow.get_logger().setLevel("ERROR")
