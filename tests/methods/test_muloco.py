"""Tests of MuLoCo: Muon inside, and the methods it is at a constant outer rate."""

import functools

import numpy as np
import optax
import pytest

from gmc_jax import bmuf, diloco, exact, local_sgd, muloco
from tests.support import harness, problems
from tests.support.virtual_iterates import RATE, SCHEDULE, problem


@functools.cache
def trained() -> np.ndarray:
    tx = muloco(optax.sgd(SCHEDULE), exact(), period=4, outer_momentum=0.8)
    return harness.run(tx, problem())[0]


@pytest.mark.slow
def test_at_a_constant_outer_rate_it_is_diloco():
    options = {"period": 4, "outer_learning_rate": 0.7, "outer_momentum": 0.8}
    theirs, _ = harness.run(diloco(optax.sgd(SCHEDULE), exact(), **options), problem())
    np.testing.assert_allclose(trained(), theirs, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_at_a_constant_outer_rate_it_is_bmuf_with_nesterov():
    blocks = bmuf(
        optax.sgd(SCHEDULE),
        exact(),
        period=4,
        block_learning_rate=0.7,
        block_momentum=0.8,
        nesterov=True,
    )
    theirs, _ = harness.run(blocks, problem())
    np.testing.assert_allclose(trained(), theirs, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_of_plain_outer_steps_it_is_local_sgd():
    plain = muloco(
        optax.sgd(SCHEDULE),
        exact(),
        period=4,
        outer_learning_rate=1.0,
        outer_momentum=None,
    )
    ours, _ = harness.run(plain, problem())
    theirs, _ = harness.run(local_sgd(SCHEDULE, exact(), period=4), problem())
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def orthogonalised(matrix: np.ndarray) -> np.ndarray:
    """Five steps of Newton and Schulz, with the coefficients of Muon's authors."""
    x = matrix / (np.linalg.norm(matrix) + 1e-8)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


def test_with_muon_inside_it_is_a_transcription():
    """Of the matrix; the other leaf, which Muon gives to AdamW, is frozen."""
    inner = optax.contrib.muon(RATE, nesterov=False, adam_learning_rate=0.0)
    tx = muloco(inner, exact(), period=5)
    ours, _ = harness.run(tx, problem())

    shape = problems.tree(problem().start)["kernel"].shape
    z = problem().start
    xs, u = [z.copy() for _ in range(4)], np.zeros_like(z)
    momenta = [np.zeros(shape) for _ in range(4)]
    scale = np.sqrt(max(1, shape[1] / shape[0]))
    expected = [np.stack(xs)]
    for t in range(problem().steps):
        for k in range(4):
            g = problem().gradient(k, t, xs[k])[4:].reshape(shape)
            momenta[k] = 0.95 * momenta[k] + 0.05 * g
            step = RATE * scale * orthogonalised(momenta[k] / (1 - 0.95 ** (t + 1)))
            xs[k] = xs[k] - np.concatenate([np.zeros(4), step.ravel()])
        if (t + 1) % 5 == 0:
            delta = z - np.mean(xs, axis=0)
            u = 0.6 * u + 0.7 * delta
            z = z - 0.6 * u - 0.7 * delta
            xs = [z.copy() for _ in range(4)]
        expected.append(np.stack(xs))
    expected = np.stack(expected)
    size = np.abs(expected).max()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10 * size)
    assert np.ptp(expected[-1], axis=0).max() == 0 != np.ptp(expected[-2], axis=0).max()


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="`outer_learning_rate`"):
        muloco(optax.sgd(0.1), exact(), outer_learning_rate=-1.0)
    with pytest.raises(ValueError, match="`outer_momentum`"):
        muloco(optax.sgd(0.1), exact(), outer_momentum=1)
    with pytest.raises(ValueError, match="`period`"):
        muloco(optax.sgd(0.1), exact(), period=0)
