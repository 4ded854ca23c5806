"""Programs for models of many leaves: their size, and the memory that they take."""

import functools

import jax.numpy as jnp
import optax
import pytest

import gmc_jax
from experiments.bench.compile_time import model

WORKERS = 8


def channel(ratio=0.01, per_leaf=False):
    return gmc_jax.all_gather(gmc_jax.top_k(ratio), per_leaf=per_leaf)


CHANNELS = {
    "exact": gmc_jax.exact,
    "top_k": channel,
    "top_k per leaf": functools.partial(channel, per_leaf=True),
    "random_block": lambda: gmc_jax.all_reduce(gmc_jax.random_block(0.01)),
}


def train_on(params, channel, workers=WORKERS):
    """A simulated step of GMC, its state and its batch, with a loss of a line."""
    tx = gmc_jax.gmc(0.1, channel)

    def step(state, batch):
        params, opt_state = state
        grads = [2 * (x - batch) for x in gmc_jax.query(opt_state, params)]
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), batch

    batch = jnp.ones(workers)
    return *gmc_jax.simulate(step, (params, tx.init(params)), batch, workers), batch


def lowered(leaves, channel, platform="cpu"):
    train, state, batch = train_on(model(leaves, 16), channel)
    return train.trace(state, batch).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.endswith("leaf") else ())
        for name in CHANNELS
    ],
)
def test_a_worker_takes_one_gradient_of_memory(name):
    """And one mean in all; small vectors also take their magnitudes, and stacks."""
    params = model(26, 16)
    size = 4 * sum(x.size for x in params)
    train, state, batch = train_on(params, CHANNELS[name]())
    memory = train.lower(state, batch).compile().memory_analysis()
    assert memory is not None
    trees = {"top_k": 2, "top_k per leaf": 3}.get(name, 1)
    assert memory.temp_size_in_bytes <= (trees * WORKERS + 2) * size


@pytest.mark.parametrize(
    "name", ["top_k per leaf", pytest.param("top_k", marks=pytest.mark.slow)]
)
def test_more_blocks_of_a_transformer_are_selected_from_by_the_same_code(name):
    few, many = (lowered(leaves, CHANNELS[name]()) for leaves in (26, 50))
    for operation in ("top_k", "sort", "while", "scatter", "gather"):
        operation = f"stablehlo.{operation}"
        # A whole vector that is longer may take a level more of its pyramid.
        level = 0 if name.endswith("leaf") else 4
        assert many.count(operation) <= few.count(operation) + level, operation


@pytest.mark.parametrize(
    "per_leaf", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_ratios_that_take_turns_do_not_repeat_what_is_done_for_each_leaf(per_leaf):
    """Leaf by leaf as well the leaves are one vector, flattened and restored once."""
    ratios = (0.04, 0.02, 0.01)
    joined = gmc_jax.join_channels([channel(r, per_leaf) for r in ratios], [1, 2])
    text = lowered(50, joined)
    alone = lowered(50, channel(0.01))
    operations = [
        *(f"stablehlo.{name} " for name in ("dynamic_slice", "dynamic_update_slice")),
        *("stablehlo.add ", "call @dynamic_index_in_dim"),
    ]
    for operation in operations:
        # Each ratio may do so once or twice more, in its own selection.
        most = 2 * alone.count(operation) + 2 * len(ratios)
        assert text.count(operation) <= most, operation


def test_ratios_that_take_turns_write_each_message_once():
    """Into what is lost, and into the mean, however many sizes the leaves have."""
    ratios = (0.04, 0.01)
    joined = gmc_jax.join_channels([channel(r, per_leaf=True) for r in ratios], [1])
    text = lowered(14, joined)
    assert text.count('"stablehlo.scatter"') == 2 * len(ratios)


def test_slices_start_at_run_time_on_cpus_alone():
    on_cpu, elsewhere = (
        lowered(26, CHANNELS["random_block"](), platform)
        for platform in ("cpu", "cuda")
    )
    assert on_cpu.count("stablehlo.dynamic_slice") > 26
    assert elsewhere.count("stablehlo.dynamic_update_slice") == 0
