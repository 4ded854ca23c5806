"""Which compressors encode vectors that are split over devices."""

import re

import chex
import jax.numpy as jnp
import pytest

from gmc_jax import (
    Compressor,
    Drawn,
    all_gather,
    all_reduce,
    dense,
    random_k,
    sampled_top_k,
    scaled_sign,
)
from tests.support.meshes import mesh_named, on_mesh, on_one_device, trees_of


def unfit(what: str) -> Compressor:
    return {
        "dense": dense(),
        "scaled_sign": scaled_sign(),
        "sampled_top_k": sampled_top_k(0.1),
        "random_k": random_k(0.1),
    }[what]


@pytest.mark.parametrize("name", ["dense", "scaled_sign", "sampled_top_k"])
@pytest.mark.parametrize("per_leaf", [False, True])
def test_what_needs_a_whole_vector_is_refused_in_parts(name, per_leaf):
    channel = all_gather(unfit(name), per_leaf=per_leaf)
    message = (
        r"`compressor` of `all_gather` must select .* shape \(6, 8\) is split inside a "
        r"worker by .*'a'.*Use `top_k`.*`exact\(\)`"
    )
    with pytest.raises(ValueError, match=message):
        on_mesh(channel, trees_of(2, "float32"), mesh_named("2 x 4"))


@pytest.mark.parametrize("name", ["scaled_sign", "random_k"])
def test_a_leaf_that_is_whole_inside_a_worker_takes_any_compressor(name):
    """And is sent once, not once a device: padded to slices for four of them."""
    channel = all_gather(unfit(name), per_leaf=True)
    trees = {"whole": trees_of(2, "float32")["whole"]}
    mesh = mesh_named("2 x 4")
    (mean, lost, _), text = on_mesh(channel, trees, mesh)
    expected_mean, expected_lost, _ = on_one_device(channel, trees)
    chex.assert_trees_all_close(lost, expected_lost, rtol=1e-6)
    chex.assert_trees_all_close(mean, expected_mean, rtol=1e-6)
    between = re.findall(r"= (\w+)\[2,1\].*all-gather\(", text)
    assert sorted(between) == (["f32", "u32"] if name == "scaled_sign" else ["f32"])


def test_a_compressor_from_outside_may_say_what_it_selects():
    """Every d-th entry of a leaf, which is drawn without looking."""

    def places(key, d):
        del key
        return jnp.arange(0, d, 3, dtype=jnp.int32)

    def encode(key, x):
        own, flat = places(key, x.size), x.reshape(-1)
        return flat[own], flat.at[own].set(0).reshape(x.shape)

    def decode(key, messages, like):
        zero = jnp.zeros(like.size)
        mean = zero.at[places(key, like.size)].set(messages.sum(axis=0))
        return mean.reshape(like.shape)

    channel = all_reduce(
        Compressor(encode, decode, shared=True, selects=Drawn(places)), per_leaf=True
    )
    trees = trees_of(2, "float32")
    (mean, lost, _), _ = on_mesh(channel, trees, mesh_named("2 x 2 x 2"))
    expected_mean, expected_lost, _ = on_one_device(channel, trees)
    chex.assert_trees_all_equal(lost, expected_lost)
    chex.assert_trees_all_close(mean, expected_mean, rtol=1e-6)
