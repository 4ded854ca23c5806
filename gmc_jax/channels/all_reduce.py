"""The channel that adds messages without decoding them."""

from __future__ import annotations

import jax.numpy as jnp

from gmc_jax.channels._collectives import sum_over_workers
from gmc_jax.channels._exchange import (
    Exchange,
    compressed_exchange,
    unscaled,
    upcast_and_scaled,
)
from gmc_jax.channels.delayed_messages import with_delay
from gmc_jax.core import Channel, Compressor
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def all_reduce(
    compressor: Compressor,
    *,
    per_leaf: bool = False,
    seed: int = 0,
    delay: int = 0,
    axis_name: str = "workers",
) -> Channel:
    """Adds the messages of a shared compressor by one all-reduce.

    What a worker sends and receives does not grow with the number of workers. Messages
    of 16-bit trees are summed in float32: they travel, and count, as float32.

    A call draws from `key = fold_in(jax.random.key(seed), step)`, where `step` is the
    number of calls before it. With `per_leaf`, the index of the leaf among
    `jax.tree.leaves` of the tree is folded in. The index of the worker is not, since
    the compressor is shared. `compressor.encode(key, vector)` repeats the draw.

    Args:
      compressor: a shared compressor, with which all workers send the same entries.
      per_leaf: whether each leaf is compressed by itself, or the whole tree as one
        vector.
      seed: of the compressor's draws. Give two channels of one method two seeds, or
        they draw the same entries.
      delay: calls between encoding and receiving, 0 or 1. `all_gather` says what a
        delay does, and to which rates.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel with `CompressedState`; with a delay, `DelayedMessagesState`.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: from `init` and `average` if a leaf is not floating.
      ValueError: if the compressor is not shared, or encodes its values, or `delay` is
        not 0 or 1; from `average` and `bits` if a vector has 2^31 entries or more; from
        `average` if a vector is split inside a worker and the compressor is neither
        `random_k` nor `random_block` (see `all_gather`).

    Guarantees:
      The law of channels, with a delay that of `all_gather`; `mean` is the same on all
        workers, bit for bit.
      The mean of finite messages is finite if the compressor is linear.
    """
    checks.compressor(compressor=compressor)
    if not compressor.shared:
        raise ValueError(
            "`compressor` of `all_reduce` must be shared, got one with which each "
            "worker selects its own entries, such as `top_k`. `all_reduce` adds "
            "messages without decoding them. Use `all_gather`, or a shared compressor "
            "such as `random_block`."
        )
    if not compressor.additive:
        raise ValueError(
            "`compressor` of `all_reduce` must send values that can be added, got one "
            "that encodes them, such as `quantised(random_k(0.01), scaled_sign())`. "
            "Use `all_gather`."
        )
    channel, coding = compressed_exchange(
        "all_reduce",
        compressor,
        Exchange(
            upcast_and_scaled,
            lambda flat: jnp.stack(sum_over_workers([flat], axis_name)),
            unscaled,
        ),
        per_leaf=per_leaf,
        seed=seed,
        axis_name=axis_name,
    )
    return with_delay(delay, compressor, channel, coding, "all_reduce")
