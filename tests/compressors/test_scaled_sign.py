"""Tests of the signs times the mean magnitude."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import Blockwise, all_gather, scaled_sign
from tests.support.compressors import like, round_trip
from tests.support.harness import average
from tests.support.quantisers import coded

KEY = jax.random.key(0)


@functools.cache
def coder():
    """Encodes a vector and decodes the message, compiled once for each shape."""
    return functools.partial(round_trip(scaled_sign()), KEY)


def test_decoding_gives_the_sign_times_the_mean_magnitude():
    message, lost, decoded = coder()(jnp.array([3.0, -1, 0, -0.0, 4, -2, 0, 2]))
    assert message.scale == 1.5
    np.testing.assert_array_equal(decoded, [1.5, -1.5, 1.5, 1.5, 1.5, -1.5, 1.5, 1.5])
    np.testing.assert_array_equal(lost, [1.5, 0.5, -1.5, -1.5, 2.5, -0.5, -1.5, 0.5])


@pytest.mark.parametrize("d", [1, 31, 32, 33, 100])
def test_a_coordinate_is_one_bit(d):
    """With w words, bit b of word j is the sign of coordinate b * w + j."""
    x = np.random.default_rng(d).normal(size=d).astype(np.float32)
    message, _, decoded = coder()(x)

    words = -(-d // 32)
    assert message.signs.shape == (words,)
    assert message.signs.dtype == np.uint32
    signs = np.asarray(message.signs)
    plus = [bool(signs[j % words] >> (j // words) & 1) for j in range(d)]
    np.testing.assert_array_equal(plus, x >= 0)
    np.testing.assert_array_equal(np.asarray(decoded) > 0, x >= 0)


@pytest.mark.parametrize(
    ("dtype", "width"),
    [("float32", 32), ("bfloat16", 32), ("float16", 32), ("float64", 64)],
)
def test_a_message_is_d_bits_and_one_number(dtype, width):
    with jax.enable_x64(dtype == "float64"):
        tree = {"a": jnp.zeros((8, 10), dtype), "b": jnp.zeros(21, dtype)}
        whole, each = (
            all_gather(scaled_sign(), per_leaf=per_leaf) for per_leaf in (False, True)
        )
        assert whole.bits(tree) == 32 * 4 + width
        assert each.bits(tree) == 32 * (3 + 1) + 2 * width
        assert (whole.entries(tree), each.entries(tree)) == (4 + 1, 4 + 2)


def assert_meets_its_delta(x) -> float:
    """Checks the energy of `lost` against delta, and returns delta."""
    _, lost, _ = coder()(x)
    energy = np.sum(np.square(x))
    delta = np.sum(np.abs(x)) ** 2 / (x.size * energy)
    np.testing.assert_allclose(
        np.sum(np.square(lost)), (1 - delta) * energy, rtol=1e-12, atol=1e-12 * energy
    )
    return delta


def test_the_bound_on_the_energy_is_met_with_equality(float64):
    draw = np.random.default_rng(0)
    for power in range(6):
        delta = assert_meets_its_delta(draw.normal(size=50) ** (2 * power + 1))
        assert 1 / 50 < delta < 1


def test_the_bound_runs_from_one_entry_to_equal_magnitudes(float64):
    draw = np.random.default_rng(0)
    assert assert_meets_its_delta(np.eye(50)[7]) == pytest.approx(1 / 50)
    assert assert_meets_its_delta(draw.choice([-2.0, 2.0], 50)) == pytest.approx(1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lost_is_float32_for_16_bit_vectors(dtype):
    x = np.random.default_rng(0).normal(size=1000).astype(jnp.dtype(dtype))
    message, lost, decoded = coder()(x)
    assert message.scale.dtype == lost.dtype == decoded.dtype == np.float32
    exact = x.astype(np.float64)
    assert message.scale == pytest.approx(np.abs(exact).mean(), rel=1e-6)
    np.testing.assert_allclose(np.asarray(lost, float) + decoded, exact, atol=1e-6)


def test_the_scale_of_large_float16_entries_does_not_overflow():
    """Their sum is larger than the largest float16."""
    message, lost, _ = coder()(np.full(100, 6e4, np.float16))
    assert message.scale == 6e4
    assert not np.any(lost)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_entry_that_is_not_finite_shows_in_mean_and_lost(value):
    trees = np.ones((3, 40), np.float32)
    trees[1, 5] = value
    mean, lost, _ = average(all_gather(scaled_sign()), trees)
    assert not np.isfinite(mean).any()
    assert np.isfinite(lost).all(axis=1).tolist() == [True, False, True]


@pytest.mark.parametrize("workers", [1, 7, 19])
def test_messages_are_added_in_the_order_of_workers(workers):
    """The sum has the bits of one that NumPy adds message by message in float32."""
    draw = np.random.default_rng(0)
    powers = draw.integers(-4, 4, (workers, 1))
    xs = (draw.normal(size=(workers, 45)) * 10.0**powers).astype(np.float32)
    messages, _ = jax.jit(jax.vmap(lambda x: scaled_sign().encode(KEY, x)))(xs)
    decoded = jax.jit(lambda messages: scaled_sign().decode(KEY, messages, like(xs[0])))
    total = np.zeros(45, np.float32)
    for x, scale in zip(xs, np.asarray(messages.scale), strict=True):
        total += np.where(x >= 0, scale, -scale)
    np.testing.assert_array_equal(decoded(messages), total)


def test_decoding_allocates_no_array_of_all_messages_times_d():
    workers, d = 16, 4096
    messages, _ = jax.eval_shape(
        jax.vmap(lambda x: scaled_sign().encode(KEY, x)),
        jax.ShapeDtypeStruct((workers, d), jnp.float32),
    )
    vector = jax.ShapeDtypeStruct((d,), jnp.float32)
    decode = jax.jit(lambda messages: scaled_sign().decode(KEY, messages, vector))
    text = decode.lower(messages).compile().as_text() or ""
    shapes = re.findall(r"\b[a-z]+\d*\w*\[([\d,]+)\]", text)
    sizes = {np.prod([int(n) for n in shape.split(",")]) for shape in shapes}
    assert d in sizes
    assert max(sizes) == d


def test_decoding_reads_and_writes_the_sum_once_for_several_messages():
    """Four on CPUs, eight elsewhere. They are added in rows of whole words."""
    messages = jax.eval_shape(
        jax.vmap(lambda x: scaled_sign().encode(KEY, x)[0]),
        jax.ShapeDtypeStruct((16, 1000), jnp.float32),
    )
    decode = jax.make_jaxpr(scaled_sign().decode, static_argnums=2)
    program = str(decode(KEY, messages, 1000))
    assert re.findall(r"unroll=(\d+)", program) == ["4", "8"]
    assert set(re.findall(r":f32\[(\S+)\] = add ", program)) == {"32,32"}


@pytest.mark.parametrize("d", [8, 100])
def test_the_scale_of_finite_numbers_is_finite(d):
    """Their sum, taken before the division, is infinite."""
    most = float(np.finfo(np.float32).max)
    x = np.full(d, most, "float32")
    x[::3] *= -0.5
    message, lost = scaled_sign().encode(jax.random.key(0), jnp.asarray(x))
    expected = np.abs(x).mean(dtype=np.float64)
    np.testing.assert_allclose(message.scale, expected, rtol=1e-6)
    np.testing.assert_allclose(
        lost, x - np.sign(x) * expected, rtol=0, atol=1e-6 * most
    )


def test_each_bucket_has_the_mean_magnitude_of_its_entries():
    x = np.random.default_rng(0).normal(size=45).astype(np.float32)
    message, lost, decoded = coded(scaled_sign(20), x)
    scales = [np.abs(part).mean() for part in (x[:20], x[20:40], x[40:])]
    np.testing.assert_allclose(message.scale, scales, rtol=1e-6)
    expected = np.where(x >= 0, 1, -1) * np.repeat(message.scale, 20)[:45]
    np.testing.assert_array_equal(decoded, expected)
    np.testing.assert_allclose(lost, x - expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(
        message.signs, coder()(x)[0].signs, err_msg="signs are packed as without"
    )


def test_a_message_by_buckets_is_d_bits_and_a_float_a_bucket():
    tree = jax.ShapeDtypeStruct((45,), jnp.float32)
    assert all_gather(scaled_sign(20)).bits(tree) == 32 * 2 + 32 * 3
    assert scaled_sign(20).selects == Blockwise(20)
    assert scaled_sign().selects is None
