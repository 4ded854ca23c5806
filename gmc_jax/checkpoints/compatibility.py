"""What a state is made of, and how two trainings differ."""

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
    "Make the method and the model as they were, restore by `only` what both have, or "
    "give another directory."
)


class Leaf(NamedTuple):
    """An array of the state.

    Attributes:
      name: where it is in the state.
      dtype: its name.
      shape: of one worker's.
      differs: whether workers differ in it.
    """

    name: str
    dtype: str
    shape: list[int]
    differs: bool

    def __str__(self) -> str:
        """As an error describes it."""
        whose = "each worker's own" if self.differs else "the same on all workers"
        return f"{self.dtype}{self.shape}, {whose},"


def leaves_of(layout: Layout) -> list[Leaf]:
    """The leaves of a state, in their order."""
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


def number_of(step: SupportsIndex) -> int:
    """A step, of whatever type of whole numbers; arrays of JAX and NumPy are some."""
    try:
        if not isinstance(step, bool | np.bool_):
            number = operator.index(step)
            if number >= 0:
                return number
    except TypeError:
        pass
    raise ValueError(
        f"`step` counts something and must be a whole number of at least 0, but is "
        f"{step!r}."
    )


def plain(name: str, said: Mapping[str, Json]) -> dict[str, Json]:
    """What JSON makes of what a user says; numbers of NumPy and JAX are numbers.

    Raises:
      TypeError: if there is more to it than JSON can say and give back.
    """
    try:
        return json.loads(json.dumps({key: _plain(said[key]) for key in _keys(said)}))
    except RecursionError:
        wrong = "it holds itself, or is nested too deep"
    except (AttributeError, TypeError, ValueError) as error:
        wrong = str(error)
    raise TypeError(
        f"`{name}` must hold what JSON can say, such as numbers and strings, but "
        f"{wrong}. Arrays belong into the state."
    )


def differences(theirs: Mapping[str, Json], ours: Mapping[str, Json]) -> dict[str, str]:
    """How what users say of two trainings differs, by the keys that do.

    Compared by value, as JSON has it: the order of keys does not count, 1 is 1.0 and
    not `true`, and a NaN is like another one.
    """
    words = {}
    for key in {**theirs, **ours}:
        both = key in theirs and key in ours
        if not (both and _is_same(theirs[key], ours[key])):
            there, here = (
                json.dumps(about[key]) if key in about else "missing"
                for about in (theirs, ours)
            )
            words[key] = f"`about[{key!r}]` is {there} there and {here} here"
    return words


def check_about(
    what: str, theirs: Mapping[str, Json], ours: Mapping[str, Json]
) -> None:
    """Raises ValueError unless all that users say of two trainings is the same.

    Args:
      what: of which training the first is, for errors.
      theirs: what is said of that one.
      ours: of the one that wants to go on from it.
    """
    for words in differences(theirs, ours).values():
        raise ValueError(f"{what} is of another training: {words}. {_REMEDY}")


def check_leaves(what: str, theirs: Sequence[Leaf], ours: Sequence[Leaf]) -> None:
    """Raises ValueError unless two states are made of the same leaves.

    Args:
      what: whose state the first is, for errors.
      theirs: its leaves.
      ours: those of the state that wants to go on from it.
    """
    there = {leaf.name: leaf for leaf in theirs}
    here = {leaf.name: leaf for leaf in ours}
    only_there = [name for name in there if name not in here]
    only_here = [name for name in here if name not in there]
    if only_there or only_here:
        raise ValueError(
            f"{what} is of another method, channel or model: only there is "
            f"{some(only_there)}, and only here {some(only_here)}. {_REMEDY}"
        )
    others = [name for name in there if there[name] != here[name]]
    if others:
        name = others[0]
        raise ValueError(
            f"{what} is of another model or method: `{name}` is {there[name]} there "
            f"and {here[name]} here (leaves that differ: {len(others)}). {_REMEDY}"
        )


def find_leaves(what: str, theirs: Sequence[Leaf], ours: Sequence[Leaf]) -> list[int]:
    """Where among other leaves some are, of those of the same name in their order.

    Not by their own places, since the fields of a state may have changed theirs.

    Raises:
      ValueError: unless all of them are there, and alike.
    """
    names = {leaf.name for leaf in ours}
    check_leaves(what, [leaf for leaf in theirs if leaf.name in names], ours)
    places: dict[str, deque[int]] = defaultdict(deque)
    for place, leaf in enumerate(theirs):
        places[leaf.name].append(place)
    return [places[leaf.name].popleft() for leaf in ours]


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
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
        for kind, said in (
            (jnp.floating, float),
            (jnp.integer, int),
            (jnp.bool_, bool),
        ):
            if jnp.issubdtype(number.dtype, kind):
                return said(number)
    raise TypeError(f"{value!r} is none of it")


def _keys(said: Mapping) -> list[str]:
    for key in said:
        if not isinstance(key, str):
            raise TypeError(f"the key {key!r} is no string")
    return list(said)


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
