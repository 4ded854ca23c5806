"""Tests of integers of few bits with a scale for each bucket."""

import jax
import numpy as np
import pytest

from gmc_jax import Blockwise, all_gather, integers
from tests.support.quantisers import assert_mean_is, blocks_of, coded, draws, vector

BUCKET = 16


def transcribed(x: np.ndarray, bits: int, bucket: int) -> np.ndarray:
    decoded = []
    for v in blocks_of(x, bucket):
        scale = np.abs(v).max() / (2 ** (bits - 1) - 1)
        decoded.append(scale * np.rint(v / scale) if scale else 0 * v)
    return np.concatenate(decoded)


@pytest.mark.parametrize("bits", [8, 4, 2, 5])
def test_entries_are_rounded_to_multiples_of_the_scale(bits, float64):
    x = vector(37)
    x[16:32] = 0
    message, lost, decoded = coded(integers(bits, BUCKET), x)
    expected = transcribed(x, bits, BUCKET)
    np.testing.assert_allclose(decoded, expected, rtol=1e-12)
    np.testing.assert_allclose(lost, x - expected, rtol=0, atol=1e-12)
    scales = np.repeat(message.scales, BUCKET)[:37]
    assert np.all(np.abs(lost) <= scales / 2 * (1 + 1e-12))
    assert message.scales[1] == 0


def test_one_bucket_of_all_is_like_a_bucket_of_its_size(float64):
    x = vector(37)
    expected = transcribed(x, 4, 37)
    for bucket in (None, 37, 1000):
        _, _, decoded = coded(integers(4, bucket), x)
        np.testing.assert_allclose(decoded, expected, rtol=1e-12)


def test_stochastic_rounding_is_unbiased(float64):
    """And takes one of the two neighbours."""
    x, compressor = vector(37), integers(4, BUCKET, stochastic=True)
    drawn = draws(compressor, x, 4000)
    assert_mean_is(x, drawn)
    scale = np.concatenate(
        [np.full(v.size, np.abs(v).max() / 7) for v in blocks_of(x, BUCKET)]
    )
    is_multiple = np.isclose(drawn / scale, np.rint(drawn / scale), rtol=0, atol=1e-9)
    assert is_multiple.all()
    assert np.all(np.abs(drawn - x) <= scale * (1 + 1e-9))


def test_workers_draw_for_themselves():
    """Stochastic errors average out over workers, which alike draws would not."""
    compressor = integers(2, bucket=None, stochastic=True)
    assert not compressor.shared
    x = np.full(4000, 0.5, np.float32)
    x[0] = 1
    one, other = (coded(compressor, x, seed)[2] for seed in (0, 1))
    assert abs(np.mean(one == other) - 0.5) < 0.05


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("bits", "d", "code_bits"),
    [(8, 70, 8 * 70), (4, 70, 32 * 9), (2, 70, 32 * 5), (8, 3, 24), (2, 3, 32)],
)
def test_a_message_is_the_codes_and_a_float_a_bucket(bits, d, code_bits, dtype):
    channel = all_gather(integers(bits, BUCKET))
    tree = jax.ShapeDtypeStruct((d,), dtype)
    assert channel.bits(tree) == code_bits + 32 * -(-d // BUCKET)


def test_buckets_are_blocks():
    assert integers(8).selects == Blockwise(512)
    assert integers(8, bucket=None).selects is None


@pytest.mark.parametrize("bits", [1, 9])
def test_bits_are_two_to_eight(bits):
    with pytest.raises(ValueError, match=rf"`bits` must be from 2 to 8, got {bits}"):
        integers(bits)


@pytest.mark.parametrize("bucket", [0, -3, 2.5])
def test_a_bucket_has_entries(bucket):
    with pytest.raises(ValueError, match="`bucket` must be a whole number"):
        integers(8, bucket=bucket)


@pytest.mark.parametrize("bits", [4, 8])
def test_the_largest_numbers_stay_finite(bits):
    """A multiple of a rounded scale could exceed the entry."""
    most = np.float32(np.finfo(np.float32).max)
    x = np.array([most, -most, most / 2], np.float32)
    _, lost, decoded = coded(integers(bits), x)
    assert np.isfinite(decoded).all()
    assert np.isfinite(lost).all()
    np.testing.assert_allclose(decoded[:2], x[:2], rtol=1e-6)


def test_a_bucket_with_a_scale_below_normal_numbers_is_lost():
    tiny = np.finfo(np.float32).tiny
    x = np.array([0, 1, -1, 3], np.float32) * tiny
    _, lost, decoded = coded(integers(8), x)
    assert not decoded.any()
    np.testing.assert_array_equal(lost, x)
