"""In which order a graph's nodes can be computed, if in any, by the names of what they read and make."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from ..plain import quoted
from .limits import MalformedError


class Node(NamedTuple):
    """A node's names; empty ones are left out. Of one that has graphs in it, what these read of it is taken, too."""

    taken: Sequence[str]
    made: Sequence[str]


def names_from_outside(given: Iterable[str], nodes: Sequence[Node], results: Iterable[str]) -> set[str]:
    """What a graph reads that it neither has from the beginning nor computes; engines follow names without looking.

    Raises MalformedError for nodes that wait for each other, and for what is computed twice.

    given    names of its inputs and constants
    results  of its outputs
    """
    known = set(given)
    makers = _makers_of(nodes)
    if known & makers.keys():
        raise MalformedError(f"its {quoted(min(known & makers.keys()))} is computed and given, too")
    before = {k: {makers[name] for name in node.taken if name in makers} for k, node in enumerate(nodes)}
    if any(k in makers for k, makers in before.items()):
        raise MalformedError("a node reads what it computes itself")
    try:
        TopologicalSorter(before).prepare()
    except CycleError:
        raise MalformedError("its nodes wait for each other") from None
    return {*results, *(name for node in nodes for name in node.taken)} - known - makers.keys() - {""}


def check_known(unknown: Collection[str]) -> None:
    """Raise MalformedError if the outermost graph reads anything from outside."""
    if unknown:
        raise MalformedError(f"it reads {quoted(min(unknown))}, which is never computed")


def _makers_of(nodes: Sequence[Node]) -> dict[str, int]:
    """The index of the node that makes each name."""
    makers: dict[str, int] = {}
    for k, node in enumerate(nodes):
        for name in node.made:
            if name in makers:
                raise MalformedError(f"its {quoted(name)} is computed twice")
            if name:
                makers[name] = k
    return makers
