"""Tests of going on with another number of workers."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

import gmc_jax
from gmc_jax import (
    resize,
)
from gmc_jax.channels.count_entries import CountEntriesState
from gmc_jax.core import Tree
from gmc_jax.utils.trees import find
from tests.support import problems
from tests.support.harness import close, start, step_of
from tests.support.methods import COMPOSITIONS

NUMBERS = (8, 4, 2, 6)
CENTRAL = ["gmc", "local_sgd", "sgp"]
every_method = pytest.mark.parametrize("name", COMPOSITIONS)


def pulls(workers: int, steps: int, first: int = 0) -> Tree:
    """Targets [steps, workers, ...]; in the mean the same for every number."""
    draw = np.random.default_rng(workers)

    def leaf(like):
        apart = draw.normal(size=(steps, workers, *like.shape))
        apart -= apart.mean(axis=1, keepdims=True)
        at = np.arange(first, first + steps).reshape(-1, *[1] * (like.ndim + 1))
        return (apart + np.sin(at)).astype(like.dtype)

    return jax.tree.map(leaf, start())


def one(batches: Tree) -> Tree:
    return jax.tree.map(lambda leaf: leaf[0], batches)


@functools.cache
def layout_and_state(name: str, workers: int) -> tuple[gmc_jax.Layout, Tree]:
    """The layout, and the state of one worker."""
    tx = COMPOSITIONS[name](workers)
    state = start(), tx.init(start())
    batch = one(pulls(workers, 1))
    return gmc_jax.layout(step_of(tx), state, batch, workers), state


@functools.cache
def compiled(name: str, workers: int) -> Callable:
    step, (_, state) = (
        step_of(COMPOSITIONS[name](workers)),
        layout_and_state(name, workers),
    )
    return gmc_jax.simulate(step, state, one(pulls(workers, 1)), workers)[0]


def train(name: str, workers: int, steps: int, first: int = 0, state: Tree = None):
    """Some steps, from a kept state or from the start; losses [steps]."""
    run, (layout, fresh) = compiled(name, workers), layout_and_state(name, workers)
    state = layout.lay_out(fresh) if state is None else state
    batches = pulls(workers, steps, first)
    losses = []
    for t in range(steps):
        state, metrics = run(state, jax.tree.map(lambda leaf, t=t: leaf[t], batches))
        losses.append(float(metrics["loss"].mean()))
    return state, losses


@functools.cache
def trained(name: str) -> Tree:
    """After six steps of eight workers."""
    state, _ = train(name, 8, 6)
    return gmc_jax.fetch(state)


def resized(name: str, numbers=NUMBERS) -> list[tuple[gmc_jax.Layout, Tree]]:
    """Layouts and states as they are resized from the first number to the last."""
    state = trained(name)
    found = [(layout_and_state(name, numbers[0])[0], state)]
    for workers in numbers[1:]:
        state = resize(state, found[-1][0], workers)
        found.append((layout_and_state(name, workers)[0], state))
    return found


def made_up(layout: gmc_jax.Layout) -> Tree:
    """Some kept state, of numbers from 1 to 2."""
    draw = np.random.default_rng(0)

    def leaf(one):
        if jnp.issubdtype(one.dtype, jnp.floating):
            return draw.uniform(1, 2, size=one.shape).astype(one.dtype)
        return np.ones(one.shape, one.dtype)

    return jax.tree.map(leaf, layout.kept)


def mean(tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64).mean(axis=0), tree)


@pytest.mark.parametrize(
    "numbers", [(8, 6), pytest.param(NUMBERS, marks=pytest.mark.slow)]
)
@every_method
def test_a_resized_state_fits_the_new_layout(name, numbers):
    layout, _ = layout_and_state(name, numbers[0])
    state = made_up(layout)
    for workers in numbers[1:]:
        state = resize(state, layout, workers)
        layout, _ = layout_and_state(name, workers)
        layout.check_kept(state)
        chex.assert_tree_all_finite(state)
        assert all(not leaf.committed for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize(
    "name",
    [
        "sgp over a star",
        "d2",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("uneven osgp", "d_psgd", "gradient_tracking")
        ),
    ],
)
def test_a_resized_state_fits_any_topology(name):
    """A structure that hangs on a value: of weights that may be 1, or on neighbours."""
    layout, _ = layout_and_state(name, 8)
    state = made_up(layout)
    for workers in (2, 1, 4):
        state = resize(state, layout, workers)
        layout, _ = layout_and_state(name, workers)
        layout.check_kept(state)


def goes_on(name):
    """Trains 8, 4, 2 and 6 workers; the evaluated model must not jump."""
    state, losses = train(name, 8, 6)
    began, first = losses[0], 6
    for before, workers in itertools.pairwise(NUMBERS):
        layout, _ = layout_and_state(name, before)
        params, opt_state = gmc_jax.fetch(state)
        point = gmc_jax.evaluate(opt_state, params, layout)
        state = resize(state, layout, workers)
        now = gmc_jax.evaluate(state[1], state[0], layout_and_state(name, workers)[0])
        if "sgp" not in name and name != "partitioned":  # Whose mean is weighed.
            close(now, point)
        state, losses = train(name, workers, 3, first, state)
        first += 3
        chex.assert_tree_all_finite(state)
        assert np.isfinite(losses).all()
        assert max(losses) < 1.5 * began
    return state


@pytest.mark.parametrize("name", CENTRAL)
def test_training_continues_without_a_jump(name):
    goes_on(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COMPOSITIONS if name not in CENTRAL])
def test_training_continues_without_a_jump_with_any_method(name):
    goes_on(name)


# What methods promise of means.


@pytest.mark.parametrize(
    "name", ["gmc", "dgc", "def_a", "majority vote with residuals"]
)
def test_the_mean_residual_is_conserved(name):
    """And the mean momentum of each worker's own; parameters stay bit for bit."""
    (_, (params, opt_state)), *others = resized(name)
    residual = mean(optax.tree.get(opt_state, "residual"))
    assert np.abs(problems.flat(residual)).max() > 0
    last = None
    for _, (now, state) in others:
        chex.assert_trees_all_equal(now, params)
        left = optax.tree.get(state, "residual")
        chex.assert_trees_all_close(mean(left), residual, rtol=6e-8, atol=0)
        last = mean(left) if last is None else last
        chex.assert_trees_all_equal(mean(left), last)  # Rounded once.


def test_the_other_fields_of_gmc_and_dgc():
    (_, (_, before)), *others = resized("gmc")
    for _, (_, after) in others:
        for name in ("momentum", "rate"):
            chex.assert_trees_all_equal(
                optax.tree.get(after, name), optax.tree.get(before, name)
            )
    (_, (_, before)), *others = resized("dgc")
    for _, (_, after) in others:
        momentum = optax.tree.get(after, "momentum")
        expected = mean(optax.tree.get(before, "momentum"))
        chex.assert_trees_all_close(mean(momentum), expected, rtol=1e-7)


def test_the_anchor_of_cser_stays_and_so_does_the_mean():
    (_, (params, before)), *others = resized("cser")
    (sync,) = find(before, gmc_jax.PartialSyncState)
    assert np.ptp(problems.flat(sync.error, 1), axis=0).max() > 0
    for _, (now, after) in others:
        (state,) = find(after, gmc_jax.PartialSyncState)
        chex.assert_trees_all_equal(state.anchor, sync.anchor)
        chex.assert_trees_all_close(mean(state.error), mean(sync.error), atol=1e-7)
        chex.assert_trees_all_close(mean(now), mean(params), rtol=1e-7, atol=1e-8)
        apart = optax.tree.sub(now, state.error)
        anchors = jax.tree.map(jnp.broadcast_to, state.anchor, _shapes(apart))
        chex.assert_trees_all_close(apart, anchors, rtol=1e-6, atol=1e-6)


def _shapes(tree: Tree) -> Tree:
    return jax.tree.map(jnp.shape, tree)


def test_the_memory_of_d2_is_zero_in_the_mean():
    (_, (params, before)), *others = resized("d2")
    assert np.abs(problems.flat(optax.tree.get(before, "correction"), 1)).max() > 0.01
    for _, (now, after) in others:
        memory = problems.flat(optax.tree.get(after, "correction"), 1)
        np.testing.assert_allclose(memory, 0, atol=1e-7)
        chex.assert_trees_all_close(mean(now), mean(params), rtol=1e-7, atol=1e-8)


def test_gradient_trackers_keep_the_mean_gradient():
    (_, (_, before)), *others = resized("gradient_tracking")
    (tracked,) = find(before, gmc_jax.TrackGradientsState)
    for _, (_, after) in others:
        (state,) = find(after, gmc_jax.TrackGradientsState)
        chex.assert_trees_all_close(mean(state.tracker), mean(tracked.last), atol=1e-6)
        chex.assert_trees_all_close(mean(state.last), mean(tracked.last), atol=1e-7)


def numerators(state: Tree) -> tuple[np.ndarray, np.ndarray]:
    """The means of w_k z_k and of w_k, with what is in flight."""
    params, opt_state = state
    (push,) = find(opt_state, gmc_jax.PushSumState)
    weight = np.asarray(push.weight["bias"], np.float64)
    mass = weight[:, None] * problems.flat(params, 1)
    for tree, weights in push.channel.in_flight:
        mass = mass + problems.flat(tree, 1)
        weight = weight + np.asarray(weights["bias"])
    return mass.mean(axis=0), weight.mean(axis=0)


def test_push_sum_keeps_its_mass():
    (_, before), *others = resized("sgp")
    mass, weight = numerators(before)
    (push,) = find(before[1], gmc_jax.PushSumState)
    assert np.ptp(push.weight["bias"]) > 0.1
    assert np.abs(mass - problems.flat(mean(before[0]))).max() > 1e-3
    np.testing.assert_allclose(weight, 1, rtol=1e-6)
    for _, after in others:
        now, weights = numerators(after)
        np.testing.assert_allclose(now, mass, rtol=1e-6)
        assert weights == 1


@pytest.mark.parametrize(
    "name", ["uneven osgp", pytest.param("osgp", marks=pytest.mark.slow)]
)
def test_messages_of_overlap_sgp_in_flight_arrive(name):
    """Whatever share of what it has a worker gives away, before and after."""
    (_, before), *others = resized(name)
    mass, weight = numerators(before)
    assert weight == pytest.approx(1, rel=1e-6)
    for _, after in others:
        now, weights = numerators(after)
        np.testing.assert_allclose(now, mass, rtol=1e-6, atol=1e-7)
        assert weights == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("name", ["slowmo", "slowmo over sgp"])
def test_a_period_continues(name):
    """The anchor, the count, the slow momentum and the mean pseudo-gradient stay."""
    (_, (params, before)), *others = resized(name)
    (period,) = find(before, gmc_jax.PeriodicState)
    assert period.local > 0
    at = numerators((params, before))[0] if "sgp" in name else None
    for _, (now, after) in others:
        (state,) = find(after, gmc_jax.PeriodicState)
        for kept in ("anchor", "local", "step", "outer"):
            chex.assert_trees_all_equal(getattr(state, kept), getattr(period, kept))
        mean_now = problems.flat(mean(now))
        expected = problems.flat(mean(params)) if at is None else at
        np.testing.assert_allclose(mean_now, expected, rtol=1e-6, atol=1e-7)


def test_a_period_with_differing_anchors_continues():
    """The inner optimizer has a hook, which is called; the period's own is not."""
    name = "slowmo without communication over cser"
    (_, (_, before)), (_, (_, after)) = resized(name, (8, 6))
    (was,), (period,) = (
        find(state, gmc_jax.PeriodicState) for state in (before, after)
    )
    assert period.local == was.local > 0
    assert np.ptp(was.anchor["bias"], axis=0).min() > 0.01
    chex.assert_trees_all_close(mean(period.anchor), mean(was.anchor), rtol=1e-7)


@pytest.mark.parametrize(
    "name",
    [
        "local_sgd",
        pytest.param("slowmo", marks=pytest.mark.slow),
        pytest.param("slowmo over local_sgd", marks=pytest.mark.slow),
        pytest.param("d_psgd", marks=pytest.mark.slow),
        pytest.param("d2", marks=pytest.mark.slow),
        pytest.param("gradient_tracking", marks=pytest.mark.slow),
        pytest.param("dmsgd_local", marks=pytest.mark.slow),
    ],
)
def test_on_a_linear_problem_the_mean_is_not_affected(name):
    """All workers have the same Hessian, and their targets one mean at every step."""
    state, _ = train(name, 8, 6)
    first = 6
    for before, workers in itertools.pairwise(NUMBERS):
        state = resize(state, layout_and_state(name, before)[0], workers)
        state, _ = train(name, workers, 3, first, state)
        first += 3
    alone, _ = train(name, 8, first)
    ended = [
        gmc_jax.average_workers(
            params, layout_and_state(name, workers)[0].of(lambda s: s[0])
        )
        for params, workers in ((state[0], 6), (alone[0], 8))
    ]
    chex.assert_trees_all_close(*ended, rtol=1e-4, atol=1e-5)


def test_a_resized_state_is_placed_for_distribute():
    name, layout = "d2", layout_and_state("d2", 8)[0]
    state = resize(trained(name), layout, 4)
    step, (_, begun) = step_of(COMPOSITIONS[name](4)), layout_and_state(name, 4)
    mesh = Mesh(np.array(jax.devices()[:4]), ("workers",))
    batch = one(pulls(4, 1))
    run, fresh = gmc_jax.distribute(step, begun, batch, mesh=mesh)
    placed = jax.device_put(state, jax.tree.map(lambda leaf: leaf.sharding, fresh))
    ours, _ = run(placed, batch)
    theirs, _ = train(name, 4, 1, state=resize(trained(name), layout, 4))
    chex.assert_trees_all_close(gmc_jax.fetch(ours), theirs, rtol=1e-5, atol=1e-6)


@gmc_jax.with_hooks
class Follower(NamedTuple):
    """The state of a foreign inner optimizer that follows synchronisations."""

    distance: Tree
    synchronisations: Tree

    def on_sync(self, start: Tree, end: Tree) -> "Follower":
        distance = optax.tree.add(self.distance, optax.tree.sub(end, start))
        return Follower(distance, self.synchronisations + 1)


def test_hooks_of_foreign_states_are_called():
    params = np.array([[1, 2], [3, 6], [5, 1]], np.float32)
    for own in (True, False):  # Whether workers differ.
        x = params if own else params[0]
        state = {"x": x, "deep": (Follower(10 * x, np.int32(4)),)}
        layout = by_hand({"x": own, "deep": (Follower(own, False),)}, state, 3)
        new = resize(state, layout, 2, params=lambda state: state["x"])
        mean = np.broadcast_to(x.mean(axis=0), (2, 2)) if own else x
        np.testing.assert_allclose(new["x"], mean)
        np.testing.assert_allclose(new["deep"][0].distance, 10 * mean)
        assert new["deep"][0].synchronisations == 5


# Leaves that are no floats, and others of other kinds.


def by_hand(differs: Tree, leaves: Tree, workers: int) -> gmc_jax.Layout:
    """The layout of kept leaves."""
    shapes = jax.tree.map(
        lambda leaf, own: jax.ShapeDtypeStruct(
            leaf.shape[1:] if own else leaf.shape, leaf.dtype
        ),
        leaves,
        differs,
    )
    return gmc_jax.Layout(workers, "workers", differs, shapes)


def resized_leaf(leaf, workers: int) -> np.ndarray:
    layout = by_hand(True, jnp.asarray(leaf), len(leaf))
    return gmc_jax.fetch(resize(leaf, layout, workers))


@pytest.mark.parametrize(
    ("numbers", "workers", "expected"),
    [
        ([5, 5, 5, 5], 3, [5, 5, 5]),
        ([1, 2, 3, 4], 2, [2, 3]),
        ([1, 2], 4, [1, 2, 1, 2]),
        ([-1, -2, -3, -6], 2, [-3, -3]),
        ([7], 3, [7, 7, 7]),
        ([2**31 - 1, 2**31 - 1], 3, [2**31 - 1] * 3),
        ([-(2**31), 2**31 - 1], 4, [-1, -1, 0, 0]),
    ],
)
def test_the_mean_of_whole_numbers_is_distributed(numbers, workers, expected):
    ours = resized_leaf(np.array(numbers, np.int32), workers)
    assert ours.dtype == np.int32
    assert sorted(ours.tolist()) == sorted(expected)


def test_large_numbers_are_exact(float64):
    numbers = np.array([2**64 - 1, 2**64 - 3, 2**64 - 1, 2**64 - 3], np.uint64)
    ours = resized_leaf(numbers, 2)
    assert ours.tolist() == [2**64 - 2] * 2


def test_booleans_are_decided_by_majority():
    ours = resized_leaf(np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0]], bool), 2)
    assert ours.tolist() == [[True, False, True, False]] * 2
    tie = resized_leaf(np.array([True, False]), 5)
    assert tie.tolist() == [False] * 5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "complex64"])
def test_means_are_rounded_once(dtype):
    draw = np.random.default_rng(0)
    values = jnp.asarray(draw.normal(size=(7, 50)), dtype)
    exactly = np.asarray(values).astype("complex128").mean(axis=0)
    if dtype != "complex64":
        exactly = exactly.real
    expected = np.asarray(jnp.asarray(exactly.astype(np.asarray(values).dtype)))
    ours = resized_leaf(values, 3)
    assert ours.dtype == expected.dtype
    for worker in ours:
        np.testing.assert_array_equal(worker, expected)


def test_non_finite_numbers_stay_non_finite():
    ours = resized_leaf(np.array([[1, np.nan, np.inf], [2, 0, 1]], np.float32), 1)
    assert ours[0, 0] == 1.5
    assert not np.isfinite(ours[0, 1:]).any()


def distinct(keys: np.ndarray) -> int:
    return len({row.tobytes() for row in keys.reshape(-1, keys.shape[-1])})


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_keys_of_workers_differ(impl, shape):
    size = int(np.prod(shape))
    keys = jax.random.split(jax.random.key(0, impl=impl), (8, *shape))
    layout = by_hand(True, keys, 8)
    for workers in (4, 2, 6):
        keys = resize(keys, layout, workers)
        layout = by_hand(True, keys, workers)
        assert keys.shape == (workers, *shape)
        assert jax.random.key_impl(keys) == impl
        data = gmc_jax.fetch(keys)
        assert distinct(data) == workers * size
        again = resize(data, layout, workers)  # As `fetch` has them.
        assert again.dtype == keys.dtype
        np.testing.assert_array_equal(gmc_jax.fetch(again), data)


def test_the_first_workers_keep_their_keys_raw_ones_too():
    keys = jax.vmap(jax.random.PRNGKey)(jnp.arange(8))
    four = resized_leaf(np.asarray(keys), 4)
    np.testing.assert_array_equal(four, keys[:4])
    twelve = resized_leaf(np.asarray(keys), 12)
    np.testing.assert_array_equal(twelve[:8], keys)
    assert distinct(twelve) == 12
    steps = jax.vmap(jax.random.fold_in, (0, None))
    for folded in range(12):  # A loop's own draws are none of them.
        drawn = np.concatenate([steps(keys, folded), twelve[8:]])
        assert distinct(drawn) == 12


def test_counts_continue():
    """Workers that send what lies elsewhere bring back more: counts differ."""
    (_, (_, before)), *others = resized("count_entries")
    cost = gmc_jax.relative_cost(before)
    (counts,) = find(before, CountEntriesState)
    assert counts.up.shape == (8, 2)
    for _, (_, after) in others:
        assert gmc_jax.relative_cost(after) == pytest.approx(cost, abs=0.5 / 120)
        (state,) = find(after, CountEntriesState)
        chex.assert_trees_all_equal(state.dense, counts.dense)


def test_counts_beyond_32_bits():
    halves = np.array([[1, 2**32 - 2], [2, 0], [1, 2**32 - 2], [2, 0]], np.uint32)
    nothing = np.zeros(2, np.uint32)
    fields: list[Any] = [halves, nothing, nothing, np.array(True), ()]
    own: list[Any] = [True, False, False, False, ()]
    counts, differs = CountEntriesState(*fields), CountEntriesState(*own)
    new = resize(counts, by_hand(differs, counts, 4), 3)
    whole = [int(high) << 32 | int(low) for high, low in np.asarray(new.up)]
    assert whole == [2**33 - 1] * 3
    chex.assert_trees_all_equal(new.down, nothing)


def test_the_same_number_changes_nothing():
    layout, _ = layout_and_state("sgp", 8)
    state = trained("sgp")
    same = resize(state, layout, 8)
    chex.assert_trees_all_equal(same, state)
    copies = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(same)}
    for leaf in jax.tree.leaves(state):
        assert leaf.ctypes.data not in copies


# Errors.


@pytest.mark.parametrize("workers", [0, -2, 1.5])
def test_the_number_of_workers_is_checked(workers):
    layout, _ = layout_and_state("gmc", 8)
    with pytest.raises(ValueError, match="`workers` must be a whole number"):
        resize(made_up(layout), layout, workers)


def test_a_state_of_another_layout_is_refused():
    layout, state = layout_and_state("gmc", 8)
    with pytest.raises(ValueError, match="`state` must be a tuple of 2, got"):
        resize(made_up(layout)[0], layout, 4)
    with pytest.raises(
        ValueError, match=r"layout for 8 workers.*`state\[1\].*residual"
    ):
        resize(state, layout, 4)
    six = layout_and_state("gmc", 6)[0]
    with pytest.raises(ValueError, match=r"float32\[6, 4\], got float32\[8, 4\]"):
        resize(made_up(layout), six, 4)


def test_parameters_that_are_not_the_first_part_must_be_named():
    layout, _ = layout_and_state("sgp", 8)
    params, opt_state = made_up(layout)
    state = {"tx": opt_state, "params": params}
    named = gmc_jax.Layout(
        8,
        "workers",
        dict(zip(("params", "tx"), layout.differs, strict=True)),
        dict(zip(("params", "tx"), layout.shapes, strict=True)),
    )
    with pytest.raises(ValueError, match=r"`params` must select the parameters.*push"):
        resize(state, named, 4)
    ours = resize(state, named, 4, params=lambda state: state["params"])
    expected = resize((params, opt_state), layout, 4)
    chex.assert_trees_all_equal((ours["params"], ours["tx"]), expected)
