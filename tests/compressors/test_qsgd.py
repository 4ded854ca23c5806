"""Tests of QSGD."""

import jax
import numpy as np
import pytest

from gmc_jax import all_gather, qsgd
from tests.support.quantisers import assert_mean_is, blocks_of, coded, draws, vector

BUCKET = 16


@pytest.mark.parametrize("levels", [1, 5])
def test_a_level_of_the_norm_is_drawn_without_a_bias(levels, float64):
    x = vector(37)
    drawn = draws(qsgd(levels, BUCKET), x, 4000)
    assert_mean_is(x, drawn)
    norms = np.concatenate(
        [np.full(v.size, np.linalg.norm(v)) for v in blocks_of(x, BUCKET)]
    )
    place = levels * np.abs(x) / norms
    drawn_levels = levels * np.abs(drawn) / norms
    is_below = np.isclose(drawn_levels, np.floor(place), rtol=0, atol=1e-9)
    is_above = np.isclose(drawn_levels, np.floor(place) + 1, rtol=0, atol=1e-9)
    assert np.all(is_below | is_above)
    part = place - np.floor(place)
    np.testing.assert_allclose(is_above.mean(axis=0), part, rtol=0, atol=0.035)
    # The variance of a whole bucket has a bound.
    for v, own in zip(
        blocks_of(x, BUCKET), np.split(drawn, [16, 32], axis=1), strict=True
    ):
        variance = np.sum(own.var(axis=0))
        bound = min(v.size / levels**2, np.sqrt(v.size) / levels)
        assert 0 < variance <= bound * np.sum(v**2)


def test_many_levels_lose_little(float64):
    x = vector(8)
    _, lost, _ = coded(qsgd(127, None), x)
    assert np.all(np.abs(lost) <= np.linalg.norm(x) / 127)


@pytest.mark.parametrize(
    ("levels", "code_bits"), [(1, 2), (3, 3), (4, 4), (7, 4), (8, 5), (127, 8)]
)
def test_a_code_has_the_bits_of_its_levels(levels, code_bits):
    """With both signs and zero, levels are 2 * levels + 1 numbers."""
    channel = all_gather(qsgd(levels, 64))
    words = channel.bits(jax.ShapeDtypeStruct((128,), "float32")) - 2 * 32
    assert words == code_bits * 128


def test_a_code_fits_eight_bits():
    with pytest.raises(ValueError, match="`levels` must be from 1 to 127, got 128"):
        qsgd(128)


@pytest.mark.parametrize(("levels", "sent"), [(1, 2.0**126), (127, 2.0**128)])
def test_the_largest_numbers_stay_finite(levels, sent):
    """Though their norm is infinite, and a multiple of a rounded scale could be."""
    x = np.full(1000, np.finfo(np.float32).max, np.float32)
    _, lost, decoded = coded(qsgd(levels, None), x)
    assert np.isfinite(decoded).all()
    assert np.isfinite(lost).all()
    np.testing.assert_allclose(decoded.astype(float), sent, rtol=1e-6)
