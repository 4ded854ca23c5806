"""Tests of what a state is made of, and how two trainings differ."""

import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gmc_jax
from gmc_jax.checkpoints.compatibility import (
    Leaf,
    about_differences,
    check_about,
    check_leaves,
    find_leaves,
    leaves_of,
    step_number,
    to_json,
)


def test_the_leaves_of_a_layout():
    differs = {"a": True, "key": False}
    shapes = jax.eval_shape(
        lambda: {"a": jnp.ones((2, 3), "bfloat16"), "key": jax.random.key(0)}
    )
    first, second = leaves_of(gmc_jax.Layout(4, "workers", differs, shapes))
    assert first == Leaf("state['a']", "bfloat16", [2, 3], True)
    assert second == Leaf("state['key']", "key<fry>", [], False)


def test_about_is_compared_key_by_key():
    check_about("that", {"a": [1, 2], "b": None}, {"b": None, "a": [1, 2]})
    with pytest.raises(
        ValueError, match=r"that is .* `about\['b'\]` is 1 in .*, true here"
    ):
        check_about("that", {"a": 1, "b": 1}, {"a": 1, "b": True})
    with pytest.raises(ValueError, match=r"is missing in .*, null here\. Use"):
        check_about("that", {}, {"b": None})


SAME: list[tuple[Any, Any]] = [
    (1, 1.0),
    ({"a": 1, "b": {"c": 2, "d": [1, {}]}}, {"b": {"d": [1.0, {}], "c": 2}, "a": 1}),
    ((1, (2,)), [1, [2]]),
    (float("nan"), float("nan")),
    ([float("inf")], [np.float32(np.inf)]),
    (0.5, jnp.bfloat16(0.5)),
    (3, np.int8(3)),
    (True, np.True_),
    (types.MappingProxyType({"a": 1}), {"a": 1}),
]
OTHER: list[tuple[Any, Any]] = [
    (1, True),
    (0, False),
    (None, False),
    (1, "1"),
    ({"a": {"b": 1}}, {"a": {"b": True}}),
    ({"a": 1}, {"a": 1, "b": None}),
    ([1, 2], [2, 1]),
    ([1], [1, 1]),
    ({}, []),
    ("", None),
    (2**53 + 1, float(2**53)),
    (float("nan"), None),
]


AROUND: list[Any] = []
AROUND.append(AROUND)


def test_about_is_compared_by_value():
    """The order of keys counted, and 1 was unlike 1.0."""
    for places, pairs in ((0, SAME), (1, OTHER)):
        for one, other in pairs:
            ours, theirs = to_json("about", {"a": one}), to_json("about", {"a": other})
            assert len(about_differences(ours, theirs)) == places, (one, other)
            assert len(about_differences(theirs, ours)) == places, (one, other)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ({1: 2}, "the key 1 is not a string"),
        ({"a": AROUND}, "it holds itself"),
        ({"a": [{"b": {(1, 2): 3}}]}, r"the key \(1, 2\) is not a string"),
        ({"a": {1}}, r"it holds \{1\}"),
        ({"a": b"x"}, "it holds b'x'"),
        ({"a": 1j}, "it holds 1j"),
        ({"a": np.ones(2)}, "it holds array"),
        ({"a": jax.random.key(0)}, "Keep arrays in the state"),
        ([1], "`about` must hold values that JSON can"),
        (3, "`about` must hold values that JSON can"),
    ],
)
def test_values_that_json_cannot_represent_are_refused(said: Any, wrong):
    """Keys that are no strings came back as strings, and two could be one."""
    with pytest.raises(TypeError, match=wrong):
        to_json("about", said)


@pytest.mark.parametrize("number", [3, np.int64(3), jnp.int32(3), np.array(3)])
def test_whole_numbers_are_numbers(number):
    assert type(step_number(number)) is int
    assert step_number(number) == 3


LEAF = Leaf("x", "float32", [3], True)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (LEAF._replace(shape=[4]), r"float32\[3\].*checkpoint and float32\[4\]"),
        (LEAF._replace(dtype="int32"), r"float32\[3\].*checkpoint and int32\[3\]"),
        (LEAF._replace(differs=False), "each worker's own, in the .*the same on"),
        (LEAF._replace(name="y"), "checkpoint has `x`; only the state here has `y`"),
    ],
)
def test_leaves_are_compared_one_by_one(other, said):
    check_leaves("that", [LEAF], [Leaf(*LEAF)])
    with pytest.raises(ValueError, match=f"that is of another .*{said}"):
        check_leaves("that", [LEAF], [other])


def test_of_many_names_the_first_are_listed():
    many = [LEAF._replace(name=f"x{i}") for i in range(9)]
    with pytest.raises(
        ValueError, match="`x0`, `x1`, `x2` and 6 more; only the state here has n"
    ):
        check_leaves("that", many, [])
    others = [leaf._replace(dtype="int8") for leaf in many]
    with pytest.raises(ValueError, match=r"`x0` is .*\(leaves that are not alike: 9\)"):
        check_leaves("that", many, others)


def test_leaves_are_found_by_name_at_any_place():
    names = ["a", "b", "c", "b"]
    theirs = [LEAF._replace(name=name) for name in names]
    ours = [LEAF._replace(name=name) for name in ("c", "b", "b")]
    assert find_leaves("that", theirs, ours) == [2, 1, 3]
    with pytest.raises(ValueError, match="only the state here has `d`"):
        find_leaves("that", theirs, [LEAF._replace(name="d")])
