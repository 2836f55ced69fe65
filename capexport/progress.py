"""Progress bars (rich) on standard error: shown on a terminal, silent in a pipe. Captioning does without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, TypeVar

from .errors import MissingExtraError

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, wrap_file
except ModuleNotFoundError as error:
    raise MissingExtraError("rich", "convert") from error

T = TypeVar("T")

console = Console(stderr=True)


@contextmanager
def bar() -> Iterator[Progress]:
    """A progress display; add tasks to it, with free text in the field `status`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield progress


def track(items: Iterable[T], total: int | None, description: str) -> Iterator[T]:
    """Yield the items and show how many have gone by, of how many if that is known."""
    with bar() as progress:
        task = progress.add_task(description, total=total, status="")
        for item in items:
            yield item
            progress.advance(task)


@contextmanager
def track_bytes(stream: BinaryIO, total: int | None, description: str) -> Iterator[BinaryIO]:
    """The stream, its reading shown."""
    with wrap_file(
        stream, total=total or 0, description=description, console=console, disable=not console.is_terminal
    ) as tracked:
        yield tracked
