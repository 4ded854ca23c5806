"""Tests of Distributed Lion: its two forms, optax's Lion, and what cannot change it."""

from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import all_gather, distributed_lion, exact, majority_vote, scaled_sign
from tests.support import harness, problems, references
from tests.support.virtual_iterates import RATE, SCHEDULE, problem, rate_at

FORMS = {
    "majority": (majority_vote(), True),
    "average": (all_gather(scaled_sign()), False),
    "average in full precision": (exact(), False),
}


@pytest.mark.parametrize(
    ("form", "workers", "ours", "eta"),
    [
        ("majority", 8, SCHEDULE, rate_at),  # An even number has ties.
        ("average", 3, RATE, lambda t: RATE),
        ("average in full precision", 1, SCHEDULE, rate_at),
    ],
)
def test_it_equals_its_paper(form, workers, ours, eta):
    everyone, (channel, votes) = problems.quadratics(workers), FORMS[form]
    weights, _ = harness.run(
        distributed_lion(ours, channel, momentum_decay=0.95, weight_decay=0.1), everyone
    )
    expected, _ = references.distributed_lion(
        everyone, eta, references.everything, beta2=0.95, decay=0.1, votes=votes
    )
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-10)
    assert np.abs(expected[-1] - expected[0]).max() > 0.1


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_one_worker_is_lion(weight_decay):
    tx = distributed_lion(SCHEDULE, exact(), weight_decay=weight_decay)
    lion = optax.lion(SCHEDULE, weight_decay=weight_decay)
    alone = problems.quadratics(1)
    ours, theirs = (harness.run(one, alone)[0] for one in (tx, lion))
    theirs = theirs.reshape(ours.shape)
    np.testing.assert_array_equal(ours, theirs)
    votes, _ = harness.run(
        distributed_lion(SCHEDULE, majority_vote(), weight_decay=weight_decay), alone
    )
    np.testing.assert_allclose(votes, theirs, rtol=0, atol=1e-12)


def test_the_size_of_a_workers_gradients_does_not_matter():
    factors = np.array([1.0, 1e-3, 7.0, 1e4])
    louder = problem()._replace(
        hessians=problem().hessians * factors[:, None, None],
        noise=problem().noise * factors[:, None],
    )
    tx = distributed_lion(RATE, majority_vote())
    ours, _ = harness.run(tx, problem())
    theirs, _ = harness.run(tx, louder)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(np.abs(np.diff(ours, axis=0)), RATE, rtol=1e-9)


def test_errors_name_what_is_wrong():
    vote = majority_vote()
    with pytest.raises(ValueError, match="`weight_decay` must be finite"):
        distributed_lion(0.1, vote, weight_decay=-1)
    with pytest.raises(ValueError, match="`momentum_decay` must be in"):
        distributed_lion(0.1, vote, momentum_decay=1)
    with pytest.raises(TypeError, match="`channel` must be a channel"):
        distributed_lion(0.1, cast(Any, scaled_sign()))


def test_momentum_and_weight_decay_of_16_bits_are_float32():
    params = jnp.full(3, 0.02, jnp.bfloat16)
    tx = distributed_lion(1e-3, exact(), weight_decay=0.1)
    moved, states = harness.updates(tx, params, jnp.ones((1, 1, 3), jnp.bfloat16))
    np.testing.assert_allclose(moved, -1e-3 * (1 + 0.1 * 0.02), rtol=1e-4)
    assert optax.tree.get(states, "mu").dtype == jnp.float32
