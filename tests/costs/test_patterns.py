"""Tests of patterns: periods, two channels, and the candidates of a plan."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from gmc_jax import (
    Traffic,
    all_gather,
    all_reduce,
    exact,
    gossip,
    link_traffic,
    random_block,
    top_k,
    topologies,
)
from gmc_jax.clocks.link import Link
from gmc_jax.costs.compression_cost import CPU_2_CORES, CompressionCost
from gmc_jax.costs.patterns import DENSE, Load, Pattern, Sync, candidates, compressed

PARAMS = jax.ShapeDtypeStruct((1000,), jnp.float32)
COST = CompressionCost(entry=0.01, byte=0.001)


def test_a_period_divides_the_load_of_the_mean_step_and_not_of_the_longest():
    sync = Sync(all_gather(top_k(0.1)), COST)
    every, _ = Pattern("each step", (sync,)).loads(PARAMS, 8)
    mean, longest = Pattern("every tenth", (sync._replace(period=10),)).loads(PARAMS, 8)
    assert longest == every
    assert every == ((5600, 14), pytest.approx(10 + 5.6))
    assert mean == (Traffic(560, 1.4), pytest.approx(1.56))
    link = Link(latency=0.5, bandwidth=56.0)
    assert mean.seconds(link) == pytest.approx(1.56 + 0.7 + 10)


def test_fragments_divide_the_longest_step_and_not_the_bytes_of_the_mean():
    """Each of them has hops of its own."""
    sync = Sync(all_gather(top_k(0.1)), COST, period=10)
    whole, peak = Pattern("whole", (sync,)).loads(PARAMS, 8)
    streams = Pattern("streaming", (sync._replace(fragments=5),))
    mean, longest = streams.loads(PARAMS, 8)
    assert longest.traffic == (peak.traffic.bytes / 5, peak.traffic.hops)
    assert longest.encoding == pytest.approx(peak.encoding / 5)
    assert mean.traffic == pytest.approx((560, 5 * whole.traffic.hops))
    assert mean.encoding == pytest.approx(whole.encoding)


def test_the_channels_of_a_method_with_two_add_up():
    """As in CSER: blocks at every step, larger ones at every fourth."""
    block, reset = all_reduce(random_block(0.01)), all_reduce(random_block(0.4))
    pattern = Pattern("CSER", (Sync(block), Sync(reset, COST, 4)))
    mean, longest = pattern.loads(PARAMS, 8)
    one, other = (link_traffic(channel, PARAMS, 8) for channel in (block, reset))
    encoding = 10 + 0.001 * other.bytes
    assert longest == Load(Traffic(one.bytes + other.bytes, 28), encoding)
    assert mean == Load(Traffic(one.bytes + other.bytes / 4, 17.5), encoding / 4)


def test_a_few_neighbours_stand_for_thousands_of_workers():
    few = Sync(gossip(topologies.ring(3)), workers=3)
    all_of_them = Sync(gossip(topologies.ring(20)))
    expected = Pattern("ring", (all_of_them,)).loads(PARAMS, 20)
    assert Pattern("ring", (few,)).loads(PARAMS, 20) == expected


@pytest.mark.parametrize("workers", [1, 2, 3, 5000])
def test_there_are_candidates_for_any_number_of_workers(workers):
    patterns = candidates(PARAMS, workers, [0.1, 0.01], [12, 48], CPU_2_CORES)
    names = [(pattern.name, pattern.ratio) for pattern in patterns]
    assert patterns[0] is DENSE
    assert len(names) == len(set(names)) == 1 + 3 * 2 + 2 + 1 + 1 + 2 + 2 + 2
    sent = {
        pattern.name: pattern.loads(PARAMS, workers)[0].traffic for pattern in patterns
    }
    assert all((traffic.bytes > 0) == (workers > 1) for traffic in sent.values())
    neighbours = min(2, workers - 1)
    assert sent["D-PSGD, ring"] == (4000 * neighbours, neighbours)
    assert sent["SGP, one peer"] == (4000 * min(1, neighbours), min(1, neighbours))


def test_streaming_diloco_sends_a_part_at_a_time():
    patterns = candidates(PARAMS, 8, [0.1], [2, 12], CPU_2_CORES)
    traffic = {
        pattern.name: [load.traffic.bytes for load in pattern.loads(PARAMS, 8)]
        for pattern in patterns
    }
    dense = DENSE.loads(PARAMS, 8)[0].traffic.bytes
    assert traffic["Streaming DiLoCo, 4 parts every 12"] == [dense / 12, dense / 4]
    assert traffic["Streaming DiLoCo, 2 parts every 2"] == [dense / 2, dense / 2]


def test_cser_spends_half_of_its_ratio_on_resets():
    (cser,) = (
        pattern
        for pattern in candidates(PARAMS, 8, [0.01], [], CPU_2_CORES)
        if pattern.name.startswith("CSER")
    )
    step, reset = cser.syncs
    assert (step.period, reset.period) == (1, 12)
    assert step.channel.bits(PARAMS) == 32 * 5
    assert reset.channel.bits(PARAMS) == 32 * 63


def test_a_family_is_the_same_pattern_at_other_ratios():
    half = compressed("top_k", CPU_2_CORES, period=3)(0.5)
    assert half.family is not None
    other = half.family(0.02)
    assert (other.name, other.ratio) == (half.name, 0.02)
    assert other.loads(PARAMS, 8)[1].traffic == (7 * 2 * 4 * 20, 14)
    assert other.syncs[0].period == 3


def test_large_trees_are_compressed_leaf_by_leaf():
    leaves = [jax.ShapeDtypeStruct((2**30,), jnp.float32)] * 2
    for pattern in candidates(leaves, 2, [0.001], [], CPU_2_CORES)[1:4]:
        assert pattern.loads(leaves, 2)[0].traffic.bytes >= 0.008 * 2**30


def test_errors_name_what_is_wrong():
    wrong: Any = top_k(0.1)
    with pytest.raises(TypeError, match="`channel` must be a channel"):
        Pattern("mine", (Sync(wrong),))
    with pytest.raises(ValueError, match="`period` must be a whole number"):
        Pattern("mine", (Sync(exact(), period=0),))
    with pytest.raises(ValueError, match="`fragments` must be a whole number"):
        Pattern("mine", (Sync(exact(), fragments=0),))
    with pytest.raises(ValueError, match="`fragments` must be at most `period`, 2"):
        Pattern("mine", (Sync(exact(), period=2, fragments=3),))
    with pytest.raises(ValueError, match="`workers` must be a whole number"):
        Pattern("mine", (Sync(exact(), workers=-1),))
    with pytest.raises(ValueError, match=r"`ratio` must be in \(0, 1]"):
        Pattern("mine", (Sync(exact()),), ratio=2.0)
    with pytest.raises(ValueError, match="costs of `top_k`"):
        candidates(PARAMS, 2, [0.1], [], {"scaled_sign": {1.0: COST}})
