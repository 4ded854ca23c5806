"""The table of compressors, over which `tests/compressors/test_laws.py` runs."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from gmc_jax import (
    Compressor,
    centroids,
    chunked_top_k,
    dense,
    float8,
    integers,
    powers_of_two,
    qsgd,
    quantised,
    random_block,
    random_k,
    sampled_top_k,
    scaled_sign,
    terngrad,
    threshold,
    top_k,
    top_k_of_rows,
)
from gmc_jax.core import Tree
from gmc_jax.utils.trees import accumulator_dtype


def like(x) -> jax.ShapeDtypeStruct:
    """What a message of x is decoded to."""
    return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x))


def alone(message: Tree) -> Tree:
    """One message as `decode` takes several, on a leading axis."""
    return jax.tree.map(lambda leaf: leaf[None], message)


def round_trip(compressor: Compressor) -> jax.stages.Wrapped:
    """Compiles `(key, x) -> message, lost, decoded`, of one message of x."""

    @jax.jit
    def code(key: jax.Array, x: jax.Array) -> tuple:
        message, lost = compressor.encode(key, x)
        return message, lost, compressor.decode(key, alone(message), like(x))

    return code


class Row(NamedTuple):
    """A compressor, and what its laws need to know of it."""

    make: Callable[[float], Compressor]  # from the ratio
    has_ratio: bool = True
    # Whether a part of every entry is sent. Sums are then rounded.
    splits_entries: bool = False
    # Whether any factor of the vector is one of the message; otherwise powers of two.
    scales_by_all: bool = True


def quantises(make: Callable[[], Compressor], scales_by_all: bool = True) -> Row:
    """The row of a compressor that sends every entry in few bits."""
    return Row(
        lambda ratio: make(),
        has_ratio=False,
        splits_entries=True,
        scales_by_all=scales_by_all,
    )


COMPRESSORS = {
    "dense": Row(lambda ratio: dense(), has_ratio=False),
    "top_k": Row(top_k),
    "top_k_of_rows": Row(lambda ratio: top_k_of_rows(3), has_ratio=False),
    "sampled_top_k": Row(lambda ratio: sampled_top_k(ratio, sample=0.3)),
    "chunked_top_k": Row(lambda ratio: chunked_top_k(ratio, chunk=4096)),
    "random_k": Row(random_k),
    "random_block": Row(random_block),
    "threshold": Row(lambda ratio: threshold(0.5, ratio)),
    "scaled_sign": quantises(scaled_sign),
    "integers": quantises(lambda: integers(8, bucket=32)),
    "float8": quantises(lambda: float8(bucket=32)),
    "powers_of_two": quantises(lambda: powers_of_two(bucket=32), scales_by_all=False),
    "qsgd": quantises(lambda: qsgd(64, bucket=32)),
    "terngrad": quantises(lambda: terngrad(clip=None)),
    "centroids": quantises(lambda: centroids(bucket=32)),
    "quantised": Row(
        lambda ratio: quantised(top_k(ratio), scaled_sign()), splits_entries=True
    ),
}


QUANTISERS = ["float8", "powers_of_two", "qsgd", "terngrad", "centroids"]
"""Those that share all but their codes with `integers`."""
VARIANTS = [*QUANTISERS, "sampled_top_k", "threshold", "chunked_top_k"]
"""Those whose tests are in the slow run, since most of their code is others'."""


def parameters(names: Iterable[str] = COMPRESSORS) -> list:
    """Names as parameters of a test; those of `VARIANTS` are in the slow run."""
    return [
        pytest.param(name, marks=pytest.mark.slow if name in VARIANTS else ())
        for name in names
    ]


def coarse() -> Compressor:
    """Rounds to multiples of a seventh of the largest magnitude, up or down at random.

    A quantiser of any shape, as a user could write it: a byte an entry, and a scale.
    """

    def encode(key, x):
        wide = x.astype(accumulator_dtype(x.dtype))
        scale = jnp.maximum(jnp.max(jnp.abs(wide)), jnp.finfo(wide.dtype).tiny) / 7
        codes = jnp.floor(wide / scale + jax.random.uniform(key, x.shape))
        codes = codes.astype(jnp.int8)
        return (codes, scale), wide - codes.astype(wide.dtype) * scale

    def decode(key, messages, like):
        del key
        codes, scales = messages
        return jnp.tensordot(scales, codes.astype(scales.dtype), 1).reshape(like.shape)

    return Compressor(encode, decode, linear=True)


def thinned() -> Compressor:
    """Keeps each entry with probability one half, as a user could write it.

    It does not say that it is linear.
    """

    def encode(key, x):
        message = jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x, 0)
        return message, x - message

    def decode(key, messages, like):
        del key, like
        return messages.sum(axis=0)

    return Compressor(encode, decode)
