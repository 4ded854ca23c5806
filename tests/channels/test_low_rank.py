"""Tests of PowerSGD's channel: what it sends, what it loses, and where it goes."""

import functools
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gmc_jax
from gmc_jax import Channel, alternating_low_rank, exact, low_rank
from tests.support.harness import average
from tests.support.meshes import mesh_named, on_mesh, on_one_device

WORKERS = 8
SHAPES = {
    "bias": (6,),
    "conv": (3, 3, 2, 12),
    "in": (7, 9),
    "out": (9, 7),
    "up": (7, 9),
}
FORMS = {"low_rank": low_rank, "alternating_low_rank": alternating_low_rank}
every_form = pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
low_rank_if_fast = pytest.mark.parametrize(
    "make", [low_rank, pytest.param(alternating_low_rank, marks=pytest.mark.slow)]
)


def draw_trees(seed: int = 0, workers: int = WORKERS):
    draw = np.random.default_rng(seed)
    return {name: draw.normal(size=(workers, *s)) for name, s in SHAPES.items()}


@functools.cache
def results(channel: Channel, calls: int = 1, seed: int = 0):
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, average(channel, draw_trees(seed), calls=calls))


def factor(vector: np.ndarray, name: str, side: int, rank: int = 2) -> np.ndarray:
    """A factor in a state's vector: matrices of one shape are beside each other."""
    start = 0
    for own in ("conv", "in", "up", "out"):
        shape = (18, 12) if own == "conv" else SHAPES[own]
        end = start + shape[side] * rank
        if own == name:
            return vector[start:end].reshape(-1, rank)
        start = end
    raise KeyError(name)


def matrices(leaf: np.ndarray) -> np.ndarray:
    """A convolution of outputs last has them as columns."""
    return leaf.reshape(len(leaf), -1, leaf.shape[-1])


def test_a_call_is_the_papers_step():
    """Both sums, the warm start, and the residual of a worker's own factors."""
    _, _, before = results(low_rank(2), calls=2)
    mean, lost, after = results(low_rank(2), calls=3)
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-12)
    for name in ("conv", "in", "out", "up"):
        ms = matrices(draw_trees()[name])
        q = factor(before.right[0], name, side=1)
        p, _ = np.linalg.qr(np.mean([m @ q for m in ms], axis=0))
        own = [m.T @ p for m in ms]
        q = np.mean(own, axis=0)
        for worker, m in enumerate(ms):
            close(matrices(mean[name])[worker], p @ q.T)
            close(matrices(lost[name])[worker], m - p @ own[worker].T)
        # A column and its factor may both have the other sign.
        close(np.abs(factor(after.right[0], name, side=1)), np.abs(q))


def test_vectors_and_what_would_not_shrink_are_exact():
    mean, lost, state = results(low_rank(4))
    expected, _, _ = results(exact())
    # Two factors of rank 4 have 4 (7 + 9) numbers, a matrix 7 * 9.
    for name in ("bias", "in", "out", "up"):
        np.testing.assert_array_equal(mean[name], expected[name])
        assert not lost[name].any()
    assert lost["conv"].any()
    assert state.right.shape == (WORKERS, 12 * 4)


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((64, 3, 7, 7), 64, 147),  # A convolution of outputs first,
        ((7, 7, 3, 64), 147, 64),  # and one of outputs last.
        ((96, 12, 8), 96, 96),  # An attention's queries,
        ((12, 8, 96), 96, 96),  # and its output.
        ((1, 30, 1, 40), 30, 40),
        ((30, 30), 30, 30),
    ],
)
def test_a_leaf_is_divided_where_its_factors_are_smallest(shape, rows, columns):
    state = jax.eval_shape(low_rank(3).init, jax.ShapeDtypeStruct(shape, jnp.float32))
    assert state.right.shape == (columns * 3,)
    sent = low_rank(3).bits(jax.ShapeDtypeStruct(shape, jnp.float32))
    assert sent == 32 * 3 * (rows + columns)


@pytest.mark.parametrize("name", ["in", "out"])
def test_matrices_of_low_rank_arrive_whole(name):
    """At once, in the paper's form; the other needs both factors."""
    draw = np.random.default_rng(2)
    rows, columns = SHAPES[name]
    left = draw.normal(size=(rows, 3))  # The workers' matrices have their columns.
    trees = {name: np.stack([left @ draw.normal(size=(3, columns)) for _ in range(4)])}
    for channel, calls, arrives in (
        (low_rank(3), 1, True),
        (low_rank(2), 1, False),
        (alternating_low_rank(3), 1, False),
        (alternating_low_rank(3), 2, True),
    ):
        with jax.enable_x64(True):
            mean, lost, _ = average(channel, trees, calls=calls)
        expected = trees[name].mean(axis=0)
        assert np.allclose(mean[name][0], expected, rtol=0, atol=1e-12) == arrives
        assert np.allclose(lost[name], 0, atol=1e-12) == arrives


@low_rank_if_fast
def test_compressing_in_parallel_is_compressing_the_mean(make):
    mean, lost, _ = results(make(2), calls=3)
    of_all = {name: x.mean(axis=0, keepdims=True) for name, x in draw_trees().items()}
    with jax.enable_x64(True):
        alone, left_out, _ = average(make(2), of_all, calls=3)
    for name in SHAPES:
        np.testing.assert_allclose(mean[name][0], alone[name][0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(
            lost[name].mean(axis=0), left_out[name][0], rtol=0, atol=1e-12
        )


@pytest.mark.slow
@every_form
def test_repeated_calls_find_the_best_matrices_of_the_rank(make):
    draw, rank = np.random.default_rng(3), 2
    left, _ = np.linalg.qr(draw.normal(size=(12, 5)))
    right, _ = np.linalg.qr(draw.normal(size=(9, 5)))
    values = np.array([5.0, 3.0, 1.0, 0.5, 0.2])
    whole = left * values @ right.T
    noise = draw.normal(size=(3, 12, 9))
    trees = {"x": whole + noise - noise.mean(axis=0)}
    with jax.enable_x64(True):
        mean, _, _ = average(make(rank), trees, calls=30)
    best = left[:, :rank] * values[:rank] @ right[:, :rank].T
    np.testing.assert_allclose(mean["x"][0], best, rtol=0, atol=1e-10)


def test_a_direction_that_was_empty_comes_back():
    """A gradient of zeros leaves no factor that would stay zero for ever."""
    nothing = {"x": np.zeros((2, 12, 9), np.float32)}
    _, _, states = average(low_rank(2), nothing)
    assert not np.any(states.right)
    state = jax.tree.map(lambda leaf: leaf[0], states)
    draw = np.random.default_rng(4)
    one = draw.normal(size=(12, 1)) @ draw.normal(size=(1, 9))
    trees = {"x": np.stack([one, one]).astype(np.float32)}
    mean, _, _ = average(low_rank(2), trees, state, calls=2)
    np.testing.assert_allclose(mean["x"][0], one, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)]
)
def test_leaves_of_16_bits_are_multiplied_in_float32(dtype):
    trees = {name: x.astype(jnp.dtype(dtype)) for name, x in draw_trees().items()}
    wide = {name: x.astype(np.float32) for name, x in trees.items()}
    ours, expected = (average(low_rank(2), given)[:2] for given in (trees, wide))
    chex.assert_trees_all_equal(ours, expected)
    tree = {name: x[0] for name, x in trees.items()}
    assert low_rank(2).bits(tree) == low_rank(2).bits(
        {k: x[0] for k, x in wide.items()}
    )


def test_it_starts_from_its_seed():
    params = {name: x[0] for name, x in draw_trees().items()}
    first = low_rank(2).init(params).right
    # The leaves are sorted by name: `out` is the fourth, `up` the last.
    for leaf, name in ((1, "conv"), (2, "in"), (3, "out"), (4, "up")):
        q = factor(np.asarray(first), name, side=1)
        key = jax.random.fold_in(jax.random.key(0), leaf)
        np.testing.assert_array_equal(q, jax.random.normal(key, q.shape))
    other = low_rank(2, seed=1).init(params).right
    assert not np.any(np.isclose(first, other))


@low_rank_if_fast
def test_leaves_alike_are_compiled_once(make):
    def products(leaves: int) -> int:
        trees = [np.ones((2, 7, 9), np.float32) for _ in range(leaves)]
        run = jax.vmap(make(2).average, (0, None), axis_name="workers")
        state = make(2).init([tree[0] for tree in trees])
        return jax.jit(run).lower(trees, state).as_text().count("dot_general")

    assert 2 < products(2) == products(20)


@pytest.mark.parametrize("rank", [0, 1.5])
@every_form
def test_the_rank_is_a_whole_number(make, rank):
    with pytest.raises(ValueError, match="`rank` must be a whole number"):
        make(rank)


@every_form
def test_outside_the_axis_the_error_says_how_to_get_inside(make):
    tree, name = jnp.ones((7, 9)), next(n for n, form in FORMS.items() if form is make)
    with pytest.raises(NameError, match=f"`{name}` needs the named axis 'workers'"):
        make(1).average(tree, make(1).init(tree))


# Workers of several devices.


@pytest.mark.parametrize(
    ("make", "mesh"),
    [
        (low_rank, "2 x 2 x 2"),
        *(
            pytest.param(make, mesh, marks=pytest.mark.slow)
            for make, mesh in [
                (low_rank, "2 x 4"),
                (low_rank, "the workers last"),
                (alternating_low_rank, "2 x 2 x 2"),
            ]
        ),
    ],
)
def test_split_leaves_are_sent_as_whole_ones(make, mesh):
    mesh = mesh_named(mesh)
    trees = split_trees(mesh.shape["workers"])
    ours, _ = on_mesh(make(1), trees, mesh)
    chex.assert_trees_all_close(
        ours, on_one_device(make(1), trees), rtol=1e-4, atol=1e-4
    )


def split_trees(workers: int):
    draw = np.random.default_rng(5)
    shapes = {"columns": (6, 8), "cube": (2, 3, 4), "rows": (8, 5)}
    shapes |= {"turned": (16,), "whole": (7,)}
    return {
        name: np.float32(draw.normal(size=(workers, *s))) for name, s in shapes.items()
    }


def test_of_split_leaves_each_worker_sends_one_message():
    mesh = mesh_named("2 x 4")
    params = {
        name: jax.device_put(
            np.ones((24, 32), np.float32),
            jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec)),
        )
        for name, spec in {"columns": (None, "a"), "rows": ("a", None)}.items()
    }
    tx = gmc_jax.averaged(low_rank(2))

    def step(state, batch):
        params, opt_state = state
        gradients = jax.tree.map(lambda w: w * batch, params)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return (jax.tree.map(jnp.add, params, updates), opt_state), {}

    batch = np.ones(2, np.float32)
    train, state = gmc_jax.distribute(step, (params, tx.init(params)), batch, mesh=mesh)
    sent = gmc_jax.wire_bytes(train, state, batch)
    assert sent == sent.always == 2 * 4 * 2 * (24 + 32)
    # No device has an array as large as half of the leaf, of which it holds a fourth.
    text = train.lower(state, batch).compile().as_text() or ""
    shapes = re.findall(r"\bf32\[([\d,]+)\]", text)
    sizes = [math.prod(map(int, shape.split(","))) for shape in shapes]
    assert 24 * 32 // 4 <= max(sizes) < 24 * 32 // 2
