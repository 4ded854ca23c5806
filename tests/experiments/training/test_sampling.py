"""Text that a network writes."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.data.text import text
from experiments.training import tasks
from experiments.training.sampling import sampler
from tests.support.small_gpt import small_gpt, written


class First(nn.Module):
    """Is certain that the first token of the window comes next, at its last place."""

    def __call__(self, windows, train):
        first = 100.0 * jax.nn.one_hot(windows[:, :1], 10)
        return jnp.zeros((*windows.shape, 10)).at[:, -1:].set(first)


def test_each_token_is_written_behind_the_window_and_then_read(tmp_path):
    data = text(written(tmp_path), window=4)
    sample = sampler(First(), data)
    assert sample is not None
    assert data.decode is not None
    start = data.decode(data.test.images[0])

    assert sample({}, 10) == (3 * start)[:10]


def test_a_sample_has_the_characters_of_the_text(tmp_path):
    task = tasks.build(small_gpt(written(tmp_path)), 0)
    assert task.sample is not None
    params = jax.tree.map(jnp.zeros_like, task.params)

    sample = task.sample(params, 50)

    assert len(sample) == 50
    assert set(sample) <= set("abcdefghij")  # All alike: logits are 0.
    assert len(set(sample)) > 5
