"""Command-line options made from dataclasses, so that both have the same names, defaults and explanations."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import typing
from typing import Any, TypeVar

PRIVATE_HOSTS = "fetch photos from this machine and from private networks, too"

T = TypeVar("T")


def add_options(parser: argparse._ActionsContainer, kind: type[Any], without: tuple[str, ...] = ()) -> None:
    """An option --field-name for each field of the dataclass, explained as in its docstring."""
    hints = typing.get_type_hints(kind)
    explained = _explanations(kind)
    for field in dataclasses.fields(kind):
        if field.name not in without:
            default = f" (default: {field.default})" if field.default not in (None, "", ()) else ""
            parser.add_argument(
                f"--{field.name.replace('_', '-')}",
                default=field.default,
                help=(explained.get(field.name, "") + default).strip().replace("%", "%%"),
                **_reading(hints[field.name]),
            )


def read_options(kind: type[T], parsed: argparse.Namespace, **others: Any) -> T:
    """The dataclass filled from the parsed options; raises what the dataclass raises."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(parsed, name) for name in names if name not in others}, **others)


def markdown(kind: type[Any]) -> str:
    """The dataclass as a table for the docs."""
    explained = _explanations(kind)
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for field in dataclasses.fields(kind):
        default = "" if field.default in (None, "", ()) else f"`{field.default}`"
        rows.append(f"| `{field.name}` | {default} | {explained[field.name]} |")
    return "\n".join(rows)


def _reading(hint: Any) -> dict[str, Any]:
    """How the text of an option becomes a value of the annotated type, and what the help calls it."""
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if typing.get_origin(hint) is tuple:
        return {"type": lambda text: tuple(text.split(",")), "metavar": "A,B"}
    kind = next(t for t in (*typing.get_args(hint), hint) if t in (int, float, str))
    return {"type": kind, "metavar": {int: "N", float: "X", str: "TEXT"}[kind]}


def _explanations(kind: type[Any]) -> dict[str, str]:
    """The entries of a docstring's list: a name at the start of a line, two spaces or more, its explanation."""
    entries: dict[str, str] = {}
    name = ""
    for line in (inspect.getdoc(kind) or "").splitlines():
        match = re.fullmatch(r"(\w+)\s{2,}(\S.*)", line)
        if match:
            name = match[1]
            entries[name] = match[2]
        elif name and line.startswith("  "):
            entries[name] += f" {line.strip()}"
        else:
            name = ""
    return entries
