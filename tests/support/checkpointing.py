"""Trainings that are saved and restored, and states in layouts made by hand."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gmc_jax
from gmc_jax import (
    all_gather,
    all_reduce,
    count_entries,
    exact,
    random_block,
    sampled_top_k,
    top_k,
    topologies,
)
from gmc_jax.core import Tree
from tests.support.harness import start, step_of, targets
from tests.support.methods import by_name


def same_bits(ours: Tree, theirs: Tree) -> None:
    """Structure, dtypes, shardings and every bit, of NaN and of zeros as well."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert type(one) is type(other)
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        if isinstance(one, jax.Array):
            assert one.sharding == other.sharding
            assert one.committed == other.committed
        one, other = gmc_jax.fetch((one, other))
        assert one.tobytes() == other.tobytes()


def laid_out(workers: int, own: Tree, same: Tree) -> tuple[gmc_jax.Layout, Tree]:
    """A layout and a state as it keeps it; `own` has a leading axis of workers."""
    state = {"own": own, "same": same}
    differs = {
        "own": jax.tree.map(lambda _: True, own),
        "same": jax.tree.map(lambda _: False, same),
    }
    shapes = jax.eval_shape(
        lambda: jax.tree.map(
            lambda leaf, lead: jnp.asarray(leaf)[0] if lead else jnp.asarray(leaf),
            state,
            differs,
        )
    )
    return gmc_jax.Layout(workers, "workers", differs, shapes), state


def small(workers: int = 4, size: int = 3):
    draw = np.random.default_rng(workers)
    own = jnp.asarray(draw.normal(size=(workers, size)), jnp.float32)
    return laid_out(workers, {"residual": own}, {"weights": own[0]})


def placed_on(mesh: Mesh, state: Tree, *inner: str) -> Tree:
    own = NamedSharding(mesh, PartitionSpec("workers", *inner))
    same = NamedSharding(mesh, PartitionSpec(*inner))
    return {
        "own": jax.device_put(state["own"], own),
        "same": jax.device_put(state["same"], same),
    }


STEPS = 6


BLOCK = count_entries(all_reduce(random_block(0.2)))


METHODS = {
    "gmc, random_block": gmc_jax.gmc(optax.cosine_decay_schedule(0.1, 20), BLOCK),
    "slowmo": gmc_jax.slowmo(optax.sgd(0.1, momentum=0.5), exact(), period=4),
    "sgp": optax.chain(
        optax.sgd(0.1),
        gmc_jax.push_sum(
            gmc_jax.gossip(topologies.pushing(np.triu(np.ones((8, 8)), k=-1)))
        ),
    ),
    "osgp": gmc_jax.sgp(0.1, topologies.ring(8), delay=1),
    "majority_vote": gmc_jax.signum(0.01, gmc_jax.majority_vote()),
    "cser": gmc_jax.cser(0.1, BLOCK, all_reduce(random_block(0.4), seed=1), period=4),
    "streaming_diloco": gmc_jax.streaming_diloco(
        optax.sgd(0.1, momentum=0.5),
        exact(),
        period=4,
        fragments=by_name,
        delay=3,
    ),
    "gmc, sampled_top_k": gmc_jax.gmc(0.1, all_gather(sampled_top_k(0.2, 0.5))),
    "cocod_sgd": gmc_jax.cocod_sgd(optax.sgd(0.1, momentum=0.5), BLOCK, period=4),
    "late messages": gmc_jax.gmc(0.02, all_gather(top_k(0.2), per_leaf=True, delay=1)),
}


def batch_at(t: int) -> Tree:
    return jax.tree.map(lambda leaf: leaf[t], targets(start(), 2 * STEPS))


@functools.cache
def made(name: str, runner: Callable) -> tuple[gmc_jax.Layout, Callable, Callable]:
    """The layout, the train function, and what makes its state afresh."""
    tx = METHODS[name]
    step, state = step_of(tx), (start(), tx.init(start()))
    layout = gmc_jax.layout(step, state, batch_at(0), 8)
    train, begun = runner(step, state, batch_at(0))
    values = gmc_jax.fetch(begun)
    places = jax.tree.map(lambda leaf: leaf.sharding, begun)
    committed = jax.tree.leaves(begun)[0].committed

    def fresh():
        if committed:
            return jax.device_put(values, places)
        return jax.tree.map(jnp.array, values)

    return layout, train, fresh


def trained(train: Callable, state: Tree, first: int, last: int) -> Tree:
    for t in range(first, last):
        state, metrics = train(state, batch_at(t))
        jax.block_until_ready(metrics)
    return state
