"""Tests of timelines: cases computed by hand, and laws of the order of events."""

from typing import Any

import numpy as np
import pytest

from gmc_jax import paces, timelines, topologies
from gmc_jax.clocks.link import Link

RING = topologies.ring(4)
FREE = Link()


def test_a_synchronous_step_is_the_slowest_gradient_and_a_ring():
    pace = np.array([[1.0, 4.0], [2.0, 3.0]])
    link = Link(latency=0.1, bandwidth=100.0)
    once = 2 * (0.1 + 10 / 100)  # Two messages of half of 20 bytes.
    times = timelines.all_reduce_times(pace, 3, 20, link)
    np.testing.assert_allclose(times, [2 + once, 6 + 2 * once, 8 + 3 * once])
    alone = timelines.all_reduce_times(pace[:1], 2, 20, link)
    np.testing.assert_allclose(alone, [1, 5])


def test_local_steps_wait_only_when_workers_synchronise():
    """Slow gradients of different workers overlap between synchronisations."""
    pace = np.array([[1.0, 4.0], [4.0, 1.0]])
    times = timelines.all_reduce_times(pace, 4, 0, FREE, period=2)
    np.testing.assert_allclose(times, [4, 5, 9, 10])
    each = timelines.all_reduce_times(pace, 4, 0, FREE)
    np.testing.assert_allclose(each, [4, 8, 12, 16])


def test_gossip_waits_for_neighbours_only():
    """A delay reaches one neighbour further a step; messages overlap computation."""
    pace = np.ones((6, 10))
    pace[0, 0] = 5.0
    times = timelines.gossip_times(pace, 3, 0, FREE, topologies.ring(6))
    np.testing.assert_allclose(times, [5, 6, 7])
    link = Link(bandwidth=10.0)
    cheap = timelines.gossip_times(np.ones((4, 1)), 3, 4, link, RING)
    np.testing.assert_allclose(cheap, [1, 2, 3])  # Two messages of 0.4 s.
    expensive = timelines.gossip_times(np.ones((4, 1)), 3, 10, link, RING)
    np.testing.assert_allclose(expensive, [2, 4, 6])


def test_server_events_computed_by_hand():
    """Three workers fetch one after the other, compute 10 s, and send."""
    events = timelines.server_events(paces.constant(3, 10.0), 4, 1, Link(bandwidth=1.0))
    # Fetched at 1, 2, 3; computed at 11, 12, 13. Worker 0 sends until 12. At 12 it asks
    # to fetch and worker 1 asks to send. The lower worker goes first, so worker 1 sends
    # until 14. Worker 2 asked at 13 and sends until 15. Then workers 1 and 2 fetch.
    np.testing.assert_allclose(events.time, [12, 14, 15, 24])
    np.testing.assert_array_equal(events.worker, [0, 1, 2, 0])
    expected = [[True, False, False], [False] * 3, [False, True, True], [False] * 3]
    np.testing.assert_array_equal(events.reads, expected)
    np.testing.assert_array_equal(events.partner, events.worker)


def test_the_first_fetch_takes_time_but_is_no_event():
    """All workers fetch at second 0, one after another; `reads` begins after that."""
    link = Link(latency=0.5, bandwidth=1.0)
    events = timelines.server_events(paces.constant(4, 100.0), 4, 1, link)
    np.testing.assert_allclose(events.time[0], 1.5 + 100 + 1.5)
    np.testing.assert_array_equal(events.worker, [0, 1, 2, 3])
    assert events.reads.sum() <= 4  # Only fetches that follow a gradient.


def test_the_server_congests():
    """For any number of workers, its link carries two messages a gradient."""
    link = Link(bandwidth=1.0)
    for workers in (1, 4, 16, 64):
        pace = paces.constant(workers, 10.0)
        events = timelines.server_events(pace, 300, 1, link)
        assert events.time[-1] / 300 == pytest.approx(max(12 / workers, 2), rel=0.1)


def test_every_gradient_is_taken_at_parameters_read_before():
    pace = paces.random(5, 100, spread=0.5)
    events = timelines.server_events(pace, 60, 1, Link(0.01, 100.0))
    assert (np.diff(events.time) >= 0).all()
    since = np.zeros(5, int)
    for worker, reads in zip(events.worker, events.reads, strict=True):
        since += np.arange(5) == worker
        assert since.max() <= 1  # No worker sends two gradients after one read.
        since[reads] = 0


def test_neighbour_events_computed_by_hand():
    """Two workers: 0 is active. Its exchange takes 3 s, and a gradient 2 s."""
    events = timelines.neighbour_events(
        paces.constant(2, 2.0), 5, 3, Link(bandwidth=1.0), topologies.ring(2)
    )
    np.testing.assert_allclose(events.time, [2, 3, 4, 6, 6])
    np.testing.assert_array_equal(events.worker, [1, 0, 1, 0, 1])
    np.testing.assert_array_equal(events.partner, [1, 1, 1, 1, 1])


def test_a_straggler_delays_no_other_worker():
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
    """The active workers of a star average with its centre one after another."""
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
        (
            lambda: timelines.neighbour_events(
                np.ones((3, 1)), 5, 1, FREE, topologies.ring(3)
            ),
            "must be bipartite.* on the same side",
        ),
        (
            lambda: timelines.neighbour_events(
                np.ones((8, 1)), 5, 1, FREE, topologies.exponential(8)
            ),
            "symmetric",
        ),
        (
            lambda: timelines.gossip_times(np.ones((3, 1)), 5, 1, FREE, RING),
            "same number of workers, got 3 and 4",
        ),
    ],
)
def test_errors_name_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_rows_are_events_and_counts_are_those_of_each_worker():
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


def test_a_matrix_is_refused_as_a_topology():
    matrix: Any = np.eye(4)
    with pytest.raises(TypeError, match="`topology` must be a topology"):
        timelines.neighbour_events(paces.constant(4), 5, 1, FREE, matrix)
