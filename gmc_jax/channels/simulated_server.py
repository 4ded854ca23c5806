"""The channel on the way back from the server."""

from __future__ import annotations

from gmc_jax.channels.compressed import as_it_is, compressed
from gmc_jax.core import Channel, Compressor
from gmc_jax.utils.described import described


@described
def simulated_server(
    compressor: Compressor,
    *,
    per_leaf: bool = False,
    seed: int = 0,
    axis_name: str = "workers",
) -> Channel:
    """What a server would send back: a tree that all workers hold, compressed by each.

    A server that compresses its answer keeps what was lost and sends it later. Here
    every worker plays the server: it holds what the server holds, such as the mean that
    a channel in front returned, and computes the same answer from it, with the same
    draws. So nothing is sent, and what is lost is the same on all workers:
    `error_feedback(simulated_server(compressor))` keeps the server's residual, once.

    A call draws from `key = fold_in(jax.random.key(seed), step)`, the step being how
    many calls of this channel there were. With `per_leaf` the index of the leaf is
    folded in, among `jax.tree.leaves` of what is averaged; the index of the worker
    never is, since all play the same server. `compressor.encode(key, vector)` repeats
    the draw.

    What this is honest about: behind `all_gather` each worker receives the messages of
    all workers, K - 1 of them, with or without it. It reproduces the numbers of two-way
    compression, not the traffic of a server; `bits` and `entries` say what a server
    would send down to each worker, and `gmc_jax.wire_bytes` finds nothing.

    Args:
      compressor: what the server encodes its answer with.
      per_leaf: compress each leaf by itself, or the tree as one vector.
      seed: of the compressor's draws.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel whose state holds the step.

    Raises:
      TypeError: from `init` and `average` where a leaf is not floating.
      ValueError: from `average` and `bits` where a vector has 2^31 coordinates or more.

    Guarantees:
      Its law: `mean + lost` is the tree. Where the tree is the same on all workers, so
      are both of them, bit for bit, and the law of channels is met.
    """
    return compressed(
        "simulated_server",
        compressor,
        as_it_is,
        lambda flat: flat[None],
        as_it_is,
        per_leaf=per_leaf,
        seed=seed,
        axis_name=axis_name,
        alike=True,
    )
