"""Tests of the patterns of methods whose workers take steps of their own."""

import numpy as np
import pytest

from gmc_jax import chunked_top_k, link_traffic, mean_of_senders, topologies
from gmc_jax.costs.patterns import DENSE
from tests.support.planned import BYTE, COSTS, ENTRY, PARAMS, rows


def test_streaming_diloco_sends_a_part_at_a_time():
    traffic = {
        name: [load.traffic.bytes for load in pattern.loads(PARAMS, 8)]
        for name, pattern in rows(periods=(2, 12)).items()
        if name.startswith("Streaming")
    }
    dense = DENSE.loads(PARAMS, 8)[0].traffic.bytes
    assert traffic["Streaming DiLoCo, 4 parts every 12"] == [dense / 12, dense / 4]
    assert traffic["Streaming DiLoCo, 2 parts every 2"] == [dense / 2, dense / 2]


def test_sparse_loco_decodes_twice():
    load, _ = rows(costs=COSTS)["SparseLoCo every 12"].loads(PARAMS, 8)
    sent = link_traffic(mean_of_senders(chunked_top_k(0.1)), PARAMS, 8).bytes
    assert load.traffic.bytes == pytest.approx(sent / 12)
    assert load.encoding == pytest.approx((1000 * ENTRY + 2 * sent * BYTE) / 12)


@pytest.mark.parametrize("workers", [2, 3, 8, 20])
def test_news_spreads_in_a_ring_as_fast_as_its_slowest_difference_fades(workers):
    """The second largest eigenvalue of the ring's weights is 1 - gap."""
    (weights,) = topologies.ring(workers).rounds
    second = sorted(np.linalg.eigvalsh(np.asarray(weights)))[-2]
    spread = rows(workers)["D-PSGD, ring"].spread
    assert spread == pytest.approx(max(0.0, 1 / (1 - second) - 1))


def test_with_one_peer_at_a_time_news_spreads_in_the_logarithm_of_the_workers():
    assert rows(8)["SGP, one peer"].spread == 2
    assert rows(9)["SGP, one peer, delay 1"].spread == 3
    for workers in (1, 2):
        assert rows(workers)["SGP, one peer"].spread == 0
    assert rows(1)["D-PSGD, ring"].spread == 0
