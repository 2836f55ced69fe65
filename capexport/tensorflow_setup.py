"""The one place through which TensorFlow is first imported: in silence, or with a clear error."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import MissingExtraError
from .quiet import silenced_stderr, uninterrupted

EXTRA = "convert"
PACKAGES = ("tensorflow", "tf_keras", "einops", "safetensors")


def import_tensorflow() -> None:
    """Import TensorFlow and tf_keras without a word on standard error; raises MissingExtraError."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if all(package in sys.modules for package in PACKAGES):
        return
    with uninterrupted(), silenced_stderr(), _uncollected():
        for package in PACKAGES:
            try:
                importlib.import_module(package)
            except ModuleNotFoundError as error:
                raise MissingExtraError(error.name or package, EXTRA) from error
        tensorflow = sys.modules["tensorflow"]
        tensorflow.config.list_physical_devices()  # the search for a GPU is what its log is loudest about
        tensorflow.get_logger().setLevel("ERROR")


@contextmanager
def _uncollected() -> Iterator[None]:
    """Spare the garbage collector what is made meanwhile, which stays: it would look through it again and again.

    That is a fifth of the time in which TensorFlow is imported, and a twentieth of all that is done with it after.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
