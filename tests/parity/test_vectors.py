"""Parity vectors: what is packed comes back."""

import numpy as np

from capexport.parity.vectors import diagonal, pack, unpack


def test_there_and_back(tiny_bundle, photos):
    vectors = unpack(tiny_bundle.files["parity.npz"], tiny_bundle.manifest)
    assert [vector.photo for vector in vectors] == [photo.name for photo in photos[:3]]
    again = unpack(pack(vectors), tiny_bundle.manifest)
    for one, other in zip(vectors, again, strict=True):
        ours, theirs = ({**vars(vector), **vector.memory, "memory": [*vector.memory]} for vector in (one, other))
        assert ours.keys() == theirs.keys() > {"pixels", "cross_keys_0", "logits"}
        for name, values in ours.items():
            np.testing.assert_array_equal(values, theirs[name], strict=isinstance(values, np.ndarray))


def test_the_diagonal_meets_every_row_and_column():
    for side in (1, 2, 7, 10):
        rows, columns = np.divmod(np.arange(side * side)[diagonal((side, side))], side)
        np.testing.assert_array_equal(rows, np.arange(side))
        np.testing.assert_array_equal(columns, np.arange(side))
