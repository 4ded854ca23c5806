"""Against the code of DeMo's authors: what it did once, step by step.

tests/support/data/demo.md says how its trajectories were recorded.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import demo
from tests.support import harness, problems

FILE = pathlib.Path(__file__).parents[1] / "support" / "data" / "demo_trajectories.npz"
SHAPES = {"bias": (8,), "kernel": (6, 8), "wide": (4, 12)}


@functools.cache
def recorded() -> dict[str, np.ndarray]:
    with np.load(FILE) as file:
        return {name: array.astype(np.float64) for name, array in file.items()}


def split(vectors) -> dict[str, jax.Array]:
    """Vectors [..., d] as parameters."""
    ends = np.cumsum([np.prod(shape) for shape in SHAPES.values()])[:-1]
    parts = zip(jnp.split(vectors, ends, axis=-1), SHAPES.items(), strict=True)
    return {
        name: part.reshape(*part.shape[:-1], *shape) for part, (name, shape) in parts
    }


@pytest.mark.slow
@pytest.mark.parametrize("run", ["chunks", "defaults"])
def test_the_authors_code_did_the_same(run):
    data = recorded()

    def setting(name):
        return data[f"{run}/{name}"].item()

    def rate(step):
        return jnp.asarray(data[f"{run}/rates"])[step]

    tx = demo(
        rate,
        decay=setting("decay"),
        chunk=int(setting("chunk")),
        kept=int(setting("topk")),
        weight_decay=setting("weight_decay"),
    )

    def step(state, batch):
        (params, opt_state), (curvature, target, noise) = state, batch
        grads = jax.tree.map(
            lambda w, h, b, n: h * (w - b) + n, params, curvature, target, noise
        )
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {}

    with jax.enable_x64(True):
        shape = data["noise"].shape
        batches = tuple(
            split(jnp.broadcast_to(data[name], shape))
            for name in ("curvatures", "targets", "noise")
        )
        params = split(data["start"])
        (weights, states), _ = harness.history(step, (params, tx.init(params)), batches)
    expected = data[f"{run}/weights"]
    ours = problems.flat(weights, leading=1)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-13)
    deltas = -harness.residual(states)[-1]
    np.testing.assert_allclose(deltas, data[f"{run}/deltas"], rtol=0, atol=1e-13)
    assert np.abs(expected[-1] - expected[0]).max() > 0.5
    assert np.abs(deltas).max() > 0.03
