"""The channel that averages each entry over those workers that sent it."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.channels._collectives import gather
from gmc_jax.channels._exchange import Exchange, compressed_exchange, unscaled
from gmc_jax.channels.sharded.stacks import Vectors
from gmc_jax.core import Channel, Compressor, Sparse, Tree
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import is_floating, scale_floats


@call_repr
def mean_of_senders(
    compressor: Compressor,
    *,
    per_leaf: bool = False,
    seed: int = 0,
    axis_name: str = "workers",
) -> Channel:
    """Averages each entry over the workers that sent it, not over all workers.

        n[i] = number of workers k with C(x_k)[i] != 0
        mean[i] = sum over k of C(x_k)[i] / max(n[i], 1);  lost_k = x_k - C(x_k)

    Where workers send different entries, each entry arrives in full size, and not
    divided by K. SparseLoCo and DeMo average in this way. An entry that no worker sent
    is 0. An entry that is 0 was not sent; in the authors' code it counts as sent if it
    was selected.

    Messages, draws and traffic are those of `all_gather`. For a message that is not
    `Sparse`, workers decode one message after another. That takes O(K d) operations,
    and two vectors of memory.

    Args:
      compressor: what encodes the tree, such as `top_k(0.01)`. Where all workers send
        all entries, the mean is that of `all_gather`.
      per_leaf: whether each leaf is compressed by itself, or the whole tree as one
        vector.
      seed: of the compressor's draws. Give two channels of one method two seeds, or
        they draw the same entries.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel with `CompressedState`.

    Raises:
      NameError: from `average` where no such axis is in scope.
      TypeError: from `init` and `average` if a leaf is not floating.
      ValueError: as `all_gather` does.

    Guarantees:
      Its law: n[i] mean[i] is the sum over workers of (tree - lost)[i]. The law of
      channels holds only for entries that all workers or none sent. So the residual of
      `error_feedback` holds all that was not sent, but what was sent counts up to K
      times.
      `mean` is the same on all workers, bit for bit.
      If all workers hold the same and draw the same, it is the mean of `all_gather`, to
      rounding. If no two workers send the same entry, it is K times that.

    References:
      Sarfi et al., "Communication Efficient LLM Pre-training with SparseLoCo", 2025,
      arXiv:2508.15706, and Peng, Quesnelle and Kingma, "DeMo: Decoupled Momentum
      Optimization", 2024, arXiv:2411.19870: their public code.
    """
    channel, _ = compressed_exchange(
        "mean_of_senders",
        compressor,
        Exchange(unscaled, lambda flat: gather(flat, axis_name), scale_floats),
        per_leaf=per_leaf,
        seed=seed,
        axis_name=axis_name,
        combine=_mean_of_senders,
    )
    return channel


def _mean_of_senders(
    decode: Callable[[dict[int, Tree]], Vectors],
    messages: dict[int, Tree],
    senders: int,
    divisor: float,
) -> Vectors:
    """Divides sums of messages by the number of workers that sent each entry."""
    share = divisor / senders
    if all(map(_has_plain_values, messages.values())):
        sent = {leaf: _marks(message) for leaf, message in messages.items()}
        sums, counts = decode(messages), decode(sent)
    else:
        sums, counts = _one_by_one(decode, messages)
    return {
        leaf: total / (share * jnp.maximum(counts[leaf], 1))
        for leaf, total in sums.items()
    }


def _has_plain_values(message: Tree) -> bool:
    """Whether a message holds values as they are decoded, and not codes of them."""
    return isinstance(message, Sparse) and all(
        isinstance(part, jax.Array) and is_floating(part)
        for part in _parts(message.values)
    )


def _parts(values: Tree) -> tuple[Tree, ...]:
    """Values come in one array, or in a tuple of several."""
    return values if type(values) is tuple else (values,)


def _marks(message: Sparse) -> Sparse:
    """A message of ones, and zeros where nothing was sent."""
    marks = jax.tree.map(lambda x: (x != 0).astype(x.dtype), message.values)
    return Sparse(marks, message.indices)


def _one_by_one(
    decode: Callable[[dict[int, Tree]], Vectors], messages: dict[int, Tree]
) -> tuple[Vectors, Vectors]:
    """The sums of messages, and how many of them have each entry."""

    def decode_one(message: dict[int, Tree]) -> Vectors:
        return decode(jax.tree.map(lambda leaf: leaf[None], message))

    def add(totals: tuple[Vectors, Vectors], message: dict[int, Tree]):
        values = decode_one(message)
        sums, counts = totals
        sums = jax.tree.map(jnp.add, sums, values)
        counts = jax.tree.map(lambda n, x: n + (x != 0).astype(n.dtype), counts, values)
        return (sums, counts), None

    first = jax.eval_shape(decode_one, jax.tree.map(lambda leaf: leaf[0], messages))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), first)
    return lax.scan(add, (zeros, zeros), messages)[0]
