"""Command-line options made from dataclasses, so that both have the same names and defaults."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from typing import Any, TypeVar

T = TypeVar("T")


def add_options(parser: argparse.ArgumentParser, kind: type[Any], without: tuple[str, ...] = ()) -> None:
    """An option --field-name for each field of the dataclass."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name not in without:
            number = next(t for t in (*typing.get_args(hints[field.name]), hints[field.name]) if t in (int, float, str))
            parser.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=number,
                default=field.default,
                metavar=number.__name__[0].upper(),
                help="" if field.default is None else f"(default: {field.default})",
            )


def read_options(kind: type[T], parsed: argparse.Namespace, **others: Any) -> T:
    """The dataclass filled from the parsed options; raises what the dataclass raises."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(parsed, name) for name in names if name not in others}, **others)
