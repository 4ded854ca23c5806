"""The channel in which every worker plays the server of the papers."""

from __future__ import annotations

from jax import lax

from gmc_jax.channels.compressed import as_it_is, compressed
from gmc_jax.core import Channel, Compressor
from gmc_jax.utils.described import described
from gmc_jax.utils.trees import scale_floats


@described
def all_gather(
    compressor: Compressor,
    *,
    per_leaf: bool = False,
    seed: int = 0,
    axis_name: str = "workers",
) -> Channel:
    """Sends each worker's message to every worker, and each averages them.

    The server of the papers adds the messages and sends the sum back; here all workers
    receive all messages and add them, in the order of workers, at a cost of O(d) and
    the messages. A worker puts one message into the all-gather and takes K - 1 out.
    Messages are gathered with one collective for each of their dtypes, whatever the
    number of leaves; floats narrower than 32 bits cross as the integers of their bits,
    since XLA may widen them on the way.

    A call draws from `key = fold_in(jax.random.key(seed), step)`, the step being how
    many calls of this channel there were. With `per_leaf` the index of the leaf is
    folded in, among `jax.tree.leaves` of what is averaged, and then, unless the
    compressor is shared, the index of the worker. `compressor.encode(key, vector)`
    repeats the draw.

    Where leaves are split inside a worker (see `distribute`) the selection is the same,
    ties included, and no device ever has a whole leaf: each finds the largest entries
    of its part, which of them are the largest of all is settled by counting, and each
    device sends its slice of the worker's message. What crosses inside a worker is a
    count for each bit of a magnitude and of an index, and the messages; it is not part
    of `bits`. Compressors that say what they select can do so: `top_k`, `threshold` and
    `random_block`; others take only what is whole on every device of the worker.

    Args:
      compressor: what encodes the tree; it need not be shared.
      per_leaf: compress each leaf by itself (DGC), or the tree as one vector (GMC).
      seed: of the compressor's draws. Two channels of a method want two seeds, or they
        draw the same coordinates.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel whose state holds the step.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: from `init` and `average` where a leaf is not floating.
      ValueError: from `average` and `bits` where a vector has 2^31 coordinates or more;
        from `average` where a vector is split inside a worker and the compressor does
        not say what it selects.

    Guarantees:
      The law of channels; `mean` is the same on all workers, bit for bit.
      Of finite messages of a linear compressor it is finite, as that of `exact()`.
      Nothing is ever made that is larger than K messages, or than the tree (or than a
      device's part of it).
      A worker sends one message, however many devices it is, to less than one entry of
      each dtype a device.
    """
    return compressed(
        "all_gather",
        compressor,
        as_it_is,
        lambda flat: lax.all_gather(flat, axis_name),
        scale_floats,
        per_leaf=per_leaf,
        seed=seed,
        axis_name=axis_name,
    )
