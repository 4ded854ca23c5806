"""The perceptron on digits that studies with their own loop train."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.datasets import digits
from experiments.data.partitions import iid
from experiments.studies.digits_problem import BATCH, problem

WORKERS, GRADIENTS = 4, 3


def test_a_batch_is_drawn_from_the_workers_own_share():
    shares = iid(digits().train.labels, WORKERS, 0.0, 0)
    ours = problem(WORKERS, GRADIENTS, 0)
    for worker, share in enumerate(shares):
        batches = [ours.batch(worker, count) for count in range(GRADIENTS)]
        assert np.isin(batches, share).all()
        assert np.shape(batches) == (GRADIENTS, BATCH)
        np.testing.assert_array_equal(ours.batch(worker, GRADIENTS), batches[0])


@pytest.mark.slow
def test_the_gradient_is_that_of_the_loss():
    ours = problem(WORKERS, GRADIENTS, 0)
    samples = jnp.arange(len(digits().train.labels))
    loss, gradient = ours.gradient(ours.params, samples)
    np.testing.assert_allclose(loss, ours.loss(ours.params), rtol=1e-5)
    lower = jax.tree.map(lambda w, g: w - 0.01 * g, ours.params, gradient)
    assert ours.loss(lower) < ours.loss(ours.params)
