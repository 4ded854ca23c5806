"""A random permutation, of which a part is computed without the rest."""

import math

import jax
import jax.numpy as jnp
from jax import lax

ROUNDS = 6
# Up to this many numbers are sorted by random bits. In a small rectangle some pairs
# would be more likely than others.
FEW = 1024


def first_permuted(key: jax.Array, d: int, s: int) -> jax.Array:
    """Returns where a random permutation of d numbers puts the first s of them.

    If the numbers are few, all permutations are equally likely. Otherwise it is a
    Feistel network over the cells of a rectangle. A round shifts all rows by hashes of
    the columns, or all columns by hashes of the rows. The rectangle may have a few
    cells more than d. Numbers that come to lie there are permuted again, until they do
    not (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). A rotation
    follows, so that every number is equally likely.

    Args:
      key: the key.
      d: how many numbers are permuted, from 1 to 2^31 - 1.
      s: how many are returned, at most d.

    Returns:
      Distinct numbers below d, [s] int32, in no order.
    """
    if d <= FEW:
        return jnp.argsort(jax.random.bits(key, (d,), jnp.uint32))[:s].astype(jnp.int32)
    for_rounds, for_rotation = jax.random.split(key)
    secrets = jax.random.bits(for_rounds, (ROUNDS,), jnp.uint32)
    rotation = jax.random.randint(for_rotation, (), 0, d, jnp.int32)
    rows, columns = _rectangle(d)

    def permute(cells: jax.Array) -> jax.Array:
        row, column = cells // columns, cells % columns
        for number in range(0, ROUNDS, 2):
            row = _add(row, _hash(column, secrets[number]) % rows, rows)
            column = _add(column, _hash(row, secrets[number + 1]) % columns, columns)
        return row * columns + column

    def permute_outside(state: tuple[jax.Array, jax.Array]):
        cells, is_outside = state
        cells = jnp.where(is_outside, permute(cells), cells)
        return cells, cells >= d

    start = jnp.arange(s, dtype=jnp.uint32), jnp.ones(s, bool)
    cells, _ = lax.while_loop(lambda state: jnp.any(state[1]), permute_outside, start)
    return _add(cells, rotation.astype(jnp.uint32), d).astype(jnp.int32)


def _rectangle(d: int) -> tuple[int, int]:
    """The sides of a rectangle of at least d cells, nearly a square, with few more."""
    side = math.isqrt(d - 1) + 1
    shapes = range(side, side + min(64, side // 4))
    rows = min(shapes, key=lambda rows: -d % rows)
    return rows, -(-d // rows)


def _add(x: jax.Array, y: jax.Array, modulus: int) -> jax.Array:
    """Adds numbers below a modulus of less than 2^31, modulo it."""
    total = x + y
    return jnp.where(total >= modulus, total - modulus, total)


def _hash(x: jax.Array, secret: jax.Array) -> jax.Array:
    """Mixes the bits of x with a secret, by the finalizer of MurmurHash3."""
    x = x * jnp.uint32(0x9E3779B9) + secret
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return x ^ (x >> 16)
