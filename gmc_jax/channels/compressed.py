"""What all channels through a compressor have in common."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmc_jax.channels._axis import workers_on
from gmc_jax.channels._codec import check_in_parts, coding, coding_in_parts
from gmc_jax.channels._wire import run_collective
from gmc_jax.channels.sharded.shards import Shards, shards_of
from gmc_jax.core import Channel, Compressor, Sparse, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.trees import (
    accumulator_dtype,
    mean_of,
    shares,
    size_in_bits,
    to_vectors,
    upcast,
)


class CompressedState(NamedTuple):
    """The state of a channel through a compressor.

    Attributes:
      step: int32, how often the channel has averaged; the same on all workers.
    """

    step: jax.Array


def compressed(
    caller: str,
    compressor: Compressor,
    travelling: Callable[[Tree, float], Tree],
    collective: Callable[[jax.Array], jax.Array],
    arrived: Callable[[Tree, float], Tree],
    *,
    per_leaf: bool,
    seed: int,
    axis_name: str,
    alike: bool = False,
) -> Channel:
    """A channel that encodes, exchanges, decodes the sum and divides.

    Messages are scaled to shares that have no infinite sum (see `trees.shares`), where
    the compressor is linear: on their way, or once they are there.

    Args:
      caller: the public name, for errors.
      compressor: what encodes each vector.
      travelling: from messages, and the share, to the form in which they travel and
        count.
      collective: takes a vector of what travels to what arrives, stacked on a leading
        axis: together that holds the contributions of all workers.
      arrived: from what arrived, widened, and the share, to what is decoded.
      per_leaf: whether each leaf is a vector of its own.
      seed: of the draws; `all_gather` has the rule.
      axis_name: the named axis whose indices are the workers.
      alike: whether all workers hold the same tree and encode it alike, each of them
        for all: then no index of the worker is folded in, and one message is the mean.
    """
    checks.compressor(compressor=compressor)
    checks.flag(per_leaf=per_leaf)
    checks.seed(seed=seed)
    checks.axis(axis_name=axis_name)

    def init(params):
        checks.floating(params)
        return CompressedState(jnp.zeros((), jnp.int32))

    def own(key: jax.Array) -> jax.Array:
        if compressor.shared or alike:
            return key
        return jax.random.fold_in(key, jax.lax.axis_index(axis_name))

    def on_device(
        tree: Tree, step: jax.Array, parts: Shards | None = None
    ) -> tuple[Tree, Tree]:
        vectors, restore = to_vectors(tree, per_leaf)
        key = jax.random.fold_in(jax.random.key(seed), step)
        keys = {
            leaf: jax.random.fold_in(key, leaf) if per_leaf else key for leaf in vectors
        }
        if parts is None:
            code = coding(compressor, {leaf: x.size for leaf, x in vectors.items()})
            arriving = collective
        else:
            code = coding_in_parts(compressor, parts, tree, per_leaf)
            arriving = parts.assembled(collective)
        own_keys = {leaf: own(key) for leaf, key in keys.items()}
        messages, lost = code.encode(own_keys, vectors)
        senders = 1 if alike else workers_on(axis_name, caller)
        share, rest = shares(senders) if compressor.linear else (1.0, senders)
        heard = upcast(run_collective(travelling(messages, share), arriving))
        sums = code.decode(keys, arrived(heard, share))
        means = {leaf: mean_of(total, rest) for leaf, total in sums.items()}

        def cast(leaf: jax.Array, like: jax.Array) -> jax.Array:
            return leaf.astype(accumulator_dtype(jnp.result_type(like)))

        def as_accumulated(vectors: dict[int, jax.Array]) -> Tree:
            return jax.tree.map(cast, restore(vectors), tree)

        return as_accumulated(means), as_accumulated(lost)

    def average(tree, state):
        if not alike:
            workers_on(axis_name, caller)
        checks.floating(tree)
        _check_sizes(tree, per_leaf, caller)
        parts = shards_of(tree)
        if parts is None:
            mean, lost = on_device(tree, state.step)
        else:
            check_in_parts(compressor, parts, per_leaf, caller)
            in_parts = partial(on_device, parts=parts)
            mean, lost = parts.run(in_parts, tree, state.step, results=2)
        return mean, lost, CompressedState(state.step + 1)

    def messages_of(tree: Tree) -> Tree:
        def encode(tree):
            _check_sizes(tree, per_leaf, caller)
            vectors, _ = to_vectors(tree, per_leaf)
            key = jax.random.key(seed)
            messages = {
                leaf: compressor.encode(key, x)[0] for leaf, x in vectors.items()
            }
            return travelling(messages, 1.0)

        return jax.eval_shape(encode, tree)

    def bits(tree):
        return size_in_bits(messages_of(tree))

    def entries(tree):
        messages = messages_of(tree)
        if any(isinstance(message, Sparse) for message in messages.values()):
            return None
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(messages))

    return Channel(init, average, bits, axis_name, entries)


def as_it_is(messages: Tree, share: float) -> Tree:
    """Messages whose share is taken at the other end."""
    del share
    return messages


def _check_sizes(tree: Tree, per_leaf: bool, caller: str) -> None:
    leaves = [jnp.size(leaf) for leaf in jax.tree.leaves(tree)]
    size = max(leaves, default=0) if per_leaf else sum(leaves)
    if size >= 2**31:
        raise ValueError(
            f"`{caller}` addresses coordinates with int32, and a vector of {size} "
            f"coordinates has more than 2^31 - 1. Compress leaf by leaf with "
            f"`{caller}(..., per_leaf=True)`, or split the largest leaf."
        )
