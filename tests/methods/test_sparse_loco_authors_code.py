"""Against two codes of SparseLoCo: what they did once, step by step.

The first version of its code is CCLoco, and the deployed one Templar. Beside their
recordings in tests/support/data, ccloco.md and templar.md say how these were made.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax.compressors.centroids
from gmc_jax import (
    centroids,
    error_feedback,
    mean_of_senders,
    periodic,
    quantised,
    sparse_loco,
    top_k,
    top_k_of_rows,
)
from tests.support import harness
from tests.support.recordings import Shapes, recordings, trained_on_quadratics

MATRICES = {"bias": (12,), "kernel": (6, 8), "wide": (4, 12)}
VECTORS = {"first": (12,), "last": (12,), "second": (12,)}
INNER = {
    "AdamW": optax.adamw(0.1, weight_decay=0.1),
    "SGD": optax.sgd(0.05, 0.9, nesterov=True),
}


def setting(run: str, name: str) -> Any:
    return recordings("ccloco")[f"{run}/{name}"].item()


def trained(tx: optax.GradientTransformation, shapes: Shapes):
    """The weights, [steps + 1, workers, d], and the last residuals."""
    weights, states = trained_on_quadratics(tx, "ccloco", shapes)
    return weights, harness.residual(states)[-1]


def assert_equals_the_recording(run: str, weights, residuals) -> None:
    data = recordings("ccloco")
    expected = data[f"{run}/weights"]
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(residuals, data[f"{run}/residuals"], rtol=0, atol=1e-13)
    assert np.ptp(expected[-2], axis=0).max() > 0.01
    assert np.abs(residuals).max() > 0.1


@pytest.mark.slow
def test_it_is_theirs_where_a_chunk_is_a_row():
    run = "rows"
    sent = mean_of_senders(top_k_of_rows(int(setting(run, "top_k"))), per_leaf=True)
    inner, period = INNER[setting(run, "inner")], int(setting(run, "period"))
    tx = sparse_loco(inner, sent, period=period, decay=setting(run, "error_decay"))
    assert_equals_the_recording(run, *trained(tx, MATRICES))


@pytest.mark.slow
def test_other_outer_rates_count_twice_in_theirs():
    """It has momentum and weight decay too, of which the latter is not sent."""
    run = "twice"
    rate = setting(run, "lr")
    sent = mean_of_senders(top_k_of_rows(int(setting(run, "top_k"))), per_leaf=True)
    outer = optax.chain(
        optax.scale(rate),
        error_feedback(sent, setting(run, "error_decay")),
        optax.trace(setting(run, "momentum")),
        optax.add_decayed_weights(setting(run, "weight_decay")),
        optax.scale(-rate),
    )
    tx = periodic(INNER[setting(run, "inner")], outer, int(setting(run, "period")))
    assert_equals_the_recording(run, *trained(tx, MATRICES))


def in_bins() -> optax.GradientTransformation:
    """A tensor is one chunk, so that its values share the bins there and here."""
    selection = top_k(setting("bins", "top_k") / 12)
    compressor = quantised(selection, centroids(2, bucket=None))
    return sparse_loco(
        INNER[setting("bins", "inner")],
        mean_of_senders(compressor, per_leaf=True),
        period=int(setting("bins", "period")),
        decay=setting("bins", "error_decay"),
    )


@pytest.mark.slow
def test_their_deviation_divides_by_one_less(monkeypatch):
    module = gmc_jax.compressors.centroids
    ours = module.mean_and_deviation

    def theirs(blocks, counts):
        mean, deviation = ours(blocks, counts)
        return mean, deviation * jnp.sqrt(counts / (counts - 1))

    weights, _ = trained(in_bins(), VECTORS)
    assert np.abs(weights - recordings("ccloco")["bins/weights"]).max() > 0.01
    monkeypatch.setattr(module, "mean_and_deviation", theirs)
    assert_equals_the_recording("bins", *trained(in_bins(), VECTORS))


@pytest.mark.slow
def test_the_deployed_code_takes_squares_and_counts_the_rate_once():
    """With leaves of a square a row, of entries in that order."""
    data = recordings("templar")
    places = np.arange(108)
    squares = {
        "bias": places[:12].reshape(3, 4),
        "kernel": places[12:60].reshape(2, 3, 2, 4).swapaxes(1, 2).reshape(4, 12),
        "wide": places[60:].reshape(1, 4, 3, 4).swapaxes(1, 2).reshape(3, 16),
    }
    shapes = {name: square.shape for name, square in squares.items()}
    order = np.concatenate([square.ravel() for square in squares.values()])
    sent = mean_of_senders(top_k_of_rows(int(data["topk_compression"])), per_leaf=True)
    tx = sparse_loco(
        INNER["AdamW"],
        sent,
        period=int(data["period"]),
        decay=data["momentum_decay"].item(),
        outer_learning_rate=data["outer_learning_rate"].item(),
    )
    weights, states = trained_on_quadratics(tx, "templar", shapes, order=order)
    expected, residuals = (data[name][..., order] for name in ("weights", "residuals"))
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-13)
    ours = harness.residual(states)[-1]
    np.testing.assert_allclose(ours, residuals, rtol=0, atol=1e-13)
    assert np.ptp(expected[-2], axis=0).max() > 0.01
    assert np.abs(residuals).max() > 0.1
