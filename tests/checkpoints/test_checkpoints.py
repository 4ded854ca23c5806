"""Tests of checkpoints: what was saved comes back, and nothing else does."""

import sys
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import gmc_jax
from gmc_jax import Checkpoints
from tests.support.checkpointing import (
    METHODS,
    STEPS,
    batch_at,
    laid_out,
    made,
    placed_on,
    same_bits,
    small,
    trained,
)
from tests.support.harness import RUNNERS, pmap, simulate, start, step_of


def goes_on_as_if_it_had_not_stopped(name, runner, directory):
    layout, train, fresh = made(name, runner)
    with Checkpoints(directory, layout, about={"method": name}) as checkpoints:
        assert checkpoints.latest is None
        state = trained(train, fresh(), 0, STEPS)
        checkpoints.save(STEPS, state, seconds=1.5)
        saved = jax.tree.map(jnp.copy, state)
        expected = gmc_jax.fetch(trained(train, state, STEPS, STEPS + 3))

    like = fresh()
    with Checkpoints(directory, layout, about={"method": name}) as checkpoints:
        assert checkpoints.latest == STEPS
        done, state, extras = checkpoints.restore(like)
    assert (done, extras) == (STEPS, {"seconds": 1.5})
    same_bits(state, saved)
    same_bits(jax.tree.map(jnp.zeros_like, state), jax.tree.map(jnp.zeros_like, like))
    ended = gmc_jax.fetch(trained(train, state, STEPS, STEPS + 3))
    chex.assert_trees_all_equal(ended, expected)


TURNS = [(name, list(RUNNERS)[i % 2]) for i, name in enumerate(list(METHODS)[:-3])]


@pytest.mark.parametrize(("name", "runner"), TURNS)
def test_training_continues_as_if_it_had_not_stopped(tmp_path, name, runner):
    goes_on_as_if_it_had_not_stopped(name, RUNNERS[runner], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("name", METHODS)
def test_training_continues_with_any_method(tmp_path, name, runner):
    if (name, runner) not in TURNS:
        goes_on_as_if_it_had_not_stopped(name, RUNNERS[runner], tmp_path)


def test_under_pmap_uncommitted_arrays_stay_uncommitted(tmp_path):
    layout, _, _ = made("osgp", simulate)
    tx = METHODS["osgp"]
    train, state = pmap(step_of(tx), (start(), tx.init(start())), batch_at(0))
    like = jax.tree.map(jnp.copy, state)
    state = trained(train, state, 0, 2)
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(2, state)
        before = gmc_jax.fetch(state)
        _, state, _ = checkpoints.restore(like)
        assert not any(leaf.committed for leaf in jax.tree.leaves(state))
        chex.assert_trees_all_equal(gmc_jax.fetch(state), before)
        state = trained(train, state, 2, 3)
        checkpoints.save(3, state)
        _, again, _ = checkpoints.restore(state)
        same_bits(again, state)


def test_arrays_of_all_kinds_are_restored(tmp_path):
    values = jnp.array([[1, jnp.nan, -0.0], [jnp.inf, 1e-30, 2]])
    own = {
        "bfloat16": values.astype("bfloat16"),
        "float16": values.astype("float16"),
        "float8": values.astype("float8_e4m3fn"),
        "bool": values > 0,
        "int4": jnp.arange(-8, 8).astype("int4").reshape(2, 8),
        "int8": jnp.arange(2, dtype="int8"),
        "uint32": jnp.array([[1, 2**32 - 1]] * 2, "uint32"),
        "complex": values * (1 + 2j),
        "empty": jnp.zeros((2, 0, 3)),
        "NumPy": np.arange(2.0, dtype="float32"),
        "keys": jax.random.split(jax.random.key(0), 2),
    }
    same = {
        "key": jax.random.key(1, impl="rbg"),
        "raw": jax.random.PRNGKey(3),
        "scalar": jnp.float32(3),
        "empty": jnp.zeros((0,), "int32"),
        "none": None,
        "numbers": np.int32(4),
    }
    layout, state = laid_out(2, own, same)
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(0, state)
        _, again, _ = checkpoints.restore(state)
    same["numbers"] = np.asarray(same["numbers"])
    same_bits(again, state)
    chex.assert_trees_all_equal(
        jax.random.split(again["same"]["key"]), jax.random.split(state["same"]["key"])
    )


def test_a_state_without_numbers(tmp_path):
    layout, state = laid_out(2, {}, {"empty": jnp.zeros((0, 2))})
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(0, state)
        step, again, _ = checkpoints.restore(state)
    assert step == 0
    same_bits(again, state)


def test_arrays_that_are_sharded_inside_workers(tmp_path):
    """Over an axis of the mesh that is not the workers'."""
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("workers", "model"))
    layout, state = small(size=4)
    state = placed_on(mesh, state, "model")
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(1, state)
        _, again, _ = checkpoints.restore(jax.tree.map(jnp.zeros_like, state))
        same_bits(again, state)
        shards = again["own"]["residual"].addressable_shards
        assert {shard.data.shape for shard in shards} == {(1, 2)}
        # Where arrays are is no part of a checkpoint.
        _, whole, _ = checkpoints.restore(
            jax.tree.map(jnp.zeros_like, small(size=4)[1])
        )
        same_bits(whole, small(size=4)[1])


def test_extras_are_restored(tmp_path):
    layout, state = small()
    with Checkpoints(tmp_path, layout) as checkpoints:
        numbers: list[Any] = [jnp.float32(0.5), np.int64(3), jnp.ones(2)]
        checkpoints.save(1, state, seconds=numbers[0], at=numbers[1], names=["a"])
        assert checkpoints.restore(state)[2] == {
            "seconds": 0.5,
            "at": 3,
            "names": ["a"],
        }
        with pytest.raises(
            TypeError, match=r"`extras` must hold values that JSON can.*Keep arrays"
        ):
            checkpoints.save(2, state, seconds=numbers[2])
        assert checkpoints.latest == 1


def test_without_orbax_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"pip install .gmc_jax\[checkpoints\]"):
        Checkpoints(tmp_path, small()[0])
