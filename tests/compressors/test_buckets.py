"""Tests of what all compressors by buckets share."""

from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import (
    all_gather,
    centroids,
    float8,
    integers,
    powers_of_two,
    qsgd,
    scaled_sign,
    terngrad,
)
from gmc_jax.compressors import _buckets
from tests.support.compressors import alone, like
from tests.support.harness import average
from tests.support.meshes import mesh_named, on_mesh, trees_of
from tests.support.quantisers import coded

BUCKET = 16
QUANTISERS = {
    "integers": integers(8, BUCKET),
    "stochastic integers": integers(4, BUCKET, stochastic=True),
    "float8": float8(bucket=BUCKET),
    "powers_of_two": powers_of_two(bucket=BUCKET),
    "E3M0": powers_of_two(3, BUCKET, stochastic=False),
    "qsgd": qsgd(64, BUCKET),
    "qsgd of five bits": qsgd(15, BUCKET),
    "terngrad": terngrad(BUCKET),
    "centroids": centroids(bucket=BUCKET),
    "scaled_sign": scaled_sign(BUCKET),
}
NAMES = list(QUANTISERS)
NOT_DRAWING = ["integers", "float8", "E3M0", "centroids", "scaled_sign"]


def among(
    *fast: str, others: Collection[str] = tuple(QUANTISERS)
) -> pytest.MarkDecorator:
    """Some quantisers, and further ones in the slow run."""
    slow = [pytest.param(n, marks=pytest.mark.slow) for n in others if n not in fast]
    return pytest.mark.parametrize("name", [*fast, *slow])


every_quantiser = among("integers", "powers_of_two", "centroids")
MOST = float(np.finfo(np.float32).max)


def normal(d: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(d).normal(size=d).astype(jnp.dtype(dtype))


@every_quantiser
def test_finite_entries_give_finite_messages(name):
    """From the largest to the smallest numbers, and for buckets of zeros."""
    x = np.zeros(BUCKET * 5 + 3, np.float32)
    x[:BUCKET] = MOST * np.sign(normal(BUCKET))
    x[BUCKET : BUCKET + 3] = MOST, 1.0, -0.6 * MOST
    x[2 * BUCKET : 3 * BUCKET] = np.finfo(np.float32).tiny * normal(BUCKET)
    x[3 * BUCKET : 4 * BUCKET] = 1e-42
    x[-3:] = normal(3)
    message, lost, decoded = coded(QUANTISERS[name], x)
    assert np.isfinite(message[1]).all()
    assert np.isfinite(decoded).all()
    assert np.isfinite(lost).all()
    np.testing.assert_allclose(decoded / 4 + lost / 4, x / 4, rtol=0, atol=2e-7 * MOST)
    assert not decoded[4 * BUCKET : 5 * BUCKET].any()


@every_quantiser
@pytest.mark.parametrize(
    "value",
    [np.nan, *(pytest.param(x, marks=pytest.mark.slow) for x in (np.inf, -np.inf))],
)
def test_what_is_not_finite_shows_in_its_bucket_alone(name, value):
    x = normal(3 * BUCKET)
    x[BUCKET + 2] = value
    _, lost, decoded = coded(QUANTISERS[name], x)
    for shown in (lost, decoded):
        buckets = np.isfinite(shown).reshape(3, BUCKET).all(axis=1)
        assert buckets.tolist() == [True, False, True]
        assert not np.isfinite(shown[BUCKET + 2])


@among("integers", "centroids", others=NOT_DRAWING)
def test_a_short_bucket_is_encoded_as_if_it_were_alone(name):
    """So padding changes no statistic. Draws depend on the place of an entry."""
    x = normal(2 * BUCKET + 5)
    _, lost, decoded = coded(QUANTISERS[name], x)
    _, own_lost, own_decoded = coded(QUANTISERS[name], x[2 * BUCKET :])
    np.testing.assert_allclose(decoded[2 * BUCKET :], own_decoded, rtol=1e-6)
    np.testing.assert_allclose(lost[2 * BUCKET :], own_lost, rtol=0, atol=1e-6)


@among("integers")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_16_bit_vectors_lose_is_float32(name, dtype):
    x = normal(40, dtype)
    message, lost, decoded = coded(QUANTISERS[name], x)
    assert message[1].dtype == lost.dtype == decoded.dtype == np.float32
    exact = x.astype(np.float64)
    np.testing.assert_allclose(decoded + lost.astype(float), exact, rtol=0, atol=1e-6)


@among("powers_of_two", "centroids")
def test_chunks_give_the_message_of_the_whole(name, monkeypatch):
    """A few buckets at a time, with a rest of whole buckets and a short one."""
    x = normal(4 * BUCKET * 3 + 2 * BUCKET + 5)
    whole = coded(QUANTISERS[name], x)
    monkeypatch.setattr(_buckets, "CHUNK", 4 * BUCKET)
    program = str(jax.make_jaxpr(QUANTISERS[name].encode)(jax.random.key(0), x))
    assert "cond" in program
    chunked = coded(QUANTISERS[name], x)
    np.testing.assert_array_equal(chunked[0][0], whole[0][0])
    for part, of_all in zip(
        jax.tree.leaves(chunked), jax.tree.leaves(whole), strict=True
    ):
        np.testing.assert_allclose(part, of_all, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bucket", [48, 512])
def test_the_largest_entry_of_each_bucket_of_a_chunk(bucket):
    blocks = normal(_buckets.CHUNK // bucket * bucket).reshape(-1, bucket)
    blocks[1] = np.where(np.arange(bucket) == bucket - 1, -9, blocks[1])
    blocks[2, 0], blocks[3] = np.nan, 0
    most = np.abs(blocks).max(axis=1)
    np.testing.assert_array_equal(_buckets.largest(jnp.asarray(blocks)), most)


def test_on_a_cpu_what_is_lost_takes_the_place_of_the_residual():
    """No second vector of floats is allocated, beside the codes."""
    d = 3 * _buckets.CHUNK + 1000

    def update(u, g):
        message, lost = integers(8).encode(jax.random.key(0), u + g)
        return lost, message

    vector = jax.ShapeDtypeStruct((d,), jnp.float32)
    compiled = jax.jit(update, donate_argnums=0).lower(vector, vector).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes == 4 * d
    assert memory.temp_size_in_bytes < 2 * d


@among("integers", "centroids", others=["E3M0", "qsgd of five bits"])
def test_messages_are_added_in_the_order_of_workers(name):
    workers, d = 7, 45
    draw = np.random.default_rng(0)
    powers = 10.0 ** draw.integers(-4, 4, (workers, 1))
    xs = (draw.normal(size=(workers, d)) * powers).astype(np.float32)
    compressor = QUANTISERS[name]
    encode = jax.jit(lambda x: compressor.encode(jax.random.key(0), x)[0])
    messages = [encode(x) for x in xs]
    total = np.zeros(d, np.float32)
    decode = jax.jit(lambda m: compressor.decode(jax.random.key(1), m, like(xs[0])))
    for message in messages:
        total += decode(alone(message))
    every = jax.tree.map(lambda *leaves: jnp.stack(leaves), *messages)
    # XLA may add and multiply in one step, which rounds once.
    np.testing.assert_allclose(
        decode(every), total, rtol=1e-6, atol=1e-6 * powers.max()
    )


@pytest.mark.parametrize("name", ["integers", "E3M0"])
def test_decoding_allocates_no_floats_for_all_messages(name):
    workers, d = 16, 4096
    compressor = QUANTISERS[name]
    messages = jax.eval_shape(
        jax.vmap(lambda x: compressor.encode(jax.random.key(0), x)[0]),
        jax.ShapeDtypeStruct((workers, d), jnp.float32),
    )
    x = jax.ShapeDtypeStruct((d,), jnp.float32)
    decode = jax.jit(lambda m: compressor.decode(jax.random.key(0), m, x))
    memory = decode.lower(messages).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes <= 3 * 4 * d


@among("integers")
def test_split_leaves_are_encoded_shard_by_shard(name):
    compressor = QUANTISERS[name]
    channel, trees = all_gather(compressor, per_leaf=True), trees_of(2, "float32")
    (mean, lost, _), _ = on_mesh(channel, trees, mesh_named("2 x 4"))
    for leaf, tree in trees.items():
        sent = (tree.astype(float) - lost[leaf]).mean(axis=0)
        np.testing.assert_allclose(mean[leaf][0], sent, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(mean[leaf][0], mean[leaf][1])
        assert np.any(lost[leaf] != 0)


def test_without_buckets_split_leaves_are_refused():
    with pytest.raises(ValueError, match="must select entries shard by shard"):
        on_mesh(
            all_gather(integers(8, bucket=None), per_leaf=True),
            trees_of(2, "float32"),
            mesh_named("2 x 4"),
        )


@pytest.mark.slow
def test_a_channel_averages_through_every_quantiser():
    trees = np.stack([normal(40) * scale for scale in (1, 2, 3)])
    for compressor in QUANTISERS.values():
        mean, lost, _ = average(all_gather(compressor), trees)
        np.testing.assert_allclose(mean[0], (trees - lost).mean(axis=0), atol=1e-5)
