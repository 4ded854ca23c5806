"""Against torchft's code of DiLoCo: what it did once, step by step.

tests/support/data/torchft.md says how its trajectories were recorded. A fragment
arrives where it is due there, and was sent `delay` steps earlier. Here it is sent where
it is due. So counting begins at `delay` in these tests.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import diloco, exact, mix, streaming_diloco
from tests.support import harness, problems

DATA = pathlib.Path(__file__).parents[1] / "support" / "data"
INNER = {
    "AdamW": optax.adamw(0.1, weight_decay=0.1),
    "SGD": optax.sgd(0.05, 0.9, nesterov=True),
}


@functools.cache
def recordings() -> dict[str, np.ndarray]:
    with np.load(DATA / "torchft_trajectories.npz") as file:
        return dict(file)


def setting(run: str, name: str):
    return recordings()[f"{run}/{name}"].item()


def split(vectors: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Vectors [..., 24] as the parameters of two layers."""

    def leaf(start: int, *shape: int) -> np.ndarray:
        part = vectors[..., start : start + int(np.prod(shape))]
        return part.reshape(*part.shape[:-1], *shape).astype(float)

    return {
        "layer_0": {"bias": leaf(0, 4), "kernel": leaf(4, 3, 4)},
        "layer_1": {"kernel": leaf(16, 4, 2)},
    }


def trained(tx, params, batches, gradient, delay: int = 0) -> np.ndarray:
    """Weights, [steps + 1, workers, d]."""

    def step(state, batch):
        params, opt_state = state
        grads = gradient(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {}

    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, params)
        state = tx.init(params)
        if delay:
            state = state._replace(step=jnp.asarray(delay, jnp.int32))
        (weights, _), _ = harness.history(step, (params, state), batches)
    return problems.flat(weights, leading=2)


@pytest.mark.parametrize(
    "run",
    [
        "streaming",
        pytest.param("late", marks=pytest.mark.slow),
        pytest.param("diloco", marks=pytest.mark.slow),
    ],
)
def test_torchft_did_the_same(run):
    data, delay = recordings(), setting(run, "fragment_sync_delay")
    inner = INNER[setting(run, "inner")]
    period, rate = setting(run, "sync_every"), setting(run, "outer_rate")
    if setting(run, "fragments") == 1:
        tx = diloco(inner, exact(), period=period, outer_learning_rate=rate)
    else:
        tx = streaming_diloco(
            inner,
            exact(),
            period=period,
            delay=delay,
            merge=mix(setting(run, "fragment_update_alpha")),
            outer_learning_rate=rate,
        )
    batches = tuple(
        split(np.broadcast_to(data[name], data["noise"].shape))
        for name in ("curvatures", "targets", "noise")
    )

    def gradient(params, batch):
        return jax.tree.map(lambda w, h, b, n: h * (w - b) + n, params, *batch)

    ours = trained(tx, split(data["start"]), batches, gradient, delay)
    expected = data[f"{run}/weights"]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-13)
    assert np.ptp(expected[-2], axis=0).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("index", range(6))
def test_their_own_recordings(index):
    """Of two layers of one weight, whose workers do the same."""
    delay, alpha = recordings()[f"fixture {index}/setting"]
    expected = recordings()[f"fixture {index}/weights"]
    tx = streaming_diloco(
        optax.sgd(1.0),
        exact(),
        period=6,
        delay=int(delay),
        merge=mix(float(alpha)),
        outer_learning_rate=2.0,
        outer_momentum=None,
    )
    params = {"layer_0": {"weight": np.ones(1)}, "layer_1": {"weight": np.ones(1)}}
    batches = np.full((len(expected) - 1, 2), 2.0)

    def gradient(params, batch):
        return jax.tree.map(lambda w: jnp.full_like(w, batch), params)

    ours = trained(tx, params, batches, gradient, int(delay))
    np.testing.assert_array_equal(ours, np.stack([expected] * 2, axis=1))
