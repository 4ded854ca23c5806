"""Text that a network writes."""

import jax
import jax.numpy as jnp
import pytest

from experiments.training import tasks
from tests.support.small_gpt import small_gpt, written


@pytest.fixture
def task(tmp_path):
    return tasks.build(small_gpt(written(tmp_path)), 0)


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
