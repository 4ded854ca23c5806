"""Tests of restoring a part of a state by `only`."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import gmc_jax
from gmc_jax import Checkpoints, resize
from gmc_jax.core import Tree
from tests.support.checkpointing import (
    BLOCK,
    batch_at,
    laid_out,
    made,
    placed_on,
    same_bits,
    small,
    trained,
)
from tests.support.harness import RUNNERS, simulate, start, step_of


def perturbed(state: Tree) -> Tree:
    """A state no leaf of which, but for keys, is as it was."""
    return jax.tree.map(lambda leaf: ~leaf if leaf.dtype == bool else leaf + 1, state)


@pytest.mark.parametrize(
    "runner", ["simulate", pytest.param("distribute", marks=pytest.mark.slow)]
)
def test_parameters_are_restored_for_another_method(tmp_path, runner, caplog):
    """Checkpoints were all or nothing."""
    before, _, begun = made("gmc, random_block", simulate)
    saved = perturbed(begun())
    with Checkpoints(tmp_path, before, about={"method": "gmc"}) as checkpoints:
        checkpoints.save(3, saved)
    layout, train, fresh = made("majority_vote", RUNNERS[runner])
    like = fresh()
    with Checkpoints(tmp_path, layout, about={"method": "signum"}) as checkpoints:
        with pytest.raises(ValueError, match=r"another training.*restore by `only` wh"):
            checkpoints.restore(like)
        step, state, _ = checkpoints.restore(like, only=lambda state: state[0])
        kept = checkpoints.not_restored
        assert kept == tuple(
            f"state[1][0].{name}" for name in ("count", "ema['bias']", "ema['kernel']")
        )
        (said,) = caplog.messages
        assert "Not restored: `state[1][0].step`, " in said
        assert f"Kept as they were: `{kept[0]}`, `{kept[1]}`" in said
        assert '`about[\'method\']` is "gmc" in the checkpoint, "signum" here' in said
        assert step == 3
        chex.assert_trees_all_equal(*gmc_jax.fetch((state[0], saved[0])))
        same_bits(*jax.tree.map(jnp.zeros_like, (state[0], like[0])))
        same_bits(state[1], like[1])
        state = trained(train, state, 3, 4)
        same_bits(like, fresh())  # Nothing of it was donated.
        checkpoints.save(4, state)
        checkpoints.restore(state)
        assert checkpoints.not_restored == ()


def test_a_constant_rate_becomes_a_schedule(tmp_path):
    layout, _, fresh = made("gmc, random_block", simulate)
    tx = gmc_jax.gmc(0.1, BLOCK)
    state = start(), tx.init(start())
    constant = gmc_jax.layout(step_of(tx), state, batch_at(0), 8)
    saved = perturbed(constant.lay_out(state))
    with Checkpoints(tmp_path, constant) as checkpoints:
        checkpoints.save(3, saved)
    like = fresh()
    with Checkpoints(tmp_path, layout) as checkpoints:
        with pytest.raises(ValueError, match=r"here has `state\[1\]\[1\]\.count`"):
            checkpoints.restore(like)
        with pytest.raises(ValueError, match=r"here has `state\[1\]\[1\]\.count`"):
            checkpoints.restore(like, only=lambda state: state)
        _, (params, opt_state), _ = checkpoints.restore(
            like, only=lambda state: (state[0], state[1][0])
        )
        assert checkpoints.not_restored == ("state[1][1].count",)
    same_bits((params, opt_state[0]), (saved[0], saved[1][0]))
    same_bits(opt_state[1], like[1][1])


def test_selected_leaves_must_be_alike(tmp_path):
    """In its shape, its dtype, and in whether workers differ in it."""
    layout, state = small()
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(3, state)
    weights = state["same"]["weights"]
    for (layout, like), expected in (
        (
            small(size=5),
            r"is float32\[3\], the same on all workers, in the .* and float32\[5",
        ),
        (laid_out(4, {}, {"weights": weights.astype(int)}), r"and int32\[3\]"),
        (
            laid_out(4, {}, {"other": weights}),
            r"state here has `state\['same'\]\['other'\]`",
        ),
        (laid_out(4, {}, {"weights": jax.random.key(0)}), r"in .* and key<fry>\[\]"),
    ):
        with (
            Checkpoints(tmp_path, layout) as checkpoints,
            pytest.raises(ValueError, match=expected),
        ):
            checkpoints.restore(like, only=lambda state: state["same"])
    (layout, like) = small()
    layout = layout._replace(
        differs={"own": {"residual": True}, "same": {"weights": True}}
    )
    like["same"] = {"weights": jnp.zeros((4, 3))}
    with (
        Checkpoints(tmp_path, layout) as checkpoints,
        pytest.raises(ValueError, match=r"the same on .*in the .*each worker's own"),
    ):
        checkpoints.restore(like, only=lambda state: state["same"])


def test_reordered_fields_are_found_by_name(tmp_path):
    """Once what was the residual came back as the momentum, without a word."""

    class Before(NamedTuple):
        momentum: Tree
        residual: Tree

    class After(NamedTuple):
        residual: Tree
        momentum: Tree

    layout, state = laid_out(4, (), Before(jnp.zeros(3), jnp.ones(3)))
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(1, state)
    for workers, how in ((4, {}), (2, {"resize": True, "params": lambda state: ()})):
        layout, like = laid_out(workers, (), After(jnp.full(3, 2.0), jnp.full(3, 3.0)))
        with Checkpoints(tmp_path, layout) as checkpoints:
            state = checkpoints.restore(like, **how)[1]
            assert (state["same"].residual == 1).all()
            assert (state["same"].momentum == 0).all()
            state = checkpoints.restore(
                like, only=lambda state: state["same"].momentum, **how
            )[1]
            assert (state["same"].residual == 2).all()
            assert (state["same"].momentum == 0).all()


@pytest.mark.parametrize("workers", [4, 8])
def test_a_part_is_placed_and_resized_like_the_whole(tmp_path, workers):
    """Over the devices of a worker too; the rest is what `like` has."""
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("workers", "model"))
    layout, state = small(workers, size=4)
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(1, state)
    four, like = small(4, size=4)
    like = placed_on(mesh, jax.tree.map(jnp.ones_like, like), "model")
    expected = resize(state, layout, 4)
    with Checkpoints(tmp_path, four) as checkpoints:
        for part, rest in (("own", "same"), ("same", "own")):
            _, ours, _ = checkpoints.restore(
                like, only=lambda state, part=part: state[part], resize=True
            )
            chex.assert_trees_all_equal(gmc_jax.fetch(ours[part]), expected[part])
            same_bits(ours[rest], like[rest])
            same_bits(jax.tree.map(jnp.ones_like, ours), like)
