"""Tests of what a state is made of, and how two trainings differ."""

import jax
import jax.numpy as jnp
import pytest

import gmc_jax
from gmc_jax.descriptions import Leaf, check_about, check_leaves, leaves_of


def test_the_leaves_of_a_layout():
    differs = {"a": True, "key": False}
    shapes = jax.eval_shape(
        lambda: {"a": jnp.ones((2, 3), "bfloat16"), "key": jax.random.key(0)}
    )
    first, second = leaves_of(gmc_jax.Layout(4, "workers", differs, shapes))
    assert first == Leaf("state['a']", "bfloat16", [2, 3], True)
    assert second == Leaf("state['key']", "key<fry>", [], False)


def test_what_is_said_of_two_trainings_is_compared_key_by_key():
    check_about("that", {"a": [1, 2], "b": None}, {"b": None, "a": [1, 2]})
    with pytest.raises(
        ValueError, match=r"that is .* `about\['b'\]` is 1 there and tru"
    ):
        check_about("that", {"a": 1, "b": 1}, {"a": 1, "b": True})
    with pytest.raises(ValueError, match=r"is missing there and null here\. Make"):
        check_about("that", {}, {"b": None})


LEAF = Leaf("x", "float32", [3], True)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (LEAF._replace(shape=[4]), r"float32\[3\].*there and float32\[4\]"),
        (LEAF._replace(dtype="int32"), r"float32\[3\].*there and int32\[3\]"),
        (LEAF._replace(differs=False), "each worker's own, there and .*the same on"),
        (LEAF._replace(name="y"), "only there is `x`, and only here `y`"),
    ],
)
def test_leaves_are_compared_one_by_one(other, said):
    check_leaves("that", [LEAF], [Leaf(*LEAF)])
    with pytest.raises(ValueError, match=f"that is of another .*{said}"):
        check_leaves("that", [LEAF], [other])


def test_of_many_names_some_are_said():
    many = [LEAF._replace(name=f"x{i}") for i in range(9)]
    with pytest.raises(
        ValueError, match="`x0`, `x1`, `x2` and 6 more, and only here n"
    ):
        check_leaves("that", many, [])
    others = [leaf._replace(dtype="int8") for leaf in many]
    with pytest.raises(ValueError, match=r"`x0` is .*\(leaves that differ: 9\)"):
        check_leaves("that", many, others)
