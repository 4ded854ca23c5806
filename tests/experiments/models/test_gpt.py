"""The decoder-only transformer: its size, its parts, and what it sees."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from experiments.models.gpt import Gpt, _turned, split_over_model

TINY = Gpt(blocks=2, width=16, heads=2)
WINDOWS = jnp.arange(24).reshape(2, 12) % 10


def started(size: Gpt):
    network = size.network(10, 12)
    init = jax.jit(lambda key: network.init(key, WINDOWS, train=False))
    return network, init(jax.random.key(0))


@pytest.mark.parametrize(
    ("size", "tokens", "window", "parameters"),
    [
        # Blocks of 12 width^2 and two norms; the embedding; a norm; learned places.
        (Gpt(), 65, 64, 4 * (12 * 128**2 + 2 * 128) + 65 * 128 + 128),
        (
            Gpt(blocks=12, width=768, heads=12, positions="learned", norm="layer"),
            50_257,
            1024,
            12 * (12 * 768**2 + 4 * 768) + (50_257 + 1024) * 768 + 2 * 768,
        ),
        (
            Gpt(blocks=24, width=2048, heads=16),
            50_257,
            2048,
            24 * (12 * 2048**2 + 2 * 2048) + 50_257 * 2048 + 2048,
        ),
    ],
)
def test_sizes(size, tokens, window, parameters):
    """0.8 million, GPT-2 small without biases, and GPT-3 XL."""
    network = size.network(tokens, window)
    shapes = jax.eval_shape(
        lambda key: network.init(key, jnp.zeros((1, 4), int), train=False),
        jax.random.key(0),
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"positions": "learned", "norm": "layer"},
        {"activations": "bfloat16"},
    ],
)
def test_no_token_ahead_is_seen(parts):
    network, variables = started(dataclasses.replace(TINY, **parts))
    changed = WINDOWS.at[:, 7].set(3)

    one, other = (
        jnp.asarray(network.apply(variables, x, train=True)) for x in (WINDOWS, changed)
    )

    assert one.shape == (2, 12, 10)
    assert one.dtype == jnp.float32
    differ = np.abs(np.asarray(one - other)).max(axis=(0, 2)) > 1e-6
    np.testing.assert_array_equal(np.flatnonzero(differ), np.arange(7, 12))


def test_in_bfloat16_parameters_stay_float32_and_logits_are_close():
    network, variables = started(TINY)
    half, _ = started(dataclasses.replace(TINY, activations="bfloat16"))

    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    one, other = (
        jnp.asarray(net.apply(variables, WINDOWS, train=False))
        for net in (network, half)
    )
    error = np.abs(np.asarray(one - other)).max() / np.abs(np.asarray(one)).max()
    assert 0 < error < 0.03


def test_rotary_scores_depend_on_the_distance_alone():
    """Scores of the same query and key, at places that are as far apart."""
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 1, 8))

    def turned(entries):  # The same entries at each of ten places.
        return np.asarray(_turned(jnp.broadcast_to(entries, (1, 10, 1, 8))))[0, :, 0]

    scores = turned(query) @ turned(key).T

    for distance in range(-4, 5):
        along = np.diagonal(scores, distance)
        np.testing.assert_allclose(along, along[0], rtol=1e-4, atol=1e-5)
    assert abs(scores[0, 0] - scores[0, 3]) > 1e-2
    np.testing.assert_allclose(scores[0, 0], float((query * key).sum()), rtol=1e-4)


def test_a_block_is_split_by_columns_and_then_by_rows():
    _, variables = started(TINY)
    specs = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        names = tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
        specs["/".join(names)] = split_over_model(names, leaf)

    columns, rows = PartitionSpec(None, "model"), PartitionSpec("model", None)
    assert specs["blocks/0/queries/kernel"] == columns
    assert specs["blocks/1/widen/kernel"] == columns
    assert specs["blocks/0/mix/kernel"] == rows
    assert specs["blocks/1/narrow/kernel"] == rows
    assert specs["norm/scale"] == PartitionSpec()


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match=r"multiple of twice `heads`, 6, got 16"):
        Gpt(width=16, heads=3)
    with pytest.raises(ValueError, match="`blocks` must be"):
        Gpt(blocks=0)
