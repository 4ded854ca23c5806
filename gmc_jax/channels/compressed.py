"""What all channels through a compressor have in common."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmc_jax import checks
from gmc_jax.channels.axis import workers_on
from gmc_jax.core import Channel, Compressor, Sparse, Tree
from gmc_jax.trees import accumulator_dtype, size_in_bits, to_vectors


class CompressedState(NamedTuple):
    """The state of a channel through a compressor.

    Attributes:
      step: int32, how often the channel has averaged; the same on all workers.
    """

    step: jax.Array


def compressed(
    caller: str,
    compressor: Compressor,
    travelling: Callable[[Tree], Tree],
    exchange: Callable[[Tree], Tree],
    *,
    per_leaf: bool,
    seed: int,
    axis_name: str,
    alike: bool = False,
) -> Channel:
    """A channel that encodes, exchanges, decodes the sum and divides.

    Args:
      caller: the public name, for errors.
      compressor: what encodes each vector.
      travelling: casts messages to the form in which they travel and count.
      exchange: takes messages in that form to messages ready for decoding, stacked on a
        leading axis, which together hold the contributions of all workers.
      per_leaf: whether each leaf is a vector of its own.
      seed: of the draws. In a call, `key = fold_in(jax.random.key(seed), step)`, to
        which the index of the leaf is folded in where leaves are compressed one by one,
        and then the index of the worker where the compressor is not shared.
      axis_name: the named axis whose indices are the workers.
      alike: whether all workers hold the same tree and encode it alike, each of them
        for all: then no index of the worker is folded in, and one message is the mean.
    """
    checks.compressor(compressor=compressor)

    def init(params):
        del params
        return CompressedState(jnp.zeros((), jnp.int32))

    def own(key: jax.Array) -> jax.Array:
        if compressor.shared or alike:
            return key
        return jax.random.fold_in(key, jax.lax.axis_index(axis_name))

    def average(tree, state):
        senders = 1 if alike else workers_on(axis_name, caller)
        checks.floating(tree)
        vectors, restore = to_vectors(tree, per_leaf)
        _check_sizes(vectors, caller)
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        keys = {
            leaf: jax.random.fold_in(key, leaf) if per_leaf else key for leaf in vectors
        }
        encoded = {
            leaf: compressor.encode(own(keys[leaf]), vector)
            for leaf, vector in vectors.items()
        }
        messages = {leaf: message for leaf, (message, _) in encoded.items()}
        arrived = exchange(travelling(messages))
        means = {
            leaf: compressor.decode(keys[leaf], arrived[leaf], vector.size) / senders
            for leaf, vector in vectors.items()
        }
        lost = {leaf: rest for leaf, (_, rest) in encoded.items()}

        def cast(leaf: jax.Array, like: jax.Array) -> jax.Array:
            return leaf.astype(accumulator_dtype(jnp.result_type(like)))

        def as_accumulated(vectors: dict[int, jax.Array]) -> Tree:
            return jax.tree.map(cast, restore(vectors), tree)

        state = CompressedState(state.step + 1)
        return as_accumulated(means), as_accumulated(lost), state

    def messages_of(tree: Tree) -> Tree:
        def encode(tree):
            vectors, _ = to_vectors(tree, per_leaf)
            _check_sizes(vectors, caller)
            key = jax.random.key(seed)
            return travelling(
                {leaf: compressor.encode(key, x)[0] for leaf, x in vectors.items()}
            )

        return jax.eval_shape(encode, tree)

    def bits(tree):
        return size_in_bits(messages_of(tree))

    def entries(tree):
        messages = messages_of(tree)
        if any(isinstance(message, Sparse) for message in messages.values()):
            return None
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(messages))

    return Channel(init, average, bits, axis_name, entries)


def _check_sizes(vectors: dict[int, jax.Array], caller: str) -> None:
    for vector in vectors.values():
        if vector.size >= 2**31:
            raise ValueError(
                f"`{caller}` addresses coordinates with int32, and a vector of "
                f"{vector.size} coordinates has more than 2^31 - 1. Compress leaf by "
                f"leaf with `{caller}(..., per_leaf=True)`, or split the largest leaf."
            )
