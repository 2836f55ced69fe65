"""The one place through which onnxruntime is first imported: without its telemetry.

It would keep events about the process in the user's cache, and ask the network for their collector.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
