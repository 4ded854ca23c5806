"""The data sets that come with a package."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import datasets


def test_digits_agree_with_the_docstring():
    train, test, classes, *_ = datasets.digits()

    assert train.images.shape == (1280, 8, 8, 1)
    assert test.images.shape == (517, 8, 8, 1)
    assert train.images.dtype == np.float32
    assert train.labels.dtype == np.int32
    assert set(train.labels) == set(test.labels) == set(range(classes))
    np.testing.assert_allclose(train.images.mean(), 0, atol=1e-5)
    np.testing.assert_allclose(train.images.std(), 1, atol=1e-5)


def test_digits_are_shown_to_the_network_as_they_are():
    digits = datasets.digits()
    images = jnp.asarray(digits.test.images)

    np.testing.assert_array_equal(digits.prepare(images), images)
    np.testing.assert_array_equal(digits.augment(jax.random.key(0), images), images)


def test_digits_come_from_no_file():
    with pytest.raises(ValueError, match=r"`data_file` .* scikit-learn, got 'x.npz'"):
        datasets.load("digits", Path("x.npz"), 64)


def test_the_split_is_always_the_same():
    np.testing.assert_array_equal(
        datasets.digits().test.labels, datasets.digits().test.labels
    )
