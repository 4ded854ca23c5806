"""One step, three ways to run it: the same numbers, each worker its own gradient."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gmc_jax
from gmc_jax import (
    accumulate,
    all_gather,
    all_reduce,
    count_entries,
    dense,
    exact,
    query,
    random_block,
    random_k,
    sampled_top_k,
    skip_nonfinite,
    top_k,
    worker_key,
)
from tests.support import problems
from tests.support.harness import RUNNERS, WORKERS, close, pmap, simulate, start

STEPS, D = 12, 20

METHODS = {
    "dmsgd": gmc_jax.dmsgd,
    "dmsgd_local": gmc_jax.dmsgd_local,
    "ef_sgd": gmc_jax.ef_sgd,
    "ef_momentum": gmc_jax.ef_momentum,
    "gmc": gmc_jax.gmc,
    "gmc_server_momentum": gmc_jax.gmc_server_momentum,
    "gmc_rate_inside": gmc_jax.gmc_rate_inside,
    "dgc": gmc_jax.dgc,
    "dgc without masking": functools.partial(gmc_jax.dgc, factor_masking=False),
    "accumulated gmc": lambda *how: accumulate(gmc_jax.gmc(*how), 3),
    "guarded gmc": lambda *how: skip_nonfinite(gmc_jax.gmc(*how)),
}
CHANNELS = {
    "top_k": all_gather(top_k(0.2)),
    "exact": exact(),
    "sampled_top_k": all_gather(sampled_top_k(0.2, sample=0.5)),
    "random_k": all_reduce(random_k(0.2), seed=1),
    "random_block": all_reduce(random_block(0.2), seed=2),
    "top_k per leaf": all_gather(top_k(0.2), per_leaf=True),
    "dense": all_gather(dense()),
    "count_entries": count_entries(all_gather(top_k(0.2))),
}
# Every method at least once, and every channel at least twice.
PAIRS = [
    *zip(METHODS, itertools.cycle(CHANNELS), strict=False),
    *(("gmc", channel) for channel in CHANNELS if channel != "top_k per leaf"),
]

EVERYWHERE = {**RUNNERS, "pmap": pmap}

every_runner = pytest.mark.parametrize(
    "runner", EVERYWHERE.values(), ids=EVERYWHERE.keys()
)
both_runners = pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS.keys())


@functools.cache
def targets(workers: int = WORKERS):
    """Where each worker pulls to at each step: [STEPS, workers, D]."""
    draw = np.random.default_rng(0)
    values = draw.normal(size=(STEPS, WORKERS, D))[:, :workers]
    return values.astype(np.float32)


def loss_fn(params, target):
    weights = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
    return jnp.sum(jnp.cosh(weights - target))


def step_of(tx):
    """The step that every user writes; its metrics tell all that it saw."""

    def step(state, batch):
        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(query(opt_state, params), batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        seen = {"loss": loss, "grads": grads, "params": params}
        return (optax.apply_updates(params, updates), opt_state), seen

    return step


def drive(runner, step, state, batches):
    """The last state as it is kept, and the metrics of all steps in NumPy."""
    train, state = runner(step, state, batches[0])
    metrics = []
    for batch in batches:
        state, out = train(state, batch)
        metrics.append(jax.tree.map(np.array, out))
    return state, jax.tree.map(lambda *leaves: np.stack(leaves), *metrics)


def drive_tx(runner, tx, batches=None):
    batches = targets() if batches is None else batches
    return drive(runner, step_of(tx), (start(), tx.init(start())), batches)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "channel"), PAIRS)
def test_simulate_distribute_and_pmap_agree(method, channel):
    tx = METHODS[method](0.01, CHANNELS[channel])
    state, metrics = drive_tx(simulate, tx)
    for other in (gmc_jax.distribute, pmap):
        other_state, other_metrics = drive_tx(other, tx)
        close(metrics, other_metrics)
        close(jax.tree.map(np.array, state), jax.tree.map(np.array, other_state))
        gmc_jax.assert_replicated(other_state)
    # Something has happened, and every worker saw the same parameters.
    weights = problems.flat(metrics["params"], leading=2)
    assert np.abs(weights[-1] - weights[0]).max() > 0.01
    np.testing.assert_array_equal(weights, weights[:, :1].repeat(WORKERS, axis=1))


GRADIENTS = {
    "plain": jax.grad(loss_fn),
    "jit": jax.jit(jax.grad(loss_fn)),
    "checkpoint": jax.grad(jax.checkpoint(loss_fn)),
    "vmap over examples": lambda params, batch: jax.tree.map(
        lambda leaf: leaf.sum(axis=0),
        jax.vmap(jax.grad(loss_fn), in_axes=(None, 0))(params, batch[None]),
    ),
    "scan": lambda params, batch: jax.lax.scan(
        lambda sums, target: (
            jax.tree.map(jnp.add, sums, jax.grad(loss_fn)(params, target)),
            None,
        ),
        jax.tree.map(jnp.zeros_like, params),
        batch[None],
    )[0],
    "vjp": lambda params, batch: jax.vjp(lambda w: loss_fn(w, batch), params)[1](1.0)[
        0
    ],
    "forward": lambda params, batch: jax.jacfwd(loss_fn)(params, batch),
    "unrolled": gmc_jax.unrolled(jax.grad(loss_fn)),
}


@every_runner
@pytest.mark.parametrize("how", GRADIENTS)
def test_gradients_inside_the_step_are_each_workers_own(how, runner):
    """Not summed over workers behind our back, as `shard_map` by default does."""
    tx = gmc_jax.gmc(0.01, CHANNELS["top_k"])

    def step(state, batch):
        params, opt_state = state
        grads = GRADIENTS[how](params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), (params, grads)

    state = start(), tx.init(start())
    _, (params, grads) = drive(runner, step, state, targets()[:3])

    expected = jax.vmap(jax.vmap(jax.grad(loss_fn)))(params, targets()[:3])
    close(grads, jax.tree.map(np.array, expected))
    for worker in range(1, WORKERS):
        for leaf in jax.tree.leaves(grads):
            assert np.abs(leaf[:, worker] - leaf[:, 0]).max() > 0.1


@every_runner
def test_metrics_of_any_kind_have_a_leading_axis_of_workers(runner):
    def step(state, batch):
        metrics = {
            "own": batch.sum(),
            "same": jax.lax.psum(1.0, "workers"),
            "number": 2.5,
            "vector": batch,
            "flag": batch[0] > 0,
            "count": jnp.int32(3),
            "nothing": None,
        }
        return state + jax.lax.pmean(batch, "workers"), metrics

    batch = targets()[0]
    train, state = runner(step, jnp.zeros(D), batch)
    _, metrics = train(state, batch)

    np.testing.assert_allclose(metrics.pop("own"), batch.sum(axis=1), rtol=1e-5)
    assert metrics.pop("nothing") is None
    np.testing.assert_array_equal(metrics.pop("vector"), batch)
    np.testing.assert_array_equal(metrics.pop("flag"), batch[:, 0] > 0)
    for name, value in {"same": WORKERS, "number": 2.5, "count": 3}.items():
        np.testing.assert_array_equal(metrics[name], [value] * WORKERS)
    assert metrics["count"].dtype == np.int32


# Where the arrays are.


def test_parameters_are_replicated_and_each_device_holds_its_own_residual():
    tx = gmc_jax.gmc(0.01, CHANNELS["top_k"])
    train, laid_out = gmc_jax.distribute(
        step_of(tx), (start(), tx.init(start())), targets()[0]
    )
    places = jax.tree.map(lambda leaf: leaf.sharding, laid_out)
    state, metrics = train(laid_out, targets()[0])

    params, (momentum, _) = state
    for leaf in jax.tree.leaves((params, momentum.momentum)):
        assert leaf.sharding.is_fully_replicated
        assert len(leaf.sharding.device_set) == WORKERS
        assert leaf.addressable_data(3).shape == leaf.shape
    residual = momentum.inner.residual
    for leaf, like in zip(
        jax.tree.leaves(residual), jax.tree.leaves(params), strict=True
    ):
        assert leaf.shape == (WORKERS, *like.shape)
        shards = leaf.addressable_shards
        assert [shard.data.shape for shard in shards] == [(1, *like.shape)] * WORKERS
        assert len({shard.device for shard in shards}) == WORKERS
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == places
    assert not metrics["loss"].sharding.is_fully_replicated
    # Ordinary arrays: whatever one does next, one can do with them.
    assert jnp.isfinite(loss_fn(params, targets()[0, 0]))


def test_the_state_of_gmc_is_one_residual_per_worker_and_one_shared_vector():
    tx = gmc_jax.gmc(0.01, CHANNELS["top_k"])
    state = start(), tx.init(start())
    one = jax.tree.leaves(tx.init(start()))
    assert sum(leaf.size for leaf in one if leaf.ndim) == 2 * D
    assert sum(leaf.size for leaf in one if not leaf.ndim) < D / 2

    (_, simulated), _ = drive(simulate, step_of(tx), state, targets()[:1])
    leaves = jax.tree.leaves(simulated)
    assert sum(leaf.size for leaf in leaves if leaf.ndim) == (WORKERS + 1) * D

    (_, distributed), _ = drive(gmc_jax.distribute, step_of(tx), state, targets()[:1])
    for device in jax.devices():
        held = [
            shard.data
            for leaf in jax.tree.leaves(distributed)
            for shard in leaf.addressable_shards
            if shard.device == device
        ]
        assert sum(data.size for data in held if data.ndim) == 2 * D


# Donation.


@both_runners
def test_the_state_is_donated_and_the_users_own_arrays_are_not(runner):
    tx = gmc_jax.dmsgd_local(0.01, exact())
    mine = start(), tx.init(start())
    before = jax.tree.map(np.array, mine)
    train, laid_out = runner(step_of(tx), mine, targets()[0])
    state, _ = train(laid_out, targets()[0])
    state, _ = train(state, targets()[1])

    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(laid_out))
    chex.assert_trees_all_equal(jax.tree.map(np.array, mine), before)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))


@both_runners
def test_numpy_arrays_in_the_state_are_not_overwritten(runner):
    """Even where the CPU could use their memory as it is."""
    memory = np.zeros(4 * D + 64, np.uint8)
    aligned = memory[-memory.ctypes.data % 64 :][: 4 * D].view(np.float32)

    def step(state, batch):
        return 2 * state + jax.lax.pmean(batch, "workers") + 1, None

    train, state = runner(step, aligned, targets()[0])
    for _ in range(3):
        state, _ = train(state, np.zeros_like(targets()[0]))
    np.testing.assert_array_equal(state, np.full(D, 7))
    np.testing.assert_array_equal(aligned, np.zeros(D))
    gmc_jax.assert_replicated(state)


@every_runner
def test_one_array_may_occur_twice_in_the_state(runner):
    """An anchor that starts as the parameters, and a step that returns it so."""

    def step(state, batch):
        params, anchor = state
        params = params + jax.lax.pmean(batch, "workers")
        return (params, jnp.where(batch[0] < 99, params, anchor)), anchor.sum()

    def alias(state, batch):
        params = state[0] + jax.lax.pmean(batch, "workers")
        return (params, params), params.sum()

    for fn in (step, alias):
        params = jnp.zeros(D)
        state, _ = drive(runner, fn, (params, params), targets()[:3])
        expected = targets()[:3].mean(axis=1).sum(axis=0)
        np.testing.assert_allclose(state[0], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(params, np.zeros(D))


@both_runners
def test_the_step_is_traced_once_for_training(runner):
    """Also with Python numbers in the state, which come back as arrays."""
    traces = []

    def step(state, batch):
        traces.append(None)
        weights, count, rate = state
        weights = weights - rate * jax.lax.pmean(batch, "workers")
        return (weights, count + 1, rate * 0.5), None

    train, state = runner(step, (jnp.zeros(D), 0, 1.0), targets()[0])
    traced_before = len(traces)
    assert traced_before <= 3
    for batch in targets()[:3]:
        state, _ = train(state, batch)
    assert len(traces) == traced_before + 1
    assert int(state[1]) == 3


# What a state may hold.


@every_runner
def test_the_state_may_hold_random_keys(runner):
    """Typed and raw ones, shared ones and a worker's own."""

    def step(state, batch):
        typed, raw, own, seed = state
        typed, draw = jax.random.split(typed)
        raw = jax.random.split(raw, 2)[0]
        own = jax.random.fold_in(own, jax.lax.axis_index("workers"))
        mine = worker_key(draw)
        metrics = {
            "shared": jax.random.uniform(draw),
            "raw": jax.random.uniform(raw),
            "own": jax.random.uniform(own),
            "worker_key": jax.random.uniform(mine),
            "raw worker_key": jax.random.uniform(worker_key(raw)),
        }
        return (typed, raw, own, worker_key(seed)), metrics

    keys = [jax.random.key(0), jax.random.PRNGKey(1), jax.random.key(2)]
    state = (*keys, jax.random.PRNGKey(3))
    state, metrics = drive(runner, step, state, targets()[:2])

    assert [leaf.shape for leaf in state] == [(), (2,), (WORKERS,), (WORKERS, 2)]
    for name, draws in metrics.items():
        distinct = 1 if name in ("shared", "raw") else WORKERS
        assert [len(set(step)) for step in draws.tolist()] == [distinct] * 2
        assert len(set(draws.ravel().tolist())) == 2 * distinct

    typed = jax.random.key(0)
    for t in range(2):
        typed, draw = jax.random.split(typed)
        expected = [
            jax.random.uniform(jax.random.fold_in(draw, k)) for k in range(WORKERS)
        ]
        np.testing.assert_allclose(metrics["worker_key"][t], expected, rtol=1e-6)


@every_runner
def test_leaves_that_differ_start_from_the_given_values(runner):
    def step(state, batch):
        weights, key = state
        return (weights + batch, worker_key(key)), (weights, jax.random.uniform(key))

    state = jnp.arange(1.0, D + 1), jax.random.key(5)
    state, (weights, draws) = drive(runner, step, state, targets()[:2])
    np.testing.assert_array_equal(weights[0], [np.arange(1.0, D + 1)] * WORKERS)
    np.testing.assert_allclose(weights[1], weights[0] + targets()[0], rtol=1e-6)
    first = jax.random.key(5)
    assert set(draws[0].tolist()) == {float(jax.random.uniform(first))}
    expected = [jax.random.uniform(jax.random.fold_in(first, k)) for k in range(8)]
    np.testing.assert_allclose(draws[1], expected, rtol=1e-6)


@both_runners
def test_float64_states_keep_their_precision(runner):
    with jax.enable_x64(True):
        tx = gmc_jax.gmc(0.01, exact())
        params = problems.tree(np.linspace(-2, 2, D))
        batches = targets()[:3].astype(np.float64)
        state, _ = drive(runner, step_of(tx), (params, tx.init(params)), batches)
        assert {leaf.dtype for leaf in jax.tree.leaves(state[0])} == {np.dtype("f8")}
        weights = np.linspace(-2, 2, D)
        momentum = 0
        for t in range(3):
            momentum = 0.9 * momentum + np.sinh(weights - targets()[t]).mean(axis=0)
            weights = weights - 0.01 * momentum
        np.testing.assert_allclose(
            problems.flat(jax.tree.map(np.array, state[0])), weights, rtol=1e-13
        )


# Meshes.


def devices(*shape: int) -> np.ndarray:
    return np.array(jax.devices()[: np.prod(shape)]).reshape(shape)


MESHES = {
    "default of make_mesh": lambda: jax.make_mesh((8,), ("workers",)),
    "explicit": lambda: jax.make_mesh(
        (8,), ("workers",), axis_types=(AxisType.Explicit,)
    ),
    "four devices": lambda: Mesh(devices(4), ("workers",)),
    "backwards": lambda: Mesh(devices(8)[::-1], ("workers",)),
    "4 x 2": lambda: Mesh(devices(4, 2), ("workers", "model")),
    "2 x 4": lambda: Mesh(devices(2, 4), ("model", "workers")),
    "explicit 4 x 2": lambda: jax.make_mesh(
        (4, 2), ("workers", "model"), axis_types=(AxisType.Explicit,) * 2
    ),
    "one worker": lambda: Mesh(devices(1), ("workers",)),
    "one worker of 8 devices": lambda: Mesh(devices(1, 8), ("workers", "model")),
}


@functools.cache
def simulated(workers: int):
    tx = gmc_jax.gmc(0.01, CHANNELS["top_k"])

    def runner(step, state, batch):
        return gmc_jax.simulate(step, state, batch, workers)

    state, _ = drive_tx(runner, tx, targets(workers)[:4])
    return jax.tree.map(np.array, state)


@pytest.mark.parametrize("name", MESHES)
def test_any_mesh_with_the_axis_is_accepted(name):
    mesh = MESHES[name]()
    workers = mesh.shape["workers"]
    tx = gmc_jax.gmc(0.01, CHANNELS["top_k"])
    runner = functools.partial(gmc_jax.distribute, mesh=mesh)
    state, _ = drive_tx(runner, tx, targets(workers)[:4])

    close(jax.tree.map(np.array, state), simulated(workers))
    gmc_jax.assert_replicated(state)
    params, _ = state
    for leaf in jax.tree.leaves(params):
        assert leaf.sharding.is_fully_replicated
        assert leaf.sharding.device_set == set(mesh.devices.flat)


@pytest.mark.parametrize("name", ["explicit", "explicit 4 x 2"])
def test_an_explicit_mesh_may_be_set_and_hold_the_batch(name):
    mesh = MESHES[name]()
    workers = mesh.shape["workers"]
    tx = gmc_jax.gmc(0.01, CHANNELS["top_k"])
    runner = functools.partial(gmc_jax.distribute, mesh=mesh)
    place = NamedSharding(mesh, PartitionSpec("workers"))
    batches = [jax.device_put(batch, place) for batch in targets(workers)[:4]]
    with jax.set_mesh(mesh):
        state, _ = drive_tx(runner, tx, batches)
    close(jax.tree.map(np.array, state), simulated(workers))


def test_one_worker_runs_everywhere():
    tx = gmc_jax.gmc(0.01, CHANNELS["top_k"])
    step, state, batch = step_of(tx), (start(), tx.init(start())), targets(1)[0]
    layout = gmc_jax.layout(step, state, batch, 1)
    axes = (layout.axes, 0)
    train = jax.pmap(step, axis_name="workers", in_axes=axes, out_axes=axes)
    state = layout.lay_out(state)
    for batch in targets(1)[:4]:
        state, _ = train(state, batch)
    close(jax.tree.map(np.array, state), simulated(1))


@pytest.mark.parametrize("workers", [None, 4])
def test_the_axis_may_have_another_name(workers):
    tx = gmc_jax.gmc(0.01, all_gather(top_k(0.2), axis_name="hosts"))
    step, state = step_of(tx), (start(), tx.init(start()))
    if workers:
        train, state = gmc_jax.simulate(
            step, state, targets(4)[0], workers, axis_name="hosts"
        )
    else:
        mesh = Mesh(devices(4), ("hosts",))
        train, state = gmc_jax.distribute(
            step, state, targets(4)[0], mesh=mesh, axis_name="hosts"
        )
    for batch in targets(4)[:4]:
        state, _ = train(state, batch)
    close(jax.tree.map(np.array, state), simulated(4))


# Errors.


def test_a_mesh_without_the_axis_is_an_error():
    tx = gmc_jax.gmc(0.01, exact())
    state = start(), tx.init(start())
    mesh = Mesh(devices(4, 2), ("data", "model"))
    message = (
        r"`mesh` must have an axis 'workers'.* axes \('data', 'model'\).*`axis_name`"
    )
    with pytest.raises(ValueError, match=message):
        gmc_jax.distribute(step_of(tx), state, targets()[0], mesh=mesh)


def test_workers_and_devices_must_match():
    tx = gmc_jax.gmc(0.01, exact())
    state = start(), tx.init(start())
    message = r"leading axis of 4 workers .*shape \(8, 20\) for `batch`.*mesh's axis"
    with pytest.raises(ValueError, match=message):
        gmc_jax.distribute(
            step_of(tx), state, targets()[0], mesh=Mesh(devices(4), ("workers",))
        )


@both_runners
def test_every_batch_has_a_leading_axis_of_workers(runner):
    tx = gmc_jax.gmc(0.01, exact())
    state = start(), tx.init(start())
    with pytest.raises(ValueError, match="leading axis of 8 workers"):
        runner(step_of(tx), state, targets(4)[0])
    train, state = runner(step_of(tx), state, targets()[0])
    with pytest.raises(ValueError, match="leading axis of 8 workers"):
        train(state, targets(4)[0])
    train(state, targets()[0])


@both_runners
def test_parameters_that_differ_under_a_synchronous_method_are_an_error(runner):
    tx = optax.apply_if_finite(gmc_jax.gmc(0.01, exact()), 3)
    state = start(), tx.init(start())
    message = (
        r"`replicated` selects must be the same .*`state\[0\]\['bias'\]`, "
        r"`state\[0\]\['kernel'\]`.*skip_nonfinite"
    )
    with pytest.raises(ValueError, match=message):
        runner(step_of(tx), state, targets()[0], replicated=lambda state: state[0])


@both_runners
def test_replicated_accepts_a_synchronous_method(runner):
    tx = gmc_jax.gmc(0.01, CHANNELS["top_k"])
    state = start(), tx.init(start())
    runner(step_of(tx), state, targets()[0], replicated=lambda state: state[0])
    with pytest.raises(ValueError, match=r"state\[1\]\[0\].inner.residual"):
        runner(step_of(tx), state, targets()[0], replicated=lambda state: state)


@pytest.mark.parametrize(
    ("wrapped", "caller"),
    [
        (lambda: gmc_jax.gmc(0.1, CHANNELS["top_k"]), "all_gather"),
        (lambda: gmc_jax.gmc(0.1, CHANNELS["random_k"]), "all_reduce"),
        (lambda: gmc_jax.gmc(0.1, exact()), "exact"),
        (lambda: skip_nonfinite(optax.sgd(0.1)), "skip_nonfinite"),
    ],
)
def test_outside_the_axis_the_error_says_how_to_get_inside(wrapped, caller):
    tx = wrapped()
    message = rf"`{caller}` needs .* 'workers'.*`gmc_jax.simulate`.*distribute"
    state = start(), tx.init(start())
    with pytest.raises(NameError, match=message):
        step_of(tx)(state, targets()[0, 0])
    with pytest.raises(NameError, match=message):
        jax.jit(step_of(tx))(state, targets()[0, 0])
    with pytest.raises(NameError, match=message):
        gmc_jax.simulate(step_of(tx), state, targets()[0], 8, axis_name="replicas")


# States of others.


def two_by(name: str):
    """A runner of two workers."""

    def by_pmap(step, state, batch):
        layout = gmc_jax.layout(step, state, batch, 2)
        axes = (layout.axes, 0)
        run = jax.pmap(
            step, "workers", in_axes=axes, out_axes=axes, devices=jax.devices()[:2]
        )
        return layout.checked(run), layout.lay_out(state)

    return {
        "simulate": functools.partial(gmc_jax.simulate, workers=2),
        "distribute": functools.partial(
            gmc_jax.distribute, mesh=Mesh(devices(2), ("workers",))
        ),
        "pmap": by_pmap,
    }[name]


def flax_state(tx) -> TrainState:
    return TrainState.create(apply_fn=None, params=start(), tx=tx)


def flax_step(state, batch):
    grads = jax.grad(loss_fn)(state.params, batch)
    return state.apply_gradients(grads=grads), {}


GMC = gmc_jax.gmc(0.01, CHANNELS["top_k"])
FLAX = flax_state(GMC)


def plain_state(tx=GMC):
    return start(), tx.init(start())


def others(kind: str):
    """A step, its state, and a state that is not of its two workers; what is said."""
    step, mine = step_of(GMC), plain_state()
    residual = r"state\[1\]\[0\].inner.residual\['bias'\]` must be float32\[2, 4\]"
    if kind == "four workers":
        kept = gmc_jax.layout(step, mine, targets(4)[0], 4).lay_out(mine)
        return step, mine, kept, residual + r", got float32\[4, 4\].*gmc_jax.resize"
    if kind == "never laid out":
        return step, mine, mine, residual + r", got float32\[4\].*from one call"
    if kind == "another method":
        other = plain_state(gmc_jax.dmsgd(0.01, exact()))
        return step, mine, other, r"`state\[1\]\[0\]` must be a .*, got a "
    if kind == "another type":
        layout = gmc_jax.layout(step, mine, targets(2)[0], 2)
        kept = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), layout.lay_out(mine))
        return step, mine, kept, r"must be float32\[4\], got bfloat16\[4\]"
    if kind == "another tx":
        other = flax_state(gmc_jax.gmc(0.01, CHANNELS["top_k"]))
        other = gmc_jax.layout(flax_step, other, targets(2)[0], 2).lay_out(other)
        return (
            flax_step,
            FLAX,
            other,
            r"`state.tx`, which is not an array, must be",
        )
    other = jax.tree.map(jnp.asarray, flax_state(optax.sgd(0.1)))
    return flax_step, FLAX, other, r"`state.opt_state\[0\]` must be a .*, got a "


@pytest.mark.parametrize("runner", ["simulate", "distribute", "pmap"])
@pytest.mark.parametrize(
    "kind",
    [
        "four workers",
        "never laid out",
        "another method",
        "another type",
        "another tx",
        "another TrainState",
    ],
)
def test_a_foreign_state_is_refused_in_few_words(kind, runner):
    """The kind: a state that fits by chance, and drops workers or mixes up axes.

    Nothing runs and nothing is donated, and one place is named, not two structures.
    """
    step, mine, other, message = others(kind)
    train, state = two_by(runner)(step, mine, targets(2)[0])
    for call in (train, train.lower):
        with pytest.raises(ValueError, match=message) as caught:
            call(other, targets(2)[0])
        assert len(str(caught.value).split("\n")[0]) < 600
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((state, other)))
    with pytest.raises(ValueError, match="leading axis of 2 workers"):
        train(state, targets(4)[0])


@both_runners
def test_a_state_of_the_right_shapes_may_come_from_anywhere(runner):
    """Fetched, committed to one device, read as numbers: it is the same state."""
    train, state = runner(step_of(GMC), plain_state(), targets()[0])
    state, _ = train(state, targets()[0])
    fetched = gmc_jax.fetch(state)
    expected, _ = train(state, targets()[1])
    for other in (
        fetched,
        jax.device_put(fetched, jax.devices()[0]),
        jax.tree.map(lambda leaf: leaf if leaf.ndim else leaf.item(), fetched),
    ):
        if runner is gmc_jax.distribute and other is not fetched:
            other = jax.tree.map(np.asarray, other)
        found, _ = train(other, targets()[1])
        chex.assert_trees_all_equal(gmc_jax.fetch(found), gmc_jax.fetch(expected))


def test_a_state_is_not_laid_out_twice():
    layout = gmc_jax.layout(step_of(GMC), plain_state(), targets()[0], WORKERS)
    message = r"`state` must be one worker's.*residual\['bias'\]` must be float32\[4\]"
    with pytest.raises(ValueError, match=message):
        layout.lay_out(layout.lay_out(plain_state()))


# What train carries.


@every_runner
def test_train_has_the_layout_of_its_state(runner):
    """So that it need not be traced again, nor the first state be at hand."""
    state = plain_state()
    train, kept = runner(step_of(GMC), state, targets()[0])
    layout = gmc_jax.layout(step_of(GMC), state, targets()[0], WORKERS)
    assert train.layout == layout
    assert repr(train) == f"<a step of {layout.workers} workers, compiled>"
    train.layout.check_kept(kept)
    point = gmc_jax.evaluate(kept[1], kept[0], train.layout)
    chex.assert_trees_all_equal(point, start())


# Metrics of all workers together.


@both_runners
def test_mean_metrics_are_replicated_on_every_device(runner):
    """The kind: metrics that one process cannot read without the others.

    The state is what it is with the metrics of each.
    """

    def step(state, batch):
        new = state + jax.lax.pmean(batch, "workers")
        metrics = {
            "own": batch,
            "half": batch.astype("bfloat16"),
            "index": jax.lax.axis_index("workers"),
            "flag": jax.lax.axis_index("workers") < 2,
            "number": 2.5,
            "nothing": None,
        }
        return new, metrics

    batch = targets()[0]
    each, state = runner(step, jnp.zeros(D), batch)
    expected, rows = each(state, batch)
    mean, state = runner(step, jnp.zeros(D), batch, metrics="mean")
    state, metrics = mean(state, batch)

    np.testing.assert_array_equal(state, expected)
    for leaf in jax.tree.leaves(metrics):
        assert leaf.is_fully_replicated
        assert leaf.sharding.device_set == state.sharding.device_set
        assert leaf.dtype == np.float32
    assert metrics.pop("nothing") is None
    assert float(metrics["index"]) == (WORKERS - 1) / 2
    assert float(metrics["flag"]) == 2 / WORKERS
    assert float(metrics["number"]) == 2.5
    np.testing.assert_allclose(metrics["own"], batch.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(
        metrics["half"], np.float32(rows["half"]).mean(axis=0), atol=1e-6
    )


def test_mean_metrics_are_finite_for_any_dtype():
    """The kind: a sum that overflows, or a dtype that mixes with no other."""

    def step(state, batch):
        return state, {"large": jnp.float32(3e38), "short": jnp.float8_e4m3fn(3)}

    def keys(state, batch):
        return state, {"drawn": jax.random.key(0)}

    batch = targets()[0]
    train, state = gmc_jax.simulate(step, 0, batch, len(batch), metrics="mean")
    _, metrics = train(state, batch)
    assert metrics == {"large": np.float32(3e38), "short": 3}
    assert metrics["short"].dtype == np.float32
    train, state = gmc_jax.simulate(keys, 0, batch, len(batch), metrics="mean")
    with pytest.raises(TypeError, match=r"random keys in `metrics\['drawn'\]`"):
        train(state, batch)


def test_mean_metrics_are_replicated_if_a_worker_has_several_devices():
    """Though what they are made of lies in parts, and XLA would leave it so."""
    mesh = Mesh(devices(2, 4), ("workers", "model"))
    split = NamedSharding(mesh, PartitionSpec("model"))
    weights = jax.device_put(jnp.arange(D, dtype="float32"), split)

    def step(state, batch):
        return state + jax.lax.pmean(batch, "workers"), {"weights": state}

    train, state = gmc_jax.distribute(
        step, weights, targets(2)[0], mesh=mesh, metrics="mean"
    )
    state, metrics = train(state, targets(2)[0])
    assert state.sharding.spec == PartitionSpec("model")
    assert metrics["weights"].is_fully_replicated
    np.testing.assert_array_equal(metrics["weights"], np.arange(D))


@both_runners
def test_an_unknown_choice_of_metrics_is_refused(runner):
    with pytest.raises(
        ValueError, match=r"`metrics` must be one of .*'each', 'mean'.*'sum'"
    ):
        runner(step_of(GMC), plain_state(), targets()[0], metrics="sum")


def test_worker_key_needs_the_axis():
    with pytest.raises(NameError, match="`worker_key` needs the named axis 'workers'"):
        worker_key(jax.random.key(0))
