"""The command line: finds the command, runs it, turns the errors a user can cause into one sentence."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from ..errors import CapexportError, printable

COMMANDS = {
    "caption": "caption photos with a bundle",
    "review": "look through captions in the browser: accept, edit or empty them",
    "convert": "export a captioner to ONNX or TFLite",
    "verify": "hold a bundle against Keras",
    "evaluate": "score captions against people's: BLEU, METEOR, ROUGE-L, CIDEr, SPICE",
    "compare": "measure bundles side by side: size, quality, likeness, latency, memory",
    "bench": "time bundles and Keras side by side",
    "train": "train a captioner on photos with captions",
    "distill": "train an encoder from scratch to imitate another",
    "web": "make a static page that captions in the browser",
    "recipes": "list formats and recipes",
}
USER_ERROR, INTERRUPTED, TERMINATED = 2, 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for an error the user can mend, 130 for Ctrl-C, 143 for SIGTERM."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: names may have signs that it lacks
    try:
        with _ended_by_sigterm():
            parsed = _parser(arguments).parse_args(arguments)
            return int(parsed.run(parsed) or 0)
    except KeyboardInterrupt:
        return _end("interrupted.", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except (CapexportError, MemoryError, ImportError, OSError) as error:
        if _by_interrupt(error):
            return _end("interrupted.", INTERRUPTED)
        return _end(_sentence(error), USER_ERROR)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the process as an exception does, so that what is half-written goes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _sentence(error: BaseException) -> str:
    match error:
        case CapexportError():
            return str(error)
        case MemoryError():
            return "there is not enough memory for this."
        case ImportError():  # of a library that lacks a part, or for which there is not enough memory
            return f"a library cannot be loaded: {printable(str(error))}"
    return printable(str(error))


def _by_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: libraries that it meets while they are loaded raise one of their own."""
    return error is not None and (
        isinstance(error, KeyboardInterrupt) or _by_interrupt(error.__cause__ or error.__context__)
    )


def _end(sentence: str, code: int) -> int:
    print(f"capexport: {sentence}", file=sys.stderr)
    return code


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; only the chosen command's module is imported, so that captioning never loads TensorFlow."""
    parser = argparse.ArgumentParser(
        prog="capexport", description="Trained image captioners on phones, browsers and edge boxes."
    )
    parser.add_argument("--version", action="version", version=f"capexport {importlib.metadata.version('capexport')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == chosen:
            importlib.import_module(f".{name}", __package__).configure(command)
    return parser
