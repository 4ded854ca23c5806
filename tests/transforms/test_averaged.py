"""Tests of averaging over workers."""

import chex
import jax
import numpy as np
import pytest

from gmc_jax import all_gather, averaged, count_entries, exact, top_k
from tests.support import harness

DRAW = np.random.default_rng(0)
GRADIENTS = DRAW.normal(size=(3, 4, 10)).astype(np.float32)
PARAMS = np.zeros(10, np.float32)


def test_every_worker_gets_the_mean():
    moved, _ = harness.updates(averaged(exact()), PARAMS, GRADIENTS)
    expected = np.broadcast_to(GRADIENTS.mean(axis=1, keepdims=True), moved.shape)
    np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-6)


def test_what_a_channel_loses_is_never_sent():
    moved, _ = harness.updates(averaged(all_gather(top_k(0.3))), PARAMS, GRADIENTS)
    kept = np.argsort(-np.abs(GRADIENTS), axis=2)[..., :3]
    sent = np.zeros_like(GRADIENTS)
    np.put_along_axis(sent, kept, np.take_along_axis(GRADIENTS, kept, 2), 2)
    np.testing.assert_allclose(moved[:, 0], sent.mean(axis=1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_updates_keep_their_dtypes(dtype):
    gradients = {"w": GRADIENTS.astype(dtype), "b": GRADIENTS[..., 0]}
    params = jax.tree.map(lambda leaf: np.zeros_like(leaf[0, 0]), gradients)
    moved, _ = harness.updates(averaged(exact()), params, gradients)
    chex.assert_trees_all_equal_dtypes(moved, params)


def test_its_state_is_that_of_the_channel():
    channel = count_entries(all_gather(top_k(0.3)))
    _, states = harness.updates(averaged(channel), PARAMS, GRADIENTS)
    assert type(states) is type(channel.init(PARAMS))
    assert states.inner.step.tolist() == [0, 1, 2, 3]
