"""Who holds which samples: shares of equal size, drawn alike or by label."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int32]
Indices = NDArray[np.int64]


def iid(labels: Labels, workers: int, alpha: float, seed: int) -> Indices:
    """Deals the shuffled samples out evenly; `alpha` plays no part."""
    del alpha
    size = share_size(labels, workers)
    order = np.random.default_rng(seed).permutation(len(labels))
    return order[: workers * size].reshape(workers, size)


def dirichlet(labels: Labels, workers: int, alpha: float, seed: int) -> Indices:
    """Draws the labels of each worker from its own p ~ Dirichlet(alpha).

    In rounds over the workers in random order, each asks for what its share still
    lacks, in counts drawn from its p over the labels that are still there, and gets as
    much as is left. Shares are of equal size and hold no sample twice, so the workers
    cannot all have the mixture they drew: who comes late takes what is left.

    Args:
      labels: of all samples, [n].
      workers: the number of shares.
      alpha: concentration, above 0; the smaller, the fewer labels a worker sees.
      seed: another seed draws another partition.

    Returns:
      The samples of each worker, [workers, n // workers].

    Raises:
      ValueError: if `alpha` is not positive, there are fewer samples than workers, or
        a sample has several labels.

    References:
      Hsu, Qi, Brown: Measuring the Effects of Non-Identical Data Distribution for
      Federated Visual Classification, 2019 (the prior; equal shares are how we fill
      it).
    """
    _single(labels)
    if not alpha > 0:
        raise ValueError(
            f"`alpha` is the concentration of a Dirichlet distribution and must be "
            f"positive, but is {alpha}. Use 0.1 for workers with few labels each, or "
            "`--partition iid` for workers that are alike."
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
            # Of a worker whose labels have all run out, only the supply can decide.
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
    """Sorts samples by their label and cuts: each worker holds one label or two.

    More where there are fewer workers than labels. `alpha` plays no part; the seed
    orders the samples of a label and says which worker holds which share.

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
        raise ValueError("text has no labels to draw shares by. Use `--partition iid`.")


def share_size(labels: Labels, workers: int) -> int:
    """Samples that each worker gets; what does not divide evenly stays out.

    Raises:
      ValueError: if there is not one sample for each worker.
    """
    if not 1 <= workers <= len(labels):
        raise ValueError(
            f"`workers` is {workers}, but {len(labels)} samples can be shared by 1 to "
            f"{len(labels)} workers only."
        )
    return len(labels) // workers


def class_counts(labels: Labels, shares: Indices) -> NDArray[np.int64]:
    """How many samples of each class each worker holds, [workers, classes]."""
    classes = int(labels.max()) + 1
    return np.stack(
        [np.bincount(labels[share].ravel(), minlength=classes) for share in shares]
    )
