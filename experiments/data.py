"""Data sets, and the batches that the workers draw from their shares of one."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Split(NamedTuple):
    """Images [n, height, width, channels] in float32 and their labels [n] in int32."""

    images: NDArray[np.float32]
    labels: NDArray[np.int32]


class Data(NamedTuple):
    """A data set for classification."""

    train: Split
    test: Split
    classes: int


def digits() -> Data:
    """Scikit-learn's handwritten digits: 1,280 images to train on, 517 to test on.

    The images are 8 by 8 and come with scikit-learn, so nothing is downloaded. The
    split is always the same one, and 1,280 shares out evenly over up to 8 workers.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images = np.asarray(pixels, np.float32).reshape(-1, 8, 8, 1)[order]
    labels = np.asarray(labels, np.int32)[order]
    train, test = slice(1280), slice(1280, None)
    images = (images - images[train].mean()) / images[train].std()
    return Data(
        Split(images[train], labels[train]), Split(images[test], labels[test]), 10
    )


DATA: dict[str, Callable[[], Data]] = {"digits": digits}


def steps_per_epoch(shares: Indices, batch_size: int) -> int:
    """Steps in which every worker goes through its share once.

    Raises:
      ValueError: if a share is smaller than a batch.
    """
    size = shares.shape[1]
    if batch_size > size:
        raise ValueError(
            f"`batch_size` is {batch_size}, but each of the {shares.shape[0]} workers "
            f"holds only {size} samples. Use a batch of at most {size}, or fewer "
            "workers."
        )
    return size // batch_size


def batch(split: Split, shares: Indices, batch_size: int, seed: int, step: int):
    """The batch of every worker at `step`, which depends on nothing but the arguments.

    Each worker goes through its own share in a new order every epoch; what does not
    fill a batch at an epoch's end is left out. As there is no iterator, there is no
    iterator to restore when a run resumes.

    Args:
      split: what the shares index.
      shares: the samples of each worker, [workers, size].
      batch_size: samples a worker and step.
      seed: another seed draws other orders.
      step: counts from 0.

    Returns:
      A `Split` with leading axes [workers, batch_size].
    """
    epoch, position = divmod(step, steps_per_epoch(shares, batch_size))
    start = position * batch_size
    chosen = np.stack(
        [
            np.random.default_rng((seed, worker, epoch)).permutation(share)[
                start : start + batch_size
            ]
            for worker, share in enumerate(shares)
        ]
    )
    return Split(split.images[chosen], split.labels[chosen])
