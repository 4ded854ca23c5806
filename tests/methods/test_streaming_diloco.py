"""Tests of Streaming DiLoCo: DiLoCo, its transcription over fragments, the peak."""

import functools

import jax
import numpy as np
import optax
import pytest

from gmc_jax import (
    all_gather,
    corrected,
    diloco,
    distribute,
    dmsgd_local,
    eager,
    exact,
    gossip,
    link_traffic,
    message_bits,
    mix,
    no_communication,
    peak_message_bits,
    streaming_diloco,
    top_k,
    topologies,
    wire_bytes,
)
from tests.support import harness, problems, references, references_local
from tests.support.methods import by_name
from tests.support.virtual_iterates import RATE, SCHEDULE, problem, rate_at


@pytest.mark.parametrize(
    "dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)]
)
def test_of_one_fragment_at_once_it_is_diloco_bit_for_bit(dtype):
    ours, states = harness.run(
        streaming_diloco(
            optax.adamw(RATE),
            exact(),
            period=5,
            fragments=1,
            delay=0,
            merge=mix(0.0),
            outer_learning_rate=0.7,
        ),
        problem(),
        dtype,
    )
    theirs, of_theirs = harness.run(
        diloco(optax.adamw(RATE), exact(), period=5), problem(), dtype
    )
    np.testing.assert_array_equal(ours, theirs)
    jax.tree.map(np.testing.assert_array_equal, states.anchor, of_theirs.anchor)


INNER = functools.partial(dmsgd_local, channel=no_communication())
FRAGMENTS = [range(4), range(4, 20)]  # Bias and kernel.


def every_setting(test):
    """Three workers under a cosine; slowly, other numbers and a constant rate."""
    rates = pytest.mark.parametrize(
        ("rate", "eta"),
        [
            (SCHEDULE, rate_at),
            pytest.param(RATE, lambda t: RATE, marks=pytest.mark.slow),
        ],
    )
    return rates(
        pytest.mark.parametrize(
            "workers",
            [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 8))],
        )(test)
    )


@pytest.mark.parametrize(
    ("delay", "alpha"),
    [
        (3, 0.5),
        *(
            pytest.param(*setting, marks=pytest.mark.slow)
            for setting in [(0, 0.0), (2, 0.5), (3, None), (5, None), (4, 0.0)]
        ),
    ],
)
@every_setting
def test_two_fragments_are_as_transcribed(workers, rate, eta, delay, alpha):
    """Through top-k of each fragment, on both sides of half a period."""
    problem = problems.quadratics(workers)
    ours, _ = harness.run(
        streaming_diloco(
            INNER(rate),
            all_gather(top_k(0.3)),
            period=5,
            fragments=by_name,
            delay=delay,
            merge=corrected() if alpha is None else mix(alpha),
        ),
        problem,
    )
    expected, _ = references_local.streaming_diloco(
        problem,
        eta,
        references.largest(0.3),
        inner=0.9,
        outer_rate=0.4,
        period=5,
        delay=delay,
        alpha=alpha,
        fragments=FRAGMENTS,
    )
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10)


@every_setting
def test_eager_updates_are_as_transcribed(workers, rate, eta):
    problem = problems.quadratics(workers)
    ours, _ = harness.run(
        streaming_diloco(
            INNER(rate),
            all_gather(top_k(0.3)),
            period=5,
            fragments=1,
            delay=3,
            merge=eager(),
        ),
        problem,
    )
    expected, _ = references_local.eager_diloco(
        problem, eta, references.largest(0.3), inner=0.9, outer_rate=0.4, period=5
    )
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_without_a_delay_each_coordinate_has_one_outer_step_a_period():
    """And moves to the anchor at that step alone."""
    weights, states = harness.run(
        streaming_diloco(
            optax.sgd(RATE),
            exact(),
            period=6,
            fragments=by_name,
            delay=0,
            merge=mix(0.0),
        ),
        problem(),
    )
    anchors = problems.flat(states.anchor, leading=1)
    moved = np.any(np.diff(anchors, axis=0) != 0, axis=1)
    at = np.flatnonzero(moved) + 1
    np.testing.assert_array_equal(at, range(3, 51, 3))
    for t in at:
        own, other = FRAGMENTS if t // 3 % 2 else reversed(FRAGMENTS)
        assert np.all(anchors[t, own] != anchors[t - 1, own])
        np.testing.assert_array_equal(anchors[t, other], anchors[t - 1, other])
        apart = weights[t] - anchors[t]
        np.testing.assert_allclose(apart[:, own], 0, atol=1e-14)
        assert np.ptp(weights[t][:, other], axis=0).min() > 0


@pytest.mark.slow
@pytest.mark.parametrize("delay", [1, 5])
def test_eager_updates_are_gossip_with_all_that_arrives_one_period_late(delay):
    late = gossip(topologies.complete(4), delay=1)
    theirs, _ = harness.run(diloco(optax.sgd(RATE), late, period=5), problem())
    ours, _ = harness.run(
        streaming_diloco(
            optax.sgd(RATE),
            exact(),
            period=5,
            fragments=1,
            delay=delay,
            merge=eager(),
            outer_learning_rate=0.7,
        ),
        problem(),
    )
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13)


HALVES = {"layer_0": {"kernel": np.ones((6, 8))}, "layer_1": {"kernel": np.ones(48)}}


@pytest.mark.parametrize(
    ("channel", "delay"),
    [
        (exact(), 2),
        *(
            pytest.param(*setting, marks=pytest.mark.slow)
            for setting in [(exact(), 0), (all_gather(top_k(0.25)), 2)]
        ),
    ],
)
def test_the_peak_is_as_many_times_lower_as_there_are_fragments(channel, delay):
    """The mean is that of DiLoCo. Compiled for eight devices, it is the same."""
    params = jax.tree.map(np.float32, HALVES)
    ours = streaming_diloco(
        optax.sgd(0.1), channel, period=10, delay=delay, merge=mix(0.0)
    )
    theirs = diloco(optax.sgd(0.1), channel, period=10)
    assert message_bits(ours, params) == message_bits(theirs, params)
    peaks = peak_message_bits(theirs, params), peak_message_bits(ours, params)
    assert peaks[0] == 2 * peaks[1] == message_bits(channel, params)
    whole, half = link_traffic(channel, params, 8), link_traffic(channel, HALVES, 8)
    assert whole == half
    one = link_traffic(channel, params["layer_0"], 8)
    assert (one.bytes, one.hops) == (whole.bytes / 2, whole.hops)

    batch = jax.tree.map(lambda x: np.zeros((8, *x.shape), np.float32), HALVES)
    state = params, ours.init(params)
    train, state = distribute(harness.step_of(ours), state, batch)
    assert wire_bytes(train, state, batch) == peaks[1] // 8


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="`outer_learning_rate`"):
        streaming_diloco(optax.sgd(0.1), exact(), outer_learning_rate=0)
    with pytest.raises(ValueError, match="`outer_momentum`"):
        streaming_diloco(optax.sgd(0.1), exact(), outer_momentum=1)
