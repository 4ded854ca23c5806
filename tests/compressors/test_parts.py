"""Tests of the largest entries of each of several parts of one vector."""

import jax
import numpy as np
import pytest

from gmc_jax.compressors._parts import Parts, largest_in_parts
from gmc_jax.compressors._selection import FEW

# Few of many, few of few, and three lengths of which many are kept; the second and the
# third are searched together, one of them padded to the other and to whole words.
SIZES = [(2, 64, 3), (1, 9000, 20), (1, 3 * FEW, FEW + 7), (2, 2900, FEW + 1)]
LONGER = (1, 9001, 3 * FEW)


def parts_of(sizes):
    start, parts = 0, []
    for number, size, kept in sizes:
        parts.append(Parts(start, number, size, kept))
        start += number * size
    return tuple(parts), start


def expected(x, parts):
    """By a stable sort of each part, the largest first."""
    found = []
    for one in parts:
        for row in range(one.number):
            first = one.start + row * one.size
            order = np.argsort(-np.abs(x[first : first + one.size]), kind="stable")
            found.append(first + np.sort(order[: one.kept]))
    return np.concatenate(found)


@pytest.mark.parametrize("step", [0, 0.5])
def test_each_part_keeps_its_own_largest_entries(step):
    """Of two vectors in a batch; ties go to the lowest index."""
    parts, n = parts_of([*SIZES, LONGER])
    x = np.random.default_rng(0).normal(size=(2, n)).astype(np.float32)
    if step:
        x = np.round(x / step) * np.float32(step)
    found = jax.jit(jax.vmap(lambda x: largest_in_parts(x, parts)))(x)
    for row, indices in zip(x, found, strict=True):
        np.testing.assert_array_equal(indices, expected(row, parts))


def searches(sizes):
    parts, n = parts_of(sizes)
    x = jax.ShapeDtypeStruct((n,), np.float32)
    text = jax.jit(lambda x: largest_in_parts(x, parts)).lower(x).as_text()
    return text.count("stablehlo.while")


def test_parts_of_similar_size_are_searched_together():
    one = searches(SIZES[2:3])
    assert one > 0
    assert searches(SIZES) == one
    # Padding all to the longest would more than double them.
    assert searches([*SIZES, LONGER]) == 2 * one
