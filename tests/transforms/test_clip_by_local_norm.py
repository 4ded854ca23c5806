"""Tests of clipping on each worker by itself."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import all_gather, averaged, clip_by_local_norm, dgc, exact, top_k
from gmc_jax.core import Tree
from tests.support import problems
from tests.support.harness import RUNNERS, WORKERS, step_of

K, D = 4, 20


def clipped(gradients, max_norm: float = 3.0):
    """Clipped gradients, with a leading axis of workers as the gradients."""
    tx = clip_by_local_norm(max_norm)
    state = tx.init({})

    def one_worker(mine) -> Tree:
        return tx.update(mine, state)[0]

    return jax.jit(jax.vmap(one_worker, axis_name="workers"))(gradients)


def gradients(dtype: str = "float32"):
    """Trees of four workers with norms of 100, 10, 1 and 0.1."""
    vectors = np.random.default_rng(0).normal(size=(K, D))
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors *= np.array([[100], [10], [1], [0.1]]) / norms
    trees = [problems.tree(vector.astype(jnp.dtype(dtype))) for vector in vectors]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def test_each_worker_keeps_to_its_share_of_the_norm():
    """With a limit of 3 for the sum of 4 workers, each worker has 1.5."""
    before = problems.flat(gradients(), leading=1)
    after = problems.flat(clipped(gradients()), leading=1)
    norms = np.linalg.norm(after, axis=1)
    np.testing.assert_allclose(norms, [1.5, 1.5, 1, 0.1], rtol=1e-6)
    scaled = before * (norms / np.linalg.norm(before, axis=1))[:, None]
    np.testing.assert_allclose(after, scaled, rtol=1e-5)


def test_a_short_gradient_does_not_change():
    before = problems.flat(gradients(), leading=1)
    after = problems.flat(clipped(gradients()), leading=1)
    np.testing.assert_array_equal(after[2:], before[2:])
    assert (after[:2] != before[:2]).all()


def test_one_worker_clips_as_optax_does():
    alone = jax.tree.map(lambda leaf: leaf[:1], gradients())
    theirs, _ = optax.clip_by_global_norm(3.0).update(alone, optax.EmptyState())
    ours = clipped(alone)
    np.testing.assert_allclose(
        problems.flat(ours), problems.flat(theirs), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_norm_of_16_bit_trees_is_float32(dtype):
    """The squares of 300 pass the range of float16."""
    trees = {"a": jnp.full((K, 200), 300, dtype), "b": jnp.full((K, 1), 1e-3, dtype)}
    out = clipped(trees, max_norm=2 * 300 * math.sqrt(50))
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype(dtype)}
    np.testing.assert_allclose(np.asarray(out["a"], float), 150, rtol=1e-2)


def test_a_nan_is_not_hidden():
    trees = jnp.ones((K, D)).at[1, 3].set(jnp.nan)
    out = clipped(trees)
    assert np.isnan(out[1, 3])
    assert np.isfinite(out[jnp.array([0, 2, 3])]).all()


def test_a_zero_gradient_stays_zero():
    assert not np.any(clipped(jnp.zeros((K, D))))


def test_nothing_is_sent():
    params = problems.tree(np.zeros(D, np.float32))
    batch = jax.tree.map(lambda leaf: jnp.ones((WORKERS, *leaf.shape)), params)
    tx = optax.chain(clip_by_local_norm(1.0), averaged(exact()))
    train, state = gmc_jax.distribute(step_of(tx), (params, tx.init(params)), batch)
    assert gmc_jax.wire_bytes(train, state, batch) == 4 * D


@pytest.mark.parametrize("runner", RUNNERS)
def test_in_front_of_a_method_it_bounds_momentum_and_residual(runner):
    """A worker's gradient explodes at every step, and its momentum stays bounded."""
    params = problems.tree(np.zeros(D, np.float32))
    batch = jax.tree.map(lambda leaf: jnp.ones((WORKERS, *leaf.shape)), params)
    batch["bias"] = batch["bias"].at[3].set(1e6)
    limit, decay = 2.0, 0.5
    method = dgc(0.1, all_gather(top_k(0.1)), momentum=decay, factor_masking=False)
    tx = optax.chain(clip_by_local_norm(limit), method)
    state = params, tx.init(params)
    train, state = RUNNERS[runner](
        step_of(tx), state, batch, replicated=lambda state: state[0]
    )
    for _ in range(5):
        state, _ = train(state, batch)
    momentum = problems.flat(optax.tree.get(state, "momentum"), leading=1)
    bound = limit / math.sqrt(WORKERS) / (1 - decay)
    norms = np.linalg.norm(momentum, axis=1)
    assert 0.9 * bound < norms[3] <= bound


def test_outside_the_axis_the_error_says_how_to_get_inside():
    tx = clip_by_local_norm(1.0, axis_name="replicas")
    message = r"`clip_by_local_norm` .* 'replicas'.*`clip_by_local_norm\(..., axis_name"
    with pytest.raises(NameError, match=message):
        tx.update(jnp.ones(D), tx.init(jnp.ones(D)))


@pytest.mark.parametrize("max_norm", [0, -1.0, math.nan, math.inf])
def test_the_norm_must_be_finite_and_positive(max_norm):
    message = r"^`max_norm` must be finite and greater than 0"
    with pytest.raises(ValueError, match=message):
        clip_by_local_norm(max_norm)


def test_numbers_whose_squares_are_infinite_keep_their_direction():
    out = clipped(jnp.array([[3e19, 4e19]]), 1.0)
    np.testing.assert_allclose(out, [[0.6, 0.8]], rtol=1e-6)


def test_an_infinite_entry_is_not_hidden():
    assert np.isnan(clipped(jnp.array([[jnp.inf, 1.0]]), 1.0)).any()


# From what XLA takes for 0 to what is not finite; beside it, numbers of 16 bits.
TINY, MOST = np.finfo(np.float32).tiny, np.finfo(np.float32).max
LARGEST = [0, 1e-45, TINY / 2, TINY, 3 * TINY, 1e-37, 1e-30, 1e-19, 1, 1e19, 1e30, 4e37]
LARGEST += [8.5e37, 8.6e37, 1.7e38, 1.8e38, 3e38, MOST, -MOST, np.inf, np.nan]


@pytest.mark.parametrize("limit", [1e-30, 0.25, 60000.0, 1e38])
def test_over_the_whole_range_of_float32_it_is_the_formula_in_float64(limit):
    """Gradients up to the largest number are clipped correctly.

    The inverse of what is larger than 8.5e37 is no normal number, and a norm of several
    such numbers is infinite.
    """
    rows = len(LARGEST)
    first = np.array(LARGEST, np.float32)
    trees = {
        "a": jnp.stack([first, -first / 2, first / 3], axis=1),
        "b": jnp.full((rows, 2), 1e-3, "bfloat16").at[0].set(0),
        "c": jnp.full((rows, 1), 65504, "float16").at[:8].set(0),
    }
    out = clipped(trees, limit * math.sqrt(rows))
    before, after = (
        np.concatenate([np.asarray(x).astype(np.float64) for x in tree.values()], 1)
        for tree in (trees, out)
    )
    finite = np.isfinite(first)
    assert np.isnan(after[~finite]).any(axis=1).all()
    norms = np.linalg.norm(before[finite], axis=1, keepdims=True)
    expected = before[finite] * limit / np.maximum(norms, limit)
    rounding = np.array([[1e-6] * 3 + [5e-3] * 3])
    error = np.abs(after[finite] - expected)
    # Below these numbers the dtypes have few digits, or none.
    least = np.array([[4 * TINY] * 5 + [6e-8]])
    assert (error <= rounding * np.abs(expected) + least).all()
    short = norms[:, 0] <= 0.999 * limit
    np.testing.assert_array_equal(after[finite][short], before[finite][short])


def test_in_double_precision_as_well(float64):
    trees = {"a": jnp.array([[1e308, -1e308]]), "b": jnp.full((1, 1), 3e38, "float32")}
    out = clipped(trees, 1.0)
    np.testing.assert_allclose(out["a"], [[0.5**0.5, -(0.5**0.5)]], rtol=1e-12)
    assert out["b"].dtype == np.float32
