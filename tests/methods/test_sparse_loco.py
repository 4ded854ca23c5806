"""Tests of SparseLoCo: what it contains, and the mean over senders."""

import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    all_gather,
    diloco,
    ef_sgd,
    error_feedback,
    exact,
    local_sgd,
    mean_of_senders,
    periodic,
    sparse_loco,
    top_k,
)
from tests.support import harness, problems, references, references_local
from tests.support.virtual_iterates import SCHEDULE, problem, rate_at

TOP = all_gather(top_k(0.1))


def trained(tx) -> np.ndarray:
    return harness.run(tx, problem())[0]


@pytest.mark.parametrize(
    "workers",
    [
        pytest.param(1, marks=pytest.mark.slow),
        3,
        pytest.param(8, marks=pytest.mark.slow),
    ],
)
def test_over_senders_it_is_the_authors_algorithm(workers):
    everyone = problems.quadratics(workers, steps=50, d=20)
    tx = sparse_loco(optax.sgd(SCHEDULE, 0.9), mean_of_senders(top_k(0.2)), period=3)
    weights, states = harness.run(tx, everyone)
    expected, residuals = references_local.sparse_loco(
        everyone,
        rate_at,
        references.largest(0.2),
        fade=0.95,
        outer_rate=1.0,
        period=3,
        of_senders=True,
    )
    expected = expected if weights.ndim == 3 else expected[:, 0]
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(harness.residual(states), residuals, rtol=0, atol=1e-10)
    assert np.abs(residuals).max() > 0.01


@pytest.mark.slow
def test_without_fading_it_is_qsparse_local_sgd():
    ours = trained(sparse_loco(optax.sgd(SCHEDULE), TOP, period=4, decay=1.0))
    outer = optax.chain(error_feedback(TOP), optax.scale(-1.0))
    qsparse = trained(periodic(optax.sgd(SCHEDULE), outer, 4))
    np.testing.assert_allclose(ours, qsparse, rtol=0, atol=1e-12)
    fading = trained(sparse_loco(optax.sgd(SCHEDULE), TOP, period=4))
    assert np.abs(ours - fading).max() > 1e-4


@pytest.mark.slow
def test_every_step_without_fading_it_is_ef_sgd():
    ours = trained(sparse_loco(optax.sgd(SCHEDULE), TOP, period=1, decay=1.0))
    theirs = trained(ef_sgd(SCHEDULE, TOP))
    np.testing.assert_allclose(ours[:, 0], theirs, rtol=0, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("channel", [exact(), mean_of_senders(gmc_jax.dense())])
def test_without_loss_it_is_diloco_without_momentum(channel):
    inner = optax.adamw(SCHEDULE)
    ours = trained(sparse_loco(inner, channel, period=4, outer_learning_rate=0.7))
    theirs = trained(diloco(inner, exact(), period=4, outer_momentum=0.0))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11)
    averaging = trained(sparse_loco(optax.sgd(SCHEDULE), channel, period=4))
    local = trained(local_sgd(SCHEDULE, exact(), period=4))
    np.testing.assert_allclose(averaging, local, rtol=0, atol=1e-11)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"`decay` must be in \[0, 1\]"):
        sparse_loco(optax.sgd(0.1), TOP, decay=1.5)
    with pytest.raises(ValueError, match="`outer_learning_rate`"):
        sparse_loco(optax.sgd(0.1), TOP, outer_learning_rate=0)
    with pytest.raises(ValueError, match="`period`"):
        sparse_loco(optax.sgd(0.1), TOP, period=0)
