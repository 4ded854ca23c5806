"""Tests of workers that are simulated on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gmc_jax


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_runs_on_one_device(workers):
    """As a loop over the workers does: the mean is shared, and the sum each one's."""

    def step(state, batch):
        shared, own = state
        mean = jax.lax.pmean(batch, "workers")
        return (shared + mean, own + batch), {"index": jax.lax.axis_index("workers")}

    batch = np.arange(2.0 * workers, dtype=np.float32).reshape(workers, 2)
    state = jnp.zeros(2), jnp.ones(2)
    train, state = gmc_jax.simulate(step, state, batch, workers)
    state, _ = train(state, batch)
    state, metrics = train(state, batch)

    shared, own = state
    np.testing.assert_allclose(shared, 2 * batch.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(own, 1 + 2 * batch, rtol=1e-6)
    np.testing.assert_array_equal(metrics["index"], np.arange(workers))
    for leaf in jax.tree.leaves((state, metrics)):
        assert len(leaf.devices()) == 1
