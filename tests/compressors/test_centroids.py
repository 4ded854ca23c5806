"""Tests of few bins for each bucket, and the mean of each."""

import jax
import numpy as np
import pytest

from gmc_jax import all_gather, centroids
from tests.support.quantisers import blocks_of, coded, vector

BUCKET = 16


def transcribed(v: np.ndarray, bits: int, offset: float) -> tuple[np.ndarray, list]:
    """The codes of a bucket, and the mean of each bin."""
    bins = 2**bits
    scale = 6 * v.std() / bins
    codes = [
        int(
            min(
                max(round((entry - v.mean()) / scale - offset) + bins // 2, 0), bins - 1
            )
        )
        for entry in v
    ]
    means = []
    for code in range(bins):
        own = [entry for entry, its in zip(v, codes, strict=True) if its == code]
        means.append(sum(own) / len(own) if own else 0.0)
    return np.array(codes), means


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("bits", [1, 2, 3])
def test_an_entry_becomes_the_mean_of_its_bin(bits, offset, float64):
    x = vector(37)
    message, lost, decoded = coded(centroids(bits, BUCKET, offset), x)
    codes, means = zip(
        *(transcribed(v, bits, offset) for v in blocks_of(x, BUCKET)), strict=True
    )
    expected = [np.array(m)[c] for c, m in zip(codes, means, strict=True)]
    np.testing.assert_allclose(message.scales, means, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(decoded, np.concatenate(expected), rtol=1e-12)
    np.testing.assert_allclose(lost, x - decoded, rtol=0, atol=1e-13)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_what_is_lost_sums_to_zero_and_is_orthogonal_to_what_is_sent(offset, float64):
    x = vector(37)
    _, lost, decoded = coded(centroids(2, BUCKET, offset), x)
    for v, e, q in zip(
        *(blocks_of(whole, BUCKET) for whole in (x, lost, decoded)), strict=True
    ):
        assert abs(np.sum(e)) < 1e-12 * np.sum(np.abs(v))
        assert abs(e @ q) < 1e-12 * (v @ v)
        np.testing.assert_allclose(v @ v, q @ q + e @ e, rtol=1e-12)
        assert 0 < e @ e < v @ v


def test_the_largest_entries_need_two_bins(float64):
    """The codes of a bit, in two bits; what is sent is nearly all of the energy."""
    normal = np.random.default_rng(0).normal(size=4096)
    x = normal[np.argsort(np.abs(normal))[-64:]]
    message, lost, _ = coded(centroids(2, None), x)
    used = np.unique(message.scales[message.scales != 0])
    assert used.size == 2
    assert 1 - (lost @ lost) / (x @ x) == pytest.approx(0.989, abs=3e-3)


def test_an_offset_of_a_half_is_symmetric_about_the_mean(float64):
    """The opposite of a vector without ties has the opposite bins."""
    x = vector(37)
    _, _, decoded = coded(centroids(2, BUCKET, 0.5), x)
    _, _, opposite = coded(centroids(2, BUCKET, 0.5), -x)
    np.testing.assert_allclose(opposite, -decoded, rtol=1e-12)
    _, _, decoded = coded(centroids(2, BUCKET), x)
    _, _, opposite = coded(centroids(2, BUCKET), -x)
    assert not np.allclose(opposite, -decoded)


@pytest.mark.parametrize(("bits", "code_bits"), [(2, 32 * 3), (3, 32 * 3 + 32 * 2)])
def test_a_message_is_the_codes_and_a_float_for_each_bin(bits, code_bits):
    channel = all_gather(centroids(bits, BUCKET))
    tree = jax.ShapeDtypeStruct((37,), "float32")
    assert channel.bits(tree) == code_bits + 32 * 3 * 2**bits


def test_bits_are_one_to_four():
    with pytest.raises(ValueError, match="`bits` must be from 1 to 4, got 5"):
        centroids(5)


def test_the_largest_numbers_have_centroids_too():
    """Their sums and squares are infinite."""
    most = np.float32(np.finfo(np.float32).max)
    x = most * np.where(np.arange(20) % 2, 1, -0.5).astype(np.float32)
    _, lost, decoded = coded(centroids(2, None), x)
    np.testing.assert_allclose(decoded, x, rtol=1e-6)
    assert np.isfinite(lost).all()
