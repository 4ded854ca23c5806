"""Channels of trees that lie in parts on the devices of a worker."""

import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gmc_jax
from gmc_jax import (
    Compressor,
    Drawn,
    all_gather,
    all_reduce,
    count_entries,
    dense,
    disagreement,
    drop_all,
    exact,
    gossip,
    join_channels,
    majority_vote,
    no_communication,
    random_block,
    random_k,
    sampled_top_k,
    scaled_sign,
    simulated_server,
    threshold,
    top_k,
    topologies,
)
from tests.support.channels import assert_law
from tests.support.harness import average_here

MESHES = {
    "2 x 4": ((2, 4), ("workers", "a")),
    "4 x 2": ((4, 2), ("workers", "a")),
    "2 x 2 x 2": ((2, 2, 2), ("workers", "a", "b")),
    "the workers last": ((2, 4), ("a", "workers")),
}
# On a mesh without the axis b it splits nothing.
SPECS = {
    "columns": (None, "a"),
    "cube": ("b", None, "a"),
    "rows": (("b", "a"), None),
    "turned": (("a", "b"),),
    "whole": (None,),
}
SHAPES = {
    "columns": (6, 8),
    "cube": (2, 3, 4),
    "rows": (8, 5),
    "turned": (16,),
    "whole": (7,),
}
CHANNELS = {
    "top_k": all_gather(top_k(0.1), per_leaf=True),
    "top_k of the whole vector": all_gather(top_k(0.1)),
    "most of it": all_gather(top_k(0.7), per_leaf=True),
    "all of it": all_gather(top_k(1.0)),
    "threshold": all_gather(threshold(2.0, 0.3), per_leaf=True),
    "threshold of the whole vector": all_gather(threshold(3.0, 0.5)),
    "gathered block": all_gather(random_block(0.3), per_leaf=True),
    "block": all_reduce(random_block(0.3)),
    "simulated_server": simulated_server(top_k(0.1)),
    "count_entries": count_entries(all_gather(top_k(0.1))),
    "joined": join_channels(
        [all_gather(top_k(0.1)), all_reduce(random_block(0.1))], boundaries=[1]
    ),
    "exact": exact(),
    "majority_vote": majority_vote(),
    "gossip": gossip(topologies.ring(2), delay=1),
    "disagreement": disagreement(topologies.ring(2)),
    "no_communication": no_communication(),
    "drop_all": drop_all(),
}
OWN = {"gossip", "disagreement", "no_communication", "simulated_server"}


def trees_of(workers: int, dtype: str, seed: int = 0):
    """Small whole numbers: every magnitude has many ties, zeros among them."""
    draw = np.random.default_rng(seed)
    return {
        name: draw.integers(-4, 5, size=(workers, *shape)).astype(jnp.dtype(dtype))
        for name, shape in SHAPES.items()
    }


def specs_on(mesh: Mesh) -> dict[str, PartitionSpec]:
    def known(axes) -> tuple[str, ...]:
        names = axes if isinstance(axes, tuple) else (axes,)
        return tuple(name for name in names if name in mesh.axis_names)

    return {
        name: PartitionSpec(*(known(axes) or None for axes in spec))
        for name, spec in SPECS.items()
    }


def on_mesh(channel, trees, mesh: Mesh, calls: int = 2):
    """Every worker's mean, lost and state of the last call, and the program."""
    specs = specs_on(mesh)
    like = {
        name: jax.device_put(np.zeros_like(tree[0]), NamedSharding(mesh, specs[name]))
        for name, tree in trees.items()
    }

    def step(state, batch):
        return state, average_here(channel, batch, state[1], calls)

    split = {
        name: jax.device_put(
            tree, NamedSharding(mesh, PartitionSpec("workers", *specs[name]))
        )
        for name, tree in trees.items()
    }
    train, state = gmc_jax.distribute(
        step, (like, channel.init(like)), split, mesh=mesh
    )
    compiled = train.lower(state, split).compile()
    _, results = compiled(state, split)
    return gmc_jax.fetch(results), compiled.as_text() or ""


def on_one_device(channel, trees, calls: int = 2):
    like = jax.tree.map(lambda tree: jnp.zeros_like(tree[0]), trees)
    state = channel.init(like)
    everyone = jax.vmap(
        lambda tree: average_here(channel, tree, state, calls), axis_name="workers"
    )
    return jax.tree.map(np.asarray, jax.jit(everyone)(trees))


def mesh_named(name: str) -> Mesh:
    shape, names = MESHES[name]
    return Mesh(np.array(jax.devices()).reshape(shape), names)


@pytest.mark.parametrize(
    ("name", "mesh", "dtype"),
    [
        ("top_k of the whole vector", "2 x 2 x 2", "bfloat16"),
        ("threshold", "the workers last", "float32"),
        ("block", "2 x 2 x 2", "float32"),
        ("majority_vote", "2 x 2 x 2", "float32"),
        ("gossip", "2 x 4", "bfloat16"),
        *(
            pytest.param(name, mesh, dtype, marks=pytest.mark.slow)
            for name in CHANNELS
            for mesh in MESHES
            for dtype in ("float32", "bfloat16")
            if name not in ("gossip", "disagreement") or mesh[0] == "2"
            if dtype == "float32" or mesh == next(iter(MESHES))
        ),
    ],
)
def test_in_parts_the_same_is_sent_and_lost(name, mesh, dtype):
    """Bit for bit, ties included: which of equal entries are sent is told by lost."""
    channel, mesh = CHANNELS[name], mesh_named(mesh)
    trees = trees_of(mesh.shape["workers"], dtype)
    (mean, lost, state), _ = on_mesh(channel, trees, mesh)
    expected_mean, expected_lost, expected_state = on_one_device(channel, trees)

    chex.assert_trees_all_equal(lost, expected_lost)
    chex.assert_trees_all_close(mean, expected_mean, rtol=1e-6, atol=1e-7)
    chex.assert_trees_all_equal(state, expected_state)
    assert_law_of(trees, mean, lost, name)


def assert_law_of(trees, mean, lost, name: str) -> None:
    """In the structure that the table of laws has."""
    if name in ("gossip", "simulated_server"):
        return  # With a delay, and of trees that differ, nothing is the same.
    kind = str(next(iter(trees.values())).dtype)
    trees, mean, lost = ({kind: list(tree.values())} for tree in (trees, mean, lost))
    assert_law(trees, mean, lost, rtol=1e-6, own=name in OWN)


def test_what_is_no_number_is_sent_first():
    """As without parts: NaN counts as the largest, infinity as the next."""
    mesh = mesh_named("2 x 2 x 2")
    trees = trees_of(2, "float32")
    trees["columns"][0, 3, 5] = np.nan
    trees["columns"][1, 0, 2] = -np.inf
    trees["rows"][:, 7, 4] = np.inf
    channel = CHANNELS["top_k"]
    (mean, lost, _), _ = on_mesh(channel, trees, mesh, calls=1)
    expected_mean, expected_lost, _ = on_one_device(channel, trees, calls=1)
    chex.assert_trees_all_equal(lost, expected_lost)
    chex.assert_trees_all_close(mean, expected_mean, rtol=1e-6)
    assert np.isnan(mean["columns"][:, 3, 5]).all()


def gathered(text: str) -> list[int]:
    """The entries of what collectives, within a worker or not, bring together."""
    lines = re.findall(r"= (.*?) (?:all-\w+|reduce-\w+|collective-\w+)\(", text)
    shapes = [re.findall(r"\[([\d,]+)\]", line) for line in lines]
    return [
        math.prod(map(int, shape.split(","))) for found in shapes for shape in found
    ]


@pytest.mark.parametrize("name", ["exact", "gossip", "majority_vote", "top_k"])
def test_no_leaf_is_gathered(name):
    """The most that moves is what a device has of the leaf: a fourth."""
    mesh = mesh_named("2 x 4")
    draw = np.random.default_rng(0)
    trees = {"columns": draw.normal(size=(2, 24, 32)).astype(np.float32)}
    _, text = on_mesh(CHANNELS[name], trees, mesh, calls=1)
    assert gathered(text)
    assert max(gathered(text)) <= 24 * 32 // 4


def unfit(what: str) -> Compressor:
    return {
        "dense": dense(),
        "scaled_sign": scaled_sign(),
        "sampled_top_k": sampled_top_k(0.1),
        "random_k": random_k(0.1),
    }[what]


@pytest.mark.parametrize("name", ["dense", "scaled_sign", "sampled_top_k", "random_k"])
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
        own = places(key, x.size)
        return x[own], x.at[own].set(0)

    def decode(key, messages, d):
        return jnp.zeros(d).at[places(key, d)].set(messages.sum(axis=0))

    channel = all_reduce(
        Compressor(encode, decode, shared=True, selects=Drawn(places)), per_leaf=True
    )
    trees = trees_of(2, "float32")
    (mean, lost, _), _ = on_mesh(channel, trees, mesh_named("2 x 2 x 2"))
    expected_mean, expected_lost, _ = on_one_device(channel, trees)
    chex.assert_trees_all_equal(lost, expected_lost)
    chex.assert_trees_all_close(mean, expected_mean, rtol=1e-6)
