"""Tests of DCD-PSGD: its transcription, its mean, and what it equals."""

from typing import Any, cast

import numpy as np
import optax
import pytest

from gmc_jax import (
    compressed_gossip,
    d_psgd,
    dcd_psgd,
    dense,
    scaled_sign,
    top_k,
    topologies,
)
from tests.support import harness, problems, references_gossip
from tests.support.virtual_iterates import RATE, SCHEDULE, problem, warm_up, warm_up_at

RING = topologies.ring(4)


TOPOLOGIES = {
    1: topologies.ring(1),
    3: topologies.ring(3),
    8: topologies.exponential(8),
}
RATES = {"constant": (RATE, lambda t: RATE), "warm-up": (warm_up, warm_up_at)}
CODES = {
    "top_k": (top_k(0.5), references_gossip.largest(0.5)),
    "scaled_sign": (scaled_sign(), references_gossip.signs),
}


@pytest.mark.parametrize(
    ("workers", "rate", "code"),
    [
        (8, "warm-up", "scaled_sign"),
        *(
            pytest.param(workers, rate, code, marks=pytest.mark.slow)
            for workers in TOPOLOGIES
            for rate in RATES
            for code in CODES
        ),
    ],
)
def test_it_equals_its_paper(workers, rate, code):
    (ours, eta), (compressor, compress) = RATES[rate], CODES[code]
    topology, everyone = TOPOLOGIES[workers], problems.quadratics(workers)
    tx = dcd_psgd(
        ours, compressed_gossip(topology, compressor), momentum=0.9, nesterov=True
    )
    weights, _ = harness.run(tx, everyone)
    expected = references_gossip.dcd_psgd(
        problems.quadratics(workers),
        eta,
        topology.rounds[0],
        compress,
        0.9,
        nesterov=True,
    )
    size = np.abs(expected).max()
    weights = weights.reshape(expected.shape)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-10 * size)
    assert np.abs(expected[-1] - expected[0]).max() > 0.1


def test_neighbours_know_where_a_worker_is():
    """What the sum of their messages says is what comparing parameters would say."""
    tx = dcd_psgd(SCHEDULE, compressed_gossip(RING, top_k(0.3)))
    weights, states = harness.run(tx, problem())
    apart = np.einsum("ij,tjd->tid", RING.rounds[0] - np.eye(4), weights)
    kept: Any = optax.tree.get(states, "disagreement")
    kept = problems.flat(kept, leading=2)
    np.testing.assert_allclose(kept, apart, rtol=0, atol=1e-12)
    np.testing.assert_allclose(kept.mean(axis=1), 0, rtol=0, atol=1e-13)
    assert np.abs(apart).max() > 0.01


def test_with_all_sent_it_is_d_psgd():
    tx = dcd_psgd(SCHEDULE, compressed_gossip(RING, dense()), momentum=0.5)
    weights, _ = harness.run(tx, problem())
    expected, _ = harness.run(d_psgd(SCHEDULE, RING, momentum=0.5), problem())
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-11)


def test_errors_name_what_is_wrong():
    channel = compressed_gossip(RING, dense())
    with pytest.raises(TypeError, match="`channel` must be a channel"):
        dcd_psgd(0.1, cast(Any, RING))
    with pytest.raises(ValueError, match="`momentum`"):
        dcd_psgd(0.1, channel, momentum=1.0)
    with pytest.raises(ValueError, match="`learning_rate`"):
        dcd_psgd(-0.1, channel)
