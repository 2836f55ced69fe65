"""What follows from rates: cores, hours, what is lost with nodes."""

import pytest

from benchmarks.scale import Measured, Wanted, cores_for, measure, report, simulate

MEASURED = Measured(caption=0.01, read=0.004, start=1.0, row=1e-5, shard=0.05, photo_bytes=1e5, row_bytes=500)


def test_cores_are_as_many_as_the_work_takes():
    wanted = Wanted(photos=1e6, hours=1, in_a_shard=1000)
    assert cores_for(MEASURED, wanted) == 3  # 1,000 shards of 10.05 s in 3,599 s
    hours, wasted = simulate(MEASURED, Wanted(photos=1e6, hours=1, in_a_shard=1000, node_hours_between_losses=1e9), 3)
    assert hours == pytest.approx(334 * 10.05 / 3600 + 1 / 3600, rel=1e-3)
    assert wasted == 0


def test_nodes_that_are_lost_cost_what_they_had_begun():
    often = Wanted(photos=1e6, in_a_shard=1000, cores_a_node=1, node_hours_between_losses=0.1)
    found = [simulate(MEASURED, often, 3, seed) for seed in range(20)]
    lost = sum(wasted for _, wasted in found) / 20
    assert lost == pytest.approx(0.5 * 10.05 / 360, rel=0.35)  # half a shard at each loss
    assert all(hours > 334 * 10.05 / 3600 for hours, _ in found)


def test_it_measures_and_reports(tiny_bundle, photos):
    measured = measure(photos[0].parent, tiny_bundle.directory, 2, rounds=1)
    assert 0 < measured.read < measured.caption
    assert measured.start > 0.05
    assert "| cores | " in report(measured, Wanted(photos=1e5))
