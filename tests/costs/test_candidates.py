"""Tests of the patterns that a plan compares."""

import jax
import jax.numpy as jnp
import pytest

from gmc_jax.costs.candidates import candidates
from gmc_jax.costs.compression_cost import CPU_2_CORES
from gmc_jax.costs.patterns import DENSE
from tests.support.planned import COSTS, PARAMS, rows


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


def test_large_trees_are_compressed_leaf_by_leaf():
    leaves = [jax.ShapeDtypeStruct((2**30,), jnp.float32)] * 2
    for pattern in candidates(leaves, 2, [0.001], [], CPU_2_CORES)[1:4]:
        assert pattern.loads(leaves, 2)[0].traffic.bytes >= 0.008 * 2**30


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


def test_a_cost_that_is_missing_is_named():
    with pytest.raises(ValueError, match="costs of `top_k`"):
        candidates(PARAMS, 2, [0.1], [], {"scaled_sign": {1.0: COSTS["low_rank"][2]}})
