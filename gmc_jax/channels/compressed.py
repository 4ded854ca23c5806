"""What all channels through a compressor have in common."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax.channels.sharded.joined import sends_largest
from gmc_jax.channels.sharded.shards import Shards, on_shards_and_whole
from gmc_jax.channels.sharded.stacks import Vectors, stacked_vectors
from gmc_jax.core import Channel, Compressor, Sparse, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.trees import accumulator_dtype, size_in_bits
from gmc_jax.utils.vectors import to_vectors

Flatten: TypeAlias = Callable[..., tuple[Vectors, Callable[[Vectors], Tree]]]
"""From shards, a tree and a step to vectors, and what restores the tree from them."""


class CompressedState(NamedTuple):
    """The state of a channel through a compressor.

    Attributes:
      step: int32, how often the channel has averaged; the same on all workers.
    """

    step: jax.Array


@dataclass(frozen=True)
class CompressedAverage:
    """The `average` of a channel through a compressor, and its parts.

    Attributes:
      per_leaf: whether each leaf is a vector of its own.
      check: raises an error unless the channel can average a tree.
      on_vectors: `(shards, tree, vectors, step) -> (means, lost)`, of the vectors and
        stacks of a tree. `step` is the number of calls before.
      takes_joined: whether `on_vectors` also takes what `joined_vectors` returns.
    """

    per_leaf: bool
    check: Callable[[Tree], None]
    on_vectors: Callable[[Shards, Tree, Vectors, jax.Array], tuple[Vectors, Vectors]]
    takes_joined: bool = False

    def __call__(
        self, tree: Tree, state: CompressedState
    ) -> tuple[Tree, Tree, CompressedState]:
        """Averages a tree over workers."""
        self.check(tree)
        mean, lost = average_vectors(self.on_vectors, self.per_leaf, tree, state.step)
        return mean, lost, CompressedState(state.step + 1)


def average_vectors(
    on_vectors: Callable[..., tuple[Tree, ...]],
    per_leaf: bool,
    tree: Tree,
    step: jax.Array,
    *whole: Tree,
    flatten_on_cpu: Flatten | None = None,
) -> tuple[Tree, ...]:
    """Flattens a tree, averages its vectors, and restores the mean and what is lost.

    Args:
      on_vectors: `(shards, tree, vectors, step, *whole) -> (means, lost, *others)`.
      per_leaf: whether each leaf is a vector of its own.
      tree: the tree.
      step: int32, the same on all workers.
      *whole: other arrays for `on_vectors`, or trees of them.
      flatten_on_cpu: `(shards, tree, step) -> (vectors, restore)`, what flattens the
        tree on CPUs, if not `stacked_vectors`.

    Returns:
      The mean, what is lost, and the others as they are.
    """

    def through(
        flatten: Flatten, shards: Shards, tree: Tree, *whole: Tree
    ) -> tuple[tuple, tuple]:
        vectors, restore = flatten(shards, tree, step=whole[0])

        def cast(leaf: jax.Array, like: jax.Array) -> jax.Array:
            return leaf.astype(accumulator_dtype(jnp.result_type(like)))

        means, lost, *others = on_vectors(shards, tree, vectors, *whole)
        restored = [
            jax.tree.map(cast, restore(results), tree) for results in (means, lost)
        ]
        return tuple(restored), tuple(others)

    def on_device(shards: Shards, tree: Tree, *whole: Tree) -> tuple[tuple, tuple]:
        default = partial(through, partial(stacked_vectors, per_leaf=per_leaf), shards)
        if flatten_on_cpu is None:
            return default(tree, *whole)
        on_cpu = partial(through, flatten_on_cpu, shards)
        return jax.lax.platform_dependent(tree, *whole, cpu=on_cpu, default=default)

    (mean, lost), others = on_shards_and_whole(on_device, tree, step, *whole)
    return mean, lost, *others


def compressed_averages(channels: Sequence[Channel]) -> list[CompressedAverage] | None:
    """Returns how channels average if all flatten a tree to vectors in the same way."""
    averages = [
        channel.average
        for channel in channels
        if isinstance(channel.average, CompressedAverage)
    ]
    ways = {average.per_leaf for average in averages}
    return averages if len(averages) == len(channels) and len(ways) == 1 else None


def channel_on_vectors(
    caller: str,
    compressor: Compressor,
    on_vectors: Callable[..., tuple[Vectors, Vectors]],
    check_axis: Callable[[], object],
    to_wire: Callable[[Tree, float], Tree],
    *,
    per_leaf: bool,
    seed: int,
    axis_name: str,
    takes_joined: bool = False,
) -> Channel:
    """A channel that averages the vectors of a tree, with `CompressedState`.

    Args:
      caller: the public name, for errors.
      compressor: what encodes each vector.
      on_vectors: as in `CompressedAverage`.
      check_axis: raises an error unless the channel can average where it is called.
      to_wire: as in `Exchange`. A worker sends one message of each vector.
      per_leaf: whether each leaf is a vector of its own.
      seed: of the draws.
      axis_name: the named axis whose indices are the workers.
      takes_joined: as in `CompressedAverage`, of leaves that send their largest.
    """
    checks.compressor(compressor=compressor)
    checks.flag(per_leaf=per_leaf)
    checks.seed(seed=seed)
    checks.axis(axis_name=axis_name)

    def init(params):
        checks.floating(params)
        return CompressedState(jnp.zeros((), jnp.int32))

    def messages_of(tree: Tree) -> list[Tree]:
        """The shapes of all messages; vectors alike are encoded once."""
        check_sizes(tree, per_leaf, caller)
        leaves = jax.tree.leaves(tree)
        if per_leaf:
            times = Counter((jnp.result_type(x), np.shape(x)) for x in leaves)
        else:
            totals: Counter[jnp.dtype] = Counter()
            for leaf in leaves:
                totals[jnp.result_type(leaf)] += np.size(leaf)
            times = Counter((dtype, (size,)) for dtype, size in totals.items())

        def encode(tree):
            if not per_leaf:
                tree = to_vectors(tree, False)[0]
            key = jax.random.key(seed)
            messages = [
                compressor.encode(key, x)[0] if x.size else ()
                for x in jax.tree.leaves(tree)
            ]
            return to_wire(messages, 1.0)

        alike = [jax.ShapeDtypeStruct(shape, dtype) for dtype, shape in times]
        messages = jax.eval_shape(encode, alike)
        counts = times.values() if per_leaf else [1] * len(messages)
        return [
            message
            for message, count in zip(messages, counts, strict=True)
            for _ in range(count)
        ]

    def bits(tree):
        return size_in_bits(messages_of(tree))

    def entries(tree):
        messages = messages_of(tree)
        if any(isinstance(message, Sparse) for message in messages):
            return None
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(messages))

    check = check_of(caller, check_axis, per_leaf)
    joins = takes_joined and per_leaf and sends_largest(compressor)
    average = CompressedAverage(per_leaf, check, on_vectors, joins)
    return Channel(init, average, bits, axis_name, entries)


def check_of(
    caller: str, check_axis: Callable[[], object], per_leaf: bool
) -> Callable[[Tree], None]:
    """The function that raises an error unless a channel can average a tree."""

    def check(tree: Tree) -> None:
        check_axis()
        checks.floating(tree)
        check_sizes(tree, per_leaf, caller)

    return check


def check_sizes(tree: Tree, per_leaf: bool, caller: str) -> None:
    """Raises ValueError if a vector is too long for int32 indices."""
    leaves = [np.size(leaf) for leaf in jax.tree.leaves(tree)]
    size = max(leaves, default=0) if per_leaf else sum(leaves)
    if size >= 2**31:
        raise ValueError(
            f"`{caller}` indexes entries with int32: a vector must have at most "
            f"2^31 - 1 of them, got {size}. Compress leaf by leaf with "
            f"`{caller}(..., per_leaf=True)`, or split the largest leaf."
        )
