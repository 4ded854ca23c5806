"""Tests of DiLoCo: numbers that others published, and the methods it contains."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    averaged,
    diloco,
    exact,
    local_sgd,
    periodic,
    slowmo,
    streaming_diloco,
)
from tests.support import harness
from tests.support.virtual_iterates import RATE, SCHEDULE, problem

whole = functools.partial(
    streaming_diloco, fragments=1, delay=0, merge=gmc_jax.mix(0.0)
)


@pytest.mark.parametrize("method", [diloco, whole])
def test_the_losses_that_maxtext_derives_by_hand(method):
    """Two workers, least squares with two samples each; they meet after step three."""
    inputs = np.array([[[0, 1], [1, 0]], [[1, 0], [0, 1]]], np.float32)
    labels = np.array([[1, 2], [2, 3]], np.float32)
    params = {"kernel": jnp.array([2.0, 1.0]), "bias": jnp.array(1.0)}
    tx = method(
        optax.sgd(0.1),
        exact(),
        period=3,
        outer_learning_rate=1.0,
        outer_momentum=0.9,
    )

    def loss_fn(params, batch):
        x, y = batch
        return jnp.mean((x @ params["kernel"] + params["bias"] - y) ** 2)

    def step(state, batch):
        loss, grads = jax.value_and_grad(loss_fn)(state[0], batch)
        updates, opt_state = tx.update(grads, state[1], state[0])
        return (optax.apply_updates(state[0], updates), opt_state), loss

    batches = np.stack([inputs] * 4), np.stack([labels] * 4)
    (weights, _), losses = harness.history(step, (params, tx.init(params)), batches)
    np.testing.assert_allclose(
        losses[:3], [[1, 1], [0.49, 0.81], [0.2401, 0.6561]], rtol=1e-6
    )
    assert losses[3].mean() == pytest.approx(0.574244, abs=1e-6)
    np.testing.assert_allclose(weights["kernel"][3, 0], [1.5345, 1.0494], atol=1e-4)
    np.testing.assert_allclose(weights["bias"][3], [0.5839] * 2, atol=1e-4)


@pytest.mark.parametrize("streams", [False, True])
def test_the_history_that_torchft_keeps_of_two_fragments(streams):
    """Each meets every six steps, half a period after the other.

    Gradients are 2, the inner rate 1, the outer one 2 without momentum. Numbers are
    those of its fixture without delay and mixing, of both of its workers.
    """
    outer = optax.chain(averaged(exact()), optax.sgd(2.0))

    def fragment(first: int):
        return periodic(
            optax.sgd(1.0),
            outer,
            lambda step: jnp.where(jnp.asarray(step) < first, first, 6),
        )

    tx = optax.partition(
        {"one": fragment(3), "other": fragment(6)}, {"layer0": "one", "layer1": "other"}
    )
    if streams:
        tx = streaming_diloco(
            optax.sgd(1.0),
            exact(),
            period=6,
            fragments=lambda path: int(path[-1]),
            delay=0,
            merge=gmc_jax.mix(0.0),
            outer_learning_rate=2.0,
            outer_momentum=None,
        )
    params = {"layer0": jnp.ones((1, 1)), "layer1": jnp.ones((1, 1))}
    gradients = jax.tree.map(lambda x: np.full((15, 2, 1, 1), 2.0, np.float32), params)

    def step(state, gradients):
        updates, opt_state = tx.update(gradients, state[1], state[0])
        return (optax.apply_updates(state[0], updates), opt_state), 0

    (weights, _), _ = harness.history(step, (params, tx.init(params)), gradients)
    layer0 = [
        1,
        -1,
        -3,
        -11,
        -13,
        -15,
        -17,
        -19,
        -21,
        -35,
        -37,
        -39,
        -41,
        -43,
        -45,
        -59,
    ]
    layer1 = [1, -1, -3, -5, -7, -9, -23, -25, -27, -29, -31, -33, -47, -49, -51, -53]
    for name, expected in (("layer0", layer0), ("layer1", layer1)):
        np.testing.assert_array_equal(
            weights[name].reshape(16, 2), np.transpose([expected] * 2)
        )


def test_of_plain_outer_steps_it_is_local_sgd():
    ours, _ = harness.run(
        diloco(
            optax.sgd(SCHEDULE),
            exact(),
            period=4,
            outer_learning_rate=1.0,
            outer_momentum=0.0,
        ),
        problem(),
    )
    local, _ = harness.run(local_sgd(SCHEDULE, exact(), period=4), problem())
    np.testing.assert_allclose(ours, local, rtol=0, atol=1e-12)


def test_a_heavy_ball_outside_is_slowmo_at_a_constant_rate():
    outer = optax.chain(averaged(exact()), optax.sgd(0.7, 0.5))
    ours, _ = harness.run(periodic(optax.sgd(RATE), outer, 4), problem())
    slow, _ = harness.run(
        slowmo(optax.sgd(RATE), exact(), period=4, slow_learning_rate=0.7), problem()
    )
    np.testing.assert_allclose(ours, slow, rtol=0, atol=1e-12)


def test_every_step_with_plain_outer_steps_is_sgd():
    once = functools.partial(
        diloco, period=1, outer_learning_rate=1.0, outer_momentum=0.0
    )
    ours, _ = harness.run(once(optax.sgd(SCHEDULE), exact()), problem())
    sgd, _ = harness.run(gmc_jax.dmsgd(SCHEDULE, exact(), momentum=0), problem())
    np.testing.assert_allclose(ours[:, 0], sgd, rtol=0, atol=1e-12)


def test_adamw_inside_keeps_each_workers_own_state():
    """The paper's inner optimizer: moments differ, the counter goes on over syncs."""
    tx = diloco(optax.adamw(1e-2), exact(), period=3)
    weights, states = harness.run(tx, problem())
    adam = states.inner[0]
    assert np.ptp(adam.mu["bias"][-1], axis=0).max() > 1e-3
    assert adam.count[-1] == 50
    met = weights[3::3]
    np.testing.assert_allclose(met, met[:, :1].repeat(4, axis=1), rtol=0, atol=1e-14)
    assert np.ptp(weights[-1], axis=0).max() > 1e-3


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="`outer_learning_rate`"):
        diloco(optax.sgd(0.1), exact(), outer_learning_rate=0)
    with pytest.raises(ValueError, match="`outer_momentum`"):
        diloco(optax.sgd(0.1), exact(), outer_momentum=1)
    with pytest.raises(ValueError, match="`period`"):
        diloco(optax.sgd(0.1), exact(), period=0)
