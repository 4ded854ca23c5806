"""Channels on trees whose leaves are split over the devices of a worker."""

import math
import re

import chex
import numpy as np
import pytest

from gmc_jax import (
    all_gather,
    all_reduce,
    compressed_gossip,
    count_entries,
    disagreement,
    drop_all,
    exact,
    gossip,
    gossip_differences,
    gossip_differences_overlapped,
    join_channels,
    majority_vote,
    no_communication,
    random_block,
    random_k,
    simulated_server,
    threshold,
    top_k,
    topologies,
)
from tests.support.channels import assert_law
from tests.support.meshes import mesh_named, on_mesh, on_one_device, trees_of

CHANNELS = {
    "top_k": all_gather(top_k(0.1), per_leaf=True),
    "top_k of the whole vector": all_gather(top_k(0.1)),
    "most of it": all_gather(top_k(0.7), per_leaf=True),
    "all of it": all_gather(top_k(1.0)),
    "threshold": all_gather(threshold(2.0, 0.3), per_leaf=True),
    "threshold of the whole vector": all_gather(threshold(3.0, 0.5)),
    "gathered block": all_gather(random_block(0.3), per_leaf=True),
    "block": all_reduce(random_block(0.3)),
    "gathered random_k": all_gather(random_k(0.3), per_leaf=True),
    "random_k": all_reduce(random_k(0.3)),
    "late top_k": all_gather(top_k(0.1), per_leaf=True, delay=1),
    "late top_k of the whole vector": all_gather(top_k(0.1), delay=1),
    "late block": all_reduce(random_block(0.3), per_leaf=True, delay=1),
    "simulated_server": simulated_server(top_k(0.1)),
    "count_entries": count_entries(all_gather(top_k(0.1))),
    "joined": join_channels(
        [all_gather(top_k(0.1)), all_reduce(random_block(0.1))], boundaries=[1]
    ),
    "exact": exact(),
    "majority_vote": majority_vote(),
    "gossip": gossip(topologies.ring(2), delay=1),
    "disagreement": disagreement(topologies.ring(2)),
    "compressed_gossip": compressed_gossip(topologies.ring(2), top_k(0.1)),
    "gossip_differences": gossip_differences(
        topologies.ring(2), random_block(0.3), 0.5, per_leaf=True
    ),
    "gossip_differences_overlapped": gossip_differences_overlapped(
        topologies.ring(2), top_k(0.1), 0.5
    ),
    "no_communication": no_communication(),
    "drop_all": drop_all(),
}
OF_TWO = {
    *("gossip", "disagreement", "compressed_gossip"),
    *("gossip_differences", "gossip_differences_overlapped"),
}
# One of each way to send, also with other workers and where they are the last axis.
ON_ALL_MESHES = {
    *("top_k", "top_k of the whole vector", "threshold of the whole vector", "block"),
    *("gathered random_k", "random_k", "exact", "majority_vote", "simulated_server"),
}
ELSEWHERE = [("4 x 2", "float32"), ("the workers last", "float32")]
DEFAULT = [
    ("top_k of the whole vector", "2 x 2 x 2", "bfloat16"),
    ("block", "2 x 2 x 2", "float32"),
    ("random_k", "2 x 4", "float32"),
    ("majority_vote", "2 x 2 x 2", "float32"),
    ("gossip", "2 x 4", "bfloat16"),
]
OWN = OF_TWO | {"no_communication", "simulated_server"}


@pytest.mark.parametrize(
    ("name", "mesh", "dtype"),
    [
        *DEFAULT,
        *(
            pytest.param(name, *where, marks=pytest.mark.slow)
            for name in CHANNELS
            for where in (
                ("2 x 2 x 2", "float32"),
                ("2 x 4", "bfloat16"),
                *(ELSEWHERE if name in ON_ALL_MESHES else ()),
            )
            if (name, *where) not in DEFAULT
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
    # Devices write their slots of a message in their order.
    if name.startswith("late"):
        state, expected_state = (
            each._replace(messages=()) for each in (state, expected_state)
        )
    chex.assert_trees_all_equal(state, expected_state)
    assert_law_of(trees, mean, lost, name)


def assert_law_of(trees, mean, lost, name: str) -> None:
    """In the structure that the table of laws has."""
    if name in ("gossip", "simulated_server") or name.startswith("late"):
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
