"""Data and batches."""

import numpy as np
import pytest

from experiments import data

SPLIT = data.Split(np.arange(48, dtype=np.float32), np.arange(48, dtype=np.int32))
SHARES = np.random.default_rng(0).permutation(48).reshape(4, 12)


def test_digits_are_what_the_docstring_says():
    train, test, classes = data.digits()

    assert train.images.shape == (1280, 8, 8, 1)
    assert test.images.shape == (517, 8, 8, 1)
    assert train.images.dtype == np.float32
    assert train.labels.dtype == np.int32
    assert set(train.labels) == set(test.labels) == set(range(classes))
    np.testing.assert_allclose(train.images.mean(), 0, atol=1e-5)
    np.testing.assert_allclose(train.images.std(), 1, atol=1e-5)


def test_the_split_is_always_the_same():
    np.testing.assert_array_equal(data.digits().test.labels, data.digits().test.labels)


def test_an_epoch_shows_each_worker_its_share_once():
    steps = data.steps_per_epoch(SHARES, 4)
    seen = [data.batch(SPLIT, SHARES, 4, seed=0, step=step) for step in range(steps)]

    labels = np.concatenate([batch.labels for batch in seen], axis=1)
    np.testing.assert_array_equal(np.sort(labels), np.sort(SHARES))


def test_labels_belong_to_their_images():
    images, labels = data.batch(SPLIT, SHARES, 4, seed=3, step=5)

    np.testing.assert_array_equal(images, labels)


def test_another_epoch_or_seed_has_another_order():
    first = data.batch(SPLIT, SHARES, 12, seed=0, step=0).labels

    assert (data.batch(SPLIT, SHARES, 12, seed=0, step=1).labels != first).any()
    assert (data.batch(SPLIT, SHARES, 12, seed=1, step=0).labels != first).any()


def test_what_does_not_fill_a_batch_is_left_out():
    assert data.steps_per_epoch(SHARES, 5) == 2
    assert data.batch(SPLIT, SHARES, 5, seed=0, step=2).labels.shape == (4, 5)


def test_a_batch_larger_than_a_share_is_an_error():
    with pytest.raises(ValueError, match=r"`batch_size` is 13, .* at most 12"):
        data.batch(SPLIT, SHARES, 13, seed=0, step=0)
