"""Tests of the channel that sends its factors in turn, beside those of `low_rank`."""

import jax
import numpy as np
import pytest

import gmc_jax
from gmc_jax import alternating_low_rank, count_entries, low_rank, message_bits
from tests.channels.test_low_rank import (
    SHAPES,
    draw_trees,
    factor,
    matrices,
    results,
)
from tests.support.harness import average

PARAMS = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.slow
def test_two_calls_are_one_of_the_papers_form(calls):
    """Both project on the same columns. The factors themselves may be turned."""
    mean, lost, _ = results(alternating_low_rank(2), calls=2 * calls)
    expected, left_out, _ = results(low_rank(2), calls=calls)
    for name in SHAPES:
        np.testing.assert_allclose(mean[name], expected[name], rtol=0, atol=1e-12)
        np.testing.assert_allclose(lost[name], left_out[name], rtol=0, atol=1e-12)


def test_the_first_call_projects_on_random_columns():
    mean, lost, states = results(alternating_low_rank(2))
    with jax.enable_x64(True):
        first = alternating_low_rank(2).init(jax.tree.map(lambda x: x[0], draw_trees()))
    for name in ("in", "up"):
        q, _ = np.linalg.qr(factor(np.asarray(first.right), name, side=1))
        for worker, m in enumerate(matrices(draw_trees()[name])):
            np.testing.assert_allclose(lost[name][worker], m - m @ q @ q.T, atol=1e-12)
        np.testing.assert_allclose(mean[name][0] @ q @ q.T, mean[name][0], atol=1e-12)
        left = factor(states.left[0], name, side=0)
        np.testing.assert_allclose(mean[name][0], left @ q.T, atol=1e-12)


def test_a_factor_that_is_not_sent_stays():
    _, _, one = results(alternating_low_rank(2), calls=1)
    _, _, two = results(alternating_low_rank(2), calls=2)
    np.testing.assert_array_equal(one.left, two.left)
    assert not np.array_equal(one.right, two.right)


@pytest.mark.slow
def test_calls_send_left_and_right_factors_in_turn():
    rank, exact = 2, 6
    rows = rank * (18 + 7 + 9 + 7) + exact
    columns = rank * (12 + 9 + 7 + 9) + exact
    assert rows > columns
    channel = alternating_low_rank(rank)
    assert message_bits(channel, PARAMS) == 32 * max(rows, columns)
    tx = gmc_jax.averaged(channel)
    assert message_bits(tx, PARAMS, steps=3) == 32 * (2 * rows + columns) / 3
    both = message_bits(low_rank(rank), PARAMS)
    assert both == 32 * (rows + columns - exact)


def test_entries_are_counted_where_all_calls_send_as_many():
    square = {"x": np.ones((2, 8, 8), np.float32), "b": np.ones((2, 3), np.float32)}
    _, _, state = average(count_entries(alternating_low_rank(2)), square, calls=3)
    np.testing.assert_array_equal(state.up[0], [0, 3 * (2 * 8 + 3)])
    with pytest.raises(
        ValueError, match=r"same number of entries.* Use `message_bits`"
    ):
        count_entries(alternating_low_rank(2)).init(PARAMS)
