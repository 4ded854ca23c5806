"""Text that a network writes."""

import jax
import jax.numpy as jnp
import pytest

from experiments.models.gpt import Gpt
from experiments.training import tasks
from experiments.training.config import Config


@pytest.fixture
def task(tmp_path):
    """A small transformer on a text of ten characters."""
    (tmp_path / "text.txt").write_text("abcdefghij" * 300, encoding="utf-8")
    config = Config(
        data="text",
        data_file=tmp_path / "text.txt",
        model="gpt",
        gpt=Gpt(blocks=1, width=8, heads=2),
        window=4,
        methods=("adam",),
        partition="iid",
        workers=2,
        count=False,
    )
    return tasks.build(config, 0)


def test_a_sample_has_the_characters_of_the_text(task):
    params = jax.tree.map(jnp.zeros_like, task.params)

    written = task.sample(params, 50)

    assert len(written) == 50
    assert set(written) <= set("abcdefghij")  # All alike: logits are 0.
    assert len(set(written)) > 5


def test_a_network_that_is_certain_writes_what_it_is_certain_of(task):
    """Its embedding of one character is long, and so is its logit."""
    zeros = jax.tree.map(jnp.zeros_like, task.params)
    every = jnp.ones((10, 8)).at[2].set(100.0)
    params = zeros | {
        "embedding": {"embedding": every},
        "norm": {"scale": jnp.ones(8)},
    }

    assert task.sample(params, 20) == "c" * 20
