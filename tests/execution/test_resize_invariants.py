"""Tests of what resizing keeps of each method's state: means, sums and counts."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax.channels.count_entries import CountEntriesState
from gmc_jax.core import Tree
from gmc_jax.utils.trees import find
from tests.support import problems
from tests.support.resizing import mean, resized


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


@pytest.mark.slow
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
