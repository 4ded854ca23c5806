"""Tests of the patterns that a plan compares."""

import jax
import jax.numpy as jnp
import pytest

from gmc_jax import chunked_top_k, link_traffic, low_rank, mean_of_senders
from gmc_jax.core import Tree
from gmc_jax.costs.candidates import candidates, compressed
from gmc_jax.costs.compression_cost import CPU_2_CORES, MATRIX, CompressionCost
from gmc_jax.costs.patterns import DENSE

PARAMS = jax.ShapeDtypeStruct((1000,), jnp.float32)


def rows(
    workers=8,
    ratios=(0.1,),
    periods=(12,),
    costs=CPU_2_CORES,
    params: Tree = PARAMS,
):
    """The candidates by name."""
    patterns = candidates(params, workers, ratios, periods, costs)
    return {pattern.name: pattern for pattern in patterns}


@pytest.mark.parametrize(
    "workers",
    [3, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2, 5000))],
)
def test_there_are_candidates_for_any_number_of_workers(workers):
    patterns = candidates(PARAMS, workers, [0.1, 0.01], [12, 48], CPU_2_CORES)
    names = [(pattern.name, pattern.ratio) for pattern in patterns]
    assert patterns[0] is DENSE
    assert (
        len(names) == len(set(names)) == 1 + 7 * 2 + 1 + 2 + 6 + 2 + 2 + 1 + 4 * 2 + 3
    )
    sent = {
        pattern.name: pattern.loads(PARAMS, workers)[0].traffic for pattern in patterns
    }
    assert all((traffic.bytes > 0) == (workers > 1) for traffic in sent.values())
    neighbours = min(2, workers - 1)
    assert sent["D-PSGD, ring"] == (4000 * neighbours, neighbours)
    assert sent["SGP, one peer"] == (4000 * min(1, neighbours), min(1, neighbours))


def test_streaming_diloco_sends_a_part_at_a_time():
    traffic = {
        name: [load.traffic.bytes for load in pattern.loads(PARAMS, 8)]
        for name, pattern in rows(periods=(2, 12)).items()
        if name.startswith("Streaming")
    }
    dense = DENSE.loads(PARAMS, 8)[0].traffic.bytes
    assert traffic["Streaming DiLoCo, 4 parts every 12"] == [dense / 12, dense / 4]
    assert traffic["Streaming DiLoCo, 2 parts every 2"] == [dense / 2, dense / 2]


def test_cser_spends_half_of_its_ratio_on_resets():
    step, reset = rows(ratios=(0.01,))["CSER of blocks, reset every 12"].syncs
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


ENTRY, BYTE = 0.5, 0.001
COSTS = {
    **{
        name: dict.fromkeys(by_ratio, CompressionCost(ENTRY, BYTE))
        for name, by_ratio in CPU_2_CORES.items()
    },
    "low_rank": {2: CompressionCost(2.0, 0.0), 4: CompressionCost(4.0, 0.0)},
}


def test_codes_are_gathered_or_averaged_and_sent_back():
    """A worker gathers 7 messages, or sends 7 slices of 125 entries twice."""
    planned = rows(costs=COSTS)
    slices = 2 * 7 * (125 + 4)
    both, _ = planned["GMC, integers(8) both ways"].loads(PARAMS, 8)
    assert both.traffic.bytes == pytest.approx(slices)
    assert both.encoding == pytest.approx(1000 * ENTRY * (1 + 1 / 8) + slices * BYTE)
    gathered = {
        "GMC, integers(8)": 1000 + 4 * 2,
        "GMC, scaled_sign": 4 * 32 + 4,
        "QSGD": 500 + 4 * 2,
        "TernGrad": 4 * 63 + 4,
    }
    for name, message in gathered.items():
        load, _ = planned[name].loads(PARAMS, 8)
        assert load.traffic.bytes == 7 * message
        assert load.encoding == pytest.approx(1000 * ENTRY + 7 * message * BYTE)


def test_power_sgd_is_planned_for_the_matrices_there_are_or_for_squares():
    large = jax.ShapeDtypeStruct((3 * MATRIX**2,), jnp.float32)
    square, _ = rows(2, costs=COSTS, params=large)["PowerSGD, rank 4"].loads(large, 2)
    assert square.traffic.bytes == 3 * 4 * 4 * 2 * MATRIX
    assert square.encoding == pytest.approx(4.0 * 3 * MATRIX**2)
    tree = {"kernel": jax.ShapeDtypeStruct((50, 10), jnp.float32), "bias": PARAMS}
    load, _ = rows(2, costs=COSTS, params=tree)["PowerSGD, rank 2"].loads(tree, 2)
    assert load.traffic == link_traffic(low_rank(2), tree, 2)
    assert load.traffic.bytes == 4 * (2 * 60 + 1000)


def test_a_delay_changes_when_messages_travel_and_not_what_they_are():
    planned = rows()
    late = {name: row for name, row in planned.items() if name.endswith(", delay 1")}
    assert len(late) == 4
    for name, pattern in late.items():
        load = pattern.loads(PARAMS, 8)[0]
        other = planned[name.removesuffix(", delay 1")].loads(PARAMS, 8)[0]
        assert (load.traffic, load.encoding) == (other.traffic, other.encoding)
        assert load.late == load.traffic
        assert other.late == (0, 0)
    cocod, _ = planned["CoCoD-SGD every 12"].loads(PARAMS, 8)
    assert cocod.beside == pytest.approx(1 / 12)


def test_sparse_loco_decodes_twice():
    load, _ = rows(costs=COSTS)["SparseLoCo every 12"].loads(PARAMS, 8)
    sent = link_traffic(mean_of_senders(chunked_top_k(0.1)), PARAMS, 8).bytes
    assert load.traffic.bytes == pytest.approx(sent / 12)
    assert load.encoding == pytest.approx((1000 * ENTRY + 2 * sent * BYTE) / 12)


def test_a_cost_that_is_missing_is_named():
    with pytest.raises(ValueError, match="costs of `top_k`"):
        candidates(PARAMS, 2, [0.1], [], {"scaled_sign": {1.0: COSTS["low_rank"][2]}})
