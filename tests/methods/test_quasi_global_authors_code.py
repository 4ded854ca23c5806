"""Against the code of Quasi-Global Momentum's authors: what it did, step by step.

It has D2 and gradient tracking beside that method. tests/support/data/quasi_global.md
says how its trajectories were recorded.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import d2, gradient_tracking, qg_dsgdm, topologies
from tests.support.recordings import recordings, trained_on_quadratics

RING = topologies.ring(5)
SHAPES = {"bias": (4,), "kernel": (2, 6)}


def method(run: str) -> optax.GradientTransformation:
    """The method of a run, with the settings that it was recorded with."""
    data = recordings("quasi_global")
    momentum = data[f"{run}/momentum"].item()

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        return jnp.asarray(data[f"{run}/rates"])[step]

    if run == "d2":
        tx = d2(rate, RING)
    elif run == "tracking":
        tx = gradient_tracking(rate, RING, momentum=momentum, nesterov=True)
    elif run == "quasi-global":  # The new share of the buffer is 0.1 unless said.
        tx = qg_dsgdm(rate, RING, momentum=momentum, buffer_decay=0.9)
    else:
        kept = 1 - data[f"{run}/factor"].item()
        tx = qg_dsgdm(rate, RING, momentum=momentum, buffer_decay=kept, nesterov=True)
    return optax.chain(optax.add_decayed_weights(data["decay"].item()), tx)


@pytest.mark.slow
@pytest.mark.parametrize(
    "run", ["quasi-global", "quasi-global nesterov", "tracking", "d2"]
)
def test_the_authors_code_did_the_same(run):
    expected = recordings("quasi_global")[f"{run}/weights"]
    weights, _ = trained_on_quadratics(method(run), "quasi_global", SHAPES)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-13)
    assert np.ptp(expected[-1], axis=0).max() > 0.05
