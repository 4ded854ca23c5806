"""Tests of the clocks: by hand, against event loops of their own, and their laws."""

from typing import Any

import numpy as np
import pytest

from gmc_jax import paces, timelines, topologies
from gmc_jax.clocks.link import Link

RING = topologies.ring(4)
FREE = Link()


def test_all_reduce_waits_for_the_slowest_and_passes_round():
    pace = np.array([[1.0, 4.0], [2.0, 3.0]])
    link = Link(latency=0.1, bandwidth=100.0)
    once = 2 * (0.1 + 10 / 100)  # two messages of half of 20 bytes
    times = timelines.all_reduce_times(pace, 3, 20, link)
    np.testing.assert_allclose(times, [2 + once, 6 + 2 * once, 8 + 3 * once])
    alone = timelines.all_reduce_times(pace[:1], 2, 20, link)
    np.testing.assert_allclose(alone, [1, 5])


def test_local_steps_wait_only_where_they_meet():
    """So that a slow moment here and one there cost less than both."""
    pace = np.array([[1.0, 4.0], [4.0, 1.0]])
    times = timelines.all_reduce_times(pace, 4, 0, FREE, period=2)
    np.testing.assert_allclose(times, [4, 5, 9, 10])
    each = timelines.all_reduce_times(pace, 4, 0, FREE)
    np.testing.assert_allclose(each, [4, 8, 12, 16])


def test_gossip_waits_for_neighbours_only():
    """A delay travels one neighbour a step; messages cross while gradients compute."""
    pace = np.ones((6, 10))
    pace[0, 0] = 5.0
    times = timelines.gossip_times(pace, 3, 0, FREE, topologies.ring(6))
    np.testing.assert_allclose(times, [5, 6, 7])
    link = Link(bandwidth=10.0)
    cheap = timelines.gossip_times(np.ones((4, 1)), 3, 4, link, RING)
    np.testing.assert_allclose(cheap, [1, 2, 3])  # two messages of 0.4 s
    dear = timelines.gossip_times(np.ones((4, 1)), 3, 10, link, RING)
    np.testing.assert_allclose(dear, [2, 4, 6])


def test_the_server_by_hand():
    """Three workers fetch one after the other, compute 10 s, and send."""
    events = timelines.server_events(paces.constant(3, 10.0), 4, 1, Link(bandwidth=1.0))
    # Fetched at 1, 2, 3; computed at 11, 12, 13. Worker 0 sends until 12 and fetches
    # again, before worker 1 who comes at the same time and sends until 14; then worker
    # 2, who came at 13, sends until 15, and only then do 1 and 2 fetch.
    np.testing.assert_allclose(events.time, [12, 14, 15, 24])
    np.testing.assert_array_equal(events.worker, [0, 1, 2, 0])
    expected = [[True, False, False], [False] * 3, [False, True, True], [False] * 3]
    np.testing.assert_array_equal(events.reads, expected)
    np.testing.assert_array_equal(events.partner, events.worker)


def test_the_first_fetch_takes_time_and_is_no_event():
    """All fetch at second 0, one after another; `reads` begins after that."""
    link = Link(latency=0.5, bandwidth=1.0)
    events = timelines.server_events(paces.constant(4, 100.0), 4, 1, link)
    np.testing.assert_allclose(events.time[0], 1.5 + 100 + 1.5)
    np.testing.assert_array_equal(events.worker, [0, 1, 2, 3])
    assert events.reads.sum() <= 4  # Those after gradients alone.


def test_the_server_congests():
    """However many workers there are, its link carries two messages a gradient."""
    link = Link(bandwidth=1.0)
    for workers in (1, 4, 16, 64):
        pace = paces.constant(workers, 10.0)
        events = timelines.server_events(pace, 300, 1, link)
        assert events.time[-1] / 300 == pytest.approx(max(12 / workers, 2), rel=0.1)


def test_every_gradient_is_of_what_was_read_before():
    pace = paces.random(5, 100, spread=0.5)
    events = timelines.server_events(pace, 60, 1, Link(0.01, 100.0))
    assert (np.diff(events.time) >= 0).all()
    since = np.zeros(5, int)
    for worker, reads in zip(events.worker, events.reads, strict=True):
        since += np.arange(5) == worker
        assert since.max() <= 1  # nobody sends twice what it read once
        since[reads] = 0


def test_neighbours_by_hand():
    """Two workers: 0 is active. Its exchange takes 3 s, and a gradient 2 s."""
    events = timelines.neighbour_events(
        paces.constant(2, 2.0), 5, 3, Link(bandwidth=1.0), topologies.ring(2)
    )
    np.testing.assert_allclose(events.time, [2, 3, 4, 6, 6])
    np.testing.assert_array_equal(events.worker, [1, 0, 1, 0, 1])
    np.testing.assert_array_equal(events.partner, [1, 1, 1, 1, 1])


def test_a_straggler_holds_nobody_up():
    slow = paces.straggler(4, factor=10)
    events = timelines.neighbour_events(slow, 310, 0, FREE, RING)
    assert events.time[-1] == pytest.approx(100, rel=0.02)
    counts = np.bincount(events.worker)
    np.testing.assert_allclose(counts, [10, 100, 100, 100], atol=1)
    reads = events.reads
    np.testing.assert_array_equal(reads.sum(axis=1), 1)
    np.testing.assert_array_equal(reads.argmax(axis=1), events.worker)


def test_the_active_side_starts_all_averages():
    events = timelines.neighbour_events(
        paces.random(8, 50, spread=0.3), 400, 0, FREE, topologies.ring(8)
    )
    alone = events.partner == events.worker
    np.testing.assert_array_equal(alone, events.worker % 2 == 1)
    distance = (events.partner - events.worker)[~alone] % 8
    assert set(distance) == {1, 7}
    assert abs((distance == 1).mean() - 0.5) < 0.1
    again = timelines.neighbour_events(
        paces.random(8, 50, spread=0.3), 400, 0, FREE, topologies.ring(8)
    )
    for one, other in zip(events, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (np.diff(events.time) >= 0).all()


def test_links_carry_one_exchange_at_a_time():
    """All active workers of a star average with its centre, one after another."""
    star = np.zeros((5, 5))
    star[0, 1:] = star[1:, 0] = 1
    flipped = topologies.from_adjacency(np.roll(star, (1, 1), axis=(0, 1)))
    events = timelines.neighbour_events(
        paces.constant(5, 0.1), 200, 1, Link(bandwidth=1.0), flipped
    )
    averages = events.time[events.partner != events.worker]
    assert np.diff(averages).min() >= 1 - 1e-9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: timelines.server_events(np.ones((2, 1)), 0, 1, FREE), "`gradients`"),
        (lambda: timelines.server_events(np.ones((2, 1)), 3, -1, FREE), "`size`"),
        (lambda: timelines.all_reduce_times(np.ones(2), 3, 1, FREE), "`pace` must"),
        (lambda: timelines.all_reduce_times(-np.ones((2, 1)), 3, 1, FREE), "`pace`"),
        (lambda: Link(latency=-1.0), "`latency`"),
        (lambda: Link(bandwidth=0.0), "`bandwidth`"),
        (
            lambda: timelines.neighbour_events(
                np.ones((3, 1)), 5, 1, FREE, topologies.ring(3)
            ),
            r"two sides.* neighbours on the same",
        ),
        (
            lambda: timelines.neighbour_events(
                np.ones((8, 1)), 5, 1, FREE, topologies.exponential(8)
            ),
            "symmetric",
        ),
        (
            lambda: timelines.gossip_times(np.ones((3, 1)), 5, 1, FREE, RING),
            "`pace` is of 3 workers, but `topology` of 4",
        ),
    ],
)
def test_errors_name_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_rows_are_events_and_count_each_workers_own():
    events = timelines.server_events(paces.random(3, 9, spread=1.0), 20, 0, FREE)
    seen = np.zeros(3, int)
    for row, count, reads in zip(
        events.rows(), events.counts, events.reads, strict=True
    ):
        assert row.partner == row.worker
        np.testing.assert_array_equal(row.reads, reads)
        assert count == seen[row.worker]
        seen[row.worker] += 1
    assert seen.sum() == 20


def test_a_matrix_is_no_topology():
    matrix: Any = np.eye(4)
    with pytest.raises(TypeError, match="`topology` must be a topology"):
        timelines.neighbour_events(paces.constant(4), 5, 1, FREE, matrix)
