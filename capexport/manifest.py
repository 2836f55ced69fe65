"""What a bundle says of itself: dataclasses, and their strict reading from JSON."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import BundleError
from .plain import quoted, shortened

SCHEMA = 3
MANIFEST, VOCABULARY, PARITY = "manifest.json", "vocabulary.txt", "parity.npz"
CAPTIONER = "captioner"  # the graph that a bundle may have beside its encoder and decoder
FEATURES = "cross_features"  # what an encoder gives that projects no keys and values: see export.cross_attention
STATES = "self_states_"  # with a layer's number, the cache of a decoder that projects none: see export.self_attention
SIGNATURES = {CAPTIONER: "caption", "encoder": "encode", "decoder": "decode"}  # of graphs that share one file
MAX_BYTES = 1_000_000
MAX_TEXT = 1000  # characters

T = TypeVar("T")


@dataclass(frozen=True)
class Tensor:
    """A graph's input or output; a dimension that varies has a symbol (B batch, P past length, T steps)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Graph:
    """One of a bundle's graphs: its file and what goes in and comes out, by name.

    multiplications  by weights, for one photo or one token; of the graph for whole captions, for the longest caption
    """

    file: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    multiplications: int

    @property
    def varying(self) -> tuple[str, ...]:
        """The symbols of its inputs' dimensions that are not static, which some accelerators refuse."""
        return tuple(sorted({n for tensor in self.inputs for n in tensor.shape if isinstance(n, str)}))


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes the encoder's input: uint8 RGB (height, width, 3), see image.py."""

    size: tuple[int, int]
    resize: str


@dataclass(frozen=True)
class Shape:
    """The captioner's own measures; feature_map is (height, width) of the attention maps."""

    layers: int
    heads: int
    key_dim: int
    units: int
    vocabulary: int
    max_length: int
    feature_map: tuple[int, int]


@dataclass(frozen=True)
class File:
    """What a file of the bundle must be."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was found, what is allowed, and whether it holds.

    Where nothing is named as allowed, what was found is only reported.
    """

    name: str
    found: str
    allowed: str = ""
    holds: bool = True


@dataclass(frozen=True)
class Manifest:
    """The whole of manifest.json.

    graphs  encoder, decoder (one step of it) and, where there is one, captioner, which makes whole captions
    gate   what was found on the calibration photos when the bundle was made
    files  every file of the bundle but the manifest itself
    """

    schema: int
    format: str
    recipe: str
    shape: Shape
    preprocessing: Preprocessing
    special_tokens: dict[str, int]
    graphs: dict[str, Graph]
    files: dict[str, File]
    gate: tuple[Check, ...]
    made_with: dict[str, str]
    source_sha256: str

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def parse_manifest(text: bytes) -> Manifest:
    """Read a manifest; raises BundleError for anything but a complete one of this schema version."""
    if len(text) > MAX_BYTES:
        raise BundleError(f"The manifest is larger than {MAX_BYTES} bytes.")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"The manifest is not JSON: {shortened(error)}.") from error
    version = value.get("schema") if isinstance(value, dict) else None
    if version != SCHEMA or type(version) is not int:
        raise BundleError(
            f"The bundle is of schema version {quoted(version)}; this capexport reads {SCHEMA}. Convert it anew."
        )
    return _build_dataclass(Manifest, value, "manifest")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _build(kind: Any, value: Any, where: str) -> Any:
    """The value as the annotated type, or BundleError with the place where it is not."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(value, list):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) == len(value):
            return tuple(_build(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    elif origin is dict and isinstance(value, dict):
        return {key: _build(arguments[1], item, f"{where}.{shortened(key, 80)}") for key, item in value.items()}
    elif origin is types.UnionType and type(value) in arguments:
        return _build(type(value), value, where)
    elif type(value) is kind and (
        kind is bool or (kind is str and len(value) <= MAX_TEXT) or (kind is int and 0 <= value < 2**40)
    ):
        return value
    raise BundleError(f"The bundle's {where} is {quoted(value)}, which is not what belongs there.")


def _build_dataclass(kind: type[T], value: Any, where: str) -> T:
    hints = typing.get_type_hints(kind)
    if not isinstance(value, dict) or value.keys() != hints.keys():
        odd = sorted(value.keys() ^ hints.keys()) if isinstance(value, dict) else ["object"]
        raise BundleError(f"The bundle's {where} has missing or unknown keys: {', '.join(odd)[:200]}.")
    return kind(**{name: _build(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})
