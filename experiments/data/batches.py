"""Draws the samples of every worker's batch at every step."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from experiments.data.images import Split
from experiments.data.partitions import Indices


class Draw(NamedTuple):
    """The random choices that determine the batches of all workers at some steps.

    The compiled program takes the samples from each worker's share by these indices.
    It draws augmentations and dropout from the seed and the step.

    Attributes:
      chosen: indices into each worker's own share, int32 [steps, workers, batch_size];
        the samples themselves if they are read on the host.
      seed: the same for all steps and workers, uint32 [steps, workers].
      step: counted from 0, the same for all workers, uint32 [steps, workers].
    """

    chosen: NDArray[np.int32]
    seed: NDArray[np.uint32]
    step: NDArray[np.uint32]

    def key(self) -> jax.Array:
        """The key of one step, inside the compiled program; the same for all workers.

        `gmc_jax.worker_key` makes a different key for each worker from it.
        """
        return jax.random.fold_in(jax.random.key(self.seed), self.step)


def steps_per_epoch(size: int, batch_size: int) -> int:
    """The number of steps in which a worker passes over its share once.

    Raises:
      ValueError: if the share is smaller than a batch.
    """
    if batch_size > size:
        raise ValueError(
            f"`batch_size` must be at most {size}, the number of samples of a worker, "
            f"got {batch_size}. Use a smaller batch, or fewer workers."
        )
    return size // batch_size


def draws(
    workers: int, size: int, batch_size: int, seed: int, first: int, last: int
) -> Draw:
    """Draws the batches of the steps from `first` up to but not including `last`.

    Each worker passes over its own share in a new order every epoch. Samples that do
    not fill a batch at the end of an epoch are left out. The draws depend only on the
    arguments, so a resumed run has no iterator to restore.

    Args:
      workers: the number of workers.
      size: the number of samples in each worker's share.
      batch_size: samples in the batch of one worker.
      seed: of the orders.
      first: a step, counted from 0.
      last: a later step.

    Returns:
      A `Draw` with a leading axis of steps.
    """
    per_epoch = steps_per_epoch(size, batch_size)
    chosen = np.empty((last - first, workers, batch_size), np.int32)
    for index, step in enumerate(range(first, last)):
        epoch, position = divmod(step, per_epoch)
        start = position * batch_size
        chosen[index] = _orders(workers, size, seed, epoch)[
            :, start : start + batch_size
        ]
    steps = np.arange(first, last, dtype=np.uint32)[:, None]
    return Draw(
        chosen,
        np.full((last - first, workers), seed, np.uint32),
        np.repeat(steps, workers, axis=1),
    )


def windows(
    train: Split,
    shares: Indices,
    drawn: Callable[[int, int], Draw],
    first: int,
    last: int,
) -> Draw:
    """Reads the windows of text of some steps, each with the token after it.

    Args:
      train: the windows of all workers, which need not fit into memory.
      shares: the windows of each worker, by their places.
      drawn: draws the places of some steps in these shares.
      first: a step, counted from 0.
      last: a later step.

    Returns:
      The draw, with windows in the place of their places.
    """
    draw = drawn(first, last)
    each = zip(shares, draw.chosen.swapaxes(0, 1), strict=True)
    places = [share[own] for share, own in each]
    chosen = np.stack(places, axis=1)
    after = train.labels[chosen][..., -1:]
    read = np.concatenate([train.images[chosen], after], axis=-1)
    return draw._replace(chosen=read.astype(np.int32))


@functools.lru_cache(maxsize=32)  # Each epoch is drawn step by step, for many seeds.
def _orders(workers: int, size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    generators = (np.random.default_rng((seed, k, epoch)) for k in range(workers))
    return np.stack([generator.permutation(size) for generator in generators])
