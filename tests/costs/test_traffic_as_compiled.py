"""Tests that the traffic of a traced channel is that of the program XLA compiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from gmc_jax import (
    disagreement,
    link_traffic,
    topologies,
    wire_bytes,
)
from gmc_jax.core import Tree
from tests.support.channels import CHANNELS as TABLE
from tests.support.channels import VARIANTS

WORKERS = 8
PARAMS = {
    "bias": jax.ShapeDtypeStruct((70,), jnp.bfloat16),
    "kernel": jax.ShapeDtypeStruct((40, 50), jnp.float32),
}
# These send one message or another. `wire_bytes` has a bound for them.
CONDITIONAL = {
    *("join_channels", "joined quantisers"),
    *("alternating_low_rank", "random_gossip"),
}
CHANNELS = {
    **{name: row.channel for name, row in TABLE.items() if name not in CONDITIONAL},
    "disagreement over a torus": disagreement(topologies.torus(2, 4)),
}


def on_the_links(operation: str, size: int, workers: int) -> tuple[float, int]:
    """The bytes and hops of a collective of XLA."""
    others = workers - 1
    return {
        "all-reduce": (2 * others * size / workers, 2 * others),
        "all-gather": (others * size, others),
        "all-to-all": (others * size / workers, others),
        "collective-permute": (size, 1),
    }[operation]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in VARIANTS else ())
        for name in CHANNELS
    ],
)
def test_the_traffic_counted_is_that_of_the_compiled_program(name):
    channel = CHANNELS[name]

    # The state is an argument, or XLA would leave out what is known to be zero.
    def on_a_device(tree: Tree, state: Tree) -> Tree:
        tree, state = jax.tree.map(lambda leaf: leaf[0], (tree, state))
        results = channel.average(tree, state)
        return jax.tree.map(lambda leaf: leaf[None], results)

    spec = PartitionSpec("workers")
    mesh = Mesh(np.array(jax.devices()[:WORKERS]), ("workers",))
    everyone = jax.shard_map(
        on_a_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
    )
    stacked = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((WORKERS, *leaf.shape), leaf.dtype),
        (PARAMS, jax.eval_shape(channel.init, PARAMS)),
    )
    sent = wire_bytes(everyone, *stacked)
    assert sent == sent.always
    sums = [
        on_the_links(operation, size, WORKERS)
        for operation, size, _, _ in sent.operations
    ]
    size, hops = np.sum(sums, axis=0) if sums else (0, 0)

    traffic = link_traffic(channel, PARAMS, WORKERS)

    assert traffic == (pytest.approx(size), hops)
    assert (size > 0) == (
        name not in {"simulated_server", "drop_all", "no_communication"}
    )
