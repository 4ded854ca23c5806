"""Which samples every worker draws at which step."""

import functools
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray


class Draw(NamedTuple):
    """What decides the batches of all workers at some steps.

    The compiled program does the rest with it: it takes the samples out of each
    worker's share, and draws augmentations and dropout.

    Attributes:
      chosen: int32 [steps, workers, batch_size], places in each worker's own share.
      seed: uint32 [steps, workers], the same everywhere.
      step: uint32 [steps, workers], counted from 0; the same for all workers.
    """

    chosen: NDArray[np.int32]
    seed: NDArray[np.uint32]
    step: NDArray[np.uint32]

    def key(self) -> jax.Array:
        """One worker's key at one step, inside the program: the same for all workers.

        `gmc_jax.worker_key` makes it the worker's own.
        """
        return jax.random.fold_in(jax.random.key(self.seed), self.step)


def steps_per_epoch(size: int, batch_size: int) -> int:
    """Steps in which a worker goes through its share once.

    Raises:
      ValueError: if the share is smaller than a batch.
    """
    if batch_size > size:
        raise ValueError(
            f"`batch_size` is {batch_size}, but each worker holds only {size} samples. "
            f"Use a batch of at most {size}, or fewer workers."
        )
    return size // batch_size


def draws(
    workers: int, size: int, batch_size: int, seed: int, first: int, last: int
) -> Draw:
    """The draws of the steps from `first` up to `last`, that one not included.

    Each worker goes through its own share in a new order every epoch; what does not
    fill a batch at an epoch's end is left out. The draws depend on nothing but the
    arguments: as there is no iterator, there is none to restore when a run resumes.

    Args:
      workers: their number.
      size: the samples in each worker's share.
      batch_size: samples a worker and step.
      seed: another seed draws other orders.
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


@functools.lru_cache(maxsize=32)  # An epoch of as many seeds is drawn step by step.
def _orders(workers: int, size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    generators = (np.random.default_rng((seed, k, epoch)) for k in range(workers))
    return np.stack([generator.permutation(size) for generator in generators])
