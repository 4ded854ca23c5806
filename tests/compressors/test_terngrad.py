"""Tests of TernGrad."""

import jax
import numpy as np
import pytest

from gmc_jax import all_gather, terngrad
from tests.support.quantisers import assert_mean_is, blocks_of, coded, draws, vector

BUCKET = 16


def clipped(v: np.ndarray, clip: float) -> np.ndarray:
    limit = clip * v.std()
    return np.clip(v, -limit, limit)


def test_signs_and_zeros_are_unbiased(float64):
    x = vector(37)
    drawn = draws(terngrad(BUCKET, clip=None), x, 4000)
    assert_mean_is(x, drawn)
    largest = np.concatenate(
        [np.full(v.size, np.abs(v).max()) for v in blocks_of(x, BUCKET)]
    )
    assert np.all(np.isin(np.abs(drawn), [0, *largest]))
    assert np.all(np.sign(drawn) * np.sign(x) >= 0)


@pytest.mark.parametrize("bucket", [None, BUCKET])
def test_with_a_clip_the_mean_is_the_clipped_vector(bucket, float64):
    """Entries beyond the clip count as the clip."""
    x = vector(37)
    expected = np.concatenate([clipped(v, 1.5) for v in blocks_of(x, bucket or 37)])
    assert 0 < np.mean(expected != x) < 0.5
    drawn = draws(terngrad(bucket, clip=1.5), x, 4000)
    assert_mean_is(expected, drawn)
    sizes = [np.abs(v).max() for v in blocks_of(expected, bucket or 37)]
    every = np.repeat(sizes, bucket or 37)[:37]
    is_sent = drawn != 0
    np.testing.assert_allclose(
        np.abs(drawn)[is_sent], np.broadcast_to(every, drawn.shape)[is_sent], rtol=1e-12
    )


@pytest.mark.parametrize("d", [1, 40, 512])
def test_entries_that_are_alike_are_not_clipped(d):
    """Their deviation is zero but for rounding."""
    x = np.full(d, -0.3, np.float32)
    _, lost, _ = coded(terngrad(), x)
    np.testing.assert_allclose(lost, 0, atol=1e-6)


def test_a_message_is_two_bits_an_entry_and_a_float():
    tree = [jax.ShapeDtypeStruct((37,), "float32")] * 2
    assert all_gather(terngrad()).bits(tree) == 32 * 5 + 32
    assert all_gather(terngrad(), per_leaf=True).bits(tree) == 2 * (32 * 3 + 32)
    assert all_gather(terngrad(BUCKET)).bits(tree) == 32 * 5 + 5 * 32


@pytest.mark.parametrize("clip", [0, -1, np.inf])
def test_a_clip_is_positive(clip):
    with pytest.raises(ValueError, match="`clip` must be finite and greater than 0"):
        terngrad(clip=clip)


def test_a_clip_beyond_all_entries_changes_nothing():
    x = vector(37).astype(np.float32)
    _, _, decoded = coded(terngrad(clip=100.0), x)
    np.testing.assert_array_equal(decoded, coded(terngrad(clip=None), x)[2])
