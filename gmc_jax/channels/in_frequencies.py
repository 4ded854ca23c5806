"""A channel that averages what a cosine transform makes of a tree."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax.channels._calls import call
from gmc_jax.core import Channel, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import downcast, upcast


@call_repr
def in_frequencies(channel: Channel, *, chunk: int = 64) -> Channel:
    """Averages the cosine transform of each leaf, chunk by chunk.

        mean, lost = inverse of channel.average(transform of the tree)

    A matrix is cut into chunks of c1 by c2 entries, where c1 and c2 are the largest
    divisors of its sides that are at most `chunk`. Each chunk is multiplied by an
    orthonormal DCT-II matrix from both sides. The channel sees a leaf of one chunk a
    row, [chunks, c1 c2]. A vector is cut and transformed along its one axis. An array
    of more than two axes counts as a matrix, whose rows run along the last axis. The
    matrices of the transform are made once, when the step is traced.

    Rows of sides that are prime are chunks of their own, of one entry: choose shapes
    with divisors.

    Args:
      channel: averages the transform, such as
        `mean_of_senders(top_k_of_rows(32), per_leaf=True)`. Coefficients travel in the
        dtypes of the tree.
      chunk: the longest side of a chunk, at least 1.

    Returns:
      A channel, with the state of `channel`. Leaves that are split over the devices of
      a worker are transformed as whole leaves, which every device then holds.

    Raises:
      TypeError: if `channel` is not a channel; from `init` and `average` if a leaf is
        not floating.
      ValueError: if `chunk` is not a whole number of at least 1.

    Guarantees:
      The law of `channel`, to rounding: if it keeps the law of channels, so does this.
      The transform keeps the energy of every chunk. So the channel loses as much energy
      of the tree as it loses of the transform.

    References:
      Peng, Quesnelle and Kingma, "DeMo: Decoupled Momentum Optimization", 2024,
      arXiv:2411.19870: Section 3, after the public code.
    """
    checks.channel(channel=channel)
    chunk = checks.whole(chunk=chunk)

    def transform(leaf: jax.Array) -> jax.Array:
        rows, columns = _sides(jnp.shape(leaf), chunk)
        grid = leaf.reshape(*rows, *columns)
        out = _on_chunks(grid, _cosines(rows[1], leaf), _cosines(columns[1], leaf))
        return out.transpose(0, 2, 1, 3).reshape(-1, rows[1] * columns[1])

    def restore(leaf: jax.Array, like: jax.Array) -> jax.Array:
        rows, columns = _sides(jnp.shape(like), chunk)
        chunks = leaf.reshape(rows[0], columns[0], rows[1], columns[1])
        grid = chunks.transpose(0, 2, 1, 3)
        out = _on_chunks(grid, _cosines(rows[1], leaf).T, _cosines(columns[1], leaf).T)
        return out.reshape(jnp.shape(like))

    def sent(tree: Tree) -> tuple[Tree, Tree]:
        """The transform, and how it is rounded to the dtypes of the tree."""
        checks.floating(tree)
        exact = jax.tree.map(transform, upcast(tree))
        return exact, downcast(exact, tree)

    def shapes(tree: Tree) -> Tree:
        return jax.eval_shape(lambda tree: sent(tree)[1], tree)

    def init(params):
        return channel.init(jax.tree.map(jnp.zeros_like, shapes(params)))

    def average(tree, state):
        exact, rounded = sent(tree)
        mean, lost, state = call(channel, rounded, state)
        rounding = jax.tree.map(jnp.subtract, exact, upcast(rounded))
        lost = jax.tree.map(jnp.add, lost, rounding)
        return *(jax.tree.map(restore, part, tree) for part in (mean, lost)), state

    return Channel(
        init,
        average,
        lambda tree: channel.bits(shapes(tree)),
        channel.axis_name,
        lambda tree: channel.entries(shapes(tree)),
    )


def _sides(shape: tuple[int, ...], chunk: int) -> tuple[tuple[int, int], ...]:
    """For rows and columns, how many chunks there are and how many entries in each."""
    sides = math.prod(shape[:-1]), shape[-1] if shape else 1
    lengths = (
        max((n for n in range(1, min(side, chunk) + 1) if side % n == 0), default=1)
        for side in sides
    )
    return tuple(
        (side // length, length) for side, length in zip(sides, lengths, strict=True)
    )


def _cosines(size: int, like: jax.Array) -> jax.Array:
    """The orthonormal DCT-II of a size, as a matrix; its transpose is the inverse."""
    frequency, place = np.mgrid[:size, :size]
    matrix = np.sqrt(2 / size) * np.cos(np.pi * (2 * place + 1) * frequency / 2 / size)
    matrix[0] /= np.sqrt(2)
    return jnp.asarray(matrix, like.dtype)


def _on_chunks(grid: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
    """Multiplies each chunk of [rows, c1, columns, c2] by a matrix from both sides."""
    return jnp.einsum(
        "ia,rasb,jb->risj", left, grid, right, precision=jax.lax.Precision.HIGHEST
    )
