"""Tests of the largest entries of every chunk."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import (
    all_gather,
    chunked_top_k,
    dense,
    message_bits,
    quantised,
    top_k,
)
from tests.support.compressors import coarse, like, round_trip
from tests.support.meshes import mesh_named, on_mesh, trees_of

KEY = jax.random.key(0)


@functools.cache
def coder(ratio: float, chunk: int):
    return functools.partial(round_trip(chunked_top_k(ratio, chunk=chunk)), KEY)


def expected(x: np.ndarray, ratio: float, chunk: int) -> np.ndarray:
    """What is sent, chunk by chunk; ties go to the lowest index."""
    sent = np.zeros_like(x.reshape(-1))
    for start in range(0, x.size, chunk):
        part = x.reshape(-1)[start : start + chunk]
        kept = max(1, math.ceil(ratio * part.size))
        places = np.argsort(-np.abs(part), kind="stable")[:kept]
        sent[start + places] = part[places]
    return sent.reshape(x.shape)


@pytest.mark.parametrize(
    ("shape", "ratio", "chunk"),
    [
        pytest.param((3, 40), 0.1, 40, marks=pytest.mark.slow),
        ((130,), 0.1, 40),
        ((7,), 0.3, 40),
        ((1,), 0.01, 2),
        pytest.param((9,), 1.0, 4, marks=pytest.mark.slow),
        pytest.param((2, 5, 100), 0.02, 256, marks=pytest.mark.slow),
        pytest.param((9000,), 0.01, 4096, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("kind", ["normal", "ties"])
def test_each_chunk_sends_its_largest_entries(shape, ratio, chunk, kind):
    draw = np.random.default_rng(0)
    x = draw.normal(size=shape) if kind == "normal" else draw.integers(1, 4, shape)
    x = x.astype(np.float32)
    _, lost, decoded = coder(ratio, chunk)(x)
    sent = expected(x, ratio, chunk)
    np.testing.assert_array_equal(decoded, sent)
    np.testing.assert_array_equal(lost, x - sent)


def test_a_message_has_a_row_for_each_chunk_and_places_of_few_bits():
    x = jnp.arange(1.0, 2 * 4096 + 101)
    message, _, _ = coder(1 / 64, 4096)(x)
    assert [rows.shape for rows in message.values] == [(2, 64), (1, 2)]
    slots = 2 * 64 + 2
    assert message.indices.shape == (-(-slots * 8 // 32) + -(-slots * 4 // 32),)
    several = jax.ShapeDtypeStruct((64, 4096), jnp.float32)
    bits = message_bits(all_gather(chunked_top_k(1 / 64)), several)
    assert bits == 64 * 64 * (32 + 12)


def test_an_array_of_one_chunk_sends_what_top_k_does():
    x = jnp.asarray(np.random.default_rng(1).normal(size=500), jnp.float32)
    message, lost, _ = coder(0.03, 4096)(x)
    plain, expected_lost = jax.jit(top_k(0.03).encode)(KEY, x)
    np.testing.assert_array_equal(message.values[0][0], plain.values)
    np.testing.assert_array_equal(lost, expected_lost)


@pytest.mark.parametrize(
    "size", [130, *(pytest.param(size, marks=pytest.mark.slow) for size in (120, 7))]
)
def test_quantised_encodes_the_values_of_each_chunk_by_themselves(size):
    """A chunk of large entries leaves the rounding of the others alone."""
    x = jnp.asarray(np.random.default_rng(2).normal(size=size), jnp.float32)
    x = x.at[:40].multiply(1000.0)
    compressor = quantised(chunked_top_k(0.2, chunk=40), coarse())

    @jax.jit
    def code(key, xs):
        messages, lost = jax.vmap(compressor.encode, (None, 0))(key, xs)
        return messages, lost, compressor.decode(KEY, messages, like(xs[0]))

    xs = jnp.stack([x, -2 * x])
    messages, lost, decoded = code(KEY, xs)
    atol = 1e-6 * np.abs(x).max()
    np.testing.assert_allclose(decoded, (xs - lost).sum(axis=0), atol=3 * atol)
    sent = expected(np.asarray(x), 0.2, 40)
    kept = sent != 0
    np.testing.assert_array_equal(lost[0][~kept], x[~kept])
    for start in range(0, size, 40):
        part = slice(start, start + 40)
        step = np.abs(sent[part]).max() / 7
        assert np.abs(np.where(kept, lost[0], 0)[part]).max() <= step * 1.001
    assert [codes.shape[2] for codes, _ in messages.values] == [
        math.ceil(0.2 * min(40, rest))
        for rest in ([40] if size > 40 else []) + ([size % 40] if size % 40 else [])
    ]


def test_with_dense_values_it_is_the_selection_bit_for_bit():
    x = jnp.asarray(np.random.default_rng(2).normal(size=130), jnp.float32)
    compressor = quantised(chunked_top_k(0.1, chunk=40), dense())
    message, lost, decoded = round_trip(compressor)(KEY, x)
    plain, expected_lost, expected_sum = coder(0.1, 40)(x)
    np.testing.assert_array_equal(lost, expected_lost)
    np.testing.assert_array_equal(message.indices, plain.indices)
    np.testing.assert_array_equal(decoded, expected_sum)


@pytest.mark.slow
def test_split_leaves_have_the_chunks_of_their_shards():
    channel = all_gather(
        quantised(chunked_top_k(0.5, chunk=4), coarse()), per_leaf=True
    )
    trees = trees_of(2, "float32")
    (mean, lost, _), _ = on_mesh(channel, trees, mesh_named("2 x 4"))
    for name, tree in trees.items():
        sent = (tree - lost[name]).mean(axis=0)
        np.testing.assert_allclose(mean[name][0], sent, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(mean[name][0], mean[name][1])
    # Rows of 5 entries on each device: 2 of the first 4, and the last alone.
    assert (np.count_nonzero(trees["rows"] - lost["rows"], axis=2) <= 3).all()


@pytest.mark.parametrize(
    ("ratio", "chunk", "error", "message"),
    [
        (0.0, 8, ValueError, r"`ratio` must be in \(0, 1\]"),
        (0.1, 1, ValueError, r"`chunk` must be at least 2, got 1"),
        (0.1, 2.5, ValueError, r"`chunk`"),
    ],
)
def test_arguments_must_be_in_range(ratio, chunk, error, message):
    with pytest.raises(error, match=message):
        chunked_top_k(ratio, chunk=chunk)
