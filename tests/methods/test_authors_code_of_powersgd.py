"""Against the two codes of PowerSGD's authors: what they did once, step by step.

tests/support/data/powersgd.md says how their trajectories were recorded.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import (
    alternating_low_rank,
    error_feedback,
    exact,
    join_channels,
    low_rank,
    power_sgd,
)
from tests.support import harness, problems

FILE = pathlib.Path(__file__).parents[1] / "support/data/powersgd_trajectories.npz"
SHAPES = {"bias": (3,), "first": (6, 5), "last": (6, 5), "wide": (4, 12)}
RANK, MOMENTUM, DENSE = 2, 0.9, 4


@functools.cache
def recorded() -> dict[str, np.ndarray]:
    with np.load(FILE) as file:
        return {name: array.astype(np.float64) for name, array in file.items()}


def split(vectors, turned: bool) -> dict:
    """Vectors [..., d] as parameters, the matrices perhaps transposed."""
    ends = np.cumsum([np.prod(shape) for shape in SHAPES.values()])[:-1]
    tree = {}
    for part, (name, shape) in zip(
        jnp.split(vectors, ends, axis=-1), SHAPES.items(), strict=True
    ):
        leaf = part.reshape(*part.shape[:-1], *shape)
        is_turned = turned and len(shape) == 2
        tree[name] = jnp.swapaxes(leaf, -1, -2) if is_turned else leaf
    return tree


def trained(tx, factors, turned: bool):
    """The weights as the recording has them, and the mean residual at the end.

    `factors` puts the recorded first factors into a state.
    """
    data = recorded()

    def step(state, batch):
        (params, opt_state), (curvature, target, noise) = state, batch
        grads = jax.tree.map(
            lambda w, h, b, n: h * (w - b) + n, params, curvature, target, noise
        )
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {}

    with jax.enable_x64(True):
        steps = len(data["rates"])
        batches = [
            split(jnp.broadcast_to(data[name], data["noise"].shape), turned)
            for name in ("curvatures", "targets", "noise")
        ]
        assert steps == len(data["noise"])
        params = split(data["start"], turned)
        (weights, states), _ = harness.history(
            step, (params, factors(tx.init(params))), tuple(batches)
        )
    residual = states[0].residual

    def flat(tree, leading: int):
        turn = {
            name: np.swapaxes(leaf, -1, -2) if turned and name != "bias" else leaf
            for name, leaf in tree.items()
        }
        return problems.flat(turn, leading)

    means = {  # A leaf that is sent exactly has one residual for all workers.
        name: leaf[-1].mean(axis=0) if leaf.ndim - 1 > len(SHAPES[name]) else leaf[-1]
        for name, leaf in residual.items()
    }
    return flat(weights, 1), flat(means, 0)


def first_factors(run: str) -> jax.Array:
    """In the order of the state: matrices of one shape are beside each other."""
    given = [recorded()[f"{run}/factors of {what}"] for what in ("matrices", "wide")]
    return jnp.concatenate([factor.ravel() for factor in given])


def rate(step):
    return jnp.asarray(recorded()["rates"])[step]


def assert_equals_the_recording(run: str, weights, residual) -> None:
    expected = recorded()[f"{run}/weights"]
    size = np.abs(expected).max()
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-12 * size)
    theirs = recorded()[f"{run}/residuals"].mean(axis=0)
    np.testing.assert_allclose(residual, theirs, rtol=0, atol=1e-11)
    assert np.abs(theirs).max() > 0.1


def test_it_is_the_code_of_the_paper():
    """Their residuals are of the mean of all workers; the mean residual is ours."""

    def factors(state):
        feedback = state[0]
        channel = feedback.channel._replace(right=first_factors("paper"))
        return (feedback._replace(channel=channel), *state[1:])

    tx = power_sgd(rate, low_rank(RANK), momentum=MOMENTUM)
    assert_equals_the_recording("paper", *trained(tx, factors, turned=False))


@pytest.mark.slow
def test_the_alternating_form_is_their_library():
    """On transposed matrices, since theirs begins with the other factor."""

    def factors(state):
        feedback = state[0]
        dense, own = feedback.channel.inner
        own = own._replace(right=first_factors("library"))
        channel = feedback.channel._replace(inner=(dense, own))
        return (feedback._replace(channel=channel), *state[1:])

    channel = join_channels([exact(), alternating_low_rank(RANK)], [DENSE])
    tx = optax.chain(
        error_feedback(channel),
        optax.trace(MOMENTUM),
        optax.scale_by_learning_rate(rate),
    )
    assert_equals_the_recording("library", *trained(tx, factors, turned=True))
