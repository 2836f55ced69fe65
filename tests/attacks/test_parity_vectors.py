"""Parity vectors that are damaged or made to do harm, correctly signed: refused before anything is computed."""

import dataclasses
import io
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capexport import BundleError
from capexport.bundle import write_bundle
from capexport.cli.main import main
from capexport.parity.vectors import pack, unpack


@pytest.fixture
def packed(tiny_bundle):
    return tiny_bundle.files["parity.npz"]


@pytest.fixture
def first(packed, tiny_bundle):
    return unpack(packed, tiny_bundle.manifest)[0]


def zipped(members, **options):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def saved(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def memory(vector, change):
    return {"memory": {name: change(values) for name, values in vector.memory.items()}}


CHANGES = {
    "another dtype": lambda v: {"logits": v.logits.astype(np.float64)},
    "tokens as numbers with fractions": lambda v: {"tokens": v.tokens.astype(np.float32)},
    "pixels as text": lambda v: {"pixels": v.pixels.astype(str)},
    "a name that is no text": lambda v: {"photo": 7},
    "two names": lambda v: {"photo": ["cat.jpg", "dog.jpg"]},
    "another size of photo": lambda v: {"pixels": v.pixels[1:]},
    "no photo": lambda v: {"pixels": v.pixels[:0]},
    "another vocabulary": lambda v: {"logits": v.logits[:, 1:]},
    "fewer steps in one than in another": lambda v: {"attention": v.attention[1:]},
    "another feature map": lambda v: {"attention": v.attention.reshape(len(v.tokens), 1, -1)},
    "fewer heads": lambda v: memory(v, lambda values: values[:1]),
    "more positions": lambda v: memory(v, lambda values: np.repeat(values, 2, axis=1)),
    "tokens in two dimensions": lambda v: {"tokens": v.tokens[np.newaxis]},
    "a token that is no word": lambda v: {"tokens": np.append(v.tokens[:-1] + 30, v.tokens[-1:])},
    "a token below zero": lambda v: {"tokens": np.append(v.tokens[:-1] - 30, v.tokens[-1:])},
    "no end": lambda v: {"tokens": np.full_like(v.tokens, 5)},
    "two ends": lambda v: {"tokens": np.full_like(v.tokens, v.tokens[-1])},
    "not a number": lambda v: {"logits": v.logits * np.float32(np.nan)},
    "infinite": lambda v: memory(v, lambda values: values + np.float32(np.inf)),
    "every word banned": lambda v: {"logits": np.full_like(v.logits, -1e9)},
    "no steps": lambda v: {key: getattr(v, key)[:0] for key in ("tokens", "logits", "log_probabilities", "attention")},
    "too many steps": lambda v: {
        key: np.concatenate([getattr(v, key)[:1]] * 9 + [getattr(v, key)])
        for key in ("tokens", "logits", "log_probabilities", "attention")
    },
}


@pytest.mark.parametrize("name", CHANGES)
def test_vectors_that_do_not_fit(name, first, tiny_bundle):
    data = pack([first, dataclasses.replace(first, **CHANGES[name](first))])
    with pytest.raises(BundleError, match="parity vector 1 has"):
        unpack(data, tiny_bundle.manifest)


def test_memory_that_is_missing_or_of_another_form(first, tiny_bundle):
    names = [*first.memory]
    for other in (names[:-1], [*names, "cross_features"], [], ["cross_features"]):
        data = pack([dataclasses.replace(first, memory=dict.fromkeys(other, first.memory[names[0]]))])
        with pytest.raises(BundleError, match="missing or unknown arrays"):
            unpack(data, tiny_bundle.manifest)


@pytest.mark.parametrize("feature_map", [(7, 7), (0, 0), (2**39, 2**39)])
def test_vectors_of_another_bundle(feature_map, packed, tiny_bundle):
    shape = dataclasses.replace(tiny_bundle.manifest.shape, feature_map=feature_map)
    with pytest.raises(BundleError, match="parity vector 0 has cross"):
        unpack(packed, dataclasses.replace(tiny_bundle.manifest, shape=shape))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        saved(np.zeros(3)),
        pickle.dumps([1]),
        zipped({}),
        zipped({"0.tokens.npy": saved(np.zeros(3, np.int32))}),
        zipped({"0.tokens.npy": saved(np.array([print]))}),
        zipped({f"0.{key}": b"bytes" for key in ("pixels", "cross_keys_0", "tokens", "logits", "attention", "photo")}),
        zipped({"0.tokens.npy": header(b"{'descr': '<i4', 'fortran_order': False, 'shape': (999999999999999,)}\n")}),
        zipped({"0.tokens.npy": header(b"[" * 9000)}),
    ],
)
def test_files_that_hold_no_vectors(data, tiny_bundle):
    with pytest.raises(BundleError, match="parity vectors"):
        unpack(data, tiny_bundle.manifest)


def test_members_that_are_no_arrays(packed, tiny_bundle):
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        names = archive.namelist()
    with pytest.raises(BundleError, match="parity vector 0 has"):
        unpack(zipped(dict.fromkeys(names, b"bytes")), tiny_bundle.manifest)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), cut=st.booleans())
def test_any_damage_is_refused_or_harmless(place, byte, cut, first, tiny_bundle):
    data = bytearray(pack([first]))
    data[int(place * len(data))] = byte
    try:
        unpack(bytes(data[: int(place * len(data))] if cut else data), tiny_bundle.manifest)
    except BundleError as error:
        assert str(error)


def test_the_command_says_it_in_one_sentence(first, tiny_bundle, tmp_path, capsys):
    other = pack([dataclasses.replace(first, logits=first.logits[:, 1:])])
    write_bundle(tmp_path / "hostile", tiny_bundle.manifest, {**tiny_bundle.files, "parity.npz": other})
    assert main(["verify", str(tmp_path / "hostile")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "has logits of float32" in err


def test_graphs_that_are_not_of_the_manifests_shape(first, tiny_bundle, tmp_path):
    """Vectors and manifest agree with each other, but not with the graphs."""
    shape = dataclasses.replace(tiny_bundle.manifest.shape, key_dim=3)
    vector = dataclasses.replace(first, **memory(first, lambda values: values[..., :3].copy()))
    manifest = dataclasses.replace(tiny_bundle.manifest, shape=shape)
    with pytest.raises(BundleError, match="cross_keys_0' of another type or shape"):
        write_bundle(tmp_path / "hostile", manifest, {**tiny_bundle.files, "parity.npz": pack([vector])})
    assert list(tmp_path.iterdir()) == []
