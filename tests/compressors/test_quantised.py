"""Tests of selections in few bits."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import (
    Compressor,
    Sparse,
    all_gather,
    all_reduce,
    chunked_top_k,
    dense,
    message_bits,
    quantised,
    random_block,
    random_k,
    sampled_top_k,
    scaled_sign,
    threshold,
    top_k,
)
from gmc_jax.compressors._elias_fano import decode_places
from gmc_jax.utils import checks
from tests.support.compressors import coarse, like, thinned
from tests.support.meshes import mesh_named, on_mesh, on_one_device, trees_of

KEY = jax.random.key(5)


def reversed_top_k() -> Compressor:
    """`top_k` with its slots in reverse, as a user's compressor may have them."""
    inner = top_k(0.1)

    def encode(key, x):
        message, lost = inner.encode(key, x)
        return jax.tree.map(lambda leaf: leaf[::-1], message), lost

    return Compressor(encode, inner.decode, linear=True)


SELECTIONS = {
    "top_k": top_k(0.1),
    "threshold": threshold(1.5, 0.3),
    "sampled_top_k": sampled_top_k(0.1, 0.5),
    "reversed top_k": reversed_top_k(),
    "random_k": random_k(0.1),
    "random_block": random_block(0.1),
}


def coded(compressor: Compressor, key, xs, decode_key=KEY):
    """What is lost of each row of xs, and the sum of what is decoded."""

    @jax.jit
    def code(key, xs):
        messages, lost = jax.vmap(compressor.encode, (None, 0))(key, xs)
        return messages, lost, compressor.decode(decode_key, messages, like(xs[0]))

    return code(key, xs)


def normal(*shape: int, dtype="float32") -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


@pytest.mark.parametrize("name", SELECTIONS)
def test_with_dense_values_it_is_the_selection_bit_for_bit(name):
    xs = normal(2, 10, 9).at[0, 0, 0].set(jnp.nan)
    _, lost, decoded = coded(quantised(SELECTIONS[name], dense()), KEY, xs)
    _, expected_lost, expected = coded(SELECTIONS[name], KEY, xs)
    np.testing.assert_array_equal(decoded, expected)
    np.testing.assert_array_equal(lost, expected_lost)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *[(name, "float32") for name in ("top_k", "reversed top_k", "random_block")],
        ("top_k", "bfloat16"),
        *[
            pytest.param(name, "bfloat16", marks=pytest.mark.slow)
            for name in SELECTIONS
            if name != "top_k"
        ],
    ],
)
def test_what_rounding_loses_is_lost(name, dtype):
    selection, xs = SELECTIONS[name], normal(2, 10, 9, dtype=dtype)
    _, lost, decoded = coded(quantised(selection, coarse()), KEY, xs)
    _, unrounded, _ = coded(selection, KEY, xs)
    assert lost.dtype == decoded.dtype == np.float32
    wide = np.asarray(xs, np.float32)
    np.testing.assert_allclose(decoded, (wide - lost).sum(axis=0), atol=1e-5)
    # The entries kept are those of the selection, and each loses less than a step.
    kept = np.asarray(unrounded) != wide
    for x, of_x, is_kept in zip(wide, np.asarray(lost), kept, strict=True):
        np.testing.assert_array_equal(of_x[~is_kept], x[~is_kept])
        step = np.abs(x[is_kept]).max() / 7
        assert 0 < np.abs(of_x[is_kept]).max() <= step


@pytest.mark.parametrize("ratio", [0.01, 0.001])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_message_has_the_bits_of_its_values_and_narrow_places(ratio, dtype):
    d = 1_000_003
    x = jax.ShapeDtypeStruct((d,), dtype)
    s = math.ceil(ratio * d)
    low = math.floor(math.log2((d + 1) / s))
    bits = message_bits(all_gather(quantised(top_k(ratio), dense())), x)
    places = s * (low + 1) + d // 2**low
    values = s * x.dtype.itemsize * 8
    assert values + places <= bits < values + places + 32 * 4
    most = {0.01: 8.6, 0.001: 12.2}[ratio]
    assert bits / s < x.dtype.itemsize * 8 + most


def test_where_indices_travel_the_message_is_sparse():
    x = normal(50)
    message, _ = jax.jit(quantised(top_k(0.1), scaled_sign()).encode)(KEY, x)
    plain, _ = jax.jit(top_k(0.1).encode)(KEY, x)
    assert isinstance(message, Sparse)
    places = jax.jit(lambda words: decode_places(words, 5, 50))(message.indices)
    np.testing.assert_array_equal(places, plain.indices)
    channel = all_gather(quantised(top_k(0.1), scaled_sign()))
    assert channel.entries(x) is None
    # Of drawn entries only the values travel: a word of signs and a scale.
    assert all_gather(quantised(random_k(0.1), scaled_sign())).entries(x) == 2


def test_workers_that_draw_the_same_entries_round_for_themselves():
    xs = jnp.full((2, 40), 0.52).at[:, 0].set(jnp.array([1.0, 1.001]))
    compressor = quantised(random_block(1.0), coarse())
    _, (one, other), _ = coded(compressor, KEY, xs)
    assert np.count_nonzero(np.abs(one - other) > 0.01) > 5


def test_roundings_are_unbiased_with_a_shared_key():
    x, keys = normal(20), jax.random.split(KEY, 4000)
    compressor = quantised(random_block(1.0), coarse())
    lost = jax.jit(jax.vmap(lambda key: compressor.encode(key, x)[1]))(keys)
    error = np.std(lost, axis=0) / math.sqrt(len(keys))
    np.testing.assert_array_less(np.abs(np.mean(lost, axis=0)), 4.5 * error + 1e-7)


def test_encoded_values_are_not_added_but_dense_ones_are():
    message = r"`compressor` of `all_reduce` must send values that can be added"
    with pytest.raises(ValueError, match=message):
        all_reduce(quantised(random_k(0.1), scaled_sign()))
    with pytest.raises(TypeError, match=r"write .*all_gather\(quantised\("):
        checks.channel(channel=quantised(random_k(0.1), scaled_sign()))
    trees = {"whole": trees_of(8, "float32")["whole"]}
    found = on_one_device(all_reduce(quantised(random_k(0.5), dense())), trees)
    chex.assert_trees_all_equal(found, on_one_device(all_reduce(random_k(0.5)), trees))


@pytest.mark.parametrize(
    ("selection", "values", "error", "message"),
    [
        (dense(), scaled_sign(), TypeError, r"`selection` must send .* `Sparse`"),
        (scaled_sign(), dense(), TypeError, r"`selection` must send .* `Sparse`"),
        (thinned(), dense(), TypeError, r"`selection` must send .* `Sparse`"),
        (top_k(0.1), random_k(0.5), ValueError, r"`values` must send a part of every"),
        (quantised(top_k(0.1), dense()), dense(), ValueError, r"values as they are"),
        (quantised(random_k(0.1), dense()), dense(), ValueError, r"values as they are"),
        (quantised(chunked_top_k(0.1), dense()), dense(), ValueError, r"as they are"),
        (0.1, dense(), TypeError, r"`selection` must be a compressor"),
        (top_k(0.1), 4, TypeError, r"`values` must be a compressor"),
    ],
)
def test_arguments_must_fit(selection, values, error, message):
    with pytest.raises(error, match=message):
        quantised(selection, values)


SPLIT = {
    "top_k": (top_k(0.1), coarse()),
    "threshold": (threshold(3, 0.2), scaled_sign()),
    "random_k": (random_k(0.1), coarse()),
}


@pytest.mark.parametrize(
    "per_leaf", [False, pytest.param(True, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "name",
    ["top_k", *(pytest.param(n, marks=pytest.mark.slow) for n in list(SPLIT)[1:])],
)
def test_devices_of_a_worker_encode_its_message_together(name, per_leaf):
    """The results are those of one device; each loses the rounding of its entries."""
    channel = all_gather(quantised(*SPLIT[name]), per_leaf=per_leaf)
    trees = trees_of(2, "float32")
    (mean, lost, _), _ = on_mesh(channel, trees, mesh_named("2 x 2 x 2"))
    expected_mean, expected_lost, _ = on_one_device(channel, trees)
    chex.assert_trees_all_close(lost, expected_lost, rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_close(mean, expected_mean, rtol=1e-6, atol=1e-6)
    for name, tree in trees.items():
        sent = (tree - lost[name]).mean(axis=0)
        np.testing.assert_allclose(mean[name][0], sent, rtol=1e-6, atol=1e-6)
