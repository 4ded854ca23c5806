"""Tests of both orders of CHOCO's gossip: estimates, the mean, and agreement.

What the overlapped order alone has is in `test_gossip_differences_overlapped`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import (
    dense,
    gossip,
    gossip_differences,
    gossip_differences_overlapped,
    random_block,
    scaled_sign,
    topologies,
)
from tests.support import harness
from tests.support.virtual_iterates import unruly

RING = topologies.ring(6)
BOTH = [gossip_differences, gossip_differences_overlapped]
both = pytest.mark.parametrize("make", BOTH)


def walk(channel, calls: int, start: np.ndarray | None = None) -> tuple[Any, Any]:
    """Parameters that go on from the mean, and states, [calls + 1, workers, ...]."""
    if start is None:
        start = np.random.default_rng(0).normal(size=(6, 20))

    def worker(tree):
        def on(carry, _):
            tree, state = carry
            mean, _, state = channel.average(tree, state)
            carry = mean.astype(tree.dtype), state
            return carry, carry

        first = tree, channel.init(tree)
        rest = jax.lax.scan(on, first, length=calls)[1]
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)

    run = jax.jit(jax.vmap(worker, out_axes=1, axis_name="workers"))
    return jax.tree.map(np.asarray, run(start))


@both
@pytest.mark.parametrize("code", [scaled_sign(), unruly()], ids=["sign", "unruly"])
def test_the_mean_is_kept_and_estimates_agree(make, code):
    """Whatever the compressor; what a worker knows of others is what they know."""
    with jax.enable_x64(True):
        points, state = walk(make(RING, code, 0.1), calls=9)
    size = np.abs(points).max()
    np.testing.assert_allclose(
        points.mean(axis=1), points[:1].mean(axis=1).repeat(10, 0), atol=1e-12 * size
    )
    apart = np.einsum("ij,tjd->tid", RING.rounds[0] - np.eye(6), state.estimate)
    np.testing.assert_allclose(state.disagreement, apart, atol=1e-12 * size)
    assert np.abs(np.diff(points, axis=0)).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("code", [random_block(0.2), scaled_sign()], ids=repr)
@both
def test_workers_come_to_agree(make, code):
    """Linearly, although messages never hold all that differs."""
    with jax.enable_x64(True):
        points, _ = walk(make(RING, code, 0.2), calls=1200)
    apart = np.ptp(points, axis=1).max(axis=1)
    assert apart[-1] < 1e-9 < 1 < apart[0]


def test_with_all_sent_it_is_gossip():
    values = np.random.default_rng(0).normal(size=(6, 20)).astype(np.float32)
    channel = gossip_differences(RING, dense(), 1.0)
    mean, lost, _ = harness.average(channel, values)
    expected, _, _ = harness.average(gossip(RING), values)
    np.testing.assert_allclose(mean, expected, atol=1e-6)
    assert not np.asarray(lost).any()


@both
def test_16_bits_are_estimated_in_float32(make):
    """So what rounding to 16 bits cuts off is sent later."""
    values = np.random.default_rng(0).normal(size=(6, 20)).astype(jnp.bfloat16)
    channel = make(RING, dense(), 0.5)
    mean, lost, state = harness.average(channel, values, calls=3)
    assert {x.dtype for x in (mean, lost, state.estimate)} == {jnp.dtype("float32")}
    if make is gossip_differences:
        np.testing.assert_array_equal(state.estimate, np.float32(values))


@both
def test_a_consensus_step_is_a_fraction(make):
    for wrong in (0.0, 1.1):
        with pytest.raises(ValueError, match="`consensus_step` must be in"):
            make(RING, dense(), wrong)


@pytest.mark.slow
@both
def test_the_mean_does_not_drift_in_float32(make):
    """Rounding errors in the sums of neighbours would move it further and further."""
    channel = make(RING, random_block(0.2), 0.2)
    draw = np.random.default_rng(0)
    start = (1 + 0.1 * draw.normal(size=(6, 20))).astype(np.float32)
    points, _ = walk(channel, 20_000, start)
    moved = points[-1].mean(axis=0) - start.mean(axis=0, dtype=np.float64)
    assert np.abs(moved).max() < 2e-5
