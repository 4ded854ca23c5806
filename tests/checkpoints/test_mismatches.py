"""Tests of checkpoints of another training: resized, or refused with what differs."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

import gmc_jax
from gmc_jax import Checkpoints, resize
from tests.support.checkpointing import laid_out, placed_on, same_bits, small


def test_another_number_of_workers_is_resized_when_asked(tmp_path):
    layout, state = small(8)
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(5, state)
    four, like = small(4)
    expected = resize(state, layout, 4)
    mesh = Mesh(np.array(jax.devices()[:4]), ("workers",))
    with Checkpoints(tmp_path, four) as checkpoints:
        with pytest.raises(
            ValueError, match=r"is of 8 workers, and `layout` of 4\. T.*e=T.* 4 w"
        ):
            checkpoints.restore(like)
        for target in (like, placed_on(mesh, like)):
            _, ours, _ = checkpoints.restore(target, resize=True)
            chex.assert_trees_all_equal(gmc_jax.fetch(ours), gmc_jax.fetch(expected))
            same_bits(
                jax.tree.map(jnp.zeros_like, ours), jax.tree.map(jnp.zeros_like, target)
            )


def test_keys_are_resized_too(tmp_path):
    keys = jax.random.split(jax.random.key(0), 6)
    layout, state = laid_out(6, keys, ())
    four, like = laid_out(4, jax.random.split(jax.random.key(1), 4), ())
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(5, state)
    with Checkpoints(tmp_path, four) as checkpoints:
        _, ours, _ = checkpoints.restore(like, resize=True, params=lambda state: ())
    np.testing.assert_array_equal(gmc_jax.fetch(ours["own"]), gmc_jax.fetch(keys[:4]))


def test_another_training_is_refused(tmp_path):
    layout, state = small()
    about = {"method": "gmc", "ratio": 0.01, "seeds": (1, 2)}
    with Checkpoints(tmp_path, layout, about=about) as checkpoints:
        checkpoints.save(3, state)
        assert checkpoints.restore(state)[0] == 3
    for other, expected in (
        ({**about, "ratio": 0.1}, r".*ratio'\]` is 0.01 in the checkpoint, 0.1 here"),
        ({"method": "gmc"}, r"`about\['ratio'\]` is 0.01 in .*, missing here"),
        ({**about, "new": None}, r"`about\['new'\]` is missing in .*, null here"),
    ):
        checkpoints = Checkpoints(tmp_path, layout, about=other)
        with pytest.raises(
            ValueError, match=f"step 3 is of another training: {expected}"
        ):
            checkpoints.restore(state)
    method: Any = optax.identity()
    with pytest.raises(TypeError, match="`about` must hold values that JSON"):
        Checkpoints(tmp_path, layout, about={"tx": method})


def test_another_model_or_method_is_refused(tmp_path):
    layout, state = small()
    with Checkpoints(tmp_path, layout) as checkpoints:
        checkpoints.save(3, state)
    larger = small(size=5)
    other = laid_out(4, {"momentum": state["own"]["residual"]}, state["same"])
    alike = laid_out(4, {}, {"weights": state["same"]["weights"]})
    for (layout, like), expected in (
        (
            larger,
            r"`state\['own'\]\['residual'\]` is float32\[3\], .*own, in the .* and fl",
        ),
        (
            other,
            r"checkpoint has `state\['own'\]\['residual'\]`; .* `state\['own'\]\['mo",
        ),
        (
            alike,
            r"the checkpoint has .*residual'\]`; .* here has nothing\. Use the met",
        ),
    ):
        checkpoints = Checkpoints(tmp_path, layout)
        with pytest.raises(ValueError, match=f"step 3 is of another .*{expected}"):
            checkpoints.restore(like, resize=True)


def test_a_state_that_does_not_fit_is_neither_saved_nor_restored(tmp_path):
    layout, state = small()
    with Checkpoints(tmp_path, layout) as checkpoints:
        with pytest.raises(ValueError, match=r"layout for 4 workers .*residual"):
            checkpoints.save(1, small(8)[1])
        with pytest.raises(ValueError, match=r"`state\['own'\]` must be a"):
            checkpoints.restore(state["own"])
        assert checkpoints.latest is None
