"""Tests of text as data, on a small text."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import tokens
from experiments.data.batches import Draw, draws
from experiments.data.partitions import PARTITIONS
from experiments.data.text import TEXTS, WINDOW, text, utf8
from experiments.models.networks import MODELS
from experiments.training import tasks
from experiments.training.config import Config
from tests.support.small_gpt import small_gpt, written


@pytest.fixture
def a_file(tmp_path):
    return written(tmp_path)


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
    with pytest.raises(ValueError, match=r"at least 650 tokens, got 18"):
        text(short)
    short.write_text("")
    with pytest.raises(ValueError, match=r"at least 650 tokens, got 0"):
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


def test_bytes_read_any_text_and_decode_to_it(tmp_path):
    path = tmp_path / "text.txt"
    words = "".join(chr(300 + i) for i in range(900))  # More than 256 kinds.
    path.write_text(words, encoding="utf-8")

    with pytest.raises(ValueError, match=r"256 different characters, got 900.*bytes"):
        text(path)
    data = utf8(path, window=16)

    assert data.classes == 256
    assert data.train.images.shape == (101, 16)
    assert data.decode is not None
    assert data.decode(data.train.images[:2].ravel()) == words[:16]


def test_windows_that_are_read_on_the_host_are_those_of_the_workers_shares(
    a_file, tmp_path
):
    """The same draws from a share in memory give the same batch."""
    file = tmp_path / "text.npy"
    tokens.write(a_file, 256, file)
    task = tasks.build(small_gpt(file, data="tokens"), 0)
    data = TEXTS["tokens"](file, 6)
    shares = PARTITIONS["iid"](data.train.labels, 2, 0.1, 0)
    read, drawn = task.draws(1, 4), draws(2, shares.shape[1], 3, 0, 1, 4)

    assert read.chosen.shape == (3, 2, 3, 7)
    for step in range(3):
        for worker in range(2):
            places = shares[worker][drawn.chosen[step, worker]]
            seen = read.chosen[step, worker]
            np.testing.assert_array_equal(seen[:, :-1], data.train.images[places])
            np.testing.assert_array_equal(seen[:, 1:], data.train.labels[places])
    one = jax.vmap(task.take, axis_name="workers")(
        jax.tree.map(jnp.asarray, task.share), Draw(*(leaf[0] for leaf in read))
    )
    np.testing.assert_array_equal(one.images, read.chosen[0, :, :, :-1])
    np.testing.assert_array_equal(one.labels, read.chosen[0, :, :, 1:])
