"""What a state is made of, and how two trainings differ."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax

from gmc_jax.layouts import Layout
from gmc_jax.processes import Plain

_REMEDY = "Make the method and the model as they were, or give another directory."


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


def check_about(
    what: str, theirs: Mapping[str, Plain], ours: Mapping[str, Plain]
) -> None:
    """Raises ValueError unless all that users say of two trainings is the same.

    Args:
      what: of which training the first is, for errors.
      theirs: what is said of that one.
      ours: of the one that wants to go on from it.
    """
    for key in {**theirs, **ours}:
        there, here = (
            json.dumps(about[key]) if key in about else "missing"
            for about in (theirs, ours)
        )
        if there != here:
            raise ValueError(
                f"{what} is of another training: `about[{key!r}]` is {there} there and "
                f"{here} here. {_REMEDY}"
            )


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
            f"{_some(only_there)}, and only here {_some(only_here)}. {_REMEDY}"
        )
    others = [name for name in there if there[name] != here[name]]
    if others:
        name = others[0]
        raise ValueError(
            f"{what} is of another model or method: `{name}` is {there[name]} there "
            f"and {here[name]} here (leaves that differ: {len(others)}). {_REMEDY}"
        )


def _some(names: Sequence[str]) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"`{name}`" for name in names[:3]) + more
