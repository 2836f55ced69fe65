"""The threads that engines are given: those that were asked for, and one for what is too short to be shared."""

from contextlib import ExitStack

import onnxruntime
import pytest

from capexport.runtime import tflite
from capexport.runtime.engines import open_bundle


@pytest.fixture(params=["onnx", "tflite"])
def bundle(request, tiny_bundles):
    return tiny_bundles[request.param, "fp32"]


@pytest.fixture
def opened(bundle, monkeypatch):
    """Of each graph that is opened: its name and threads; 0 or None where they are left to the engine."""
    names = {bundle.graph(name): name for name in ("encoder", "decoder")}
    session, interpreter, seen = onnxruntime.InferenceSession, tflite.Interpreter, []

    def open_session(model, options, **more):
        seen.append((names[model], options.intra_op_num_threads))
        return session(model, options, **more)

    def open_interpreter(model_content, num_threads):
        seen.append((names[model_content], num_threads))
        return interpreter(model_content=model_content, num_threads=num_threads)

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    monkeypatch.setattr(tflite, "Interpreter", open_interpreter)
    return seen


@pytest.mark.parametrize("threads", [1, 2, None])
def test_the_encoder_has_those_asked_for_and_the_decoder_one(threads, bundle, opened):
    left = 0 if bundle.manifest.format == "onnx" else None
    open_bundle(bundle, threads)
    assert opened == [("decoder", 1), ("encoder", left if threads is None else threads)]


def test_graphs_of_one_thread_among_several_have_one(bundle, opened):
    """Where an engine lets several threads in, they share what there is."""
    crowd = open_bundle(bundle, threads=2).crowd
    first, once = len(opened), bundle.manifest.format == "onnx"
    with ExitStack() as several:
        for _ in range(2):
            several.enter_context(crowd.backend())
    assert opened[first:] == ([("encoder", 1)] if once else [("encoder", 1), ("decoder", 1)] * 2)
