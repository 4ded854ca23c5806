"""Laws of all compressors, over one table to which a new compressor adds a line."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmc_jax import top_k
from gmc_jax.utils.trees import accumulator_dtype, scale_floats
from tests.support.compressors import (
    COMPRESSORS,
    QUANTISERS,
    alone,
    like,
    parameters,
    round_trip,
)

DTYPES = ["float32", "bfloat16", "float16", "float64"]
KEY = 3
DRAWN = ["random_k", "random_block"]

every_compressor = pytest.mark.parametrize("name", parameters())
NOT_SHARED = [name for name in COMPRESSORS if name not in ("dense", *DRAWN)]
not_shared = pytest.mark.parametrize("name", parameters(NOT_SHARED))


@functools.cache
def coder(name: str, ratio: float):
    """Encodes and decodes one vector, compiled once for each shape and dtype."""
    return round_trip(COMPRESSORS[name].make(ratio))


def vector(kind: str, d: int, seed: int, dtype: str = "float32") -> np.ndarray:
    """A vector of a kind that a wrong compressor fails on."""
    draw = np.random.default_rng(seed)
    x = {
        "normal": lambda: draw.normal(size=d),
        "ties": lambda: draw.integers(-2, 3, size=d),
        "zeros": lambda: np.zeros(d),
        "constant": lambda: np.full(d, -1.5),
        "wide": lambda: draw.normal(size=d) * 2.0 ** draw.integers(-10, 10, size=d),
    }[kind]()
    return x.astype(jnp.dtype(dtype))


KINDS = ["normal", "ties", "zeros", "constant", "wide"]


def wide(x: jax.typing.ArrayLike) -> np.ndarray:
    """Converts to float64, where sums of two 16- or 32-bit numbers are exact."""
    return np.asarray(x).astype(np.float64)


@given(
    name=st.sampled_from([name for name in COMPRESSORS if name not in QUANTISERS]),
    kind=st.sampled_from(KINDS),
    size=st.sampled_from([(1, 0.5), (7, 0.3), (300, 0.01)]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**16),
)
@settings(deadline=None, derandomize=True, max_examples=30)
def test_decoded_plus_lost_is_the_vector(name, kind, size, dtype, seed):
    assert_nothing_is_lost_unseen(name, kind, size, dtype, seed)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", QUANTISERS)
def test_decoded_plus_lost_is_the_vector_of_every_quantiser(name, dtype):
    for kind in KINDS:
        for d in (1, 7, 300):
            assert_nothing_is_lost_unseen(name, kind, (d, 1.0), dtype, seed=d)


def assert_nothing_is_lost_unseen(name, kind, size, dtype, seed):
    d, ratio = size
    x = vector(kind, d, seed, dtype)
    with jax.enable_x64(dtype == "float64"):
        _, lost, decoded = coder(name, ratio)(jax.random.key(seed), x)

    assert lost.shape == decoded.shape == x.shape
    if COMPRESSORS[name].splits_entries:
        assert lost.dtype == decoded.dtype == accumulator_dtype(x.dtype)
        rounding = jnp.finfo(lost.dtype).eps * np.abs(wide(x)).max()
        np.testing.assert_allclose(
            wide(decoded) + wide(lost), wide(x), rtol=0, atol=rounding
        )
        return
    assert lost.dtype == x.dtype
    np.testing.assert_array_equal(wide(decoded) + wide(lost), wide(x))
    # Every entry is either sent or lost, never split, so the sum above is exact.
    assert not np.any((wide(decoded) != 0) & (wide(lost) != 0))
    s = d if name == "dense" else max(1, math.ceil(ratio * d))
    slack = 1.3 if name == "sampled_top_k" else 1
    assert np.count_nonzero(decoded) <= math.ceil(slack * s)


@every_compressor
def test_decoding_adds_the_messages(name):
    compressor = COMPRESSORS[name].make(0.2)
    d, workers = 50, 3
    keys = jax.random.split(jax.random.key(KEY), workers)
    if compressor.shared:
        keys = jnp.broadcast_to(keys[0], (workers,))
    xs = jnp.stack([vector("normal", d, seed) for seed in range(workers)])

    @jax.jit
    def exchange(keys, xs):
        messages, lost = jax.vmap(compressor.encode)(keys, xs)
        return compressor.decode(keys[0], messages, like(xs[0])), lost

    total, lost = exchange(keys, xs)

    assert total.shape == (d,)
    np.testing.assert_allclose(total, np.sum(xs - lost, axis=0), rtol=1e-6, atol=1e-6)
    # A decoder that reads only the first message must not pass.
    assert not np.allclose(total, (xs - lost)[0])


@every_compressor
def test_scaling_the_floats_of_a_message_scales_the_decoded_vector(name):
    """The field `linear` promises it, and channels rely on it."""
    compressor, x = (
        COMPRESSORS[name].make(0.2),
        jnp.asarray(vector("normal", 50, seed=0)),
    )
    assert compressor.linear
    key = jax.random.key(KEY)
    message, _ = compressor.encode(key, x)
    stacked = alone(message)
    whole = compressor.decode(key, stacked, like(x))
    part = compressor.decode(key, scale_floats(stacked, 0.25), like(x))
    np.testing.assert_array_equal(part, whole / 4)


@pytest.mark.parametrize(
    "name", parameters(name for name in COMPRESSORS if name != "threshold")
)
@pytest.mark.parametrize("factor", [4.0, 0.25, 3.0])
def test_scaling_the_vector_scales_the_message(name, factor):
    if factor == 3 and not COMPRESSORS[name].scales_by_all:
        factor = 8.0
    x = vector("normal", 60, seed=1)
    code = coder(name, 0.1)

    _, lost, decoded = code(jax.random.key(KEY), x)
    _, scaled_lost, scaled = code(jax.random.key(KEY), factor * x)

    np.testing.assert_array_equal(scaled != 0, decoded != 0)
    np.testing.assert_allclose(scaled, factor * decoded, rtol=1e-6)
    # Where `lost` is much smaller than the entry, the entry's rounding shows.
    rounding = (
        1e-6 * factor * np.abs(x).max() if COMPRESSORS[name].splits_entries else 0
    )
    np.testing.assert_allclose(scaled_lost, factor * lost, rtol=1e-6, atol=rounding)


@every_compressor
def test_batching_changes_nothing(name):
    xs = np.stack([vector("normal", 60, seed) for seed in range(4)])
    keys = jax.random.split(jax.random.key(KEY), 4)
    code = coder(name, 0.1)

    batched = jax.jit(jax.vmap(code))(keys, xs)

    for worker in range(4):
        alone = code(keys[worker], xs[worker])
        mine = jax.tree.map(lambda leaf, worker=worker: leaf[worker], batched)
        if COMPRESSORS[name].splits_entries:
            chex.assert_trees_all_close(alone, mine, rtol=1e-6, atol=1e-6)
        else:
            chex.assert_trees_all_equal(alone, mine)


@every_compressor
def test_the_same_key_draws_the_same_coordinates(name):
    x, code = vector("normal", 60, seed=0), coder(name, 0.1)
    once, again = (code(jax.random.key(KEY), x) for _ in range(2))
    chex.assert_trees_all_equal(once, again)


@pytest.mark.parametrize("name", DRAWN)
def test_a_shared_compressor_keeps_the_same_coordinates_of_any_vector(name):
    key = jax.random.key(KEY)
    assert COMPRESSORS[name].make(0.1).shared

    kept = [
        np.flatnonzero(coder(name, 0.1)(key, vector("normal", 60, seed))[2])
        for seed in range(3)
    ]

    np.testing.assert_array_equal(kept[0], kept[1])
    np.testing.assert_array_equal(kept[0], kept[2])


@not_shared
def test_a_compressor_that_is_not_shared_decodes_without_the_key(name):
    compressor = COMPRESSORS[name].make(0.1)
    assert not compressor.shared
    x = jnp.asarray(vector("normal", 60, seed=0))

    @jax.jit
    def code(key, other):
        message, lost = compressor.encode(key, x)
        return lost, compressor.decode(other, alone(message), like(x))

    lost, decoded = code(jax.random.key(KEY), jax.random.key(KEY + 1))

    rounding = 1e-6 if COMPRESSORS[name].splits_entries else 0
    np.testing.assert_allclose(decoded + lost, x, rtol=0, atol=rounding)


@pytest.mark.parametrize(
    "name", [name for name, row in COMPRESSORS.items() if row.has_ratio]
)
@pytest.mark.parametrize("ratio", [0, -1, 1.5, math.nan, math.inf])
def test_a_ratio_must_be_a_fraction(name, ratio):
    argument = "capacity" if name == "threshold" else "ratio"
    message = rf"`{argument}` must be in \(0, 1\]"
    with pytest.raises(ValueError, match=message):
        COMPRESSORS[name].make(ratio)


def test_the_error_shows_the_value():
    message = r"^`ratio` must be in \(0, 1\], got 1\.5; it is a fraction"
    with pytest.raises(ValueError, match=message):
        top_k(1.5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "d", "ratio", "sizes"),
    [
        ("dense", 100, 1.0, (100,)),
        ("top_k", 100, 0.05, (5, 5)),
        ("top_k", 1000, 0.0011, (2, 2)),
        ("top_k", 10, 0.001, (1, 1)),
        ("top_k", 1, 0.5, (1, 1)),
        ("top_k", 7, 1.0, (7, 7)),
        ("sampled_top_k", 100, 0.05, (7, 7)),
        ("sampled_top_k", 100, 0.9, (100, 100)),
        ("threshold", 100, 0.05, (5, 5)),
        ("threshold", 10, 0.001, (1, 1)),
        ("random_k", 100, 0.05, (5,)),
        ("random_k", 10, 0.001, (1,)),
        ("random_block", 100, 0.05, (5,)),
        ("random_block", 1, 0.5, (1,)),
    ],
)
def test_messages_have_the_sizes_and_dtypes_expected(name, d, ratio, sizes, dtype):
    with jax.enable_x64(dtype == "float64"):
        message, lost = jax.eval_shape(
            COMPRESSORS[name].make(ratio).encode,
            jax.random.key(0),
            jax.ShapeDtypeStruct((d,), jnp.dtype(dtype)),
        )

    leaves = jax.tree.leaves(message)
    assert tuple(leaf.size for leaf in leaves) == sizes
    assert [leaf.dtype for leaf in leaves] == [jnp.dtype(dtype), jnp.int32][
        : len(sizes)
    ]
    assert lost.shape == (d,)
    assert lost.dtype == jnp.dtype(dtype)
