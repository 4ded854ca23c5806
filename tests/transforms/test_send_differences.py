"""Tests of sent differences: what is sent, what stays, and in which precision."""

import jax.numpy as jnp
import numpy as np

from gmc_jax import all_gather, send_differences, top_k
from tests.support import harness, references

STEPS, WORKERS, D = 5, 3, 20


def draw(dtype: str = "float32"):
    draw = np.random.default_rng(0)
    gradients = draw.normal(size=(STEPS, WORKERS, D)).astype(jnp.dtype(dtype))
    return jnp.zeros(D, dtype), gradients


def test_the_largest_changes_are_sent(float64):
    params, gradients = draw("float64")
    tx = send_differences(all_gather(top_k(0.2)))
    moved, states = harness.updates(tx, params, gradients)
    known, select = np.zeros((WORKERS, D)), references.largest(0.2)
    for t, mine in enumerate(gradients):
        for k, u in enumerate(mine):
            gap = u - known[k]
            known[k] += np.where(select(t, gap), gap, 0)
        np.testing.assert_allclose(states.sent[t + 1], known, rtol=0, atol=1e-14)
        for out in (moved[t, 0], moved[t, -1], states.mean[t + 1]):
            np.testing.assert_allclose(out, known.mean(axis=0), rtol=0, atol=1e-14)


def test_what_is_not_sent_keeps_its_bits():
    params, gradients = draw()
    tx = send_differences(all_gather(top_k(0.2)))
    _, states = harness.updates(tx, params, gradients)
    changed = np.count_nonzero(np.diff(states.sent, axis=0), axis=-1)
    np.testing.assert_array_equal(changed, 4)


def test_of_16_bits_what_is_known_is_what_was_sent():
    """Rounding a difference loses something, which the next difference holds again."""
    params, gradients = draw("bfloat16")
    same = np.broadcast_to(gradients[:1], gradients.shape)
    # A third is not a number of 16 bits: float32 updates are rounded to be sent.
    same = same.astype(np.float32) / 3
    tx = send_differences(all_gather(top_k(1.0)))

    _, states = harness.updates(tx, params.astype("float32"), same)
    assert states.sent.dtype == states.mean.dtype == np.float32
    np.testing.assert_array_equal(states.sent[1], same[0])

    _, states = harness.updates(tx, params, same)
    gaps = np.abs(same - states.sent[1:]).max(axis=(1, 2))
    assert 1e-4 < gaps[0] < 1e-2
    assert gaps[1] < gaps[0] / 50
