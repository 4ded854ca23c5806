"""Against torchft's code of DiLoCo: what it did once, step by step.

tests/support/data/torchft.md says how its trajectories were recorded. A fragment
arrives where it is due there, and was sent `delay` steps earlier. Here it is sent where
it is due. So counting begins at `delay` in these tests.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import diloco, exact, mix, streaming_diloco
from tests.support.recordings import recordings, trained, trained_on_quadratics

SHAPES = {
    "layer_0": {"bias": (4,), "kernel": (3, 4)},
    "layer_1": {"kernel": (4, 2)},
}
INNER = {
    "AdamW": optax.adamw(0.1, weight_decay=0.1),
    "SGD": optax.sgd(0.05, 0.9, nesterov=True),
}


def setting(run: str, name: str) -> Any:
    return recordings("torchft")[f"{run}/{name}"].item()


def counting_from(delay: int):
    """Changes a state to one that has counted so many steps."""

    def begin(state):
        return state._replace(step=jnp.asarray(delay, jnp.int32)) if delay else state

    return begin


@pytest.mark.parametrize(
    "run",
    [
        "late",
        pytest.param("streaming", marks=pytest.mark.slow),
        pytest.param("diloco", marks=pytest.mark.slow),
    ],
)
def test_torchft_did_the_same(run):
    delay = int(setting(run, "fragment_sync_delay"))
    inner = INNER[setting(run, "inner")]
    period, rate = int(setting(run, "sync_every")), setting(run, "outer_rate")
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
    weights, _ = trained_on_quadratics(tx, "torchft", SHAPES, counting_from(delay))
    expected = recordings("torchft")[f"{run}/weights"]
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-13)
    assert np.ptp(expected[-2], axis=0).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("index", range(6))
def test_their_own_recordings(index):
    """Of two layers of one weight, whose workers do the same."""
    delay, alpha = recordings("torchft")[f"fixture {index}/setting"]
    expected = recordings("torchft")[f"fixture {index}/weights"]
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

    weights, _ = trained(tx, params, batches, gradient, counting_from(int(delay)))
    np.testing.assert_array_equal(weights, np.stack([expected] * 2, axis=1))
