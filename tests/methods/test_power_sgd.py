"""Tests of PowerSGD: its paper through matrices, and what the channel cannot change."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import alternating_low_rank, averaged, exact, low_rank, power_sgd
from tests.support import harness, problems, references_low_rank
from tests.support.virtual_iterates import (
    CHANNELS,
    MOMENTUM,
    RATE,
    SCHEDULE,
    STEPS,
    assert_moves_by,
    buffered,
    mean_gradients,
    problem,
    rate_at,
)


def warm_up(t):
    falling = RATE / 2 * (1 + jnp.cos(jnp.pi * (t - 10) / (STEPS - 10)))
    return jnp.where(t < 10, RATE * t / 10, falling)


RATES = {
    "constant": (RATE, lambda t: RATE),
    "warm-up": (
        warm_up,
        lambda t: (
            RATE * t / 10 if t < 10 else RATE / 2 * (1 + np.cos(np.pi * (t - 10) / 40))
        ),
    ),
}


def first_factor(channel) -> np.ndarray:
    """Of the matrix of 2 rows and 8 columns, in double precision."""
    with jax.enable_x64(True):
        q = channel.init(problems.tree(np.zeros(20))).right
    return np.asarray(q)[:, None]


def residuals_in(states, workers: int) -> np.ndarray:
    """[steps + 1, workers, d]; that of an exact leaf is kept once for all workers."""
    tree = dict(states[0].residual)
    if tree["bias"].ndim == 2:
        tree["bias"] = np.stack([tree["bias"]] * workers, axis=1)
    return problems.flat(tree, leading=2)


@pytest.mark.parametrize(
    ("make", "workers", "rate"),
    [
        (low_rank, 3, "warm-up"),
        (alternating_low_rank, 8, "constant"),
        *(
            pytest.param(make, workers, rate, marks=pytest.mark.slow)
            for make in (low_rank, alternating_low_rank)
            for workers in (1, 3, 8)
            for rate in RATES
        ),
    ],
)
def test_through_matrices_it_equals_its_paper(make, workers, rate):
    everyone, (ours, eta) = problems.quadratics(workers), RATES[rate]
    weights, states = harness.run(power_sgd(ours, make(1, seed=3)), everyone)
    expected, residuals = references_low_rank.power_sgd_of_a_matrix(
        everyone,
        eta,
        first_factor(make(1, seed=3)),
        shape=(2, 8),
        alternating=make is alternating_low_rank,
    )
    size = np.abs(expected).max()
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-10 * size)
    np.testing.assert_allclose(
        residuals_in(states, workers),
        residuals,
        rtol=0,
        atol=1e-10 * np.abs(residuals).max(),
    )
    assert np.abs(expected[-1] - expected[0]).max() > 0.1 * size
    assert np.abs(residuals).max() > 0.1


@pytest.mark.parametrize(
    "name",
    ["low_rank", *(pytest.param(name, marks=pytest.mark.slow) for name in CHANNELS)],
)
def test_no_part_of_a_gradient_is_lost(name):
    """Without momentum a step is 2 lr d, and x - 2 lr (mean of e_k) is SGD."""
    channel = {**CHANNELS, "low_rank": low_rank(1)}[name]
    weights, states = harness.run(power_sgd(RATE, channel, momentum=0), problem())
    residual = residuals_in(states, 4).mean(axis=1)
    assert np.abs(residual).max() > 0.01
    points = weights - 2 * RATE * residual
    assert_moves_by(points, -2 * RATE * mean_gradients(weights))


def test_without_loss_it_is_sgd_with_the_papers_momentum():
    """A step is d + m: neither heavy ball's m nor Nesterov's d + momentum * m."""
    weights, _ = harness.run(power_sgd(RATE, exact()), problem())
    gradients = mean_gradients(weights)
    assert_moves_by(weights, -RATE * (gradients + buffered(gradients)))
    heavy = optax.chain(averaged(exact()), optax.trace(MOMENTUM), optax.scale(-RATE))
    other, _ = harness.run(heavy, problem())
    assert np.abs(other - weights).max() > 0.1


@pytest.mark.slow
def test_workers_are_one_worker_with_their_mean_gradient():
    """The weights are those of one worker: compression by matrices is linear."""
    many = problems.quadratics(5)
    many = many._replace(hessians=np.stack([many.hessians.mean(axis=0)] * 5))
    one = many._replace(
        hessians=many.hessians[:1],
        targets=many.targets.mean(axis=0, keepdims=True),
        noise=many.noise.mean(axis=1, keepdims=True),
    )
    ours, _ = harness.run(power_sgd(SCHEDULE, low_rank(1)), many)
    alone, _ = harness.run(power_sgd(SCHEDULE, low_rank(1)), one)
    np.testing.assert_allclose(ours, alone, rtol=0, atol=1e-9)


def test_it_may_start_dense():
    channel = gmc_jax.join_channels([exact(), low_rank(1)], [10])
    ours, states = harness.run(power_sgd(SCHEDULE, channel), problem())
    dense, _ = harness.run(power_sgd(SCHEDULE, exact()), problem())
    np.testing.assert_array_equal(ours[:11], dense[:11])
    assert np.abs(ours[11:] - dense[11:]).max(axis=1).all()
    residual = residuals_in(states, 4)
    assert not residual[:11].any()
    assert residual[11:].any(axis=(1, 2)).all()
    # Beyond the boundary it is as if it had started there.
    late, eta = problem(), rate_at
    expected, _ = references_low_rank.power_sgd_of_a_matrix(
        late._replace(noise=late.noise[10:], start=ours[10]),
        lambda t: eta(t + 10),
        first_factor(low_rank(1)),
        beta=0,
        shape=(2, 8),
    )
    buffer = buffered(mean_gradients(dense))[9]  # The momentum at the boundary.
    first = expected[1] - expected[0] + rate_at(10) * (-MOMENTUM * buffer)
    np.testing.assert_allclose(ours[11] - ours[10], first, rtol=0, atol=1e-11)


@pytest.mark.slow
def test_bits_are_those_of_two_factors_and_of_vectors():
    params = {"kernel": jnp.ones((30, 20)), "bias": jnp.ones(20)}
    tx = power_sgd(0.1, low_rank(4))
    assert gmc_jax.message_bits(tx, params) == 32 * (4 * (30 + 20) + 20)
