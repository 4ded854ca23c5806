"""Against the code of DeMo's authors: what it did once, step by step.

tests/support/data/demo.md says how its trajectories were recorded.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import demo
from tests.support import harness
from tests.support.recordings import recordings, trained_on_quadratics

SHAPES = {"bias": (8,), "kernel": (6, 8), "wide": (4, 12)}


@pytest.mark.slow
@pytest.mark.parametrize("run", ["chunks", "defaults"])
def test_the_authors_code_did_the_same(run):
    data = recordings("demo")

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
    weights, states = trained_on_quadratics(tx, "demo", SHAPES)
    expected = data[f"{run}/weights"]
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-13)
    deltas = -harness.residual(states)[-1]
    np.testing.assert_allclose(deltas, data[f"{run}/deltas"], rtol=0, atol=1e-13)
    assert np.abs(expected[-1] - expected[0]).max() > 0.5
    assert np.abs(deltas).max() > 0.03
