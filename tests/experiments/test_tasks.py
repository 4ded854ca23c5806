"""A task and how it is judged."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import tasks
from experiments.config import Config
from experiments.data import digits
from experiments.models import Perceptron


@pytest.fixture(scope="module")
def task():
    return tasks.build(Config(workers=4, batch_size=100, epochs=7))


def test_epochs_make_steps_unless_steps_are_given(task):
    assert task.steps == 7 * 3
    assert tasks.build(Config(steps=5)).steps == 5


def test_the_loss_of_a_batch_is_its_mean_cross_entropy(task):
    images, labels = jax.tree.map(lambda leaf: leaf[1], task.batches(2))

    logits = jnp.asarray(Perceptron(10).apply(task.params, images))

    expected = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    loss = task.loss(task.params, jax.tree.map(lambda leaf: leaf[1], task.batches(2)))
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)


def test_a_model_is_judged_on_all_images(task):
    data = digits()
    train, test = (
        jnp.asarray(Perceptron(10).apply(task.params, split.images))
        for split in (data.train, data.test)
    )
    loss = optax.losses.softmax_cross_entropy_with_integer_labels(
        train, data.train.labels
    )

    judged = task.judge(task.params)

    np.testing.assert_allclose(judged["loss"], loss.mean(), rtol=1e-5)
    right = np.argmax(test, axis=-1) == data.test.labels
    np.testing.assert_allclose(judged["accuracy"], right.mean(), rtol=1e-6)


def test_shares_are_those_of_the_partition(task):
    assert task.class_counts.shape == (4, 10)
    assert (task.class_counts.sum(axis=1) == 320).all()
