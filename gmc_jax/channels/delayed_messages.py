"""Compressed messages that travel in the call after the one that encodes them."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.channels._exchange import Coding
from gmc_jax.channels._words import from_words, to_words
from gmc_jax.channels.compressed import average_vectors
from gmc_jax.channels.sharded.shards import Shards, unsplit
from gmc_jax.channels.sharded.stacks import Vectors, split_vectors, stacked_vectors
from gmc_jax.channels.sharded.whole_messages import device_messages, whole_messages
from gmc_jax.core import Blockwise, Channel, Compressor, Tree, with_hooks
from gmc_jax.utils import checks
from gmc_jax.utils.jaxprs import mark_updated
from gmc_jax.utils.trees import downcast, find, upcast, zeros_to_accumulate


@with_hooks
class DelayedMessagesState(NamedTuple):
    """The state of a channel through a compressor whose messages are a call late.

    Attributes:
      step: int32, how often the channel has averaged; the same on all workers.
      encoded: bool, whether `messages` holds what is in flight; the same on all
        workers. It does not before the first call, and after `resize`. Then the next
        call adds `in_flight` to its tree.
      messages: [words] uint32, the bits of what this worker encoded in the last call.
      in_flight: what `messages` decodes to; float32 for 16-bit trees.
    """

    step: jax.Array
    encoded: jax.Array
    messages: jax.Array
    in_flight: Tree

    def conserved(self) -> Tree:
        """Messages in flight, which all workers still receive."""
        return self.messages, self.in_flight


def with_delay(
    delay: int, compressor: Compressor, channel: Channel, coding: Coding, caller: str
) -> Channel:
    """The channel itself, or one whose messages are exchanged a call later.

    Args:
      delay: 0 or 1.
      compressor: that of the channel.
      channel: what `compressed_exchange` returns.
      coding: the parts of the channel, which `compressed_exchange` returns with it.
      caller: the public name, for errors.
    """
    checks.nonnegative_int(delay=delay)
    if delay > 1:
        raise ValueError(
            f"`delay` of `{caller}` must be 0 or 1, got {delay}. One call is enough to "
            "send a message beside the next gradient, and a longer delay makes "
            "compression harm more."
        )
    if not delay:
        return channel

    def messages_of(tree: Tree) -> tuple[Tree, ...]:
        """The shapes of the messages of a worker, from those of its whole leaves."""

        def encode(leaves: list[jax.Array]) -> tuple[Tree, ...]:
            shards, step = unsplit(leaves), jnp.zeros((), jnp.int32)
            vectors, _ = stacked_vectors(shards, leaves, coding.per_leaf, step)
            coder = coding.coder_of(shards, leaves, vectors)
            messages, _ = coder.encode(coding.keys_of(shards, step), vectors)
            return whole_messages(coder, shards, leaves, coding.per_leaf, messages)

        return jax.eval_shape(encode, jax.tree.leaves(tree))

    def init(params):
        checks.floating(params)
        shapes = messages_of(jax.tree.map(_shape, params))
        words = jax.eval_shape(to_words, shapes)
        return DelayedMessagesState(
            step=jnp.zeros((), jnp.int32),
            encoded=jnp.array(False),
            messages=jnp.zeros(words.shape, words.dtype),
            in_flight=zeros_to_accumulate(params),
        )

    def on_vectors(
        shards: Shards,
        tree: Tree,
        vectors: Vectors,
        step: jax.Array,
        words: jax.Array,
    ) -> tuple[Vectors, Vectors, jax.Array]:
        check_keeps_messages(compressor, shards, caller)
        coder = coding.coder_of(shards, tree, vectors)
        kept = from_words(words, messages_of(shards.whole(tree)))
        before = device_messages(coder, shards, tree, coding.per_leaf, kept)
        means = coding.receive(coder, shards, coding.keys_of(shards, step - 1), before)
        own, lost = coding.encode(coder, coding.keys_of(shards, step), vectors)
        sent = whole_messages(coder, shards, tree, coding.per_leaf, own)
        return means, lost, to_words(sent)

    def average(tree, state):
        coding.check(tree)
        total, rounding = add_in_flight(tree, state.in_flight, ~state.encoded)
        mean, lost, messages = average_vectors(
            on_vectors, coding.per_leaf, total, state.step, state.messages
        )
        mean = jax.tree.map(
            lambda x: jnp.where(state.encoded, x, jnp.zeros_like(x)), mean
        )
        in_flight = optax.tree.sub(upcast(total), lost)
        lost = optax.tree.add(lost, rounding)
        new = DelayedMessagesState(state.step + 1, jnp.array(True), messages, in_flight)
        return mean, lost, mark_updated(new)

    return channel._replace(init=init, average=average)


def _shape(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))


def check_keeps_messages(compressor: Compressor, shards: Shards, caller: str) -> None:
    """Raises ValueError if the size of a message depends on how a leaf is split."""
    split = split_vectors(shards, True)
    if split and isinstance(compressor.selects, Blockwise):
        raise ValueError(
            f"`{caller}` with a delay must keep messages whose size does not depend on "
            "how leaves are split, but a leaf of shape "
            f"{shards.shapes[split[0]]} is split inside a worker and `compressor` "
            "encodes each shard by itself. Use `top_k`, `threshold`, `random_k` or "
            "`random_block`, or `delay=0`."
        )


def add_in_flight(tree: Tree, in_flight: Tree, returns: jax.Array) -> tuple[Tree, Tree]:
    """Adds what is in flight to a tree, if it returns to this worker.

    Args:
      tree: what a channel is to average.
      in_flight: in the dtypes that the tree is accumulated in.
      returns: bool, whether it returns.

    Returns:
      The sum in the dtypes of the tree. And what the rounding to them lost.
    """

    def add(leaf: jax.Array, late: jax.Array) -> jax.Array:
        return jnp.where(returns, leaf + late, leaf)

    def rounding(sum_: jax.Array, rounded: jax.Array) -> jax.Array:
        if sum_.dtype == rounded.dtype:
            return jnp.zeros_like(sum_)
        return jnp.where(returns, sum_ - upcast(rounded), jnp.zeros_like(sum_))

    total = jax.tree.map(add, upcast(tree), in_flight)
    rounded = downcast(total, tree)
    return rounded, jax.tree.map(rounding, total, rounded)


def take_in_flight(state: Tree) -> tuple[Tree, Tree]:
    """Takes what is in flight out of a state that holds `DelayedMessagesState`.

    Returns:
      What was in flight, and the state without it.
    """

    def is_late(node: Tree) -> bool:
        return isinstance(node, DelayedMessagesState)

    def without(node: Tree) -> Tree:
        if not is_late(node):
            return node
        nothing = jax.tree.map(jnp.zeros_like, node.in_flight)
        return node._replace(encoded=jnp.array(False), in_flight=nothing)

    states = find(state, DelayedMessagesState)
    late = functools.reduce(optax.tree.add, [each.in_flight for each in states])
    return late, jax.tree.map(without, state, is_leaf=is_late)
