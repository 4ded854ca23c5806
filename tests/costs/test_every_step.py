"""Tests of the patterns of methods that synchronise at every step."""

import jax
import jax.numpy as jnp
import pytest

from gmc_jax import link_traffic, low_rank
from gmc_jax.costs.candidates import compressed
from gmc_jax.costs.compression_cost import CPU_2_CORES, MATRIX
from tests.support.planned import BYTE, COSTS, ENTRY, PARAMS, rows


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
