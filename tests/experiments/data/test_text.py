"""Tests of text as data, on a small text."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.text import WINDOW, text
from experiments.models.networks import MODELS
from experiments.training import tasks
from experiments.training.config import Config


@pytest.fixture
def a_file(tmp_path):
    """Three thousand characters; each determines the next."""
    path = tmp_path / "text.txt"
    path.write_text("abcdefghij" * 300, encoding="utf-8")
    return path


def test_each_character_is_followed_by_its_label(a_file):
    data = text(a_file)
    assert data.classes == 10
    for split, size in ((data.train, 2700), (data.test, 300)):
        assert split.images.shape == ((size - 1) // WINDOW, WINDOW)
        np.testing.assert_array_equal(split.labels, (split.images + 1) % 10)
        np.testing.assert_array_equal(
            split.images.ravel()[1:], split.labels.ravel()[:-1]
        )


def test_a_text_that_is_missing_or_too_short_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"`data_file` must name a text.*--text-file"):
        text(None)
    short = tmp_path / "short.txt"
    short.write_text("to be or not to be", encoding="utf-8")
    with pytest.raises(ValueError, match=r"at least 650 characters .* got 18"):
        text(short)
    short.write_text("")
    with pytest.raises(ValueError, match=r"at least 650 characters .* got 0"):
        text(short)


def test_a_file_that_cannot_be_read_is_named_with_its_option(tmp_path):
    """The file can be missing, a directory, or not in UTF-8."""
    (tmp_path / "latin").write_bytes("é".encode("latin-1") * 1000)
    for name, problem in (
        ("missing", "cannot be read .No such file"),
        ("", "cannot be read .Is a directory"),
        ("latin", "is not in UTF-8"),
    ):
        with pytest.raises(ValueError, match=rf"`data_file` is .*{problem}.*--text-f"):
            text(tmp_path / name)


@pytest.mark.slow
def test_the_network_sees_no_character_ahead():
    model = MODELS["characters"](10)
    windows = jnp.arange(2 * WINDOW).reshape(2, WINDOW) % 10
    variables = model.init(jax.random.key(0), windows, train=False)
    changed = windows.at[:, 40].set(0)
    one, other = (model.apply(variables, x, train=False) for x in (windows, changed))
    differ = np.abs(np.asarray(one) - np.asarray(other)).max(axis=(0, 2)) > 1e-6
    np.testing.assert_array_equal(np.flatnonzero(differ), np.arange(40, WINDOW))


def test_a_task_of_text_is_evaluated_by_characters(a_file):
    config = Config(
        data="text",
        data_file=a_file,
        model="characters",
        methods=("gmc",),
        partition="iid",
        workers=2,
        batch_size=2,
        epochs=1,
    )
    task = tasks.build(config, 0)
    evaluated = task.evaluate(task.params, task.stats)
    assert evaluated["loss"] == pytest.approx(np.log(10), abs=1.5)
    assert 0 <= evaluated["accuracy"] <= 1
    assert task.class_counts.sum() == 2 * 21 * WINDOW
    with pytest.raises(ValueError, match="--partition iid"):
        tasks.build(dataclasses.replace(config, partition="dirichlet"), 0)
