"""Tests of signs of momenta: the paper's steps, and what cannot change them."""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import (
    exact,
    majority_vote,
    scaled_sign,
    sign_sgd,
    signum,
)
from tests.support import harness, problems, references
from tests.support.virtual_iterates import RATE, SCHEDULE, problem, rate_at

RATES = {"constant": (RATE, lambda t: RATE), "cosine": (SCHEDULE, rate_at)}


@pytest.mark.parametrize(
    ("workers", "momentum", "weight_decay", "rate"),
    [
        (1, 0.9, 0.0, "cosine"),
        (2, 0.5, 0.1, "constant"),
        (5, 0.9, 0.1, "cosine"),
        (8, 0.0, 0.0, "constant"),
    ],
)
def test_it_equals_its_paper(workers, momentum, weight_decay, rate):
    ours, eta = RATES[rate]
    everyone = problems.quadratics(workers)
    tx = signum(ours, majority_vote(), momentum=momentum, weight_decay=weight_decay)
    weights, _ = harness.run(tx, everyone)
    expected, _ = references.signum(
        everyone, eta, references.everything, momentum, weight_decay=weight_decay
    )
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-10)
    assert np.abs(expected[-1] - expected[0]).max() > 0.1


def test_the_sign_of_an_exact_mean_is_the_vote_of_an_odd_number_of_workers():
    everyone = problems.quadratics(5)
    ours, _ = harness.run(signum(RATE, exact()), everyone)
    votes, _ = harness.run(signum(RATE, majority_vote()), everyone)
    np.testing.assert_allclose(ours, votes, rtol=0, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_size_of_a_workers_gradients_does_not_matter(momentum):
    factors = np.array([1.0, 1e-3, 7.0, 1e4])
    louder = problem()._replace(
        hessians=problem().hessians * factors[:, None, None],
        noise=problem().noise * factors[:, None],
    )
    tx = signum(RATE, majority_vote(), momentum=momentum)
    ours, _ = harness.run(tx, problem())
    theirs, _ = harness.run(tx, louder)
    np.testing.assert_array_equal(ours, theirs)


def test_errors_name_what_is_wrong():
    for make in (sign_sgd, signum):
        with pytest.raises(ValueError, match="`weight_decay` must be finite"):
            make(0.1, majority_vote(), weight_decay=-1)
        with pytest.raises(ValueError, match="`learning_rate`"):
            make(-0.1, majority_vote())
        with pytest.raises(TypeError, match="`channel` must be a channel"):
            make(0.1, cast(Any, scaled_sign()))
    with pytest.raises(ValueError, match="`momentum`"):
        signum(0.1, majority_vote(), momentum=1)


@pytest.mark.parametrize("factory", [sign_sgd, functools.partial(signum, momentum=0.5)])
def test_weight_decay_is_added_in_float32(factory):
    """Of 16 bits, where 1 + 0.002 would be 1."""
    params = jnp.full(3, 0.02, jnp.bfloat16)
    tx = factory(1e-3, exact(), weight_decay=0.1)
    update = jax.vmap(tx.update, axis_name="workers", in_axes=(0, None, None))
    moved, _ = update(jnp.ones((1, 3), jnp.bfloat16), tx.init(params), params)
    np.testing.assert_allclose(moved, -1e-3 * (1 + 0.1 * 0.02), rtol=1e-4)
