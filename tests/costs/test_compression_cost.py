"""Tests of the cost of encoding: how it is measured, and interpolated."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import gmc_jax
from gmc_jax import dense, measure_encoding, top_k
from gmc_jax.core import Compressor
from gmc_jax.costs.candidates import candidates
from gmc_jax.costs.compression_cost import (
    CPU_2_CORES,
    FREE,
    CompressionCost,
    cost_at,
    measure_low_rank,
)

ENTRIES = 50_000


def slow_compressor(rounds: int) -> Compressor:
    """Sends the whole vector, after computing its sine `rounds` times."""

    def busy(x):
        return lax.fori_loop(0, rounds, lambda _, y: jnp.sin(y), x)

    def encode(key, x):
        del key
        message = x + 0 * busy(x)
        return message, x - message

    def decode(key, messages, d):
        del key, d
        total = jnp.zeros_like(messages[0])
        return lax.fori_loop(
            0, messages.shape[0], lambda k, sum: sum + 0 * busy(messages[k]), total
        )

    return Compressor(encode, decode)


@pytest.mark.slow
def test_a_slower_compressor_is_measured_slower():
    fast = measure_encoding(slow_compressor(1), ENTRIES, repeats=5)
    slow = measure_encoding(slow_compressor(300), ENTRIES, repeats=5)
    assert 0 < 5 * fast.entry < slow.entry
    assert slow.byte > 0


def test_a_shared_compressor_that_loses_nothing_can_be_measured():
    cost = measure_encoding(dense(), 100, repeats=1)
    assert cost.entry > 0
    assert cost.byte >= 0


def test_low_rank_is_measured_on_small_matrices_too():
    cost = measure_low_rank(1, 100, repeats=1)
    assert cost.entry > 0
    assert cost.byte == 0


def test_seconds_are_those_of_entries_and_of_arriving_bytes():
    assert CompressionCost(2.0, 0.5).seconds(10, 4) == 22
    assert FREE.seconds(10**12, 1e15) == 0


def test_costs_are_linear_between_ratios_and_constant_beyond():
    known = {"mine": {0.1: CompressionCost(3.0, 1.0), 0.3: CompressionCost(5.0, 0.0)}}
    assert cost_at(known, "mine", 0.2) == pytest.approx((4.0, 0.5))
    assert cost_at(known, "mine", 0.01) == (3.0, 1.0)
    assert cost_at(known, "mine", 1.0) == (5.0, 0.0)
    with pytest.raises(ValueError, match=r"costs of `top_k`, got those of \['mine'\]"):
        cost_at(known, "top_k", 0.1)


def test_every_cost_that_a_plan_needs_is_measured(monkeypatch):
    sizes = []

    def measure(compressor, entries):
        x = jax.ShapeDtypeStruct((1000,), jnp.float32)
        key = jax.random.key(0)
        message, _ = jax.eval_shape(compressor.encode, key, x)
        sizes.append(sum(leaf.size for leaf in jax.tree.leaves(message)))
        return CompressionCost(float(entries), 0.0)

    module = "gmc_jax.costs.compression_cost"
    monkeypatch.setattr(f"{module}.measure_encoding", measure)
    monkeypatch.setattr(
        f"{module}.measure_low_rank", lambda rank, entries: CompressionCost(rank, 0.0)
    )
    measured = gmc_jax.measure_encodings(77)
    assert {name: list(costs) for name, costs in measured.items()} == {
        name: list(costs) for name, costs in CPU_2_CORES.items()
    }
    assert measured["top_k"][0.01] == (77, 0)
    assert measured["low_rank"] == {2: (2, 0), 4: (4, 0)}
    # Values and indices, without and with slack; values alone; values and packed
    # places; packed codes of values, the means of bins, and packed places.
    selections = [[200, 20, 2], [260, 26, 4], [100, 10, 1], [138, 15, 3], [49, 10, 7]]
    # Words of signs and a scale; bytes and scales; two bits and the means of four bins;
    # four bits; two bits and a scale.
    codes = [33, 1002, 1002, 63 + 8, 125 + 2, 64]
    assert sizes == [*itertools.chain(*selections), *codes]
    shape = jax.ShapeDtypeStruct((1000,), jnp.float32)
    patterns = candidates(shape, 2, [0.1], [12], measured)
    assert {pattern.loads(shape, 2)[0].encoding for pattern in patterns} == {
        *(0, 77_000, 77_000 / 12),  # At each step, or between local steps.
        77_000 * 1.5,  # Both ways, of two workers.
        *(2_000, 4_000),
    }


def test_in_the_table_larger_ratios_cost_more():
    for name, costs in CPU_2_CORES.items():
        entries = [costs[ratio].entry for ratio in sorted(costs)]
        assert entries == sorted(entries)
        is_summed = name == "low_rank"
        assert all((cost.byte == 0) == is_summed for cost in costs.values())


def test_errors_name_what_is_wrong():
    wrong: Any = gmc_jax.exact()
    with pytest.raises(TypeError, match="`compressor` must be a compressor"):
        measure_encoding(wrong)
    with pytest.raises(ValueError, match="`entries` must be a whole number"):
        measure_encoding(top_k(0.1), 0)
    with pytest.raises(ValueError, match="`repeats` must be a whole number"):
        measure_encoding(top_k(0.1), 10, repeats=0)
