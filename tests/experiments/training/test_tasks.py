"""A task: its batches, its loss and its evaluation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.data.datasets import digits
from experiments.models.perceptron import Perceptron
from experiments.training import tasks
from experiments.training.config import Config

CONFIG = Config(workers=4, batch_size=100, epochs=7)


@pytest.fixture(scope="module")
def task():
    return tasks.build(CONFIG, 0)


@pytest.fixture(scope="module")
def batches(task):
    """The batches of all workers at the third step, with an axis of workers."""
    draw = jax.tree.map(lambda leaf: leaf[0], task.draws(2, 3))
    take = jax.vmap(task.take, axis_name="workers")
    return draw, take(task.share, draw)


def test_epochs_make_steps_unless_steps_are_given(task):
    assert task.steps_per_epoch == 3
    assert task.steps == 7 * 3
    assert tasks.build(Config(steps=5), 0).steps == 5


def test_workers_take_the_drawn_samples_of_their_own_shares(task, batches):
    draw, batch = batches
    for worker in range(4):
        images, labels = (leaf[worker][draw.chosen[worker]] for leaf in task.share)
        np.testing.assert_array_equal(batch.images[worker], images)
        np.testing.assert_array_equal(batch.labels[worker], labels)


def test_every_worker_has_a_key_of_its_own(batches):
    keys = jax.random.key_data(batches[1].key)

    assert len(np.unique(keys, axis=0)) == 4


def test_the_loss_of_a_batch_is_its_mean_cross_entropy(task, batches):
    batch = jax.tree.map(lambda leaf: leaf[1], batches[1])
    logits = Perceptron(10).apply({"params": task.params}, batch.images, train=True)

    expected = optax.losses.softmax_cross_entropy_with_integer_labels(
        jnp.asarray(logits), batch.labels
    )
    loss, stats = task.loss(task.params, task.stats, batch)
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)
    assert stats == task.stats == {}


def test_a_model_is_evaluated_on_all_images_or_on_some(task):
    data = digits()
    train, test = (
        jnp.asarray(
            Perceptron(10).apply({"params": task.params}, split.images, train=False)
        )
        for split in (data.train, data.test)
    )
    loss = optax.losses.softmax_cross_entropy_with_integer_labels(
        train, data.train.labels
    )

    evaluated = task.evaluate(task.params, task.stats)
    part = task.evaluate(task.params, task.stats, 100)

    np.testing.assert_allclose(evaluated["loss"], loss.mean(), rtol=1e-5)
    right = np.argmax(test, axis=-1) == data.test.labels
    np.testing.assert_allclose(evaluated["accuracy"], right.mean(), rtol=1e-6)
    assert (part["accuracy"] * 100) % 1 == pytest.approx(0, abs=1e-4)
    assert part["loss"] != evaluated["loss"]
    assert part == task.evaluate(task.params, task.stats, 100)


def test_shares_are_those_of_the_partition(task):
    assert task.class_counts.shape == (4, 10)
    assert (task.class_counts.sum(axis=1) == 320).all()
    assert task.share.labels.shape == (4, 320)


def test_another_seed_is_another_task(task):
    other = tasks.build(CONFIG, 1)

    assert (other.class_counts != task.class_counts).any()
    assert not np.array_equal(other.draws(0, 1).chosen, task.draws(0, 1).chosen)
    kernels = [leaf for leaf in jax.tree.leaves(other.params) if leaf.ndim > 1]
    ours = [leaf for leaf in jax.tree.leaves(task.params) if leaf.ndim > 1]
    assert not np.allclose(kernels[0], ours[0])


def test_a_fraction_of_the_images_is_divided():
    part = tasks.build(dataclasses.replace(CONFIG, fraction=0.5), 0)

    assert part.share.labels.shape == (4, 160)
    np.testing.assert_allclose(
        np.bincount(part.share.labels.ravel()), 64, atol=20
    )  # Every class is still there, about as often.
