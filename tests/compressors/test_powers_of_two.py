"""Tests of powers of two: natural compression and E3M0."""

import jax
import numpy as np
import pytest

from gmc_jax import all_gather, powers_of_two
from tests.support.quantisers import assert_mean_is, blocks_of, coded, draws, vector

BUCKET = 16


def levels(v: np.ndarray, exponent_bits: int) -> np.ndarray:
    """The magnitudes of a bucket's numbers, ascending."""
    scale = 2.0 ** np.ceil(np.log2(np.abs(v).max()))
    last = 2**exponent_bits - 1
    return np.array([0, *(scale * 2.0 ** np.arange(1 - last, 1))])


def around(x: np.ndarray, exponent_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The magnitudes below and above each entry."""
    below, above = [], []
    for v in blocks_of(x, BUCKET):
        numbers = levels(v, exponent_bits)
        for entry in np.abs(v):
            place = np.searchsorted(numbers, entry, side="right") - 1
            below.append(numbers[place])
            above.append(numbers[min(place + 1, len(numbers) - 1)])
    return np.array(below), np.array(above)


@pytest.mark.parametrize("exponent_bits", [1, 2, 3, 7])
def test_the_nearer_power_is_taken(exponent_bits, float64):
    """Of three bits, this is E3M0."""
    x = vector(37)
    x[3] = 0.75 * 2.0**-2
    _, lost, decoded = coded(powers_of_two(exponent_bits, BUCKET, stochastic=False), x)
    below, above = around(x, exponent_bits)
    nearer = np.where(np.abs(x) - below < above - np.abs(x), below, above)
    np.testing.assert_array_equal(decoded, np.sign(x) * nearer)
    np.testing.assert_array_equal(lost, x - decoded)
    normal = below > 0
    assert np.all(np.abs(lost[normal]) <= np.abs(x[normal]) / 3 * (1 + 1e-12))


@pytest.mark.parametrize("exponent_bits", [2, 7])
def test_natural_compression_is_unbiased(exponent_bits, float64):
    """It takes one of two powers, and its variance is at most an eighth of x^2."""
    x = vector(37)
    drawn = draws(powers_of_two(exponent_bits, BUCKET), x, 4000)
    assert_mean_is(x, drawn)
    below, above = around(x, exponent_bits)
    sizes = np.abs(drawn)
    assert np.all((sizes == below) | (sizes == above))
    assert np.all(np.sign(drawn) * np.sign(x) >= 0)
    variance = (np.abs(x) - below) * (above - np.abs(x))
    normal = below > 0
    assert np.all(variance[normal] <= x[normal] ** 2 / 8 * (1 + 1e-12))
    assert normal.all() == (exponent_bits == 7)


def test_float32_draws_every_bit_of_the_mantissa():
    x = np.full(2**14, 1 + 2**-9, np.float32)
    ups = np.sum(coded(powers_of_two(bucket=None), x)[2] == 2)
    assert abs(ups - 2**5) < 4 * np.sqrt(2**5)


def test_powers_themselves_are_kept():
    x = (2.0 ** np.arange(-60, 60)).astype(np.float32)
    message, lost, decoded = coded(powers_of_two(bucket=None), x)
    np.testing.assert_array_equal(decoded, x)
    assert not lost.any()
    assert message.scales == 2.0**59


@pytest.mark.parametrize(
    ("exponent_bits", "code_bits"), [(7, 8 * 37), (3, 32 * 5), (4, 32 * 5 + 32 * 2)]
)
def test_a_message_is_the_codes_and_a_float_a_bucket(exponent_bits, code_bits):
    channel = all_gather(powers_of_two(exponent_bits, BUCKET))
    tree = jax.ShapeDtypeStruct((37,), "bfloat16")
    assert channel.bits(tree) == code_bits + 32 * 3


def test_the_exponent_has_at_most_seven_bits():
    with pytest.raises(ValueError, match="`exponent_bits` must be from 1 to 7, got 8"):
        powers_of_two(8)
