"""Tests of signs of gradients: one worker, ties, liars."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gmc_jax import ef_sgd, exact, majority_vote, sign_sgd
from tests.support import harness, problems, references
from tests.support.virtual_iterates import SCHEDULE, problem, rate_at


def test_sign_sgd_is_signum_without_momentum_and_keeps_nothing():
    one, states = harness.run(sign_sgd(SCHEDULE, majority_vote()), problem())
    expected, _ = references.signum(problem(), rate_at, references.everything, beta=0.0)
    np.testing.assert_allclose(one, expected, rtol=0, atol=1e-11)
    assert all(leaf.ndim == 1 for leaf in jax.tree.leaves(states))


def test_one_worker_descends_by_signs():
    alone = problems.quadratics(1)
    weights, _ = harness.run(sign_sgd(0.25, majority_vote()), alone)
    steps = [-0.25 * np.sign(alone.gradient(0, t, weights[t])) for t in range(50)]
    np.testing.assert_allclose(np.diff(weights, axis=0), steps, atol=1e-14)


def steps_of(channel, gradients) -> np.ndarray:
    """What workers with these gradients, [workers, d], step by at a rate of 1."""
    tx = sign_sgd(1.0, channel)
    params = jnp.zeros(gradients.shape[1])
    updates, _ = harness.updates(tx, params, gradients[None])
    return np.asarray(updates[0, 0])


def test_zeros_and_ties_are_the_channels_business():
    gradients = np.array([[0, 1, -1, 0], [0, -1, -1, -2]], np.float32)
    np.testing.assert_array_equal(steps_of(majority_vote(), gradients), [-1, -1, 1, -1])
    np.testing.assert_array_equal(steps_of(exact(), gradients), [0, 0, 1, 1])


def test_three_of_seven_that_lie_do_not_stop_it_where_means_fail():
    """Liars flip their gradients, ten times as large."""
    agree = problems.quadratics(1, d=20)
    seven = problems.Problem(
        hessians=np.repeat(agree.hessians, 7, axis=0),
        targets=np.repeat(agree.targets, 7, axis=0),
        noise=np.zeros((400, 7, 20)),
        start=agree.start,
    )
    lie = np.where(np.arange(7) < 3, -10.0, 1.0)
    lied = seven._replace(hessians=seven.hessians * lie[:, None, None])

    def end(tx):
        weights, _ = harness.run(tx, lied)
        return np.abs(weights[-1] - agree.targets[0]).max()

    assert end(sign_sgd(optax.linear_schedule(0.1, 0.0, 400), majority_vote())) < 0.01
    with np.errstate(over="ignore", invalid="ignore"):
        assert not end(ef_sgd(0.1, exact())) < 1e3
