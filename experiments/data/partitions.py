"""Divides samples among workers in shares of equal size, at random or by label."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from experiments.data.images import Labels

Indices = NDArray[np.int64]


def iid(labels: Labels, workers: int, alpha: float, seed: int) -> Indices:
    """Shuffles the samples and divides them evenly; `alpha` is not used."""
    del alpha
    size = share_size(labels, workers)
    order = np.random.default_rng(seed).permutation(len(labels))
    return order[: workers * size].reshape(workers, size)


def dirichlet(labels: Labels, workers: int, alpha: float, seed: int) -> Indices:
    """Draws the labels of each worker from its own p ~ Dirichlet(alpha).

    Shares are filled in rounds over the workers, in random order. In its turn, a worker
    draws counts from its p, restricted to labels that are not used up, for the samples
    that its share still lacks. It gets as many of each label as are left. Shares have
    equal size and no sample is in two of them, so late workers can deviate from the
    mixture that they drew.

    Args:
      labels: of all samples, [n].
      workers: the number of shares.
      alpha: concentration, above 0; a smaller one gives a worker fewer labels.
      seed: of the partition.

    Returns:
      The indices of each worker's samples, [workers, n // workers].

    Raises:
      ValueError: if `alpha` is not positive, there are fewer samples than workers, or
        a sample has several labels.

    References:
      Hsu, Qi, Brown: Measuring the Effects of Non-Identical Data Distribution for
      Federated Visual Classification, 2019 (the prior; equal shares are our choice).
    """
    _single(labels)
    if not alpha > 0:
        raise ValueError(
            "`alpha` must be positive, since it is the concentration of a Dirichlet "
            f"distribution, got {alpha}. Use 0.1 for workers with few labels each, or "
            "`--partition iid` for IID workers."
        )
    size = share_size(labels, workers)
    generator = np.random.default_rng(seed)
    classes = int(labels.max()) + 1
    mixtures = generator.dirichlet(np.full(classes, alpha), size=workers)
    supply = np.bincount(labels, minlength=classes)
    counts = np.zeros((workers, classes), np.int64)
    while (lacking := size - counts.sum(axis=1)).any():
        for worker in generator.permutation(np.flatnonzero(lacking)):
            wanted = mixtures[worker] * (supply > 0)
            # All labels of this worker can be used up; then only the supply counts.
            odds = wanted if wanted.sum() > 0 else supply
            drawn = generator.multinomial(lacking[worker], odds / odds.sum())
            taken = np.minimum(drawn, supply)
            counts[worker] += taken
            supply -= taken
    ends = counts.cumsum(axis=0)
    pools = [generator.permutation(np.flatnonzero(labels == c)) for c in range(classes)]
    return np.stack(
        [
            np.concatenate(
                [pool[end - n : end] for pool, end, n in zip(pools, *ks, strict=True)]
            )
            for ks in zip(ends, counts, strict=True)
        ]
    )


def by_label(labels: Labels, workers: int, alpha: float, seed: int) -> Indices:
    """Sorts the samples by label and cuts: each worker holds one label or two.

    With fewer workers than labels, a worker holds more. The seed orders the samples of
    a label, and assigns the shares to workers. `alpha` is not used.

    Raises:
      ValueError: if there are fewer samples than workers, or a sample has several
        labels.
    """
    del alpha
    _single(labels)
    size = share_size(labels, workers)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    order = np.sort(order[: workers * size])
    order = order[np.lexsort((generator.permutation(len(order)), labels[order]))]
    return generator.permutation(order.reshape(workers, size))


PARTITIONS: dict[str, Callable[[Labels, int, float, int], Indices]] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "by_label": by_label,
}


def _single(labels: Labels) -> None:
    if labels.ndim > 1:
        raise ValueError(
            "samples must have one label each for this partition, and text has none. "
            "Use `--partition iid`."
        )


def share_size(labels: Labels, workers: int) -> int:
    """The number of samples of each worker; a remainder is left out.

    Raises:
      ValueError: if there are fewer samples than workers.
    """
    if not 1 <= workers <= len(labels):
        raise ValueError(
            f"`workers` must be from 1 to {len(labels)}, the number of samples, got "
            f"{workers}."
        )
    return len(labels) // workers


def class_counts(labels: Labels, shares: Indices) -> NDArray[np.int64]:
    """Counts the samples of each class that each worker holds, [workers, classes]."""
    classes = int(labels.max()) + 1
    return np.stack(
        [np.bincount(labels[share].ravel(), minlength=classes) for share in shares]
    )
