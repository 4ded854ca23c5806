"""Tests of parts of a state."""

from collections import namedtuple
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax.checkpoints._subset import repeat_workers, replace_leaves, selected_places

State = namedtuple("State", ["count", "trace"])
STATE = ({"w": jnp.ones((2, 3)), "b": jnp.ones(3)}, State(jnp.int32(1), jnp.ones(3)))
DIFFERS = ({"w": True, "b": False}, State(False, False))
LAYOUT = gmc_jax.Layout(
    2,
    "workers",
    DIFFERS,
    jax.eval_shape(lambda: ({**STATE[0], "w": jnp.ones(3)}, STATE[1])),
)


@pytest.mark.parametrize(
    ("only", "places"),
    [
        (lambda state: state, [0, 1, 2, 3]),
        (lambda state: state[0], [0, 1]),
        (lambda state: [state[1].trace, state[0]["w"], state[0]["w"]], [1, 3]),
        (lambda state: (state[0], state[1]._replace(count=None)), [0, 1, 3]),
        (lambda state: optax.tree.get(state, "count"), [2]),
        (lambda state: [x for x in jax.tree.leaves(state) if x.dtype == "int32"], [2]),
    ],
)
def test_selected_leaves_are_found(only, places):
    LAYOUT.check_kept(STATE)
    assert selected_places(only, LAYOUT) == places


@pytest.mark.parametrize(
    ("only", "wrong"),
    [
        (lambda _: None, "it selects none"),
        (
            lambda state: jax.tree.map(lambda leaf: leaf * 2, state),
            "it raises TypeError",
        ),
        (lambda state: jax.tree.map(jnp.zeros_like, state), "it returns a new Array"),
        (lambda _: STATE[0], "it returns a new Array"),
        (lambda _: 1, "it returns a new int"),
        (lambda state: state["params"], "it raises TypeError: tuple indices"),
        (lambda state: state[2], "it raises IndexError"),
        (3, "it raises TypeError: 'int' object is not callable"),
    ],
)
def test_a_selection_must_be_a_part_of_the_state(only: Any, wrong):
    with pytest.raises(ValueError, match=rf"`only` must select leaves.*{wrong}.*Pass"):
        selected_places(only, LAYOUT)


def test_other_leaves_are_copied_in_place():
    """Training donates its state, and what is left belongs to the user."""
    like = (jax.device_put(jnp.arange(2.0), jax.devices()[1]), jax.random.key(3), 1.5)
    key = jax.random.bits(like[1])
    first, second, third = replace_leaves((*like, jnp.ones(2)), [3], [None])[:3]
    assert first.devices() == {jax.devices()[1]}
    jax.tree.map(lambda leaf: leaf.delete(), like[:2])
    np.testing.assert_array_equal(first, [0, 1])
    assert jax.random.bits(second) == key
    assert third == 1.5


def test_further_workers_repeat_the_old_ones():
    state = ({"w": np.arange(6.0).reshape(2, 3), "b": np.ones(3)}, STATE[1])
    five = repeat_workers(state, LAYOUT, 5)
    np.testing.assert_array_equal(five[0]["w"][:, 0], [0, 3, 0, 3, 0])
    np.testing.assert_array_equal(five[0]["b"], np.ones(3))
