"""Graphs' files that are refused before an engine sees them."""

import pytest

from capexport import BundleError
from capexport.structure import check_graph


def refused(to, data, match):
    with pytest.raises(BundleError, match=match):
        check_graph(to, data, "the graph")
