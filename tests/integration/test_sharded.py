"""Workers of several devices: models that are split inside a worker."""

import functools
import itertools
import math
import re
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gmc_jax
from gmc_jax import all_gather, all_reduce, exact, random_block, top_k
from gmc_jax.costs.accounting import Lowerable
from tests.support.harness import step_of

STEPS = 4
SHAPES = {"in": (12, 32), "bias": (32,), "out": (32, 8), "shift": (8,)}
# A layer by its columns and the next by its rows, so that one sum ends the two.
MODEL = {"in": (None, "inner"), "bias": ("inner",), "out": ("inner", None), "shift": ()}
# Every leaf by its first dimension, and the batch as well.
FSDP = {
    "in": ("inner", None),
    "bias": ("inner",),
    "out": ("inner",),
    "shift": ("inner",),
}
LARGEST = all_gather(top_k(0.05), per_leaf=True)


def mesh_of(workers: int, inner: str = "model") -> Mesh:
    return Mesh(np.array(jax.devices()).reshape(workers, -1), ("workers", inner))


def specs_of(how: dict, inner: str) -> dict[str, PartitionSpec]:
    return {
        name: PartitionSpec(*(inner if axis else None for axis in axes))
        for name, axes in how.items()
    }


def params() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        name: draw.normal(size=shape).astype(np.float32) / 4
        for name, shape in SHAPES.items()
    }


def place(tree, mesh: Mesh, specs):
    return jax.tree.map(
        lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec)), tree, specs
    )


def batches(workers: int):
    draw = np.random.default_rng(1)
    inputs = draw.normal(size=(STEPS, workers, 8, 12)).astype(np.float32)
    targets = draw.normal(size=(STEPS, workers, 8, 8)).astype(np.float32)
    return [(inputs[t], targets[t]) for t in range(STEPS)]


def loss_fn(params, batch):
    inputs, targets = batch
    hidden = jnp.tanh(inputs @ params["in"] + params["bias"])
    return jnp.mean((hidden @ params["out"] + params["shift"] - targets) ** 2)


METHODS = {
    "gmc": gmc_jax.gmc(0.1, LARGEST),
    "gmc of the whole vector": gmc_jax.gmc(0.1, all_gather(top_k(0.05))),
    "late gmc": gmc_jax.gmc(
        0.02, all_gather(top_k(0.05), per_leaf=True, delay=1), momentum=0.5
    ),
    "gmc+": gmc_jax.gmc_plus(0.1, LARGEST),
    "ef_sgd": gmc_jax.ef_sgd(0.1, gmc_jax.count_entries(LARGEST)),
    "dgc": gmc_jax.dgc(0.1, LARGEST),
    "cser": gmc_jax.cser(
        0.1,
        all_reduce(random_block(0.1), per_leaf=True),
        all_reduce(random_block(0.5), per_leaf=True, seed=1),
        period=2,
    ),
    "dmsgd_local": gmc_jax.dmsgd_local(0.1, exact()),
    "slowmo": gmc_jax.slowmo(optax.adam(0.01), exact(), period=2),
    "gmc between syncs": gmc_jax.periodic(
        optax.sgd(0.1), gmc_jax.gmc(1.0, LARGEST), period=2
    ),
    "qsparse_local_sgd": gmc_jax.qsparse_local_sgd(0.1, LARGEST, period=2),
    "muloco": gmc_jax.muloco(optax.contrib.muon(0.02), LARGEST, period=2),
    "easgd": gmc_jax.easgd(optax.sgd(0.1), LARGEST, period=2),
    "cocod_sgd": gmc_jax.cocod_sgd(optax.sgd(0.1), LARGEST, period=2),
    "overlap_local_sgd": gmc_jax.overlap_local_sgd(optax.sgd(0.1), LARGEST, period=2),
    "streaming": gmc_jax.streaming(
        optax.sgd(0.1),
        gmc_jax.error_feedback(LARGEST),
        optax.scale(-1.0),
        period=2,
        fragments=lambda path: int(path in ("in", "shift")),
        delay=1,
        merge=gmc_jax.corrected(),
    ),
    "d_psgd": gmc_jax.d_psgd(0.1, gmc_jax.topologies.ring(4)),
    "choco_sgd": gmc_jax.choco_sgd(
        0.1,
        gmc_jax.gossip_differences(gmc_jax.topologies.ring(4), top_k(0.05), 0.3),
    ),
    "signum": gmc_jax.signum(0.01, gmc_jax.majority_vote()),
}


# Fragments, and matrices apart from vectors, have states of their own.
IN_PARTS = ("streaming", "muloco")


class Run(NamedTuple):
    """A run on a mesh, and the program that it was."""

    train: Lowerable
    laid_out: tuple  # the shardings of the first state
    state: tuple
    losses: np.ndarray
    mesh: Mesh
    traces: list[int]  # how often the step was, before the first and after each call
    donated: bool  # whether the first state was


@functools.cache
def simulated(method: str, workers: int):
    tx = METHODS[method]
    state = jax.tree.map(jnp.asarray, params())
    given = batches(workers)
    train, state = gmc_jax.simulate(
        step_of(tx, loss_fn), (state, tx.init(state)), given[0], workers
    )
    losses = []
    for batch in given:
        state, metrics = train(state, batch)
        losses.append(np.array(metrics["loss"]))
    return jax.tree.map(np.array, state), np.stack(losses)


@functools.cache
def distributed(method: str, workers: int, how: str) -> Run:
    tx, mesh = METHODS[method], mesh_of(workers, how)
    placed = place(params(), mesh, specs_of(MODEL if how == "model" else FSDP, how))
    given = batches(workers)
    if how == "fsdp":  # Each device takes its own examples.
        split = NamedSharding(mesh, PartitionSpec("workers", "fsdp"))
        given = [jax.device_put(batch, split) for batch in given]
    step, count = step_of(tx, loss_fn), itertools.count()

    def counted_step(state, batch):
        next(count)
        return step(state, batch)

    train, first = gmc_jax.distribute(
        counted_step, (placed, tx.init(placed)), given[0], mesh=mesh
    )
    laid_out = jax.tree.map(lambda leaf: leaf.sharding, first)
    state, losses, traces = first, [], [next(count)]
    for batch in given:
        state, metrics = train(state, batch)
        losses.append(gmc_jax.fetch(metrics["loss"]))
        traces.append(next(count) - len(traces))
    donated = all(leaf.is_deleted() for leaf in jax.tree.leaves(first))
    # What was given is not.
    chex.assert_trees_all_equal(gmc_jax.fetch(placed), params())
    return Run(train, laid_out, state, np.stack(losses), mesh, traces, donated)


def text_of(train: Lowerable, *args) -> str:
    return train.lower(*args).compile().as_text() or ""


def sizes_in(text: str) -> set[int]:
    """The numbers of entries of all arrays in a program."""
    shapes = re.findall(r"\b[a-z]+\d*\w*\[([\d,]+)\]", text)
    return {math.prod(map(int, shape.split(","))) for shape in shapes}


# Every method split in both ways, on the two meshes in turn; on all of them one that
# gathers leaf by leaf, one that gathers the whole vector, and one that reduces.
WAYS = [
    ("gmc", 4, "fsdp"),
    *(
        pytest.param(method, workers, how, marks=pytest.mark.slow)
        for turn, method in enumerate(METHODS)
        for workers, how in ((2, "model"), (4, "model"), (2, "fsdp"), (4, "fsdp"))
        if (method, workers, how) != ("gmc", 4, "fsdp")
        and (method not in ("d_psgd", "choco_sgd") or workers == 4)
        and (
            method in ("gmc", "gmc of the whole vector", "cser", "d_psgd", "choco_sgd")
            or (workers == 4) == ((turn + (how == "fsdp")) % 2)
        )
    ),
]


def without_messages(state):
    """Devices fill the slots of a message in their order; in flight is the same."""

    def is_late(node) -> bool:
        return isinstance(node, gmc_jax.DelayedMessagesState)

    return jax.tree.map(
        lambda node: node.in_flight if is_late(node) else node, state, is_leaf=is_late
    )


@pytest.mark.parametrize(("method", "workers", "how"), WAYS)
def test_a_split_model_trains_as_a_whole_one(method, workers, how):
    run = distributed(method, workers, how)
    state, losses = simulated(method, workers)

    ours, state = without_messages(gmc_jax.fetch(run.state)), without_messages(state)
    chex.assert_trees_all_close(ours, state, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run.losses, losses, rtol=1e-4)
    gmc_jax.assert_replicated(run.state)
    assert np.abs(state[0]["in"] - params()["in"]).max() > 1e-3
    after = jax.tree.map(lambda leaf: leaf.sharding, run.state)
    assert after == run.laid_out


def test_every_device_holds_its_part_of_parameters_momentum_and_residual():
    for run in (distributed("gmc", 2, "model"), distributed("gmc", 4, "fsdp")):
        weights, (momentum, _) = run.state
        workers, inner = run.mesh.devices.shape
        for tree in (weights, momentum.momentum, momentum.inner.residual):
            own = tree is momentum.inner.residual
            for name, leaf in tree.items():
                whole = inner == 4 and name == "shift"
                assert leaf.shape == ((workers,) if own else ()) + SHAPES[name]
                entries = math.prod(SHAPES[name]) // (1 if whole else inner)
                held = [shard.data.size for shard in leaf.addressable_shards]
                assert held == [entries] * 8


def test_no_device_ever_holds_a_whole_leaf():
    """The program of one device has no array of as many entries as the larger leaf."""
    run = distributed("gmc", 2, "model")
    largest = max(sizes_in(text_of(run.train, run.state, batches(2)[0])))
    assert largest < math.prod(SHAPES["out"]) < math.prod(SHAPES["in"])
    # A block of the parts of all leaves together is the largest there may be.
    assert largest >= math.prod(SHAPES["in"]) / 4


def test_the_search_for_whole_leaves_can_find_one():
    """As XLA selects the largest entries of an array that is split."""
    mesh = mesh_of(2)
    placed = place(params(), mesh, specs_of(MODEL, "model"))

    def step(state, batch):
        del batch
        flat = state["in"].ravel()
        values, places = jax.lax.top_k(jnp.abs(flat), 5)
        state = {**state, "in": flat.at[places].add(values).reshape(SHAPES["in"])}
        return state, None

    train, state = gmc_jax.distribute(step, placed, np.zeros(2), mesh=mesh)
    text = text_of(train, state, np.zeros(2))
    assert max(sizes_in(text)) >= math.prod(SHAPES["in"])


def test_a_worker_sends_one_message_however_many_devices_it_is():
    """To which padding adds less than an entry a device and a dtype."""
    run = distributed("gmc", 2, "model")
    sent = gmc_jax.wire_bytes(run.train, run.state, batches(2)[0])
    message = gmc_jax.message_bits(LARGEST, params()) // 8
    assert message <= sent.always < message + 2 * 4 * 4
    assert sent == sent.always
    assert [operation.operation for operation in sent.operations] == ["all-gather"] * 2


def test_a_mean_that_is_exact_is_sent_once():
    """Part by part, and what is whole on all devices of a worker in slices."""
    mesh = mesh_of(2)
    placed = place(params(), mesh, specs_of(MODEL, "model"))
    tx = gmc_jax.dmsgd(0.1, exact())
    state, batch = (placed, tx.init(placed)), batches(2)[0]
    train, state = gmc_jax.distribute(step_of(tx, loss_fn), state, batch, mesh=mesh)
    sent = gmc_jax.wire_bytes(train, state, batch)
    assert sent == gmc_jax.message_bits(exact(), params()) // 8
    text = text_of(train, state, batch)
    assert max(sizes_in(text)) < math.prod(SHAPES["out"])


def test_the_program_is_traced_once_and_the_state_donated():
    run = distributed("gmc", 2, "model")
    planned, first, *later = run.traces
    assert first == planned + 1
    assert set(later) == {first}
    assert run.donated


@pytest.mark.slow
def test_what_reads_a_state_reads_one_that_is_split():
    run = distributed("cser", 4, "model")
    tx, state = METHODS["cser"], params()
    plan = gmc_jax.layout(
        step_of(tx, loss_fn), (state, tx.init(state)), batches(4)[0], 4
    )
    whole, _ = simulated("cser", 4)
    evaluated = gmc_jax.evaluate(run.state[1], run.state[0], plan)
    chex.assert_trees_all_close(
        gmc_jax.fetch(evaluated),
        gmc_jax.fetch(gmc_jax.evaluate(whole[1], whole[0], plan)),
        rtol=1e-4,
        atol=1e-5,
    )
    mean = gmc_jax.average_workers(run.state, plan)[0]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(
        lambda leaf, kept: close(leaf, np.asarray(kept).mean(axis=0)),
        gmc_jax.fetch(mean),
        gmc_jax.fetch(run.state[0]),
    )


def test_the_layout_does_not_depend_on_where_arrays_are():
    mesh, tx = mesh_of(2), METHODS["gmc"]
    placed = place(params(), mesh, specs_of(MODEL, "model"))
    step, batch = step_of(tx, loss_fn), batches(2)[0]
    plans = [
        gmc_jax.layout(step, (tree, tx.init(tree)), batch, 2)
        for tree in (placed, params())
    ]
    assert plans[0].differs == plans[1].differs
    assert any(jax.tree.leaves(plans[0].differs))


@pytest.mark.slow
def test_simulate_takes_a_state_that_is_split():
    mesh, tx = mesh_of(2), METHODS["gmc"]
    placed = place(params(), mesh, specs_of(MODEL, "model"))
    step, state = step_of(tx, loss_fn), (placed, tx.init(placed))
    train, kept = gmc_jax.simulate(step, state, batches(2)[0], 2)
    for batch in batches(2):
        kept, _ = train(kept, batch)
    expected, _ = simulated("gmc", 2)
    chex.assert_trees_all_close(gmc_jax.fetch(kept), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "init",
    [
        *(tx.init for name, tx in METHODS.items() if name not in IN_PARTS),
        optax.adamw(0.1).init,
        optax.trace(0.9).init,
        gmc_jax.gossip(gmc_jax.topologies.ring(2), delay=1).init,
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_mirrors_the_parameters_is_split_as_they_are(init, dtype):
    specs = specs_of(MODEL, "model")
    cast = jax.tree.map(lambda leaf: leaf.astype(jnp.dtype(dtype)), params())
    state = init(place(cast, mesh_of(2), specs))
    mirrors = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = getattr(path[-1], "key", None) if path else None
        if name in SHAPES and leaf.shape == SHAPES[name]:
            assert leaf.sharding.spec == specs[name], path
            mirrors += 1
    assert mirrors % len(SHAPES) == 0


@pytest.mark.parametrize("name", IN_PARTS)
def test_what_mirrors_a_part_of_the_parameters_is_split_as_it_is(name):
    specs = specs_of(MODEL, "model")
    state = METHODS[name].init(place(params(), mesh_of(2), specs))
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = getattr(path[-1], "key", None)
        if name in SHAPES:
            assert leaf.sharding.spec == specs[name], path


@pytest.mark.slow
def test_an_explicit_mesh_may_have_placed_the_parameters():
    mesh = jax.make_mesh((2, 4), ("workers", "model"), (AxisType.Explicit,) * 2)
    placed = place(params(), mesh, specs_of(MODEL, "model"))
    tx = METHODS["gmc"]
    train, state = gmc_jax.distribute(
        step_of(tx, loss_fn), (placed, tx.init(placed)), batches(2)[0], mesh=mesh
    )
    laid_out = jax.tree.map(lambda leaf: leaf.sharding, state)
    assert laid_out == distributed("gmc", 2, "model").laid_out
    for batch in batches(2):
        state, _ = train(state, batch)
    chex.assert_trees_all_equal(
        gmc_jax.fetch(state), gmc_jax.fetch(distributed("gmc", 2, "model").state)
    )
