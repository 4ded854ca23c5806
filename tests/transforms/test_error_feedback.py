"""Tests of error feedback."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import (
    ErrorFeedbackState,
    all_gather,
    error_feedback,
    exact,
    random_block,
    scaled_sign,
    top_k,
    two_phase,
)
from gmc_jax.core import Tree
from tests.support import harness, problems, references
from tests.support.harness import residual
from tests.support.virtual_iterates import CHANNELS

STEPS, WORKERS, D = 6, 3, 20


def gradients(steps: int = STEPS, dtype: str = "float32"):
    """A tree of [steps, workers, ...] and one worker's parameters."""
    draw = np.random.default_rng(0)
    params = problems.tree(np.zeros(D, dtype))
    return params, jax.tree.map(
        lambda leaf: draw.normal(size=(steps, WORKERS, *leaf.shape)).astype(dtype),
        params,
    )


def test_what_was_lost_is_kept_and_sent_later(float64):
    params, grads = gradients(dtype="float64")
    tx = error_feedback(all_gather(top_k(0.2)))
    moved, states = harness.updates(tx, params, grads)

    select = references.largest(0.2)
    residuals = np.zeros((WORKERS, D))
    for t, mine in enumerate(problems.flat(grads, leading=2)):
        sent = np.zeros_like(residuals)
        for k in range(WORKERS):
            residuals[k] += mine[k]
            mask = select(t, residuals[k])
            sent[k] = np.where(mask, residuals[k], 0)
            residuals[k] = np.where(mask, 0, residuals[k])
        ours = problems.flat(moved, leading=2)[t]
        np.testing.assert_allclose(ours, np.tile(sent.mean(axis=0), (WORKERS, 1)))
        np.testing.assert_array_equal(residual(states)[t + 1], residuals)


@pytest.mark.parametrize("decay", [0.0, 0.95])
def test_old_residuals_fade(decay, float64):
    """The mean of residual + output is that of decay * residual before + input."""
    params, grads = gradients(dtype="float64")
    tx = error_feedback(all_gather(top_k(0.2)), decay=decay)
    moved, states = harness.updates(tx, params, grads)
    came_in, kept = problems.flat(grads, leading=2), residual(states)
    went_out = problems.flat(moved, leading=2)
    expected = (decay * kept[:-1] + came_in).mean(axis=1)
    np.testing.assert_allclose((went_out + kept[1:]).mean(axis=1), expected, atol=1e-13)
    for t, k in itertools.product(range(STEPS), range(WORKERS)):
        total = decay * kept[t, k] + came_in[t, k]
        mask = references.largest(0.2)(t, total)
        np.testing.assert_array_equal(kept[t + 1, k], np.where(mask, 0, total))


@pytest.mark.parametrize("decay", [-0.1, 1.1, np.nan])
def test_a_decay_is_a_proportion(decay):
    with pytest.raises(ValueError, match=r"`decay` must be in \[0, 1\]"):
        error_feedback(exact(), decay=decay)


@pytest.mark.parametrize("name", CHANNELS)
def test_no_part_of_any_update_is_lost(name, float64):
    """The mean of residual + sum of outputs is the mean of the sum of inputs."""
    params, grads = gradients(dtype="float64")
    moved, states = harness.updates(error_feedback(CHANNELS[name]), params, grads)
    came_in = problems.flat(grads, leading=2).mean(axis=1).sum(axis=0)
    went_out = problems.flat(moved, leading=2)[:, 0].sum(axis=0)
    residuals = residual(states)[-1].mean(axis=0)
    np.testing.assert_allclose(went_out + residuals, came_in, rtol=0, atol=1e-11)
    assert np.abs(residuals).max() > 0.1


@pytest.mark.parametrize(
    "channel",
    [
        all_gather(top_k(0.1)),
        all_gather(scaled_sign()),
        two_phase(scaled_sign()),
        exact(),
    ],
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_trees_lose_nothing_in_hundreds_of_steps(channel, dtype):
    """A float32 residual loses less than 1e-6; a bfloat16 one would lose 0.4 %."""
    params, grads = gradients(steps=200, dtype=dtype)
    moved, states = harness.updates(error_feedback(channel), params, grads)
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {np.dtype("float32")}
    residuals = optax.tree.get(states, "residual")
    assert {leaf.dtype for leaf in jax.tree.leaves(residuals)} == {np.dtype("float32")}

    came_in = problems.flat(grads, leading=2).astype(np.float64).mean(axis=1)
    went_out = problems.flat(moved, leading=2)[:, 0].astype(np.float64)
    residuals = np.stack(
        [problems.flat(jax.tree.map(lambda x: x[-1], residuals), leading=1)]
    )
    mean_residual = residuals.astype(np.float64).reshape(-1, D).mean(axis=0)
    total = went_out.sum(axis=0) + mean_residual
    error = np.abs(total - came_in.sum(axis=0)).max()
    assert error < 1e-6 * np.abs(came_in).sum(axis=0).max()


def test_what_is_too_large_for_16_bits_stays_in_the_residual():
    tx = error_feedback(exact())
    params = jnp.zeros((), jnp.float16)
    updates = np.array([[1e5, 2.0], [0, 0]], np.float32)
    moved, states = harness.updates(tx, params, updates)
    np.testing.assert_array_equal(moved[:, 0], [65506 / 2, (1e5 - 65504) / 2])
    np.testing.assert_array_equal(states.residual[1:], [[1e5 - 65504, 0], [0, 0]])


def test_through_an_exact_channel_residuals_are_zero():
    params, grads = gradients()
    moved, states = harness.updates(error_feedback(exact()), params, grads)
    residuals = optax.tree.get(states, "residual")
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(residuals))
    mean = problems.flat(grads, leading=2).mean(axis=1)
    np.testing.assert_allclose(
        problems.flat(moved, leading=2)[:, 0], mean, rtol=1e-5, atol=1e-6
    )


def test_its_state_is_the_residual_and_the_channels():
    params, grads = gradients()
    tx = error_feedback(all_gather(random_block(0.1)))
    _, states = harness.updates(tx, params, grads)
    assert isinstance(states, ErrorFeedbackState)
    assert states.residual["bias"].shape == (STEPS + 1, WORKERS, 4)
    assert states.channel.step.tolist() == list(range(STEPS + 1))
    assert not np.any(states.residual["kernel"][0])


def test_it_needs_no_parameters():
    tx = error_feedback(all_gather(top_k(0.5)))
    state = tx.init(jnp.zeros(4))
    gradients = jnp.array([[1.0, 2, 3, 4], [4, 3, 2, 1]])
    moved: Tree = jax.vmap(lambda mine: tx.update(mine, state)[0], axis_name="workers")(
        gradients
    )
    np.testing.assert_array_equal(moved[0], [2, 1.5, 1.5, 2])


def test_entries_are_selected_after_they_were_rounded():
    """Of two values that round to the same 16 bits, the lower index is sent."""
    tx = error_feedback(all_gather(top_k(0.5)))
    grads = jnp.array([[1.0, 1.001]])
    params = jnp.zeros(2, jnp.bfloat16)

    def once(grads, params):
        return tx.update(grads, tx.init(params), params)[0]

    everyone = jax.jit(jax.vmap(once, in_axes=(0, None), axis_name="workers"))
    np.testing.assert_array_equal(everyone(grads, params), [[1, 0]])
    wide = everyone(grads, params.astype(jnp.float32))
    np.testing.assert_allclose(wide, [[0, 1.001]])
