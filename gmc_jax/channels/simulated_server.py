"""The channel from the server back to the workers, simulated on each worker."""

from __future__ import annotations

from gmc_jax.channels._exchange import compressed_on_each_worker
from gmc_jax.core import Channel, Compressor
from gmc_jax.utils.call_repr import call_repr


@call_repr
def simulated_server(
    compressor: Compressor,
    *,
    per_leaf: bool = False,
    seed: int = 0,
    axis_name: str = "workers",
) -> Channel:
    """Compresses a tree that all workers hold, as a server compresses its answer.

    A server that compresses its answer keeps what was lost and sends it later. Here
    every worker computes the answer of the server. It holds what the server would hold,
    such as the mean that the channel before it returned, and makes the same draws. So
    nothing is sent, and what is lost is the same on all workers:
    `error_feedback(simulated_server(compressor))` keeps the residual of the server.

    A call draws from `key = fold_in(jax.random.key(seed), step)`, where `step` is the
    number of calls before it. With `per_leaf`, the index of the leaf among
    `jax.tree.leaves` of the tree is folded in. The index of the worker is not, since
    all workers simulate the same server. `compressor.encode(key, vector)` repeats the
    draw.

    It reproduces the numbers of two-way compression, not the traffic of a server.
    Behind `all_gather` each worker still receives the messages of all workers, K - 1 of
    them. `bits` and `entries` say what a server would send to each worker;
    `gmc_jax.wire_bytes` counts 0.

    Args:
      compressor: what the server encodes its answer with.
      per_leaf: whether each leaf is compressed by itself, or the whole tree as one
        vector.
      seed: of the compressor's draws.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel with `CompressedState`.

    Raises:
      TypeError: from `init` and `average` if a leaf is not floating.
      ValueError: from `average` and `bits` if a vector has 2^31 entries or more.

    Guarantees:
      Its law: `mean + lost` is the tree. If the tree is the same on all workers, so are
      `mean` and `lost`, bit for bit, and the law of channels holds.
    """
    return compressed_on_each_worker(
        "simulated_server",
        compressor,
        per_leaf=per_leaf,
        seed=seed,
        axis_name=axis_name,
    )
