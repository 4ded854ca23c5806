"""The channel that adds messages without decoding them."""

from __future__ import annotations

from jax import lax

from gmc_jax.channels.compressed import as_it_is, compressed
from gmc_jax.core import Channel, Compressor
from gmc_jax.utils import checks
from gmc_jax.utils.described import described
from gmc_jax.utils.trees import scale_floats, upcast


@described
def all_reduce(
    compressor: Compressor,
    *,
    per_leaf: bool = False,
    seed: int = 0,
    axis_name: str = "workers",
) -> Channel:
    """Adds the messages of a shared compressor on the way, by one all-reduce.

    What a worker sends and receives does not grow with the number of workers. Messages
    of 16-bit trees are summed, and so travel and count, in float32.

    A call draws from `key = fold_in(jax.random.key(seed), step)`, the step being how
    many calls of this channel there were. With `per_leaf` the index of the leaf is
    folded in, among `jax.tree.leaves` of what is averaged; the index of the worker is
    not, since the compressor is shared. `compressor.encode(key, vector)` repeats the
    draw.

    Args:
      compressor: a shared compressor: all workers send the same coordinates.
      per_leaf: compress each leaf by itself, or the tree as one vector.
      seed: of the compressor's draws. Two channels of a method want two seeds, or they
        draw the same coordinates.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel whose state holds the step.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: from `init` and `average` where a leaf is not floating.
      ValueError: if the compressor is not shared; from `average` and `bits` where a
        vector has 2^31 coordinates or more; from `average` where a vector is split
        inside a worker and the compressor is not `random_block` (see `all_gather`).

    Guarantees:
      The law of channels; `mean` is the same on all workers, bit for bit.
      Of finite messages of a linear compressor it is finite, as that of `exact()`.
    """
    checks.compressor(compressor=compressor)
    if not compressor.shared:
        raise ValueError(
            "`all_reduce` adds messages without decoding them, so every worker must "
            "send the same coordinates, and with a `compressor` that is not shared, "
            "such as `top_k`, each worker chooses its own. Use `all_gather` for it, or "
            "a shared compressor such as `random_block`."
        )

    return compressed(
        "all_reduce",
        compressor,
        lambda messages, share: scale_floats(upcast(messages), share),
        lambda flat: lax.psum(flat, axis_name)[None],
        as_it_is,
        per_leaf=per_leaf,
        seed=seed,
        axis_name=axis_name,
    )
