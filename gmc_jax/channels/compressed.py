"""What all channels through a compressor have in common."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax.channels._axis import workers_on
from gmc_jax.channels._keys import key_of_worker, keys_of_call
from gmc_jax.channels.sharded.codec import between_workers, check_selects, codec
from gmc_jax.channels.sharded.shard_codecs import Codec
from gmc_jax.channels.sharded.shards import Shards, on_shards_and_whole
from gmc_jax.channels.sharded.stacks import Vectors, stacked_vectors
from gmc_jax.core import Channel, Compressor, Sparse, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.trees import (
    accumulator_dtype,
    mean_of,
    scale_floats,
    shares,
    size_in_bits,
    upcast,
)
from gmc_jax.utils.vectors import to_vectors


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
    """

    per_leaf: bool
    check: Callable[[Tree], None]
    on_vectors: Callable[[Shards, Tree, Vectors, jax.Array], tuple[Vectors, Vectors]]

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
) -> tuple[Tree, ...]:
    """Flattens a tree, averages its vectors, and restores the mean and what is lost.

    Args:
      on_vectors: `(shards, tree, vectors, step, *whole) -> (means, lost, *others)`.
      per_leaf: whether each leaf is a vector of its own.
      tree: the tree.
      step: int32, the same on all workers.
      *whole: other arrays for `on_vectors`, or trees of them.

    Returns:
      The mean, what is lost, and the others as they are.
    """

    def on_device(shards: Shards, tree: Tree, *whole: Tree) -> tuple[tuple, tuple]:
        vectors, restore = stacked_vectors(shards, tree, per_leaf, whole[0])

        def cast(leaf: jax.Array, like: jax.Array) -> jax.Array:
            return leaf.astype(accumulator_dtype(jnp.result_type(like)))

        means, lost, *others = on_vectors(shards, tree, vectors, *whole)
        restored = [
            jax.tree.map(cast, restore(results), tree) for results in (means, lost)
        ]
        return tuple(restored), tuple(others)

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


class Exchange(NamedTuple):
    """How messages travel, and who multiplies them by their share.

    A message is multiplied by a share before it is summed, so that the sum stays finite
    (see `trees.shares`). Either its sender does so, or its receivers.

    Attributes:
      to_wire: `(message, share) -> message`, in the form in which it travels and
        counts.
      collective: from a vector to what is received, stacked on a leading axis.
        Together that holds the messages of all senders.
      from_wire: `(received, share) -> messages`, from what is received, upcast, to what
        is decoded.
    """

    to_wire: Callable[[Tree, float], Tree]
    collective: Callable[[jax.Array], jax.Array]
    from_wire: Callable[[Tree, float], Tree]


class Coding(NamedTuple):
    """The parts of a call of a channel through a compressor.

    Attributes:
      per_leaf: whether each leaf is a vector of its own.
      check: raises an error unless the channel can average a tree.
      coder_of: `(shards, tree, vectors) -> coder`.
      keys_of: `(shards, step) -> keys`, of a call, by the index of the leaf.
      encode: `(coder, keys, vectors) -> (messages, lost)`, of this worker.
      receive: `(coder, shards, keys, messages) -> means`. It alone sends between
        workers.
    """

    per_leaf: bool
    check: Callable[[Tree], None]
    coder_of: Callable[[Shards, Tree, Vectors], Codec]
    keys_of: Callable[[Shards, jax.Array], jax.Array]
    encode: Callable[[Codec, jax.Array, Vectors], tuple[dict[int, Tree], Vectors]]
    receive: Callable[[Codec, Shards, jax.Array, dict[int, Tree]], Vectors]


class _Workers(NamedTuple):
    """Who encodes, and with which draws.

    Attributes:
      senders: `() -> K`, the number of messages in a mean. Where messages are sent, it
        raises NameError outside the axis.
      own_key: from the key of a call to that of this worker's draws.
    """

    senders: Callable[[], int]
    own_key: Callable[[jax.Array], jax.Array]


def compressed(
    caller: str,
    compressor: Compressor,
    exchange: Exchange,
    *,
    per_leaf: bool,
    seed: int,
    axis_name: str,
) -> tuple[Channel, Coding]:
    """A channel whose workers encode, exchange messages and decode their mean.

    Args:
      caller: the public name, for errors.
      compressor: what encodes each vector.
      exchange: how messages travel.
      per_leaf: whether each leaf is a vector of its own.
      seed: of the draws; `all_gather` has the rule.
      axis_name: the named axis whose indices are the workers.

    Returns:
      The channel, and the parts of which it is made.
    """

    def own_key(key: jax.Array) -> jax.Array:
        return key_of_worker(compressor, key, axis_name)

    workers = _Workers(lambda: workers_on(axis_name, caller), own_key)
    return _channel(
        caller, compressor, exchange, workers, per_leaf, seed=seed, axis_name=axis_name
    )


def compressed_on_each_worker(
    caller: str, compressor: Compressor, *, per_leaf: bool, seed: int, axis_name: str
) -> Channel:
    """A channel whose workers all encode the same tree with the same draws.

    Nothing is sent: the message that a worker encodes is the one that it decodes.

    Args:
      caller: the public name, for errors.
      compressor: what encodes each vector.
      per_leaf: whether each leaf is a vector of its own.
      seed: of the draws; the index of the worker is not folded in.
      axis_name: the named axis whose indices are the workers.
    """
    exchange = Exchange(unscaled, lambda flat: flat[None], unscaled)
    workers = _Workers(lambda: 1, lambda key: key)
    channel, _ = _channel(
        caller, compressor, exchange, workers, per_leaf, seed=seed, axis_name=axis_name
    )
    return channel


def unscaled(messages: Tree, share: float) -> Tree:
    """Messages as they are: the other end multiplies them by their share."""
    del share
    return messages


def upcast_and_scaled(messages: Tree, share: float) -> Tree:
    """Messages in the dtypes that they are summed in, times their share."""
    return scale_floats(upcast(messages), share)


def _channel(
    caller: str,
    compressor: Compressor,
    exchange: Exchange,
    workers: _Workers,
    per_leaf: bool,
    *,
    seed: int,
    axis_name: str,
) -> tuple[Channel, Coding]:
    checks.compressor(compressor=compressor)
    checks.flag(per_leaf=per_leaf)
    checks.seed(seed=seed)
    checks.axis(axis_name=axis_name)

    def init(params):
        checks.floating(params)
        return CompressedState(jnp.zeros((), jnp.int32))

    def coder_of(shards: Shards, tree: Tree, vectors: Vectors) -> Codec:
        check_selects(compressor, shards, per_leaf, caller)
        return codec(compressor, shards, tree, vectors, per_leaf)

    def keys_of(shards: Shards, step: jax.Array) -> jax.Array:
        return keys_of_call(seed, step, per_leaf, len(shards.shapes))

    def encode(
        coder: Codec, keys: jax.Array, vectors: Vectors
    ) -> tuple[dict[int, Tree], Vectors]:
        return coder.encode(jax.vmap(workers.own_key)(keys), vectors)

    def receive(
        coder: Codec, shards: Shards, keys: jax.Array, messages: dict[int, Tree]
    ) -> Vectors:
        senders = workers.senders()
        share, divisor = shares(senders) if compressor.linear else (1.0, senders)
        sent = exchange.to_wire(messages, share)
        received = between_workers(exchange.collective, coder, shards, sent)
        sums = coder.decode(keys, exchange.from_wire(upcast(received), share))
        return {leaf: mean_of(total, divisor) for leaf, total in sums.items()}

    def on_vectors(
        shards: Shards, tree: Tree, vectors: Vectors, step: jax.Array
    ) -> tuple[Vectors, Vectors]:
        coder, keys = coder_of(shards, tree, vectors), keys_of(shards, step)
        messages, lost = encode(coder, keys, vectors)
        return receive(coder, shards, keys, messages), lost

    def check(tree):
        workers.senders()
        checks.floating(tree)
        check_sizes(tree, per_leaf, caller)

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
            return exchange.to_wire(messages, 1.0)

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

    average = CompressedAverage(per_leaf, check, on_vectors)
    coding = Coding(per_leaf, check, coder_of, keys_of, encode, receive)
    return Channel(init, average, bits, axis_name, entries), coding


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
