"""The laws of partitions, and the differences between them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.data.partitions import (
    PARTITIONS,
    by_label,
    class_counts,
    dirichlet,
    iid,
)

LABELS = np.repeat(np.arange(10, dtype=np.int32), 100)


@pytest.mark.parametrize("partition", PARTITIONS.values(), ids=PARTITIONS)
@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=60),
    workers=st.integers(1, 9),
    alpha=st.floats(1e-6, 1e6),
    seed=st.integers(0, 2**32),
)
def test_shares_are_equal_and_disjoint(partition, labels, workers, alpha, seed):
    labels = np.array(labels, np.int32)
    workers = min(workers, len(labels))

    shares = partition(labels, workers, alpha, seed)

    assert shares.shape == (workers, len(labels) // workers)
    assert len(np.unique(shares)) == shares.size
    assert np.isin(shares, np.arange(len(labels))).all()
    np.testing.assert_array_equal(shares, partition(labels, workers, alpha, seed))


@pytest.mark.parametrize("partition", PARTITIONS.values(), ids=PARTITIONS)
def test_another_seed_draws_another_partition(partition):
    assert (partition(LABELS, 8, 0.1, 0) != partition(LABELS, 8, 0.1, 1)).any()


def test_class_counts_count_the_labels_of_each_worker():
    counts = class_counts(np.array([0, 1, 1, 2]), np.array([[0, 1], [2, 3]]))

    np.testing.assert_array_equal(counts, [[1, 1, 0], [0, 1, 1]])


def largest_share(shares):
    """The share of a worker's commonest label, on average."""
    return class_counts(LABELS, shares).max(axis=1).mean() / shares.shape[1]


def test_small_alpha_leaves_few_labels_to_a_worker_and_large_alpha_is_iid():
    few, some, many = (
        np.mean([largest_share(dirichlet(LABELS, 8, alpha, s)) for s in range(20)])
        for alpha in (0.01, 1.0, 1e5)
    )
    alike = np.mean([largest_share(iid(LABELS, 8, 0.1, s)) for s in range(20)])

    assert few > 0.6 > some > 0.25 > many
    assert abs(many - alike) < 0.05


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_alpha_that_is_not_positive_is_an_error(alpha):
    with pytest.raises(ValueError, match=rf"`alpha` .* positive, .* got {alpha}"):
        dirichlet(LABELS, 8, alpha, 0)


@pytest.mark.parametrize("partition", PARTITIONS.values(), ids=PARTITIONS)
@pytest.mark.parametrize("workers", [0, 1001])
def test_more_workers_than_samples_are_an_error(partition, workers):
    with pytest.raises(ValueError, match=f"from 1 to 1000, .* got {workers}"):
        partition(LABELS, workers, 0.1, 0)


def test_by_label_sorts_and_cuts():
    labels = np.tile(np.arange(10, dtype=np.int32), 16)
    shares = by_label(labels, 8, 0.1, seed=0)
    counts = class_counts(labels, shares)
    assert counts.sum() == shares.size == 160
    assert len(np.unique(shares)) == 160
    assert ((counts > 0).sum(axis=1) <= 2).all()
    assert not np.array_equal(shares, by_label(labels, 8, 0.1, seed=1))
    with pytest.raises(ValueError, match="--partition iid"):
        by_label(labels.reshape(16, 10), 8, 0.1, seed=0)
