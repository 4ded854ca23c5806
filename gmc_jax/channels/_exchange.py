"""Channels whose workers encode, exchange messages and decode their mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import jax

from gmc_jax.channels._axis import workers_on
from gmc_jax.channels._keys import key_of_worker, keys_of_call
from gmc_jax.channels.compressed import channel_on_vectors, check_of
from gmc_jax.channels.sharded.codec import between_workers, check_selects, codec
from gmc_jax.channels.sharded.shard_codecs import Codec
from gmc_jax.channels.sharded.shards import Shards
from gmc_jax.channels.sharded.stacks import Vectors
from gmc_jax.core import Channel, Compressor, Tree
from gmc_jax.utils.trees import (
    mean_of,
    scale_floats,
    shares,
    upcast,
)


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


Combine: TypeAlias = Callable[
    [Callable[[dict[int, Tree]], Vectors], dict[int, Tree], int, float], Vectors
]
"""From the messages of all senders to their means.

`(decode, messages, senders, divisor) -> means`, where `decode` returns the sums of
messages, and a sum over the divisor is a mean over the senders (see `trees.shares`).
"""


def mean_of_all(
    decode: Callable[[dict[int, Tree]], Vectors],
    messages: dict[int, Tree],
    senders: int,
    divisor: float,
) -> Vectors:
    """Divides sums of messages by the number of their senders."""
    del senders
    sums = decode(messages)
    return {leaf: mean_of(total, divisor) for leaf, total in sums.items()}


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


def compressed_exchange(
    caller: str,
    compressor: Compressor,
    exchange: Exchange,
    *,
    per_leaf: bool,
    seed: int,
    axis_name: str,
    combine: Combine = mean_of_all,
) -> tuple[Channel, Coding]:
    """A channel whose workers encode, exchange messages and decode their mean.

    Args:
      caller: the public name, for errors.
      compressor: what encodes each vector.
      exchange: how messages travel.
      per_leaf: whether each leaf is a vector of its own.
      seed: of the draws; `all_gather` has the rule.
      axis_name: the named axis whose indices are the workers.
      combine: what is made of the messages.

    Returns:
      The channel, and the parts of which it is made.
    """

    def own_key(key: jax.Array) -> jax.Array:
        return key_of_worker(compressor, key, axis_name)

    workers = _Workers(lambda: workers_on(axis_name, caller), own_key)
    return _channel(
        caller,
        compressor,
        exchange,
        workers,
        per_leaf,
        seed=seed,
        axis_name=axis_name,
        combine=combine,
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
    combine: Combine = mean_of_all,
) -> tuple[Channel, Coding]:
    def coder_of(shards: Shards, tree: Tree, vectors: Vectors) -> Codec:
        check_selects(compressor, shards, per_leaf, caller)
        return codec(compressor, shards, tree, vectors, per_leaf)

    def keys_of(shards: Shards, step: jax.Array) -> jax.Array:
        return keys_of_call(seed, step, per_leaf, len(shards.shapes))

    def encode(
        coder: Codec, keys: jax.Array, vectors: Vectors
    ) -> tuple[dict[int, Tree], Vectors]:
        with jax.named_scope("encode"):
            return coder.encode(jax.vmap(workers.own_key)(keys), vectors)

    def receive(
        coder: Codec, shards: Shards, keys: jax.Array, messages: dict[int, Tree]
    ) -> Vectors:
        senders = workers.senders()
        share, divisor = shares(senders) if compressor.linear else (1.0, senders)
        with jax.named_scope("exchange"):
            sent = exchange.to_wire(messages, share)
            received = between_workers(exchange.collective, coder, shards, sent)
        with jax.named_scope("decode"):
            arrived = exchange.from_wire(upcast(received), share)
            return combine(partial(coder.decode, keys), arrived, senders, divisor)

    def on_vectors(
        shards: Shards, tree: Tree, vectors: Vectors, step: jax.Array
    ) -> tuple[Vectors, Vectors]:
        coder, keys = coder_of(shards, tree, vectors), keys_of(shards, step)
        messages, lost = encode(coder, keys, vectors)
        return receive(coder, shards, keys, messages), lost

    channel = channel_on_vectors(
        caller,
        compressor,
        on_vectors,
        workers.senders,
        exchange.to_wire,
        per_leaf=per_leaf,
        seed=seed,
        axis_name=axis_name,
        takes_joined=True,
    )
    check = check_of(caller, workers.senders, per_leaf)
    return channel, Coding(per_leaf, check, coder_of, keys_of, encode, receive)
