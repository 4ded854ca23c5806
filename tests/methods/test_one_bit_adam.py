"""Tests of 1-bit Adam: its paper with compression both ways, and its two phases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    all_gather,
    averaged,
    exact,
    message_bits,
    one_bit_adam,
    scaled_sign,
    simulated_server,
    top_k,
)
from tests.support import harness, problems, references, references_server
from tests.support.harness import simulate, start, step_of, targets
from tests.support.virtual_iterates import (
    CHANNELS,
    RATE,
    SCHEDULE,
    mean_gradients,
    problem,
    rate_at,
    unruly,
)

FREEZE = 10
adam = functools.partial(one_bit_adam, freeze_step=FREEZE, variance_decay=0.95)


@pytest.mark.parametrize("workers", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_with_a_server_that_compresses_it_equals_its_paper(workers):
    everyone = problems.quadratics(workers)
    server = simulated_server(top_k(0.1))
    tx = adam(SCHEDULE, all_gather(top_k(0.2)), server_channel=server)
    weights, states = harness.run(tx, everyone)
    expected, residuals = references_server.one_bit_adam(
        everyone,
        rate_at,
        references.largest(0.2),
        beta2=0.95,
        freeze=FREEZE,
        server=references.largest(0.1),
    )
    size = np.abs(expected).max()
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-10 * size)
    ours = problems.flat(states[0].inner[0].residual, leading=2)
    np.testing.assert_allclose(ours, residuals, rtol=0, atol=1e-9)
    assert np.abs(residuals).max() > 0.01


@pytest.mark.parametrize(
    ("name", "server"),
    [
        ("unruly", simulated_server(unruly())),
        *(
            pytest.param(name, server, marks=pytest.mark.slow)
            for name in CHANNELS
            for server in (None, simulated_server(unruly()))
        ),
    ],
)
def test_momentum_and_residuals_together_are_the_momentum_of_mean_gradients(
    name, server
):
    """In both phases, whatever is lost on either way."""
    tx = adam(SCHEDULE, CHANNELS[name], server_channel=server)
    weights, states = harness.run(tx, problem())
    state = states[0]
    up, down = (state.inner, None) if server is None else state.inner
    m = problems.flat(state.momentum, leading=1)
    errors = problems.flat(up.residual, leading=2).mean(axis=1)
    if down is not None:
        errors = errors + problems.flat(down.residual, leading=1)
    expected = 0.9 * m[:-1] + 0.1 * mean_gradients(weights) + errors[:-1]
    size = np.abs(m + errors).max()
    np.testing.assert_allclose((m + errors)[1:], expected, rtol=0, atol=1e-11 * size)
    assert not errors[: FREEZE + 1].any()
    assert errors[FREEZE + 1 :].any(axis=1).all()


def test_the_first_phase_is_adam_without_correction_of_bias():
    weights, _ = harness.run(adam(SCHEDULE, CHANNELS["top_k"]), problem())
    m, v, corrected = (
        np.zeros(20),
        np.zeros(20),
        optax.chain(averaged(exact()), optax.adam(SCHEDULE, b2=0.95)),
    )
    for t, g in enumerate(mean_gradients(weights)[:FREEZE]):
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
        step = -rate_at(t) * m / (np.sqrt(v) + 1e-8)
        np.testing.assert_allclose(weights[t + 1] - weights[t], step, rtol=1e-9)
    other, _ = harness.run(corrected, problem())
    assert np.abs(other[1] - weights[1]).max() > 0.1 * RATE


def test_without_loss_the_second_phase_is_preconditioned_momentum():
    ours, states = harness.run(adam(SCHEDULE, exact()), problem())
    scale = 1 / (np.sqrt(problems.flat(states[0].variance, leading=1)[-1]) + 1e-8)
    m = problems.flat(states[0].momentum, leading=1)[FREEZE]
    for t, g in list(enumerate(mean_gradients(ours)))[FREEZE:]:
        m = 0.9 * m + 0.1 * g
        np.testing.assert_allclose(
            ours[t + 1] - ours[t], -rate_at(t) * scale * m, rtol=0, atol=1e-12
        )


def test_each_phase_counts_its_own_message():
    channel = all_gather(scaled_sign(), per_leaf=True)
    tx = one_bit_adam(0.1, channel, freeze_step=3)
    signs = message_bits(channel, start())
    assert signs == 2 * (32 + 32)
    assert message_bits(tx, start(), steps=4) == (3 * 32 * 20 + signs) / 4


def test_weight_decay_is_part_of_the_step():
    tx = functools.partial(adam, SCHEDULE, CHANNELS["top_k"])
    for decay in (0.0, 0.5):
        nothing = np.zeros((1, 1, 3), np.float32)
        moved, _ = harness.updates(tx(weight_decay=decay), jnp.full(3, 2.0), nothing)
        np.testing.assert_allclose(moved, -RATE * decay * 2.0, rtol=1e-6)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="`freeze_step` must be a whole number"):
        one_bit_adam(0.1, exact(), freeze_step=0)
    with pytest.raises(ValueError, match="must average over the same workers"):
        adam(0.1, exact(), server_channel=simulated_server(top_k(1), axis_name="other"))
    with pytest.raises(ValueError, match="`weight_decay` must be finite"):
        adam(0.1, exact(), weight_decay=-1)


def test_the_state_of_a_server_is_the_same_on_all_workers():
    server = simulated_server(scaled_sign())
    tx = one_bit_adam(
        0.1, all_gather(scaled_sign()), freeze_step=1, server_channel=server
    )
    step, state = step_of(tx), (start(), tx.init(start()))
    batch = jax.tree.map(lambda b: b[0], targets(start(), 1))
    train, _ = simulate(step, state, batch)
    differs = train.layout.differs[1][0].inner
    assert all(jax.tree.leaves(differs[0].residual))
    assert not any(jax.tree.leaves(differs[1].residual))
    assert isinstance(train.layout, gmc_jax.Layout)
