"""Checks that a checkpoint fits the training that restores it."""

import json
import operator
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax.execution.layout import Layout
from gmc_jax.utils.multihost import Json

_REMEDY = (
    "Use the method and the model of the checkpoint, restore by `only` what both have, "
    "or give another directory."
)


class Leaf(NamedTuple):
    """A leaf of a state.

    Attributes:
      name: its path, such as `state[0]['bias']`.
      dtype: the name of its dtype.
      shape: its shape for one worker.
      differs: whether it differs between workers.
    """

    name: str
    dtype: str
    shape: list[int]
    differs: bool

    def __str__(self) -> str:
        """Describes the leaf for errors."""
        whose = "each worker's own" if self.differs else "the same on all workers"
        return f"{self.dtype}{self.shape}, {whose},"


def leaves_of(layout: Layout) -> list[Leaf]:
    """Describes the leaves of a state, in their order."""
    shapes = jax.tree_util.tree_leaves_with_path(layout.shapes)
    differing = jax.tree.leaves(layout.differs)
    return [
        Leaf(
            name=f"state{jax.tree_util.keystr(path)}",
            dtype=str(one.dtype),
            shape=list(one.shape),
            differs=differs,
        )
        for (path, one), differs in zip(shapes, differing, strict=True)
    ]


def step_number(step: SupportsIndex) -> int:
    """Converts a step to `int` from any integer type, arrays of JAX and NumPy too."""
    try:
        if not isinstance(step, bool | np.bool_):
            number = operator.index(step)
            if number >= 0:
                return number
    except TypeError:
        pass
    raise ValueError(
        f"`step` must be a whole number of at least 0, got {step!r}; pass the number "
        "of steps done."
    )


def to_json(name: str, values: Mapping[str, Json]) -> dict[str, Json]:
    """Converts a user's values to those of JSON, numbers of NumPy and JAX included.

    Args:
      name: the name of the argument, for errors.
      values: the values by their keys.

    Raises:
      TypeError: if JSON cannot represent a value.
    """
    try:
        plain = {key: _plain(values[key]) for key in _keys(values)}
        return json.loads(json.dumps(plain))
    except RecursionError:
        wrong = "it holds itself, or is nested too deep"
    except (AttributeError, TypeError, ValueError) as error:
        wrong = str(error)
    raise TypeError(
        f"`{name}` must hold values that JSON can represent, such as numbers and "
        f"strings, but {wrong}. Keep arrays in the state."
    )


def about_differences(
    theirs: Mapping[str, Json], ours: Mapping[str, Json]
) -> dict[str, str]:
    """Describes by key how the `about` of a checkpoint and of this training differ.

    Values are compared as JSON values: the order of keys does not count, 1 equals 1.0
    and not `true`, and a NaN equals another NaN.
    """
    words = {}
    for key in {**theirs, **ours}:
        both = key in theirs and key in ours
        if not (both and _is_same(theirs[key], ours[key])):
            there, here = (
                json.dumps(about[key]) if key in about else "missing"
                for about in (theirs, ours)
            )
            words[key] = f"`about[{key!r}]` is {there} in the checkpoint, {here} here"
    return words


def check_about(
    what: str, theirs: Mapping[str, Json], ours: Mapping[str, Json]
) -> None:
    """Raises ValueError unless the `about` of two trainings is the same.

    Args:
      what: names the checkpoint, for errors.
      theirs: the `about` of the checkpoint.
      ours: the `about` of the training that restores it.
    """
    for words in about_differences(theirs, ours).values():
        raise ValueError(f"{what} is of another training: {words}. {_REMEDY}")


def check_leaves(what: str, theirs: Sequence[Leaf], ours: Sequence[Leaf]) -> None:
    """Raises ValueError unless two states have the same leaves.

    Args:
      what: names the checkpoint, for errors.
      theirs: the leaves of the checkpoint.
      ours: the leaves of the state that restores it.
    """
    there = {leaf.name: leaf for leaf in theirs}
    here = {leaf.name: leaf for leaf in ours}
    only_there = [name for name in there if name not in here]
    only_here = [name for name in here if name not in there]
    if only_there or only_here:
        raise ValueError(
            f"{what} is of another method, channel or model: only the checkpoint has "
            f"{first_names(only_there)}; only the state here has "
            f"{first_names(only_here)}. {_REMEDY}"
        )
    others = [name for name in there if there[name] != here[name]]
    if others:
        name = others[0]
        raise ValueError(
            f"{what} is of another model or method: `{name}` is {there[name]} in the "
            f"checkpoint and {here[name]} here (leaves that are not alike: "
            f"{len(others)}). {_REMEDY}"
        )


def find_leaves(what: str, theirs: Sequence[Leaf], ours: Sequence[Leaf]) -> list[int]:
    """Finds leaves among those of a checkpoint, by their names.

    Their order in the state does not count, since a state may have reordered its
    fields. Leaves of the same name are taken in their order.

    Args:
      what: names the checkpoint, for errors.
      theirs: the leaves of the checkpoint.
      ours: the leaves to find.

    Returns:
      The index of each leaf of `ours` in `theirs`.

    Raises:
      ValueError: unless all of them are in `theirs`, and alike.
    """
    names = {leaf.name for leaf in ours}
    check_leaves(what, [leaf for leaf in theirs if leaf.name in names], ours)
    places: dict[str, deque[int]] = defaultdict(deque)
    for place, leaf in enumerate(theirs):
        places[leaf.name].append(place)
    return [places[leaf.name].popleft() for leaf in ours]


def first_names(names: Sequence[str]) -> str:
    """Lists the first three names, and counts the rest."""
    if not names:
        return "nothing"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"`{name}`" for name in names[:3]) + more


def _plain(value: object) -> Json:
    if isinstance(value, Mapping):
        return {key: _plain(value[key]) for key in _keys(value)}
    if isinstance(value, list | tuple):
        return list(map(_plain, value))
    if value is None or isinstance(value, str | bool | int | float):
        return value
    number = np.asarray(value)
    if number.ndim == 0:
        for kind, convert in (
            (jnp.floating, float),
            (jnp.integer, int),
            (jnp.bool_, bool),
        ):
            if jnp.issubdtype(number.dtype, kind):
                return convert(number)
    raise TypeError(f"it holds {value!r}")


def _keys(values: Mapping) -> list[str]:
    for key in values:
        if not isinstance(key, str):
            raise TypeError(f"the key {key!r} is not a string")
    return list(values)


def _is_same(one: Json, other: Json) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(
            _is_same(value, other[key]) for key, value in one.items()
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return one == other or (one != one and other != other)
