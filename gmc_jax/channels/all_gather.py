"""The channel that sends every message to every worker."""

from __future__ import annotations

from gmc_jax.channels._collectives import gather
from gmc_jax.channels._exchange import Exchange, compressed_exchange, unscaled
from gmc_jax.channels.delayed_messages import with_delay
from gmc_jax.core import Channel, Compressor
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import scale_floats


@call_repr
def all_gather(
    compressor: Compressor,
    *,
    per_leaf: bool = False,
    seed: int = 0,
    delay: int = 0,
    axis_name: str = "workers",
) -> Channel:
    """Sends each worker's message to all workers; each worker averages all messages.

    The papers have a server that adds the messages and returns the sum. Here every
    worker receives all messages and adds them, in the order of the workers, at a cost
    of O(d + size of the messages). A worker puts one message into the all-gather and
    takes K - 1 out. Each dtype of a message is gathered by one collective, whatever the
    number of leaves. Floats narrower than 32 bits cross as the integers of their bits,
    since XLA may widen floats in a collective. With `per_leaf`, leaves of one shape and
    dtype are encoded and decoded as one batch, so that their code is compiled once. The
    results are those of each leaf alone.

    A call draws from `key = fold_in(jax.random.key(seed), step)`, where `step` is the
    number of calls before it. With `per_leaf`, the index of the leaf among
    `jax.tree.leaves` of the tree is folded in. Then, unless the compressor is shared,
    the index of the worker is folded in. `compressor.encode(key, vector)` repeats the
    draw.

    Leaves may be split over the devices of a worker (see `distribute`). The selection
    is then the same, ties included, and no device ever holds a whole leaf. Each device
    selects candidates from its own shard. The devices of a worker count candidates
    together to find the largest, and each device sends its slice of the worker's
    message. `bits` does not include what the devices of a worker send to each other: a
    count for each bit of a magnitude and of an index, and the message itself. Split
    leaves need a compressor that says what it selects: `top_k`, `threshold`, `random_k`
    or `random_block`, perhaps inside `quantised`. With `per_leaf` they also take one
    that encodes block by block, such as `chunked_top_k`: each device encodes its own
    shard. All compressors take leaves that every device of the worker holds whole.

    With `delay=1` a message travels in the call after the one that encodes it, beside
    the gradient of that call:

        mean(t) = mean over k of C(tree_k(t-1));  lost_k(t) = tree_k(t) - C(tree_k(t))

    No operand of a collective between workers depends on the tree of the same call. The
    first mean is zero. Draws are those of the call that encodes. What is in flight is
    neither in `mean` nor in `lost`, so `error_feedback` sends it once. The state keeps
    the message and what it decodes to: one more tree of memory for each worker, read
    and written once a call. A delay is for gradients and steps. What averages
    parameters or buffers, and methods that take `mean` and `lost` of one call together,
    such as `cser`, need `delay=0`.

    Steps come one call late, and the rate must be smaller. On a quadratic of curvature
    h, with equal workers, `dmsgd` and `dmsgd_local` are stable while rate * h is below

        momentum    delay=0    delay=1    delay=1 with `gmc`
        0           2          1          1
        0.5         3          0.5        0.75
        0.9         3.8        0.1        0.19

    The limit with a delay is 1 - momentum: there the roots of z^2 - (1 + momentum) z +
    momentum + rate * h leave the unit circle. The momentum of `gmc` is its last output,
    which is late as well, and its limit is 1 - momentum^2. A gradient at w - rate *
    (own message in flight), which a hook `query` can take, would restore the range of
    `delay=0` for equal workers. Where workers differ it would move the solution.

    Args:
      compressor: what encodes the tree; it need not be shared.
      per_leaf: whether each leaf is compressed by itself (DGC), or the whole tree as
        one vector (GMC).
      seed: of the compressor's draws. Give two channels of one method two seeds, or
        they draw the same entries.
      delay: calls between encoding and receiving, 0 or 1.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel with `CompressedState`; with a delay, `DelayedMessagesState`.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: from `init` and `average` if a leaf is not floating.
      ValueError: if `delay` is not 0 or 1; from `average` and `bits` if a vector has
        2^31 entries or more; from `average` if a vector is split inside a worker and
        the compressor does not say what it selects, or with a delay encodes blocks.

    Guarantees:
      The law of channels; `mean` is the same on all workers, bit for bit.
      With a delay, in the mean over workers: the sum of all means, what is in flight
        and the sum of all that was lost are the sum of all trees. So with `gmc`, a
        constant rate, no momentum and any compressor, w - rate * (residual + in flight)
        moves as plain SGD.
      The mean of finite messages is finite if the compressor is linear.
      No array is larger than K messages or the tree (where leaves are split, a device's
      shard of it), whichever is larger.
      A worker with several devices sends one message in all. Padding adds less than one
      entry of each dtype for each device; on TPUs less than 128.
    """
    channel, coding = compressed_exchange(
        "all_gather",
        compressor,
        Exchange(unscaled, lambda flat: gather(flat, axis_name), scale_floats),
        per_leaf=per_leaf,
        seed=seed,
        axis_name=axis_name,
    )
    return with_delay(delay, compressor, channel, coding, "all_gather")
